//! The synchronous half of rules, which can be put together from parts.

use std::fmt;

use super::{Action, Decision, Question, Result, Rules};
use crate::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    peer::{Introduced, Message, Peer},
};

/// Decides who may have what, and nothing else. [`Rules::guarded_by`] puts one in front of any rules.
///
/// Policies are put together with [`and`](Self::and), [`or`](Self::or) and [`first_that_decides`]. Both methods are
/// called by the task that moves the connection's bytes: they must not wait for anything.
///
/// ```
/// use party::rules::{AllowFeeds, AllowPeers, Policy, Rules, WholeStore};
/// # use party::{key::{FeedKey, PublicKey}, store::Store};
/// # fn example(store: Store, friend: PublicKey, notes: FeedKey) -> impl Rules {
/// let friends = AllowPeers::new([friend]);
/// let public = AllowFeeds::new([notes]);
/// // Who is no friend may be here, but gets the notes only.
/// WholeStore::new(store).guarded_by(friends.undecided_about_others().or(public))
/// # }
/// ```
pub trait Policy: Send + Sync + 'static {
    /// May this be done?
    fn decide(&self, question: &Question<'_>) -> Decision;

    /// May this peer be here at all? A policy that is about feeds has nothing to say about that.
    fn admit(&self, peer: &Peer) -> Decision {
        let _ = peer;
        Decision::undecided("policy", "it is about feeds")
    }

    /// What both this and `other` allow.
    fn and<P: Policy>(self, other: P) -> And<Self, P>
    where
        Self: Sized,
    {
        And(self, other)
    }

    /// What this allows, or else what `other` does.
    fn or<P: Policy>(self, other: P) -> Or<Self, P>
    where
        Self: Sized,
    {
        Or(self, other)
    }
}

/// Asks one policy after the other until one says yes or no. If none does, that is a no.
///
/// ```
/// use party::rules::{AllowPeers, Policy, ReadOnlyFollower, first_that_decides};
/// # use party::key::PublicKey;
/// # fn example(trusted: PublicKey) -> impl Policy {
/// first_that_decides([
///     Box::new(AllowPeers::new([trusted]).undecided_about_others()) as Box<dyn Policy>,
///     Box::new(ReadOnlyFollower),
/// ])
/// # }
/// ```
pub fn first_that_decides(policies: impl IntoIterator<Item = Box<dyn Policy>>) -> FirstThatDecides {
    FirstThatDecides(policies.into_iter().collect())
}

impl Policy for Box<dyn Policy> {
    fn decide(&self, question: &Question<'_>) -> Decision {
        (**self).decide(question)
    }

    fn admit(&self, peer: &Peer) -> Decision {
        (**self).admit(peer)
    }
}

/// See [`Policy::and`].
#[derive(Clone, Debug)]
pub struct And<A, B>(A, B);

impl<A: Policy, B: Policy> Policy for And<A, B> {
    fn decide(&self, question: &Question<'_>) -> Decision {
        self.0.decide(question).and(self.1.decide(question))
    }

    fn admit(&self, peer: &Peer) -> Decision {
        self.0.admit(peer).and(self.1.admit(peer))
    }
}

/// See [`Policy::or`].
#[derive(Clone, Debug)]
pub struct Or<A, B>(A, B);

impl<A: Policy, B: Policy> Policy for Or<A, B> {
    fn decide(&self, question: &Question<'_>) -> Decision {
        self.0.decide(question).or(self.1.decide(question))
    }

    fn admit(&self, peer: &Peer) -> Decision {
        self.0.admit(peer).or(self.1.admit(peer))
    }
}

/// See [`first_that_decides`].
pub struct FirstThatDecides(Vec<Box<dyn Policy>>);

impl FirstThatDecides {
    fn first(&self, ask: impl Fn(&dyn Policy) -> Decision) -> Option<Decision> {
        self.0.iter().map(|policy| ask(&**policy)).find(Decision::is_decided)
    }
}

impl Policy for FirstThatDecides {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let nobody = || Decision::deny("first that decides", "none of its policies decides");
        self.first(|policy| policy.decide(question)).unwrap_or_else(nobody)
    }

    fn admit(&self, peer: &Peer) -> Decision {
        let nobody = || Decision::undecided("first that decides", "none of its policies decides");
        self.first(|policy| policy.admit(peer)).unwrap_or_else(nobody)
    }
}

impl fmt::Debug for FirstThatDecides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstThatDecides of {}", self.0.len())
    }
}

/// Rules behind a policy. See [`Rules::guarded_by`].
#[derive(Clone, Debug)]
pub struct Guarded<R, P> {
    rules: R,
    policy: P,
}

impl<R, P> Guarded<R, P> {
    pub(super) fn new(rules: R, policy: P) -> Self {
        Self { rules, policy }
    }
}

impl<R, P: Policy> Guarded<R, P> {
    /// What would not be accepted anyway isn't brought before rules that may keep it.
    fn would_accept(&self, peer: &Peer, feed: &FeedKey) -> bool {
        self.policy.decide(&Question::new(peer, *feed, Action::Accept)).is_allowed()
    }
}

impl<R: Rules, P: Policy> Rules for Guarded<R, P> {
    fn decide(&self, question: &Question<'_>) -> Decision {
        // First the policy: its reason is the one that people want to read.
        match self.policy.decide(question) {
            decision if decision.is_decided() => decision.and(self.rules.decide(question)),
            undecided => Decision::deny(undecided.rule().to_owned(), undecided.reason().to_owned()),
        }
    }

    fn admit(&self, peer: &Peer) -> Decision {
        self.policy.admit(peer).and(self.rules.admit(peer))
    }

    async fn vet(&self, peer: &Peer) -> Result<()> {
        self.rules.vet(peer).await
    }

    async fn handshake(&self, peer: &Peer) -> Result<()> {
        self.rules.handshake(peer).await
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> Result<Vec<FeedKey>> {
        let wanted = keys.into_iter().filter(|key| self.would_accept(peer, key));
        self.rules.introduce_feeds(peer, wanted.collect()).await
    }

    async fn introduce_labelled(&self, peer: &Peer, feeds: Vec<Introduced>) -> Result<Vec<Introduced>> {
        let wanted = feeds.into_iter().filter(|feed| self.would_accept(peer, &feed.key));
        self.rules.introduce_labelled(peer, wanted.collect()).await
    }

    async fn find_feed(&self, peer: &Peer, key: &DiscoveryKey) -> Result<Option<Feed>> {
        self.rules.find_feed(peer, key).await
    }

    async fn ready(&self, peer: &Peer) -> Result<()> {
        self.rules.ready(peer).await
    }

    async fn request(&self, peer: &Peer, message: Message) -> Result<Message> {
        self.rules.request(peer, message).await
    }

    async fn ephemeral(&self, peer: &Peer, message: Message) -> Result<()> {
        self.rules.ephemeral(peer, message).await
    }
}
