//! What a link allows, and what it means to allow less.

use std::{collections::BTreeSet, ops::Range};

use crate::{
    encoding::MAX_SAFE_INTEGER,
    error::{CredentialFlaw, Widening},
    key::DiscoveryKey,
    limits::Limits,
};

/// What a membership allows its holder. All of it holds together: a block is covered if its feed and its index are,
/// and goes only in the directions that are allowed, until the terms expire.
///
/// ```
/// use party::credentials::{Extent, Terms};
/// use party::key::FeedKey;
///
/// let feed = FeedKey::from_bytes([1; 32]).discovery_key();
/// let terms = Terms::everything().only([feed]).read_only().newest(100).expiring(1_900_000_000);
/// assert!(terms.covers(&feed, 950, 1_000) && !terms.covers(&feed, 899, 1_000));
/// assert!(Terms::everything().check_narrows(&terms).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which feeds.
    pub feeds: Feeds,
    /// Which blocks of them.
    pub extent: Extent,
    /// The holder may be served: it reads.
    pub may_read: bool,
    /// What the holder brings may be taken: it writes.
    pub may_bring: bool,
    /// The holder may store and serve encrypted feeds, and is never given the keys to their blocks.
    pub is_blind: bool,
    /// From when on it is good no more, in seconds since 1970 UTC; `None` if ever.
    pub expires: Option<u64>,
    /// How many links may follow this one. With 0 the holder can't delegate.
    pub depth: u64,
}

/// Which feeds a membership is about, by their discovery keys: a membership is shown to peers who may not read
/// all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feeds {
    /// All of the party.
    All,
    /// These alone. Of none, too: then the holder is a member and no feed goes by its membership.
    Only(BTreeSet<DiscoveryKey>),
}

/// Which blocks of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All, those to come included.
    Whole,
    /// Those with these indexes.
    Range(Range<u64>),
    /// As many of the newest, by the length that the feed has when it is asked.
    Newest(u64),
}

impl Terms {
    /// All blocks of all feeds in both directions for ever, not blind, not to be delegated.
    pub fn everything() -> Self {
        Self {
            feeds: Feeds::All,
            extent: Extent::Whole,
            may_read: true,
            may_bring: true,
            is_blind: false,
            expires: None,
            depth: 0,
        }
    }

    /// About these feeds alone.
    #[must_use]
    pub fn only(self, feeds: impl IntoIterator<Item = DiscoveryKey>) -> Self {
        Self { feeds: Feeds::Only(feeds.into_iter().collect()), ..self }
    }

    /// Nothing that the holder brings is taken.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { may_bring: false, ..self }
    }

    /// The holder is served nothing.
    #[must_use]
    pub fn bring_only(self) -> Self {
        Self { may_read: false, ..self }
    }

    /// About the blocks with these indexes alone.
    #[must_use]
    pub fn range(self, range: Range<u64>) -> Self {
        Self { extent: Extent::Range(range), ..self }
    }

    /// About the newest `n` blocks alone.
    #[must_use]
    pub fn newest(self, n: u64) -> Self {
        Self { extent: Extent::Newest(n), ..self }
    }

    /// The holder gets no keys to encrypted blocks.
    #[must_use]
    pub fn blind(self) -> Self {
        Self { is_blind: true, ..self }
    }

    /// Good until then, in seconds since 1970 UTC.
    #[must_use]
    pub fn expiring(self, at: u64) -> Self {
        Self { expires: Some(at), ..self }
    }

    /// The holder may hand on what it has, over as many links.
    #[must_use]
    pub fn delegable(self, depth: u64) -> Self {
        Self { depth, ..self }
    }

    /// Whether they are about this block of a feed that has `length` blocks. The direction is a matter of its own.
    pub fn covers(&self, feed: &DiscoveryKey, index: u64, length: u64) -> bool {
        self.covers_feed(feed) && self.extent.contains(index, length)
    }

    /// Whether they are about blocks of this feed.
    pub fn covers_feed(&self, feed: &DiscoveryKey) -> bool {
        match &self.feeds {
            Feeds::All => true,
            Feeds::Only(feeds) => feeds.contains(feed),
        }
    }

    /// Whether they have expired at `now`, in seconds since 1970 UTC.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }

    /// Whether a link with these terms may follow one with the terms `above`.
    ///
    /// What is missing here counts as the widest, and is not taken over from above: a link states its own terms in
    /// full.
    ///
    /// # Errors
    /// The first thing that is wider than above.
    //= CRED-12, CRED-13
    pub fn check_narrows(&self, above: &Self) -> Result<(), Widening> {
        let within = |fits: bool, what: Widening| if fits { Ok(()) } else { Err(what) };
        within(self.depth < above.depth, Widening::Depth)?;
        within(self.feeds.is_within(&above.feeds), Widening::Feeds)?;
        within(above.may_read || !self.may_read, Widening::Read)?;
        within(above.may_bring || !self.may_bring, Widening::Bring)?;
        within(self.extent.is_within(&above.extent), Widening::Blocks)?;
        within(self.is_blind || !above.is_blind, Widening::Blind)?;
        let is_sooner = match (self.expires, above.expires) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(at), Some(latest)) => at <= latest,
        };
        within(is_sooner, Widening::Expiry)
    }

    /// Whether the terms say something and have an encoding.
    //= CRED-8, CRED-9
    pub(super) fn check(&self, limits: &Limits) -> Result<(), CredentialFlaw> {
        if let Feeds::Only(feeds) = &self.feeds
            && feeds.len() > limits.max_link_feeds
        {
            return Err(CredentialFlaw::LimitExceeded("max_link_feeds"));
        }
        let (end, is_empty) = match &self.extent {
            Extent::Whole => (0, false),
            Extent::Range(range) => (range.end, range.is_empty()),
            Extent::Newest(n) => (*n, *n == 0),
        };
        if is_empty || end > MAX_SAFE_INTEGER {
            return Err(CredentialFlaw::Invalid("range of blocks"));
        }
        if self.expires.is_some_and(|at| at > MAX_SAFE_INTEGER) {
            return Err(CredentialFlaw::Invalid("expiry"));
        }
        if self.depth >= limits.max_links as u64 {
            return Err(CredentialFlaw::LimitExceeded("max_links"));
        }
        Ok(())
    }
}

impl Feeds {
    fn is_within(&self, above: &Self) -> bool {
        match (self, above) {
            (_, Self::All) => true,
            (Self::All, Self::Only(_)) => false,
            (Self::Only(these), Self::Only(above)) => these.is_subset(above),
        }
    }
}

impl Extent {
    /// Whether the block `index` of a feed with `length` blocks is one of these.
    pub fn contains(&self, index: u64, length: u64) -> bool {
        match self {
            Self::Whole => true,
            Self::Range(range) => range.contains(&index),
            Self::Newest(n) => index >= length.saturating_sub(*n),
        }
    }

    fn is_within(&self, above: &Self) -> bool {
        match (self, above) {
            (_, Self::Whole) => true,
            (Self::Range(these), Self::Range(above)) => above.start <= these.start && these.end <= above.end,
            (Self::Newest(n), Self::Newest(most)) => n <= most,
            // Which blocks the newest are changes as the feed grows: no range is within them, nor they in one.
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= CRED-12, CRED-13
    #[test]
    fn each_term_can_only_be_narrowed() {
        let feed = |byte| DiscoveryKey::from_bytes([byte; 32]);
        let all = || Terms::everything().delegable(2);
        let leaf = || Terms::everything().delegable(1);
        let cases = [
            (all().only([feed(1), feed(2)]), leaf().only([feed(2)]), leaf().only([feed(3)]), Widening::Feeds),
            (all().only([feed(1)]), leaf().only([]), leaf(), Widening::Feeds),
            (all().bring_only(), leaf().bring_only(), leaf(), Widening::Read),
            (all().read_only(), leaf().read_only(), leaf(), Widening::Bring),
            (all().range(5..10), leaf().range(6..10), leaf().range(4..10), Widening::Blocks),
            (all().range(5..10), leaf().range(5..10), leaf().range(5..11), Widening::Blocks),
            (all().range(5..10), leaf().range(9..10), leaf().newest(1), Widening::Blocks),
            (all().newest(5), leaf().newest(5), leaf().newest(6), Widening::Blocks),
            (all().newest(5), leaf().newest(1), leaf().range(0..1), Widening::Blocks),
            (all().newest(5), leaf().newest(1), leaf(), Widening::Blocks),
            (all().blind(), leaf().blind(), leaf(), Widening::Blind),
            (all().expiring(9), leaf().expiring(9), leaf().expiring(10), Widening::Expiry),
            (all().expiring(9), leaf().expiring(0), leaf(), Widening::Expiry),
            (all(), leaf(), all(), Widening::Depth),
            (Terms::everything(), Terms::everything(), all(), Widening::Depth),
        ];
        for (above, narrower, wider, what) in cases {
            assert_eq!(wider.check_narrows(&above), Err(what), "{wider:?} under {above:?}");
            if above.depth > 0 {
                assert_eq!(narrower.check_narrows(&above), Ok(()), "{narrower:?} under {above:?}");
                assert_eq!(narrower.check_narrows(&all()), Ok(()), "{narrower:?} under everything");
            }
        }
    }

    //= CRED-18
    #[test]
    fn terms_expire_at_the_second_that_they_name() {
        let terms = Terms::everything().expiring(10);
        assert!(!terms.is_expired(9) && terms.is_expired(10));
        assert!(!Terms::everything().is_expired(u64::MAX));
    }
}
