//! The newest blocks, of which a remote is told whether or not it wants to know.
//!
//! A remote that has found nothing to want may never have said what it wants to be told about. Node tells such a one of
//! the newest blocks nevertheless, and hypercore 10 of all, so that Node readers count on it: protocol-spec/07-replication.md.

use std::ops::Range;

use super::{have::runs, ranges::Ranges, shown::Shown};

/// How many blocks before the end of a feed are told of without being asked.
const NEWEST: u64 = 256;

/// The newest blocks as they were at the last look.
#[derive(Debug, Default)]
pub(super) struct Newest {
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    fork: u64,
    /// The first block that was looked at.
    start: u64,
    stored: Ranges,
}

impl Newest {
    /// The remote was told that the blocks of `range` are gone, whether they all are or not.
    pub(super) fn forget(&mut self, range: Range<u64>) {
        if let Some(seen) = &mut self.seen {
            seen.stored.remove(range);
        }
    }

    /// Takes a look, and says which of the newest blocks have come since the last one and which are gone. Nothing, the
    /// first time: what is there when a channel opens is told to who asks.
    pub(super) fn look(&mut self, local: Shown<'_>) -> (Ranges, Ranges) {
        let length = local.length();
        let start = length.saturating_sub(NEWEST) / 32 * 32;
        let mut stored = Ranges::default();
        for (first, words) in local.words(start, length - start) {
            runs(first, &words).filter(|(_, is)| *is).for_each(|(run, _)| stored.insert(run));
        }
        let (mut come, mut gone) = (Ranges::default(), Ranges::default());
        let now = Seen { fork: local.fork(), start, stored };
        if let Some(before) = &self.seen {
            // What is on another fork is not what it was, wherever that one begins.
            let same = before.fork == now.fork;
            come = now.stored.clone();
            come.remove(0..if same { before.start } else { start });
            if same {
                before.stored.iter().for_each(|run| come.remove(run));
            }
            gone = before.stored.clone();
            gone.remove(0..start);
            now.stored.iter().for_each(|run| gone.remove(run));
        }
        self.seen = Some(now);
        (come, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::tests::model::Model;

    /// What has come and what is gone, as `newest` sees it.
    fn look(newest: &mut Newest, feed: &Model) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        let (come, gone) = newest.look(Shown::new(feed, None));
        (come.iter().collect(), gone.iter().collect())
    }

    #[test]
    fn what_comes_and_goes_is_seen_once() {
        let (mut newest, mut feed) = (Newest::default(), Model::sparse(1_000, [3, 900, 998]));
        assert_eq!(look(&mut newest, &feed), (vec![], vec![]));
        feed.length = 1_002;
        feed.stored.extend([5, 950, 1_000, 1_001]);
        feed.stored.remove(&998);
        assert_eq!(look(&mut newest, &feed), (vec![950..951, 1_000..1_002], vec![998..999]));
        assert_eq!(look(&mut newest, &feed), (vec![], vec![]));
        // Far beyond what was looked at: only the newest are told.
        feed.stored.extend(1_002..2_000);
        feed.length = 2_000;
        assert_eq!(look(&mut newest, &feed), (vec![1_728..2_000], vec![]));
    }

    #[test]
    fn another_fork_is_told_anew() {
        let (mut newest, mut feed) = (Newest::default(), Model::sparse(100, [10, 60, 70]));
        look(&mut newest, &feed);
        (feed.fork, feed.length) = (1, 65);
        feed.stored.remove(&70);
        assert_eq!(look(&mut newest, &feed), (vec![10..11, 60..61], vec![70..71]));
    }
}
