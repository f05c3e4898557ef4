//! A page of the bitfield, and how it is stored.

use std::sync::Arc;

use bytes::Bytes;

use crate::encoding::{Reader, Writer};

/// Bits of a page.
pub const PAGE_BITS: u64 = 32_768;

const WORD_BITS: u64 = 64;
pub(super) const WORDS: usize = (PAGE_BITS / WORD_BITS) as usize;
const RAW: u8 = 0;
const RUNS: u8 = 1;

/// One page: all set, or its bits. A page without any bit is not kept.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Page {
    Full,
    Bits(Arc<[u64; WORDS]>),
}

impl Page {
    pub(super) fn empty() -> Self {
        Self::Bits(Arc::new([0; WORDS]))
    }

    pub(super) fn words(&self) -> [u64; WORDS] {
        match self {
            Self::Full => [u64::MAX; WORDS],
            Self::Bits(words) => **words,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next(true, 0).is_none()
    }

    pub(super) fn get(&self, bit: u64) -> bool {
        match self {
            Self::Full => true,
            Self::Bits(words) => words[word(bit)] & mask(bit) != 0,
        }
    }

    pub(super) fn set(&mut self, bit: u64) {
        let Self::Bits(words) = self else { return };
        let words = Arc::make_mut(words);
        words[word(bit)] |= mask(bit);
        if words[word(bit)] == u64::MAX && words.iter().all(|word| *word == u64::MAX) {
            *self = Self::Full;
        }
    }

    /// The first bit at or after `from` that is `value`.
    pub(super) fn next(&self, value: bool, from: u64) -> Option<u64> {
        self.next_before(PAGE_BITS, value, from)
    }

    /// The first bit in `from..to` that is `value`, where `to` is at most a page's end. It looks at no word beyond.
    pub(super) fn next_before(&self, to: u64, value: bool, from: u64) -> Option<u64> {
        if from >= to {
            return None;
        }
        let Self::Bits(words) = self else { return value.then_some(from) };
        let flip = if value { 0 } else { u64::MAX };
        let first = word(from);
        let head = (words[first] ^ flip) & (u64::MAX << (from % WORD_BITS));
        let (n, bits) = if head == 0 {
            let rest = words[first + 1..=word(to - 1)].iter().position(|word| word ^ flip != 0)?;
            let n = first + 1 + rest;
            (n, words[n] ^ flip)
        } else {
            (first, head)
        };
        Some(n as u64 * WORD_BITS + u64::from(bits.trailing_zeros())).filter(|bit| *bit < to)
    }

    /// The lengths of the runs, beginning with one of unset bits, without the unset ones at the end.
    fn runs(&self) -> Vec<u64> {
        let mut runs = Vec::new();
        let mut at = 0;
        let mut value = true;
        while let Some(end) = self.next(value, at) {
            runs.push(end - at);
            at = end;
            value = !value;
        }
        if !value {
            runs.push(PAGE_BITS - at);
        }
        runs
    }

    /// How often a bit differs from the one before it, of which the first is unset.
    fn changes(&self) -> usize {
        let Self::Bits(words) = self else { return 1 };
        let mut before = 0;
        let differing = words.iter().map(|word| {
            let differing = word ^ (word << 1 | before);
            before = word >> (WORD_BITS - 1);
            differing.count_ones() as usize
        });
        differing.sum()
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        // To go through the runs takes long if there are many, and there are no fewer of them than changes.
        let few = |count: usize| count * 3 < WORDS * 8;
        let runs = few(self.changes()).then(|| self.runs()).filter(|runs| few(runs.len()));
        if let Some(runs) = runs {
            out.push(RUNS);
            runs.iter().for_each(|run| out.put_uint(*run));
        } else {
            out.reserve_exact(1 + WORDS * 8);
            out.push(RAW);
            self.words().iter().for_each(|word| out.put_bytes(&word.to_le_bytes()));
        }
        out.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut words = [0; WORDS];
        match reader.u8().ok()? {
            RAW => {
                for word in &mut words {
                    *word = u64::from_le_bytes(reader.array().ok()?);
                }
            }
            RUNS => {
                let (mut at, mut value) = (0, false);
                while !reader.is_empty() {
                    let to = reader.uint().ok()?.checked_add(at).filter(|to| *to <= PAGE_BITS)?;
                    if value {
                        set_range(&mut words, at, to);
                    }
                    at = to;
                    value = !value;
                }
            }
            _ => return None,
        }
        reader.is_empty().then(|| Self::from_words(words))
    }

    pub(super) fn from_words(words: [u64; WORDS]) -> Self {
        if words.iter().all(|word| *word == u64::MAX) { Self::Full } else { Self::Bits(Arc::new(words)) }
    }
}

fn word(bit: u64) -> usize {
    (bit / WORD_BITS) as usize
}

fn mask(bit: u64) -> u64 {
    1 << (bit % WORD_BITS)
}

/// Sets the bits `from..to` of a page.
pub(super) fn set_range(words: &mut [u64; WORDS], from: u64, to: u64) {
    for_words(from, to, |n, bits| words[n] |= bits);
}

/// Takes the bits `from..to` of a page away.
pub(super) fn unset_range(words: &mut [u64; WORDS], from: u64, to: u64) {
    for_words(from, to, |n, bits| words[n] &= !bits);
}

/// The words that `from..to` reaches into, and which of their bits.
fn for_words(from: u64, to: u64, mut f: impl FnMut(usize, u64)) {
    let mut at = from;
    while at < to {
        let end = (at / WORD_BITS + 1) * WORD_BITS;
        let upto = end.min(to);
        let width = upto - at;
        let bits = if width == WORD_BITS { u64::MAX } else { ((1 << width) - 1) << (at % WORD_BITS) };
        f(word(at), bits);
        at = upto;
    }
}
