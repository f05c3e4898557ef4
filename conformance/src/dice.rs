//! Choices that a seed decides.

/// SplitMix64: every seed is as good as any other.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for one of many purposes: what is rolled for one changes nothing for another.
    #[must_use]
    pub fn apart(seed: u64, purpose: &str, number: u64) -> Self {
        let mut dice = Self(seed);
        for byte in purpose.bytes() {
            dice.0 = dice.next() ^ u64::from(byte);
        }
        dice.0 = dice.next() ^ number;
        dice.0 = dice.next();
        dice
    }

    /// 32 bytes for a key, or for a seed of something else.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }

    /// A number, any.
    #[allow(clippy::should_implement_trait)] // there is no end to them
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Whether it happens, with so many chances in a hundred.
    pub fn percent(&mut self, chances: u64) -> bool {
        self.below(100) < chances
    }

    /// One of the choices.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let n = self.below(choices.len() as u64) as usize;
        &choices[n]
    }

    /// `count` different numbers below `bound`, in any order.
    pub fn sample(&mut self, count: u64, bound: u64) -> Vec<u64> {
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
