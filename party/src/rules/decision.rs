//! What is decided about a feed and a peer, and by which rule.

use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    key::{DiscoveryKey, FeedKey},
    peer::Peer,
};

/// What may be done with a feed between us and a peer. Each is decided for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Tell the peer the feed's key, which lets it read the feed wherever it finds it.
    Introduce,
    /// Answer the peer's requests for it, and push to it: upload.
    Serve,
    /// Ask the peer for it: download.
    Ask,
    /// Take blocks of it from the peer and store them, asked for or pushed.
    Accept,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Introduce, Self::Serve, Self::Ask, Self::Accept];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Introduce => "introduce",
            Self::Serve => "serve",
            Self::Ask => "ask",
            Self::Accept => "accept",
        })
    }
}

/// What a rule is asked to [decide](super::Rules::decide).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Question<'a> {
    /// Whom it is about.
    pub peer: &'a Peer,
    /// Which feed.
    pub feed: FeedKey,
    /// What is to be done.
    pub action: Action,
    /// The release for which it is asked; `None` if somebody only wants to know.
    pub(crate) release: Option<Released>,
}

/// What is known of a feed that is released to a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Released {
    /// Whether it is ours to write.
    pub(crate) writable: bool,
    /// The fork that it has here.
    pub(crate) fork: u64,
}

impl<'a> Question<'a> {
    /// May this be done?
    pub fn new(peer: &'a Peer, feed: FeedKey, action: Action) -> Self {
        Self { peer, feed, action, release: None }
    }

    /// The discovery key of the feed. It is computed anew each time.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.feed.discovery_key()
    }
}

/// An answer to a [`Question`]: yes, no, or "not for me to say", how much, by which rule, and why.
///
/// The reason is for people on our side; no peer ever sees it.
///
/// ```
/// use party::rules::Decision;
///
/// let decision = Decision::allow("trial", "guests may look at the beginning").blocks(0..100);
/// assert!(decision.is_allowed());
/// assert_eq!(decision.to_string(), "allowed by trial: guests may look at the beginning (blocks 0..100)");
/// let no = Decision::deny("trial", "the trial is over");
/// assert_eq!(decision.and(no.clone()), no);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    verdict: Verdict,
    extent: Extent,
    rule: Cow<'static, str>,
    reason: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Denied,
    Undecided,
}

impl Decision {
    /// Yes, all of it, says the rule of this name.
    pub fn allow(rule: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Verdict::Allowed, rule.into(), reason.into())
    }

    /// No.
    pub fn deny(rule: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Verdict::Denied, rule.into(), reason.into())
    }

    /// This rule has nothing to say about it. If no other has, that is a no.
    pub fn undecided(rule: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Verdict::Undecided, rule.into(), reason.into())
    }

    fn new(verdict: Verdict, rule: Cow<'static, str>, reason: Cow<'static, str>) -> Self {
        Self { verdict, extent: Extent::default(), rule, reason }
    }

    /// Of these blocks only. Said twice: of those that are in both ranges.
    #[must_use]
    pub fn blocks(mut self, range: Range<u64>) -> Self {
        self.extent.narrow(range);
        self
    }

    /// Of the newest `n` blocks only, whichever these are at each moment.
    #[must_use]
    pub fn newest(mut self, n: u64) -> Self {
        self.extent.newest = Some(self.extent.newest.map_or(n, |before| before.min(n)));
        self
    }

    /// Only of trees of this fork or a lower one. Replication stays on the fork that the feed has here then, and rules that
    /// know a higher one here deny. Said twice: of the lower one.
    #[must_use]
    pub fn up_to_fork(mut self, fork: u64) -> Self {
        self.extent.max_fork = Some(self.extent.max_fork.map_or(fork, |before| before.min(fork)));
        self
    }

    /// Only while the connection is not [metered](crate::connection::Connection::set_metered).
    #[must_use]
    pub fn while_unmetered(mut self) -> Self {
        self.extent.unmetered = true;
        self
    }

    /// Only while there is something left of `quota`, from which the bytes of the blocks are taken that come or go. A feed
    /// that is [asked](Action::Ask) for is charged when its blocks are [accepted](Action::Accept).
    #[must_use]
    pub fn within(mut self, quota: &Quota) -> Self {
        if !self.extent.quotas.contains(quota) {
            self.extent.quotas.push(quota.clone());
        }
        self
    }

    /// Whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }

    /// Whether it is a yes or a no.
    pub fn is_decided(&self) -> bool {
        self.verdict != Verdict::Undecided
    }

    /// How much is allowed, if anything is.
    pub fn extent(&self) -> &Extent {
        &self.extent
    }

    /// The name of the rule that decided.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Why, for people to read.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Both must say yes: what both allow, or the first that doesn't. Who is undecided counts as if it were not
    /// there; if both are, so is this.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.verdict, other.verdict) {
            (Verdict::Allowed, Verdict::Allowed) => {
                let rule = join(self.rule, other.rule, " and ");
                let reason = join(self.reason, other.reason, "; ");
                let mut both = Self { rule, reason, verdict: self.verdict, extent: self.extent };
                both.extent.narrow(other.extent.blocks);
                both.extent.unmetered |= other.extent.unmetered;
                both = other.extent.newest.into_iter().fold(both, Self::newest);
                both = other.extent.max_fork.into_iter().fold(both, Self::up_to_fork);
                other.extent.quotas.iter().fold(both, Self::within)
            }
            (Verdict::Denied, _) | (_, Verdict::Undecided) => self,
            (_, Verdict::Denied) | (Verdict::Undecided, _) => other,
        }
    }

    /// One of them must say yes: the first that does, with what it allows. If none does, the first that is decided.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self.verdict, other.verdict) {
            (Verdict::Allowed, _) => self,
            (_, Verdict::Allowed) => other,
            (Verdict::Undecided, _) => other,
            _ => self,
        }
    }
}

/// "a and b", without naming anything twice.
fn join(one: Cow<'static, str>, other: Cow<'static, str>, with: &str) -> Cow<'static, str> {
    if one == other { one } else { format!("{one}{with}{other}").into() }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
            Verdict::Undecided => "left undecided",
        };
        write!(f, "{verdict} by {}: {}", self.rule, self.reason)?;
        if self.is_allowed() && self.extent != Extent::default() {
            write!(f, " ({})", self.extent)?;
        }
        Ok(())
    }
}

/// How much of a feed a [`Decision`] allows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// These blocks; an end of `u64::MAX` stands for "and all that will come".
    pub blocks: Range<u64>,
    /// Of the newest so many blocks.
    pub newest: Option<u64>,
    /// Of trees of this fork or a lower one.
    pub max_fork: Option<u64>,
    /// Only while the connection is not metered.
    pub unmetered: bool,
    /// While something is left of all of these.
    pub quotas: Vec<Quota>,
}

impl Default for Extent {
    /// All of it.
    fn default() -> Self {
        Self { blocks: 0..u64::MAX, newest: None, max_fork: None, unmetered: false, quotas: Vec::new() }
    }
}

impl Extent {
    /// Which blocks these are of a feed of this length, whatever of its quotas is left.
    pub fn range(&self, length: u64) -> Range<u64> {
        let newest = self.newest.map_or(0..u64::MAX, |n| length.saturating_sub(n)..length);
        let start = self.blocks.start.max(newest.start);
        start..self.blocks.end.min(newest.end).max(start)
    }

    /// Whether something is left of every quota.
    pub fn is_affordable(&self) -> bool {
        self.quotas.iter().all(|quota| quota.left() > 0)
    }

    /// Takes so many bytes from every quota, if there are so many left of each.
    pub(crate) fn charge(&self, bytes: u64) -> bool {
        for (index, quota) in self.quotas.iter().enumerate() {
            if !quota.charge(bytes) {
                self.quotas.iter().take(index).for_each(|quota| quota.refund(bytes));
                return false;
            }
        }
        true
    }

    fn narrow(&mut self, range: Range<u64>) {
        let start = self.blocks.start.max(range.start);
        self.blocks = start..self.blocks.end.min(range.end).max(start);
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match (self.blocks.start, self.blocks.end) {
            (0, u64::MAX) => {}
            (start, u64::MAX) => parts.push(format!("blocks {start}..")),
            (start, end) => parts.push(format!("blocks {start}..{end}")),
        }
        if let Some(newest) = self.newest {
            parts.push(format!("the newest {newest}"));
        }
        if let Some(fork) = self.max_fork {
            parts.push(format!("up to fork {fork}"));
        }
        if self.unmetered {
            parts.push("while unmetered".to_owned());
        }
        for quota in &self.quotas {
            parts.push(format!("{} of {} bytes are left", quota.left(), quota.limit()));
        }
        f.write_str(if parts.is_empty() { "all of it" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// Bytes of blocks that may come or go. Cheap to clone: the clones are one quota.
///
/// Whoever makes it decides what it is for - a feed, a peer, a feed and a peer - and for how long: it outlives the
/// connections on which it is charged.
///
/// ```
/// use party::rules::Quota;
///
/// let quota = Quota::of(1 << 20);
/// assert_eq!((quota.used(), quota.left()), (0, 1 << 20));
/// quota.set_limit(100); // takes effect at once, and starts what had stopped with the next `reevaluate`
/// assert_eq!(quota.left(), 100);
/// ```
#[derive(Clone)]
pub struct Quota {
    inner: Arc<(AtomicU64, AtomicU64)>,
}

impl Quota {
    /// So many bytes.
    pub fn of(bytes: u64) -> Self {
        Self { inner: Arc::new((AtomicU64::new(bytes), AtomicU64::new(0))) }
    }

    /// How many bytes it is of.
    pub fn limit(&self) -> u64 {
        self.inner.0.load(Ordering::Acquire)
    }

    /// Makes it one of so many bytes; what was used stays used.
    pub fn set_limit(&self, bytes: u64) {
        self.inner.0.store(bytes, Ordering::Release);
    }

    /// How many bytes were used.
    pub fn used(&self) -> u64 {
        self.inner.1.load(Ordering::Acquire)
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.limit().saturating_sub(self.used())
    }

    /// Takes so many bytes, if they are left.
    pub fn charge(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let charged = self.inner.1.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|used| *used <= limit)
        });
        charged.is_ok()
    }

    /// Gives so many bytes back.
    pub fn refund(&self, bytes: u64) {
        let _ = self
            .inner
            .1
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(used.saturating_sub(bytes)));
    }
}

/// Two handles are equal if they are one quota.
impl PartialEq for Quota {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Quota {}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quota({} of {})", self.used(), self.limit())
    }
}

/// What [`Party::explain`](crate::party::Party::explain) found: how a feed stands with a peer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Whether the peer may be here at all.
    pub admit: Decision,
    /// Whether the rules have released the feed to the peer. Without, nothing of it is served, asked for or
    /// accepted, whatever is decided below.
    pub is_released: bool,
    /// May its key be told to the peer?
    pub introduce: Decision,
    /// May it be served to the peer?
    pub serve: Decision,
    /// May the peer be asked for it?
    pub ask: Decision,
    /// May its blocks be taken from the peer?
    pub accept: Decision,
}

impl Explanation {
    /// The decision about an action.
    pub fn of(&self, action: Action) -> &Decision {
        match action {
            Action::Introduce => &self.introduce,
            Action::Serve => &self.serve,
            Action::Ask => &self.ask,
            Action::Accept => &self.accept,
        }
    }
}

/// A line for each decision.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the peer: {}", self.admit)?;
        writeln!(f, "the feed: {}", if self.is_released { "released to it" } else { "not released to it" })?;
        for action in Action::ALL {
            writeln!(f, "{action}: {}", self.of(action))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes() -> Decision {
        Decision::allow("yes", "why not")
    }
    fn no() -> Decision {
        Decision::deny("no", "for a reason")
    }
    fn pass() -> Decision {
        Decision::undecided("pass", "not mine")
    }

    #[test]
    fn and_takes_the_first_no_and_or_the_first_yes() {
        assert_eq!(yes().and(no()), no());
        assert_eq!(no().and(yes()), no());
        assert_eq!(pass().and(yes()), yes());
        assert_eq!(yes().and(pass()), yes());
        assert_eq!(pass().and(no()), no());
        assert!(!pass().and(pass()).is_decided());
        assert_eq!(no().or(yes()), yes());
        assert_eq!(pass().or(yes()), yes());
        assert_eq!(pass().or(no()), no());
        assert_eq!(no().or(pass()), no());
        assert!(!pass().is_allowed());
        assert_eq!(yes().and(Decision::allow("other", "because")).rule(), "yes and other");
    }

    #[test]
    fn what_both_allow_is_what_each_allows() {
        let (one, other) = (Quota::of(10), Quota::of(20));
        let both = yes()
            .blocks(5..50)
            .newest(10)
            .within(&one)
            .and(yes().blocks(0..20).newest(30).while_unmetered().within(&other).within(&one));
        let extent = both.extent();
        assert_eq!((extent.blocks.clone(), extent.newest, extent.unmetered), (5..20, Some(10), true));
        assert_eq!(extent.quotas, [one, other]);
        assert_eq!(extent.range(15), 5..15);
        assert_eq!(extent.range(25), 15..20);
        assert!(extent.range(1_000).is_empty());
        assert!(yes().blocks(0..5).and(yes().blocks(7..9)).extent().range(100).is_empty());
    }

    #[test]
    fn a_charge_is_taken_from_every_quota_or_from_none() {
        let (large, small) = (Quota::of(100), Quota::of(10));
        let extent = yes().within(&large).within(&small).extent().clone();
        assert!(extent.charge(10) && !extent.is_affordable());
        assert!(!extent.charge(1));
        assert_eq!((large.used(), small.used()), (10, 10));
        small.set_limit(12);
        assert!(extent.charge(2) && !extent.charge(u64::MAX));
        large.refund(u64::MAX);
        assert_eq!((large.used(), small.left()), (0, 0));
    }
}
