//! A distinguisher that learns from half of the probes which of two peers they have dialled, and is tried on the others: naive
//! Bayes over everything that could be a trace.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use crate::{common::random::Random, prober::Seen};

#[derive(Debug, Default)]
pub(crate) struct Distinguisher {
    /// How often each feature was seen at a peer that has it, and at one that has it not.
    counts: HashMap<u64, [u32; 2]>,
    /// Of how many probes.
    trained: u32,
}

/// How often it was right.
#[derive(Debug)]
pub(crate) struct Verdict {
    right: u64,
    of: u64,
}

impl Verdict {
    /// Whether somebody who tosses a coin may be as often right: within four standard deviations.
    pub(crate) fn is_chance(&self) -> bool {
        self.right.abs_diff(self.of - self.right) <= 4 * self.of.isqrt().max(1)
    }

    pub(crate) fn right_in_a_hundred(&self) -> u64 {
        self.right * 100 / self.of
    }
}

impl Distinguisher {
    /// Learns from every other pair, and guesses at those between.
    pub(crate) fn try_on(pairs: &[(Seen, Seen)], coins: &mut Random) -> Verdict {
        let mut distinguisher = Self::default();
        for (has, has_not) in pairs.iter().step_by(2) {
            distinguisher.learn(has, 0);
            distinguisher.learn(has_not, 1);
            distinguisher.trained += 1;
        }
        let mut verdict = Verdict { right: 0, of: 0 };
        for (has, has_not) in pairs.iter().skip(1).step_by(2) {
            for (seen, truth) in [(has, true), (has_not, false)] {
                verdict.right += u64::from(distinguisher.guess(seen, coins) == truth);
                verdict.of += 1;
            }
        }
        verdict
    }

    fn learn(&mut self, seen: &Seen, which: usize) {
        for feature in features(seen) {
            self.counts.entry(feature).or_default()[which] += 1;
        }
    }

    /// Whether the peer has it.
    fn guess(&self, seen: &Seen, coins: &mut Random) -> bool {
        let all = f64::from(self.trained) + 2.0;
        let score: f64 = features(seen)
            .into_iter()
            .filter_map(|feature| self.counts.get(&feature))
            // What may well be chance is no trace.
            .filter(|[has, has_not]| has.abs_diff(*has_not).pow(2) > 9 * (has + has_not))
            .map(|[has, has_not]| {
                ((f64::from(*has) + 1.0) / all).ln() - ((f64::from(*has_not) + 1.0) / all).ln()
            })
            .sum();
        if score.abs() < 1e-9 { coins.below(2) == 0 } else { score > 0.0 }
    }
}

/// What may be telling, each as a number of its own.
fn features(seen: &Seen) -> Vec<u64> {
    let mut features = vec![
        number(("hung up", seen.hung_up)),
        number(("messages", seen.messages.len())),
        number(("pieces", seen.pieces.len())),
        number(("bytes", seen.pieces.iter().map(|(_, size)| size).sum::<usize>())),
        number(("last", seen.messages.last())),
    ];
    features.extend(seen.pieces.iter().enumerate().map(|(at, piece)| number(("piece", at, piece))));
    features.extend(seen.messages.iter().enumerate().map(|(at, message)| number(("message", at, message))));
    features.extend(seen.messages.windows(2).map(|two| number(("order", &two[0].1, &two[1].1))));
    features.extend(seen.wire.iter().enumerate().map(|(at, byte)| number(("wire", at, byte))));
    features.sort_unstable();
    features.dedup();
    features
}

fn number(feature: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    feature.hash(&mut hasher);
    hasher.finish()
}
