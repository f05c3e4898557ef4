//! The app's rules: which feed goes to which peer.
//!
//! A party behaves as its [`Rules`] say, and whatever they don't allow is denied. Three decisions must be
//! made ([`handshake`](Rules::handshake), [`introduce_feeds`](Rules::introduce_feeds),
//! [`find_feed`](Rules::find_feed)), the others have defaults. Rules run at the same time for many peers, so
//! they take `&self`. One that returns an error, panics or takes longer than
//! [`Limits::rule_timeout`](crate::limits::Limits::rule_timeout) denies: the peer is told a plain refusal, the
//! connection lives on, and the app learns the reason from the party's
//! [events](crate::party::Party::events).
//!
//! Beside these there is one that is asked again and again, and answers at once: [`decide`](Rules::decide), which says
//! for a feed and a peer whether its key may be told, and whether, and how much of it, may be served, asked for and
//! accepted. Nothing happens with a feed unless it is both *released* to the peer, by
//! [`Peer::replicate`] or [`find_feed`](Rules::find_feed), and allowed. Answers are asked for when a feed is released, and hold
//! until [`Party::reevaluate`](crate::party::Party::reevaluate), which makes a change of mind take effect on open connections.
//! The [guide] says what is asked when.
//!
//! Ready-made: [`WholeStore`], [`OneFeedPerMember`], [`BlindKeeper`]; and, to be put in front of any rules by
//! [`guarded_by`](Rules::guarded_by), the policies [`AllowPeers`], [`AllowFeeds`], [`ReadOnlyFollower`]. In front of any rules,
//! too: [`Members`](crate::members::Members), which asks for credentials.

mod allow_feeds;
mod allow_peers;
mod blind_keeper;
mod decision;
mod erased;
pub mod guide;
mod one_feed_per_member;
mod policy;
mod read_only_follower;
mod whole_store;

use std::{fmt, future::Future};

pub use allow_feeds::AllowFeeds;
pub use allow_peers::AllowPeers;
pub use blind_keeper::{BlindKeeper, KeeperQuotas};
pub(crate) use decision::Released;
pub use decision::{Action, Decision, Explanation, Extent, Question, Quota};
pub(crate) use erased::{ErasedRules, admit, decide};
pub use one_feed_per_member::OneFeedPerMember;
pub use policy::{And, FirstThatDecides, Guarded, Or, Policy, first_that_decides};
pub use read_only_follower::ReadOnlyFollower;
pub use whole_store::WholeStore;

use crate::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    peer::{Introduced, Message, Peer},
};

/// What a rule returns.
pub type Result<T> = std::result::Result<T, Denied>;

/// Why a rule denies. The peer never sees it; the app does, in its events and log.
///
/// Every error turns into one, so rules can use `?`:
///
/// ```
/// # use party::rules::{self, Denied};
/// fn parse(bytes: &[u8]) -> rules::Result<u32> {
///     let text = std::str::from_utf8(bytes)?;
///     if text.is_empty() {
///         return Err(Denied::because("nothing was asked"));
///     }
///     Ok(text.parse()?)
/// }
/// # assert!(parse(b"").is_err());
/// ```
pub struct Denied {
    reason: Box<dyn std::error::Error + Send + Sync>,
}

impl Denied {
    /// A denial with this reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into().into() }
    }
}

// `Denied` itself must not be an `Error`, or this would overlap with `From<T> for T`.
impl<E: std::error::Error + Send + Sync + 'static> From<E> for Denied {
    fn from(error: E) -> Self {
        Self { reason: error.into() }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Debug for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Denied({})", self.reason)
    }
}

/// How an app decides. See the [module](self) for what happens around it, and `examples/two_writers.rs` for
/// rules at work.
///
/// The order for each peer: [`vet`](Self::vet), it is admitted, [`ready`](Self::ready), [`handshake`](Self::handshake). The
/// other rules run when the peer causes them, which may be before our own `handshake` is over.
///
/// ```
/// use party::{
///     feed::Feed,
///     key::{DiscoveryKey, FeedKey},
///     peer::Peer,
///     rules::{self, Rules},
/// };
///
/// /// Shows one feed to every member, and takes none.
/// struct Publish(Feed);
///
/// impl Rules for Publish {
///     async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
///         peer.introduce_feeds([self.0.key()]).await?;
///         peer.replicate(&self.0).await?;
///         Ok(())
///     }
///
///     async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
///         Ok(vec![self.0.key()])
///     }
///
///     async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
///         Ok((*key == self.0.discovery_key()).then(|| self.0.clone()))
///     }
/// }
/// ```
pub trait Rules: Send + Sync + 'static {
    /// The peer was admitted: say which feeds you bring, and replicate those that it may have.
    ///
    /// A denial here ends the peer's membership on this connection.
    fn handshake(&self, peer: &Peer) -> impl Future<Output = Result<()>> + Send;

    /// The peer introduces feeds of its own, which it has verified nothing about: any key may be among them.
    /// The answer is what you bring in return.
    fn introduce_feeds(
        &self,
        peer: &Peer,
        keys: Vec<FeedKey>,
    ) -> impl Future<Output = Result<Vec<FeedKey>>> + Send;

    /// The peer asks for a feed that was not released to it yet, by its discovery key. `None` denies, and so
    /// does an error; both look the same to the peer, and the same as a feed that doesn't exist.
    ///
    /// Returning a feed releases it. The peer has to prove that it knows the feed's key all the same.
    fn find_feed(&self, peer: &Peer, key: &DiscoveryKey)
    -> impl Future<Output = Result<Option<Feed>>> + Send;

    /// As [`introduce_feeds`](Self::introduce_feeds), which it asks unless you write it, with what the peer calls its feeds, and
    /// what you call yours. It is this one that is asked.
    fn introduce_labelled(
        &self,
        peer: &Peer,
        feeds: Vec<Introduced>,
    ) -> impl Future<Output = Result<Vec<Introduced>>> + Send {
        let keys = feeds.into_iter().map(|feed| feed.key).collect();
        async move { Ok(self.introduce_feeds(peer, keys).await?.into_iter().map(Introduced::new).collect()) }
    }

    /// The peer has proved that it knows the party's key; nothing was said yet. Is there something else that it has to prove?
    ///
    /// This comes first of all: only when it is over the peer is shown to the app, by
    /// [`Party::peers`](crate::party::Party::peers) and [`Event::PeerAdded`](crate::party::Event::PeerAdded), and what it says
    /// under the name of an [`Extension`](crate::party::Extension) is heard. A denial ends the peer's membership on this
    /// connection. [`Members`](crate::members::Members) asks for credentials here. Rules that are asked of by the peer
    /// meanwhile have to see to it themselves that they wait.
    fn vet(&self, peer: &Peer) -> impl Future<Output = Result<()>> + Send {
        let _ = peer;
        async { Ok(()) }
    }

    /// The peer was admitted; nothing was said yet.
    fn ready(&self, peer: &Peer) -> impl Future<Output = Result<()>> + Send {
        let _ = peer;
        async { Ok(()) }
    }

    /// The peer asks something of the app's own and waits for an answer. Denied unless you write it.
    fn request(&self, peer: &Peer, message: Message) -> impl Future<Output = Result<Message>> + Send {
        let (_, kind) = (peer, message.kind);
        async move { Err(Denied::because(format!("no rule answers requests of the kind {kind:?}"))) }
    }

    /// The peer says something that wants no answer. Ignored unless you write it. Messages of one peer come
    /// one at a time, in their order.
    fn ephemeral(&self, peer: &Peer, message: Message) -> impl Future<Output = Result<()>> + Send {
        let _ = (peer, message);
        async { Ok(()) }
    }

    /// May this be done with a feed that is, or is to be, released to the peer? The default is yes: that it is released
    /// is all that counts.
    ///
    /// It is called by the task that moves the connection's bytes, for each feed and [action](Action) when the
    /// feed is released, and again when it is [re-evaluated](crate::party::Party::reevaluate). Return at once: look into
    /// a map, not into a database. One that panics denies.
    fn decide(&self, question: &Question<'_>) -> Decision {
        let _ = question;
        Decision::allow("release", "what is released is allowed")
    }

    /// May this peer be here at all, having proved that it knows the party's key? The default is yes. Who may not is
    /// answered as somebody who doesn't know the key. It is asked as [`decide`](Self::decide) is.
    fn admit(&self, peer: &Peer) -> Decision {
        let _ = peer;
        Decision::allow("membership", "whoever knows the key of the party is a member")
    }

    /// These rules, of which only that takes effect which `policy` allows, too. What it leaves undecided about a feed is
    /// denied.
    fn guarded_by<P: Policy>(self, policy: P) -> Guarded<Self, P>
    where
        Self: Sized,
    {
        Guarded::new(self, policy)
    }
}
