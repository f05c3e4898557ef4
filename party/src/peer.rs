//! The other end of a connection, as rules and apps hold it.

mod link;
mod messages;
mod method;
mod update;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{mpsc, oneshot, watch};

use self::link::FeedsByKey;
pub(crate) use self::link::Linked;
use self::messages::Said;
pub use self::{
    link::{Link, LinkState, LinkStatus},
    messages::PeerMessages,
    method::Method,
    update::UpdateOptions,
};
pub use crate::admission::{Introduced, Message};
use crate::{
    admission::Body,
    error::{ApiMisuse, Error},
    feed::{AsFeed, Feed, Tally},
    key::{DiscoveryKey, FeedKey, PartyKey, PublicKey},
    party::{Hub, Party, Reevaluated},
    rules::{self, Action, Decision, Explanation, Question, Released},
};

/// In what capacity a peer is with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The connection is in open mode: the peer proved to hold its static key, and nothing else.
    Open,
    /// The peer proved that it knows the key of the party with this discovery key.
    Party(DiscoveryKey),
}

/// What is done with a feed that is released to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replicate {
    /// Whether to get every block of the feed, now and as it grows. Without it we get what
    /// [`Feed::download`] and [`Feed::fetch`] ask for.
    pub download: bool,
    /// Whether to serve the peer what it asks for.
    pub upload: bool,
    /// How many bytes of blocks a second to send at most; `None` for as many as can be, or as they were.
    pub upload_limit: Option<u64>,
    /// Whether to follow the feed's writer when it truncates the feed. Without it, a feed that was truncated
    /// stays here as it was; what another peer brings under a release with it counts all the same.
    pub follow_forks: bool,
    /// Whether to take blocks that the peer sends without being asked, if they are wanted. They save the way of a
    /// request; a peer that misuses it loses its channel.
    pub allow_push: bool,
    /// Whether to push what is appended here, if the peer takes it: a reader that follows has it half a round trip
    /// later. Node peers never do unless they say so.
    pub push: bool,
}

impl Replicate {
    /// Get everything, serve everything: what [`Peer::replicate`] does.
    pub fn fully() -> Self {
        Self {
            download: true,
            upload: true,
            upload_limit: None,
            follow_forks: true,
            allow_push: false,
            push: false,
        }
    }

    /// Get only what is asked for, serve everything.
    pub fn sparsely() -> Self {
        Self { download: false, ..Self::fully() }
    }

    /// Take what the peer pushes, too, and push what is appended.
    #[must_use]
    pub fn with_push(self) -> Self {
        Self { allow_push: true, push: true, ..self }
    }

    /// Serve nothing.
    #[must_use]
    pub fn without_upload(self) -> Self {
        Self { upload: false, ..self }
    }

    /// Send no more than so many bytes of blocks a second to this peer, of this feed. It can be changed later by
    /// [`Link::limit_upload`].
    #[must_use]
    pub fn upload_at_most(self, bytes_per_second: u64) -> Self {
        Self { upload_limit: Some(bytes_per_second), ..self }
    }

    /// Stay on the fork that the feed has here.
    #[must_use]
    pub fn without_forks(self) -> Self {
        Self { follow_forks: false, ..self }
    }
}

/// A peer that was admitted: one party, or the open mode, on one connection. Cheap to clone; keeping one
/// doesn't keep the connection.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    remote: PublicKey,
    admission: Admission,
    member: MemberId,
    connection: u64,
    commands: mpsc::Sender<Command>,
    /// What rules here. The hub knows its peers, so they don't hold it.
    hub: Weak<Hub>,
    /// The feeds that are released to it.
    feeds: Mutex<FeedsByKey>,
    tally: Tally,
    said: Said,
    /// Told when the membership is over, while the connection may go on.
    left: watch::Sender<bool>,
}

/// Which of a connection's memberships: one in each party, and another one each time that it begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberId(pub(crate) u64);

/// What a peer handle asks its connection for.
pub(crate) enum Command {
    Transaction {
        member: MemberId,
        body: Body,
        reply: oneshot::Sender<Result<Body, Error>>,
    },
    Ephemeral {
        member: MemberId,
        message: Message,
        /// Whether it was sent.
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    Replicate {
        member: MemberId,
        feed: Feed,
        how: Replicate,
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    /// Ends a membership.
    Dismiss {
        member: MemberId,
        reply: oneshot::Sender<Reevaluated>,
    },
    /// Asks something whose answer nobody waits for.
    Tell {
        member: MemberId,
        message: Message,
        /// Answered when it is on its way.
        reply: oneshot::Sender<()>,
    },
    /// Takes a release back.
    Withdraw {
        member: MemberId,
        feed: DiscoveryKey,
        reply: oneshot::Sender<Reevaluated>,
    },
    /// Asks the rules again, about one feed or all.
    Reevaluate {
        hub: Arc<Hub>,
        feed: Option<DiscoveryKey>,
        reply: oneshot::Sender<Reevaluated>,
    },
    Join {
        party: Party,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Leave {
        party: PartyKey,
        reply: oneshot::Sender<Reevaluated>,
    },
    SetMetered {
        metered: bool,
        reply: oneshot::Sender<Reevaluated>,
    },
    /// Whether the remote says to have a block.
    Has {
        feed: DiscoveryKey,
        index: u64,
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    /// All feeds of the connection together.
    LimitUpload {
        bytes_per_second: Option<u64>,
        reply: oneshot::Sender<()>,
    },
    /// The whole connection.
    Suspend {
        suspended: bool,
        reply: oneshot::Sender<()>,
    },
}

impl Peer {
    pub(crate) fn new(
        remote: PublicKey,
        admission: Admission,
        member: MemberId,
        connection: u64,
        commands: mpsc::Sender<Command>,
        hub: &Arc<Hub>,
    ) -> Self {
        let (feeds, tally, said) = Default::default();
        let hub = Arc::downgrade(hub);
        Self {
            inner: Arc::new(Inner {
                remote,
                admission,
                member,
                connection,
                commands,
                hub,
                feeds,
                tally,
                said,
                left: watch::Sender::new(false),
            }),
        }
    }

    /// Which connection it is on, among all of this process.
    pub(crate) fn connection(&self) -> u64 {
        self.inner.connection
    }

    /// The static key that the peer proved to hold: who it is.
    pub fn remote_public_key(&self) -> PublicKey {
        self.inner.remote
    }

    /// In what capacity it is with us.
    pub fn admission(&self) -> Admission {
        self.inner.admission
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.commands.is_closed()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        self.inner.commands.closed().await;
    }

    /// Whether the peer is here no more: its membership in the party has ended, or the connection. Who comes back on the same
    /// connection is another `Peer`.
    pub fn has_left(&self) -> bool {
        *self.inner.left.borrow() || self.is_closed()
    }

    /// Waits until the peer is here no more.
    pub async fn left(&self) {
        tokio::select! {
            () = self.membership_ended() => {}
            () = self.closed() => {}
        }
    }

    /// Waits until the membership is over, as far as the connection tells.
    pub(crate) async fn membership_ended(&self) {
        // The sender is in this very handle.
        let _ = self.inner.left.subscribe().wait_for(|left| *left).await;
    }

    /// The membership is over.
    pub(crate) fn leave(&self) {
        self.inner.left.send_replace(true);
    }

    /// Tells the peer which feeds we have for it and returns those that it has for us. An empty list is fine
    /// in both directions.
    ///
    /// # Errors
    /// [`Error::Refused`] if the peer's rules deny, [`Error::Timeout`], [`Error::Closed`];
    /// [`ApiMisuse::NotAdmitted`] in open mode, where there is no channel for it.
    pub async fn introduce_feeds(
        &self,
        keys: impl IntoIterator<Item = FeedKey>,
    ) -> Result<Vec<FeedKey>, Error> {
        Ok(self.introduce_labelled(keys).await?.into_iter().map(|feed| feed.key).collect())
    }

    /// As [`introduce_feeds`](Self::introduce_feeds), with a text for people beside each feed, in both directions. The peer's
    /// rules see it in [`Rules::introduce_labelled`](crate::rules::Rules::introduce_labelled).
    ///
    /// # Errors
    /// As [`introduce_feeds`](Self::introduce_feeds); [`ApiMisuse::LimitExceeded`] for a label of more than
    /// [`Limits::max_label`](crate::limits::Limits::max_label) bytes.
    pub async fn introduce_labelled(
        &self,
        feeds: impl IntoIterator<Item = impl Into<Introduced>>,
    ) -> Result<Vec<Introduced>, Error> {
        match self.transact(Body::IntroduceFeeds(feeds.into_iter().map(Into::into).collect())).await? {
            Body::IntroduceFeeds(feeds) => Ok(feeds),
            Body::Custom(_) => Err(Error::Refused),
        }
    }

    /// Asks the peer something of the app's own and waits for the answer of its
    /// [`Rules::request`](crate::rules::Rules::request).
    ///
    /// Dropping the future cancels the request on this side: its place among
    /// [`Limits::max_local_transactions`](crate::limits::Limits::max_local_transactions) is free for another, and the answer is
    /// passed over. The peer's rules are not told, and may have acted on it.
    ///
    /// # Errors
    /// [`ApiMisuse::ReservedKind`]; as [`introduce_feeds`](Self::introduce_feeds).
    pub async fn request(&self, kind: &str, value: impl Into<bytes::Bytes>) -> Result<Message, Error> {
        not_reserved(kind)?;
        self.request_of_any_kind(kind, value).await
    }

    /// As [`request`](Self::request), in whatever kind, also one that is the specification's: for who speaks a protocol of the
    /// specification itself, and for tests of who does.
    ///
    /// # Errors
    /// As [`introduce_feeds`](Self::introduce_feeds).
    pub async fn request_of_any_kind(
        &self,
        kind: &str,
        value: impl Into<bytes::Bytes>,
    ) -> Result<Message, Error> {
        match self.transact(Body::Custom(Message::new(kind, value))).await? {
            Body::Custom(message) => Ok(message),
            Body::IntroduceFeeds(_) => Err(Error::Refused),
        }
    }

    /// Says something that wants no answer. It is not stored, and whether it arrived is not told. Returns whether it was
    /// sent: it is dropped, and [counted](PeerMessages::ephemeral_unsent), if the peer is too slow to take what was sent
    /// before.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`ApiMisuse::ReservedKind`]; [`ApiMisuse::MessageTooLarge`]; [`ApiMisuse::NotAdmitted`] in open
    /// mode.
    pub async fn send_ephemeral(&self, kind: &str, value: impl Into<bytes::Bytes>) -> Result<bool, Error> {
        not_reserved(kind)?;
        self.in_party()?;
        let message = Message::new(kind, value);
        self.command(|member, reply| Command::Ephemeral { member, message, reply }).await?
    }

    /// What was said in both directions since it was admitted.
    pub fn messages(&self) -> PeerMessages {
        self.inner.said.so_far()
    }

    pub(crate) fn said(&self) -> &Said {
        &self.inner.said
    }

    /// Releases `feed` to the peer and replicates it in full, both ways: what we have is served, what the
    /// peer has is fetched, verified and stored. Returns whether it was not released before; releasing twice
    /// is harmless. A feed whose signers [have contradicted themselves](Feed::conflict) is not replicated, and the app
    /// hears of that by [`Event::FeedConflict`](crate::party::Event::FeedConflict).
    ///
    /// # Errors
    /// [`Error::Closed`]; [`ApiMisuse::LimitExceeded`] beyond
    /// [`Limits::max_released_feeds`](crate::limits::Limits::max_released_feeds).
    pub async fn replicate(&self, feed: &impl AsFeed) -> Result<bool, Error> {
        self.replicate_as(feed, Replicate::fully()).await
    }

    /// As [`replicate`](Self::replicate), but says what is done with the feed.
    ///
    /// # Errors
    /// As [`replicate`](Self::replicate).
    pub async fn replicate_as(&self, feed: &impl AsFeed, how: Replicate) -> Result<bool, Error> {
        let feed = feed.as_feed().clone();
        self.command(|member, reply| Command::Replicate { member, feed, how, reply }).await?
    }

    /// Releases `feed` to the peer: each side gets of it what it asks for. It is
    /// [`replicate_as`](Self::replicate_as) with [`Replicate::sparsely`].
    ///
    /// # Errors
    /// As [`replicate`](Self::replicate).
    pub async fn release(&self, feed: &impl AsFeed) -> Result<bool, Error> {
        self.replicate_as(feed, Replicate::sparsely()).await
    }

    /// Takes back that a feed is released to the peer in this party. Unless it is released in another party on the
    /// connection, too, its channel is closed, and when this returns no block of it is sent or stored any more. Returns
    /// whether it was released.
    ///
    /// The rules may release it again at any time, also by [`find_feed`](crate::rules::Rules::find_feed): change their
    /// mind first.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended.
    pub async fn withdraw(&self, feed: &impl AsFeed) -> Result<bool, Error> {
        let feed = feed.as_feed().discovery_key();
        let withdrawn = self.command(|member, reply| Command::Withdraw { member, feed, reply }).await?;
        Ok(withdrawn.stopped > 0)
    }

    /// What the rules say about a feed and this peer at this moment. That a feed is allowed doesn't release it.
    pub fn decide(&self, feed: &FeedKey, action: Action) -> Decision {
        match self.inner.hub.upgrade() {
            Some(hub) => rules::decide(&*hub.rules(), &Question::new(self, *feed, action)),
            None => Decision::deny("party", "it is gone"),
        }
    }

    /// The same for a feed that is released to it.
    pub(crate) fn decide_on_release(&self, feed: &FeedKey, action: Action, release: Released) -> Decision {
        let question = Question { release: Some(release), ..Question::new(self, *feed, action) };
        match self.inner.hub.upgrade() {
            Some(hub) => rules::decide(&*hub.rules(), &question),
            None => Decision::deny("party", "it is gone"),
        }
    }

    /// Ends its membership on this connection. When this returns, nothing goes to it or is taken from it any more.
    pub(crate) async fn dismiss(&self) {
        // One that has ended needs no dismissal.
        let _ = self.command(|member, reply| Command::Dismiss { member, reply }).await;
    }

    /// Asks it something and returns when that is on its way, before whatever is said or closed next. Nobody waits for the
    /// answer.
    pub(crate) async fn tell(&self, message: Message) {
        let _ = self.command(|member, reply| Command::Tell { member, message, reply }).await;
    }

    pub(crate) fn hub(&self) -> Option<Arc<Hub>> {
        self.inner.hub.upgrade()
    }

    pub(crate) fn explain(&self, feed: &FeedKey) -> Explanation {
        let decide = |action| self.decide(feed, action);
        Explanation {
            admit: match self.inner.hub.upgrade() {
                Some(hub) => hub.admit(self),
                None => Decision::deny("party", "it is gone"),
            },
            is_released: self.has_feed(&feed.discovery_key()),
            introduce: decide(Action::Introduce),
            serve: decide(Action::Serve),
            ask: decide(Action::Ask),
            accept: decide(Action::Accept),
        }
    }

    fn feeds_by_key(&self) -> MutexGuard<'_, FeedsByKey> {
        self.inner.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    async fn transact(&self, body: Body) -> Result<Body, Error> {
        self.in_party()?;
        self.command(|member, reply| Command::Transaction { member, body, reply }).await?
    }

    fn in_party(&self) -> Result<(), ApiMisuse> {
        match self.inner.admission {
            Admission::Party(_) => Ok(()),
            Admission::Open => Err(ApiMisuse::NotAdmitted),
        }
    }

    async fn command<T>(
        &self,
        command: impl FnOnce(MemberId, oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let command = command(self.inner.member, reply);
        self.inner.commands.send(command).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}

/// Two handles are equal if they stand for the same peer, in the same party, on the same connection.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        (self.inner.connection, self.inner.member) == (other.inner.connection, other.inner.member)
    }
}

impl Eq for Peer {}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("remote", &self.inner.remote)
            .field("admission", &self.inner.admission)
            .finish_non_exhaustive()
    }
}

/// Whether messages of this kind are the specification's and not the app's.
pub(crate) fn is_reserved(kind: &str) -> bool {
    kind.starts_with("party/")
}

//= PARTY-73
pub(crate) fn not_reserved(kind: &str) -> Result<(), ApiMisuse> {
    if is_reserved(kind) { Err(ApiMisuse::ReservedKind(kind.to_owned())) } else { Ok(()) }
}
