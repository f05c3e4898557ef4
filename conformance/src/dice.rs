//! Choices that a seed decides.

/// SplitMix64: every seed is as good as any other.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Whether it happens, with so many chances in a hundred.
    pub(crate) fn percent(&mut self, chances: u64) -> bool {
        self.below(100) < chances
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let n = self.below(choices.len() as u64) as usize;
        &choices[n]
    }

    /// `count` different numbers below `bound`, in any order.
    pub(crate) fn sample(&mut self, count: u64, bound: u64) -> Vec<u64> {
        let mut chosen = Vec::new();
        while (chosen.len() as u64) < count.min(bound) {
            let number = self.below(bound);
            if !chosen.contains(&number) {
                chosen.push(number);
            }
        }
        chosen
    }
}
