//! A connection: two peers, one encrypted stream, one task that joins all the layers.
//!
//! ```text
//! socket -> noise -> mux -> admission   -> event -> Rules -> answer
//!                        -> replication -> event -> Feed  -> answer
//! ```
//!
//! The layers are state machines without IO; this is the only place that waits. One task per connection
//! moves the bytes. Proofs, commits and rules that wait run in tasks of their own, so neither a slow rule nor a slow
//! disk stalls the stream; a rule that answers at once does so on the connection's. What the remote can make us keep is bounded by [`Limits`]: when too much is
//! unverified or unsent, no more is read from the socket.

mod bucket;
mod driver;
mod engine;
mod feeds;
mod forks;
mod grants;
mod jobs;
mod linger;
mod members;
mod patience;
mod tcp;

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

pub use tcp::{Listener, dial};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    sync::{mpsc, oneshot, watch},
};
use zeroize::Zeroizing;

use crate::{
    error::{ApiMisuse, Error},
    key::{KeyPair, PublicKey},
    limits::Limits,
    party::{Open, Party, Reevaluated},
    peer::Command,
    random::Random,
    session::Session,
};

/// Two ends of a connection within this process, for tests and examples.
pub fn memory() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(1 << 18)
}

/// A connection that is up: encrypted, both static keys known. Dropping it closes it.
///
/// ```
/// # use party::{connection::{self, Connection}, key::{KeyPair, PartyKey}, party::Party};
/// # async fn example(alice_party: Party, bob_party: Party) -> Result<(), party::error::Error> {
/// let (alice, bob) = connection::memory();
/// let (alice, bob) = tokio::try_join!(
///     Connection::dial(alice, &KeyPair::generate()).join(&alice_party).finite().into_future(),
///     Connection::accept(bob, &KeyPair::generate()).join(&bob_party).finite().into_future(),
/// )?;
/// tokio::try_join!(alice.closed(), bob.closed())?;
/// # Ok(())
/// # }
/// # use std::future::IntoFuture as _;
/// ```
#[derive(Debug)]
pub struct Connection {
    session: Session,
    commands: mpsc::Sender<Command>,
    /// Dropped or sent to: the driver closes the connection.
    close: Option<oneshot::Sender<()>>,
    ended: watch::Receiver<Option<Result<(), Error>>>,
}

impl Connection {
    /// A connection that we start, as the Noise initiator, over `io`, with `key_pair` as our identity.
    pub fn dial<Io>(io: Io, key_pair: &KeyPair) -> Connecting<Io> {
        Connecting::new(io, key_pair, true)
    }

    /// A connection that the other side started.
    pub fn accept<Io>(io: Io, key_pair: &KeyPair) -> Connecting<Io> {
        Connecting::new(io, key_pair, false)
    }

    /// The static key that the remote proved to hold.
    pub fn remote_public_key(&self) -> PublicKey {
        self.session.remote
    }

    /// The identity of the connection.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Waits until the connection has ended, by whichever side. `Ok` if it was closed in good order; for a
    /// [finite](Connecting::finite) one that means that everything is in sync.
    ///
    /// # Errors
    /// What ended it: the transport, a peer that broke the protocol, silence, or a refusal by a peer that is
    /// in none of the parties.
    pub async fn closed(&self) -> Result<(), Error> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Err(Error::Closed)),
            // The task is gone without a word: the runtime was shut down.
            Err(_) => Err(Error::Closed),
        }
    }

    /// Makes a pause in the replication of all feeds: the remote is asked for nothing more, and its requests wait.
    /// What is under way ends. Channels stay open; rules, messages and what each side tells about its
    /// feeds go on. A [finite](Connecting::finite) connection does not end meanwhile.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended.
    pub async fn suspend(&self) -> Result<(), Error> {
        self.set_suspended(true).await
    }

    /// Goes on where [`suspend`](Self::suspend) has stopped it. What has come is not asked for again.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended.
    pub async fn resume(&self) -> Result<(), Error> {
        self.set_suspended(false).await
    }

    /// Sends blocks no faster than so many bytes a second from now on, of all feeds together; `None` for as fast
    /// as it goes.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended.
    pub async fn limit_upload(&self, bytes_per_second: Option<u64>) -> Result<(), Error> {
        self.command(|reply| Command::LimitUpload { bytes_per_second, reply }).await
    }

    /// Be a member of one more party from now on. If we dialled, the remote is offered it; if not, it is admitted if it has
    /// offered it before, or does so later. Whether it is shows in the party's events.
    ///
    /// ```
    /// # use party::{connection::Connection, error::Error, party::Party};
    /// # async fn example(connection: &Connection, work: &Party) -> Result<(), Error> {
    /// connection.join(work).await?;
    /// // and when it is over
    /// connection.leave(work).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::PartyJoined`]; [`ApiMisuse::LimitExceeded`] beyond [`Limits::max_parties`]; [`Error::Closed`] if the
    /// connection has ended.
    pub async fn join(&self, party: &Party) -> Result<(), Error> {
        self.command(|reply| Command::Join { party: party.clone(), reply }).await?
    }

    /// Be in a party no more, on this connection. When this returns, nothing of its feeds is sent or stored any more that
    /// another party on the connection doesn't release, as with [`Party::reevaluate`]. Returns whether we were in it. The connection stays, even if
    /// it is in no party then.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended.
    pub async fn leave(&self, party: &Party) -> Result<bool, Error> {
        let left = self.command(|reply| Command::Leave { party: *party.key(), reply }).await?;
        Ok(left.stopped > 0)
    }

    /// Says whether the way to the remote costs by the byte. What rules allow only
    /// [while it doesn't](crate::rules::Decision::while_unmetered) has stopped when this returns, or begins.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended.
    pub async fn set_metered(&self, metered: bool) -> Result<Reevaluated, Error> {
        self.command(|reply| Command::SetMetered { metered, reply }).await
    }

    async fn set_suspended(&self, suspended: bool) -> Result<(), Error> {
        self.command(|reply| Command::Suspend { suspended, reply }).await
    }

    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, done) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Closed)?;
        done.await.map_err(|_| Error::Closed)
    }

    /// Closes the connection: what is on its way out is sent first.
    ///
    /// # Errors
    /// As [`closed`](Self::closed).
    pub async fn close(mut self) -> Result<(), Error> {
        self.close.take();
        self.closed().await
    }
}

/// A connection to be. Say what it is for, then `.await` it: the Noise handshake is carried out, and the
/// connection runs in a task of its own.
#[derive(Debug)]
#[must_use = "a connection is made by `.await`ing this"]
pub struct Connecting<Io> {
    io: Io,
    key_pair: KeyPair,
    is_initiator: bool,
    parties: Vec<Party>,
    open: Option<Open>,
    pad_to: usize,
    finite: bool,
    metered: bool,
    upload_limit: Option<u64>,
    linger: Duration,
    limits: Limits,
    random: Random,
}

impl<Io> Connecting<Io> {
    fn new(io: Io, key_pair: &KeyPair, is_initiator: bool) -> Self {
        Self {
            io,
            key_pair: key_pair.clone(),
            is_initiator,
            parties: Vec::new(),
            open: None,
            pad_to: 0,
            finite: false,
            metered: false,
            upload_limit: None,
            linger: Duration::ZERO,
            limits: Limits::default(),
            random: Random::System,
        }
    }

    /// Be a member of `party` on this connection. May be called for several parties: each has its own rules
    /// and its own channel, and a feed released in one is not visible through another.
    pub fn join(mut self, party: &Party) -> Self {
        self.parties.push(party.clone());
        self
    }

    /// Makes it look to the other end, if we dial, as if we were in `n` parties, should we be in fewer: the rest are offers
    /// of nothing, which nobody can tell from those of parties that it isn't in. Parties that are
    /// [joined](Connection::join) later come on top. Whoever is in one of them learns nothing from it about the others.
    pub fn pad_to(mut self, n: usize) -> Self {
        self.pad_to = n;
        self
    }

    /// The way to the remote costs by the byte. See [`Connection::set_metered`].
    pub fn metered(mut self) -> Self {
        self.metered = true;
        self
    }

    /// Let whoever is at the other end in front of these rules, without a party. For Node peers.
    pub fn open(mut self, open: &Open) -> Self {
        self.open = Some(open.clone());
        self
    }

    /// End by itself, in good order, when every released feed is in sync and no rule or transaction is under
    /// way on either side. A connection without this lives until one side closes it.
    ///
    /// Blocks appended while it is about to end may be left for the next time.
    pub fn finite(mut self) -> Self {
        self.finite = true;
        self
    }

    /// Sends blocks no faster than so many bytes a second, of all feeds together. For a single feed there is
    /// [`Replicate::upload_at_most`](crate::peer::Replicate::upload_at_most).
    pub fn upload_at_most(mut self, bytes_per_second: u64) -> Self {
        self.upload_limit = Some(bytes_per_second);
        self
    }

    /// Sets for how long the connection, when it has nothing to do, looks for what comes next before it goes to sleep: while
    /// remote and app are as prompt as that, and nobody else has use for the processor. Over [TCP](dial) it is 100 µs if not
    /// set, about what putting a processor to sleep and waking it up comes to; elsewhere it is nothing. Between messages
    /// about feeds it goes to sleep at once, as other threads have hashing and storing to do then. It has no effect in a
    /// runtime with several worker threads, and makes requests that are asked one after the other some three times as fast
    /// in one with a single thread, where the remote is on the same machine.
    pub fn linger(mut self, at_most: Duration) -> Self {
        self.linger = at_most;
        self
    }

    /// Takes all randomness of the connection from `seed`, where it takes the operating system's otherwise: so that a
    /// simulation in virtual time can be repeated to the byte. Who knows the seed can read what is sent and put in for us,
    /// and using one twice gives both connections away: never call it for a connection to somebody else's peer.
    pub fn random_from(mut self, seed: [u8; 32]) -> Self {
        self.random = Random::Seeded(0, Zeroizing::new(seed));
        self
    }

    /// Bounds other than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

impl<Io> IntoFuture for Connecting<Io>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Result<Connection, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.parties.len().max(self.pad_to) > self.limits.max_parties {
                return Err(ApiMisuse::LimitExceeded("max_parties").into());
            }
            let mut keys = std::collections::BTreeSet::new();
            if let Some(twice) = self.parties.iter().find(|party| !keys.insert(party.key().as_bytes())) {
                return Err(ApiMisuse::PartyJoined(twice.discovery_key()).into());
            }
            driver::start(self).await
        })
    }
}
