//! The task that moves a connection's bytes. It is where the connection waits, and takes the time and the
//! randomness that the layers below are given.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeSet,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot, watch},
    task::{self, JoinError},
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};
use tracing::Instrument as _;

use super::{
    Connecting, Connection,
    engine::{Engine, NewChange},
    jobs::Outcome,
    linger::Linger,
    patience::Patience,
};
use crate::{
    error::{Error, PeerMisbehaved},
    feed::line::Bell,
    key::DiscoveryKey,
    limits::Limits,
    noise::{Handshake, HandshakeConfig, Progress, SecretStream},
    peer::Command,
};

/// How much is read from the transport at a time.
const READ_BYTES: usize = 128 << 10;

/// How much is read at a time until the remote has proved its key: enough for what XX sends and for the first frames behind
/// it, so that these are dealt with together.
const HANDSHAKE_READ_BYTES: usize = 1 << 10;

/// How long a closing connection waits for the remote to take the last bytes and to close its side.
const LINGER: Duration = Duration::from_secs(2);

/// Handles of peers may have so many commands on their way before they wait.
const COMMANDS: usize = 64;

/// Numbers the connections of this process, to tell peers apart.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Carries out the handshake and starts the task.
//= LIMIT-3
pub(super) async fn start<Io>(connecting: Connecting<Io>) -> Result<Connection, Error>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Connecting {
        io,
        key_pair,
        is_initiator,
        parties,
        open,
        pad_to,
        finite,
        metered,
        upload_limit,
        linger,
        limits,
        mut random,
    } = connecting;
    let mut linger = Linger::new(linger);
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut input = BytesMut::new();

    let config = HandshakeConfig::xx(is_initiator, key_pair, random.bytes());
    let handshake = Handshake::new(config, &limits)?;
    let stream = timeout(
        limits.handshake_timeout,
        shake(handshake, &mut reader, &mut writer, &mut input, &mut linger),
    )
    .await
    .map_err(|_| Error::Timeout)??;

    let session = stream.session().clone();
    let span = tracing::info_span!("connection", remote = %session.remote, dialled = is_initiator);
    let (commands, received) = mpsc::channel(COMMANDS);
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let handle = commands.clone();
    let mut engine =
        Engine::new(session.clone(), &parties, open.as_ref(), finite, limits.clone(), number, commands);
    engine.random_from(random);
    engine.limit_upload(upload_limit, Instant::now());
    engine.pad_to(pad_to);
    engine.begin_metered(metered);

    let (close, closing) = oneshot::channel();
    let (end, ended) = watch::channel(None);
    let patience = Patience::new(&limits, Instant::now());
    let driver = Driver {
        reader,
        writer,
        input,
        stream,
        written: 0,
        engine,
        turn: 0,
        commands: received,
        finite,
        patience,
        linger,
        limits,
    };
    let task = async move {
        let result = driver.run(closing).await;
        match &result {
            Ok(()) => tracing::debug!("closed"),
            Err(error) => tracing::debug!(%error, "ended"),
        }
        let _ = end.send(Some(result));
    };
    tokio::spawn(task.instrument(span));
    Ok(Connection { session, commands: handle, close: Some(close), ended })
}

async fn shake<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut handshake: Handshake,
    reader: &mut R,
    writer: &mut W,
    input: &mut BytesMut,
    linger: &mut Linger,
) -> Result<SecretStream, Error> {
    loop {
        if let Some(bytes) = handshake.poll_transmit() {
            writer.write_all(&bytes).await?;
            writer.flush().await?;
        }
        input.reserve(HANDSHAKE_READ_BYTES);
        if linger.wait(true, reader.read_buf(input)).await? == 0 {
            return Err(PeerMisbehaved::Truncated.into());
        }
        match handshake.handle_input(input)? {
            Progress::Pending(next) => handshake = next,
            Progress::Established(stream) => return Ok(stream),
        }
    }
}

/// Writes some of `bytes` or, if there are none, flushes. Returns whether it has flushed. Nothing is lost
/// when it is dropped half-way.
async fn write_or_flush<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &mut BytesMut) -> io::Result<bool> {
    if bytes.is_empty() {
        writer.flush().await?;
        return Ok(true);
    }
    match writer.write_buf(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(false),
    }
}

/// What a connection waits for.
enum Happened {
    Read(io::Result<usize>),
    Written(io::Result<bool>),
    Command(Command),
    Job(Result<Outcome, JoinError>),
    Change(Option<NewChange>),
    /// Apps have something for the channels of these feeds.
    Bell(BTreeSet<DiscoveryKey>),
    /// The handle is gone.
    Closing,
    Time,
    /// Other tasks have had a turn.
    Paused,
}

struct Driver<Io> {
    reader: ReadHalf<Io>,
    writer: WriteHalf<Io>,
    input: BytesMut,
    stream: SecretStream,
    /// Bytes that the transport has taken.
    written: u64,
    engine: Engine,
    /// Of which kind that what happens is looked at first.
    turn: usize,
    commands: mpsc::Receiver<Command>,
    finite: bool,
    patience: Patience,
    linger: Linger,
    limits: Limits,
}

impl<Io: AsyncRead + AsyncWrite> Driver<Io> {
    async fn run(mut self, mut closing: oneshot::Receiver<()>) -> Result<(), Error> {
        let keep_alive = self.limits.keep_alive.min(self.limits.idle_timeout / 3);
        // Fixed, whatever is said until then: who is refused learns nothing from when it ends.
        //= PARTY-41
        let admission_deadline = Instant::now() + self.limits.admission_timeout;
        let mut last_write = Instant::now();
        let mut flushed = true;
        let bell = self.engine.bell.clone();
        let mut timer = pin!(sleep_until(last_write + keep_alive));

        self.engine.start()?;
        // What the remote sent right behind its handshake.
        self.take_input(last_write)?;
        loop {
            let unsent = self.stream.outgoing().len();
            self.engine.flush(unsent, Instant::now(), |message| self.stream.seal(message))?;
            // Before the other: who is refused everywhere has nothing left to do either.
            if self.engine.is_refused() {
                self.close().await?;
                return Err(Error::Refused);
            }
            if self.engine.is_done() {
                // It ends, but a feed that failed is not in sync.
                let result = self.engine.failure().map_or(Ok(()), |error| Err(error.clone()));
                self.close().await?;
                return result;
            }

            let unsent = self.stream.outgoing().len();
            let can_read = self.engine.can_read(unsent);
            self.patience.set_reading(can_read, Instant::now());
            let mut wake = self.patience.deadline().min(last_write + keep_alive);
            if self.engine.is_among_strangers() {
                wake = wake.min(admission_deadline);
            }
            if let Some(timeout) = self.engine.poll_timeout() {
                wake = wake.min(timeout);
            }

            // It may ring early, for what is not waited for any more: that is cheaper than to set it anew each time.
            if wake < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(wake);
            }

            let writes = unsent > 0 || !flushed;
            match self.next(&mut closing, &bell, can_read, writes, timer.as_mut()).await {
                Happened::Read(read) => {
                    if read? == 0 {
                        return self.ended_by_remote();
                    }
                    self.take_input(Instant::now())?;
                }
                Happened::Written(written) => {
                    flushed = written?;
                    last_write = Instant::now();
                    let left = self.stream.outgoing().len();
                    self.written += unsent.saturating_sub(left) as u64;
                    self.engine.written(self.written, left, last_write);
                }
                Happened::Command(command) => {
                    let now = Instant::now();
                    self.engine.handle_command(command, unsent, now);
                    // What has been asked for at once goes into one frame.
                    for _ in 1..COMMANDS {
                        let Ok(command) = self.commands.try_recv() else { break };
                        self.engine.handle_command(command, unsent, now);
                    }
                    // Before anything more is sealed.
                    self.engine.written(self.written, self.stream.outgoing().len(), now);
                }
                Happened::Job(outcome) => {
                    // Jobs catch panics of the app's; one that is left is ours, and ends the connection.
                    let outcome = outcome.map_err(|error| io::Error::other(error.to_string()))?;
                    let now = Instant::now();
                    self.engine.handle_outcome(outcome, now);
                    // A rule that has decided may have made room for more, or the turn of the next open of the same channel.
                    self.hand_on(now)?;
                }
                Happened::Change(change) => {
                    if let Some(change) = change {
                        self.engine.handle_change(change);
                    }
                }
                Happened::Bell(feeds) => self.engine.handle_bell(feeds),
                Happened::Closing => return self.close().await,
                Happened::Paused => {}
                Happened::Time => {
                    let now = Instant::now();
                    self.patience.check(now)?;
                    if self.engine.is_stuck(now) {
                        tracing::debug!("the remote doesn't take what it must not get more of");
                        return Err(Error::Timeout);
                    }
                    if self.engine.is_among_strangers() && now >= admission_deadline {
                        self.close().await?;
                        return Err(Error::Refused);
                    }
                    if now >= last_write + keep_alive {
                        self.stream.keep_alive();
                        last_write = now;
                    }
                    self.engine.handle_timeout(now);
                }
            }
        }
    }

    /// Waits for whatever happens first. Of what has happened already each comes first in its turn, so that a stream of
    /// one kind keeps none of the others waiting. (`tokio::select!` leaves that to chance, and a run of many connections
    /// in virtual time could not be repeated.)
    async fn next(
        &mut self,
        closing: &mut oneshot::Receiver<()>,
        bell: &Bell,
        reads: bool,
        writes: bool,
        mut timer: Pin<&mut Sleep>,
    ) -> Happened {
        const KINDS: usize = 8;
        self.turn = (self.turn + 1) % KINDS;
        let pauses = self.engine.is_pausing();
        // What is left to send can wait for what others have to say when they have had their turn.
        let writes = writes && !pauses;
        let (turn, engine, stream) = (self.turn, &mut self.engine, &mut self.stream);
        // What can't be written waits for a remote that has enough to do.
        let may_linger = reads && !writes && !engine.moves_feeds();
        let mut read = pin!(self.reader.read_buf(&mut self.input));
        let mut write = pin!(write_or_flush(&mut self.writer, stream.outgoing()));
        let (commands, jobs, changes) = (&mut self.commands, &mut engine.jobs, &mut engine.changes);
        let mut rung = pin!(bell.rung());
        let mut pause = pin!(task::yield_now());
        let first = poll_fn(|context| {
            for kind in (turn..KINDS).chain(0..turn) {
                let happened = match kind {
                    0 if reads => read.as_mut().poll(context).map(Happened::Read),
                    1 if writes => write.as_mut().poll(context).map(Happened::Written),
                    2 => match commands.poll_recv(context) {
                        Poll::Ready(Some(command)) => Poll::Ready(Happened::Command(command)),
                        // The engine holds a sender, so it is never the end.
                        Poll::Ready(None) | Poll::Pending => Poll::Pending,
                    },
                    3 => match jobs.poll_join_next(context) {
                        Poll::Ready(Some(outcome)) => Poll::Ready(Happened::Job(outcome)),
                        // There are none.
                        Poll::Ready(None) | Poll::Pending => Poll::Pending,
                    },
                    // What is to be said of a change goes out after the pause, in which the app hears of it.
                    4 if !pauses => match changes.poll_next_unpin(context) {
                        Poll::Ready(Some(change)) => Poll::Ready(Happened::Change(change)),
                        Poll::Ready(None) | Poll::Pending => Poll::Pending,
                    },
                    5 => rung.as_mut().poll(context).map(Happened::Bell),
                    6 => Pin::new(&mut *closing).poll(context).map(|_| Happened::Closing),
                    7 => timer.as_mut().poll(context).map(|()| Happened::Time),
                    _ => Poll::Pending,
                };
                if happened.is_ready() {
                    return happened;
                }
            }
            // Last in every turn: what others have done in the pause goes before.
            match pauses {
                true => pause.as_mut().poll(context).map(|()| Happened::Paused),
                false => Poll::Pending,
            }
        });
        match pauses {
            // A pause is short, and tells nothing of how soon the remote answers.
            true => first.await,
            false => self.linger.wait(may_linger, first).await,
        }
    }

    /// Opens what has come and hands it on.
    fn take_input(&mut self, now: Instant) -> Result<(), Error> {
        let came = self.input.len();
        self.stream.handle_input(&mut self.input)?;
        let partial = self.input.len();
        self.patience.handle_read(partial, partial < came, now);
        self.input.reserve(READ_BYTES);
        self.hand_on(now)
    }

    /// Hands on what has been opened, until the engine has to wait for rules.
    fn hand_on(&mut self, now: Instant) -> Result<(), Error> {
        loop {
            self.engine.handle_events(now)?;
            if self.engine.is_paused() {
                return Ok(());
            }
            let Some(message) = self.stream.poll_message() else { return Ok(()) };
            self.engine.handle_message(message);
        }
    }

    fn ended_by_remote(self) -> Result<(), Error> {
        self.stream.handle_eof()?;
        // A finite connection that ends in good order has done what it was made for.
        if self.finite && !self.engine.is_settled() {
            return Err(Error::Closed);
        }
        if self.engine.is_among_strangers() {
            return Err(Error::Refused);
        }
        Ok(())
    }

    /// Closes every channel, sends what is left, and waits a moment for the remote to do the same.
    async fn close(mut self) -> Result<(), Error> {
        let deadline = Instant::now() + LINGER;
        self.engine.close();
        self.engine.flush(usize::MAX, Instant::now(), |message| self.stream.seal(message))?;
        let last_bytes = async {
            self.writer.write_all_buf(self.stream.outgoing()).await?;
            self.writer.shutdown().await
        };
        // What the remote still sends is read and dropped: a socket closed with unread bytes is reset, and
        // what we have sent last would be lost.
        let the_rest = async {
            let mut rest = vec![0; 16 << 10];
            while self.reader.read(&mut rest).await.is_ok_and(|n| n > 0) {}
        };
        // The remote may be gone already, or slow; either way we are done with it.
        let _ = timeout_at(deadline, async { tokio::join!(last_bytes, the_rest) }).await;
        Ok(())
    }
}
