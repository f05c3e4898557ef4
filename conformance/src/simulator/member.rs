//! An honest peer: it lives, dies and lives again, and keeps its connections up.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use party::{
    connection::{Connecting, Connection},
    error::{Error, PeerMisbehaved},
    feed::Feed,
    limits::Limits,
    party::{Event, Events, Party},
    store::{FeedOptions, Store, StoreOptions},
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Sabotage,
    checker::{Checker, Invariant},
    disk::Disk,
    network::Stream,
    rules::Circle,
    world::World,
};
use crate::dice::Dice;

/// Between two attempts to reach a peer, at first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest that becomes, doubled each time.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// As seldom as the idle timeout allows: every 5 seconds, they would be most of what a run has to do.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A connection that has lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(30);

/// A peer and its disk.
pub(super) struct Member {
    peer: usize,
    disk: Disk,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
}

/// What the app has to append, which it keeps until it is told that it was: so it appends twice what was stored right
/// before its death.
#[derive(Default)]
struct Outbox {
    numbers: Mutex<VecDeque<u64>>,
    more: Notify,
}

#[derive(Default)]
struct State {
    lives: u64,
    /// `None` while it is dead.
    life: Option<Life>,
}

struct Life {
    /// Dropped to end it.
    _tasks: JoinSet<()>,
    circle: Arc<OnceLock<Circle>>,
}

/// What the tasks of one life share.
#[derive(Clone)]
struct Living {
    world: Arc<World>,
    peer: usize,
    party: Party,
    limits: Limits,
}

impl Member {
    pub(super) fn new(world: &World, peer: usize) -> Self {
        let lies = world.config.sabotage == Some(Sabotage::LyingDisks);
        let dice = Dice::apart(world.config.seed, "disk", peer as u64);
        let disk = Disk::new(peer, world.checker.clone(), dice, lies);
        Self { peer, disk, outbox: Arc::default(), state: Mutex::default() }
    }

    /// Begins a life.
    pub(super) fn live(&self, world: &Arc<World>) {
        let mut state = self.state();
        state.lives += 1;
        let circle = Arc::new(OnceLock::new());
        let mut tasks = JoinSet::new();
        let storage = self.disk.mount();
        let (world, peer, life) = (world.clone(), self.peer, state.lives);
        let (opened, outbox) = (circle.clone(), self.outbox.clone());
        tasks.spawn(async move {
            let checker = world.checker.clone();
            let store = Store::open_storage(storage, StoreOptions::default().primary_key([7; 32])).await;
            let result = match store {
                Ok(store) => live(world, peer, life, store, &outbox, &opened).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                checker.fail(Invariant::Health, format!("peer {peer}: {error}"));
            }
        });
        state.life = Some(Life { _tasks: tasks, circle });
    }

    /// Ends a life at once. Returns how many commits were lost with it.
    pub(super) fn die(&self, world: &World) -> usize {
        // In this order: what its tasks still do is neither stored nor sent.
        let lost = self.disk.crash();
        world.network.unplug(self.peer);
        self.state().life = None;
        lost
    }

    /// Has it append its `number`-th block, when it lives.
    pub(super) fn append(&self, number: u64) {
        self.outbox.numbers().push_back(number);
        self.outbox.more.notify_one();
    }

    /// How many blocks it has not appended yet, as far as it knows.
    pub(super) fn to_append(&self) -> usize {
        self.outbox.numbers().len()
    }

    /// The feeds of its circle, when it lives.
    pub(super) fn circle(&self) -> Option<Circle> {
        self.state().life.as_ref()?.circle.get().cloned()
    }

    /// Values on its disk.
    pub(super) fn stored(&self) -> usize {
        self.disk.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A life, from opening the store to the end.
async fn live(
    world: Arc<World>,
    peer: usize,
    life: u64,
    store: Store,
    outbox: &Outbox,
    opened: &OnceLock<Circle>,
) -> Result<(), Error> {
    let (directory, checker) = (world.directory.clone(), world.checker.clone());
    let feed = match store.feed_by_name("log").await? {
        Some(feed) => feed,
        None => {
            let options = FeedOptions::default().seed(directory.feed_seed(peer));
            store.create_feed("log", options).await?
        }
    };
    // What an earlier life was told to be stored is there.
    checker.audit(peer, &store, &[peer]).await;
    let circle = Circle::open(peer, directory.clone(), checker.clone(), store, world.config.sabotage).await?;
    let _ = opened.set(circle.clone());

    let party = Party::new(directory.party(), circle);
    let limits = limits(world.plan.peers[peer].clock);
    let living = Living { world: world.clone(), peer, party, limits };
    let mut dice = Dice::apart(world.config.seed, "life", (peer as u64) << 32 | life);
    let mut tasks = JoinSet::new();
    tasks.spawn(living.clone().watch(living.party.events()));
    for (link, other) in world.dials_of(peer) {
        tasks.spawn(living.clone().dial(link, other, Dice::new(dice.next())));
    }
    let incoming = world.network.listen(peer);
    tasks.spawn(living.clone().accept(incoming, Dice::new(dice.next())));
    if world.config.sabotage == Some(Sabotage::LeakingApp) {
        tasks.spawn(async {
            loop {
                sleep(Duration::from_secs(1)).await;
                (0..16).for_each(|_| drop(tokio::spawn(std::future::pending::<()>())));
            }
        });
    }
    append(&world, peer, &feed, outbox).await
}

/// Appends what is to be appended, one after the other.
async fn append(world: &World, peer: usize, feed: &Feed, outbox: &Outbox) -> Result<(), Error> {
    loop {
        let next = outbox.numbers().front().copied();
        let Some(number) = next else {
            outbox.more.notified().await;
            continue;
        };
        let block = Checker::block(world.config.seed, peer, number);
        let index = feed.info().length;
        world.checker.appending(peer, index, &block);
        if world.config.sabotage == Some(Sabotage::ForgingApp) && number == 3 {
            feed.append(vec![1; 100]).await?;
        }
        let stored = feed.append(block.clone()).await?;
        if stored != index {
            let what = format!("peer {peer} appends at {stored} instead of {index}");
            world.checker.fail(Invariant::Health, what);
        }
        world.checker.appended(peer, index, &block);
        outbox.numbers().pop_front();
    }
}

impl Outbox {
    fn numbers(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Living {
    /// Keeps up the connection over a link.
    async fn dial(self, link: usize, other: usize, mut dice: Dice) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            if let Ok(stream) = self.world.network.dial(link, self.peer, other).await {
                let connecting = Connection::dial(stream, self.world.directory.key_pair(self.peer));
                self.keep(connecting, dice.seed()).await;
            }
            pause = if began.elapsed() >= GOOD { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            let jitter = Duration::from_millis(dice.below(pause.as_millis() as u64 / 4 + 1));
            // By its own clock.
            sleep((pause + jitter) * 1_000 / self.world.plan.peers[self.peer].clock).await;
        }
    }

    /// Takes connections.
    async fn accept(self, mut incoming: mpsc::Receiver<Stream>, mut dice: Dice) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = connections.join_next() => {}
                next = incoming.recv() => match next {
                    Some(stream) => {
                        let (living, seed) = (self.clone(), dice.seed());
                        connections.spawn(async move {
                            let key_pair = living.world.directory.key_pair(living.peer);
                            let connecting = Connection::accept(stream, key_pair);
                            living.keep(connecting, seed).await;
                        });
                    }
                    None => return,
                },
            }
        }
    }

    /// Holds a connection until it ends.
    async fn keep(&self, connecting: Connecting<Stream>, seed: [u8; 32]) {
        let connecting = connecting.join(&self.party).limits(self.limits.clone()).random_from(seed);
        // Who is at the other end shows by the handshake only.
        let Ok(connection) = connecting.await else { return };
        if let Err(error) = connection.closed().await {
            self.blame(self.world.directory.peer(&connection.remote_public_key()), &error);
        }
    }

    /// Hears what the party tells.
    async fn watch(self, mut events: Events) {
        let directory = &self.world.directory;
        while let Some(event) = events.next().await {
            match event {
                Event::ChannelFailed { peer, error, .. } => {
                    self.blame(directory.peer(&peer.remote_public_key()), &error);
                }
                Event::FeedConflict { feed, .. } => {
                    let writer = directory.writer_by_discovery_key(&feed);
                    let what =
                        format!("peer {} finds that {writer:?} has written two feeds in one", self.peer);
                    self.world.checker.fail(Invariant::Authenticity, what);
                }
                _ => {}
            }
        }
    }

    /// Those who keep the rules are never said to break them.
    fn blame(&self, other: Option<usize>, error: &Error) {
        let is_cut = matches!(error, Error::PeerMisbehaved(PeerMisbehaved::Truncated));
        if let (Some(other), Error::PeerMisbehaved(_) | Error::Decode(_)) = (other, error)
            && !is_cut
            && self.world.directory.is_honest(other)
        {
            let what = format!("peer {} says of peer {other}: {error}", self.peer);
            self.world.checker.fail(Invariant::Health, what);
        }
    }
}

/// The default limits, as a clock measures them that goes so many thousandths as fast as time.
fn limits(clock: u32) -> Limits {
    let of = |duration: Duration| duration * 1_000 / clock;
    let limits = Limits::default();
    Limits {
        handshake_timeout: of(limits.handshake_timeout),
        admission_timeout: of(limits.admission_timeout),
        idle_timeout: of(limits.idle_timeout),
        keep_alive: of(KEEP_ALIVE),
        push_timeout: of(limits.push_timeout),
        retry_after: of(limits.retry_after),
        max_retry_after: of(limits.max_retry_after),
        conflict_timeout: of(limits.conflict_timeout),
        revocation_timeout: of(limits.revocation_timeout),
        transaction_timeout: of(limits.transaction_timeout),
        rule_timeout: of(limits.rule_timeout),
        ..limits
    }
}
