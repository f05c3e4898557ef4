//! `party pull`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use party::{
    connection::{self, Connecting, Connection},
    credentials::SHOW,
    error::Error,
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair},
    party::{Event, Events, Open},
    peer::{Admission, Message, Peer, Replicate},
    rules::{self, Denied, Rules},
    store::Store,
};
use serde::Serialize;
use tokio::{net::TcpStream, sync::watch};

use crate::{
    args::Pull,
    identity, interrupt, members,
    output::{Output, Progress, Show, text},
};

/// Feeds that are taken from one peer.
const MAX_FEEDS: usize = 4096;

const NO_MEMBERSHIP: &str =
    "the peer lets in members only, and this store is none: join by a ticket of `party grant`";

const REFUSED: &str = "refused: the peer is not in this party; look at the key and at the address";

/// How often the progress bar looks at the feeds.
const TICK: Duration = Duration::from_millis(200);

pub(crate) async fn run(arguments: Pull, output: Output) -> anyhow::Result<()> {
    run_with_others(arguments, &[], output).await
}

/// As [`run`], but where nobody can be reached at the address to connect to, at the first of the others.
pub(crate) async fn run_with_others(
    arguments: Pull,
    others: &[String],
    output: Output,
) -> anyhow::Result<()> {
    let mut interrupted = interrupt::listen()?;
    let store = arguments.store.open_or_create().await?;
    let result = tokio::select! {
        result = pull(&store, &arguments, others, output, interrupted.clone()) => result,
        () = interrupt::wait(&mut interrupted), if !arguments.live => {
            Err(anyhow::anyhow!("interrupted; what has come so far is kept, and the next pull goes on from there"))
        }
    };
    store.close().await;
    result
}

async fn pull(
    store: &Store,
    arguments: &Pull,
    others: &[String],
    output: Output,
    mut interrupted: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let key_pair = identity::of_store(&arguments.store.folder)?;
    let wanted = Wanted::default();
    let rules = Puller { store: store.clone(), only: arguments.feeds.clone(), wanted: wanted.clone() };
    if arguments.mode.open && rules.of_others().await?.is_empty() {
        bail!("which feed? The store has none of others yet: give --feed KEY");
    }

    let (address, connecting) = dial(&arguments.connect, others, &key_pair).await?;
    let (connecting, events, members) = match arguments.mode.party {
        Some(key) => {
            let (party, members) = members::party(store, &key, &key_pair, rules).await?;
            (connecting.join(&party), party.events(), members)
        }
        None => {
            let open = Open::new(rules);
            (connecting.open(&open), open.events(), None)
        }
    };
    let connecting = if arguments.live { connecting } else { connecting.finite() };
    let connection = connecting
        .await
        .with_context(|| format!("no connection to {address} (is it `party serve` that listens there?)"))?;

    let mut watcher = Watcher::new(wanted, events, output);
    let progress = output.blocks();
    let ended = tokio::select! {
        ended = watcher.follow(&connection, &progress) => ended?,
        () = interrupt::wait(&mut interrupted), if arguments.live => {
            drop(progress);
            // The peer may be gone already, which is no matter now.
            let _ = connection.close().await;
            return Ok(());
        }
    };
    drop(progress);
    if let Some(members) = &members {
        members.saved().await?;
        // What the peer has told may be why it went.
        members::check_standing(members)?;
    }
    watcher.judge(ended, arguments.live)
}

/// A connection to the first of these that can be reached, and which that is.
async fn dial<'a>(
    first: &'a str,
    others: &'a [String],
    key_pair: &KeyPair,
) -> anyhow::Result<(&'a str, Connecting<TcpStream>)> {
    let mut address = first;
    let mut others = others.iter();
    loop {
        match connection::dial(address, key_pair).await {
            Ok(connecting) => return Ok((address, connecting)),
            Err(error) => match others.next() {
                Some(next) => address = next,
                None => return Err(error).with_context(|| format!("cannot connect to {address}")),
            },
        }
    }
}

/// The feeds that the rules have decided to fetch.
#[derive(Clone, Debug, Default)]
struct Wanted(Arc<Mutex<BTreeMap<DiscoveryKey, Feed>>>);

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiscoveryKey, Feed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Introduces every feed of the store, and takes what the peer introduces, or only what was asked for.
struct Puller {
    store: Store,
    only: Vec<FeedKey>,
    wanted: Wanted,
}

impl Puller {
    async fn ours(&self) -> rules::Result<Vec<FeedKey>> {
        Ok(self.store.list().await?.into_iter().map(|entry| entry.key).collect())
    }

    /// What to ask for where nobody introduces anything.
    async fn of_others(&self) -> Result<Vec<FeedKey>, Error> {
        if !self.only.is_empty() {
            return Ok(self.only.clone());
        }
        Ok(self
            .store
            .list()
            .await?
            .into_iter()
            .filter(|entry| !entry.writable)
            .map(|entry| entry.key)
            .collect())
    }

    async fn take(&self, peer: &Peer, keys: Vec<FeedKey>) -> rules::Result<()> {
        for key in keys {
            if self.wanted.lock().len() >= MAX_FEEDS {
                return Err(Denied::because(format!("more than {MAX_FEEDS} feeds")));
            }
            let feed = self.store.feed(&key).await?;
            if !feed.info().writable {
                self.wanted.lock().insert(feed.discovery_key(), feed.clone());
            }
            peer.replicate_as(&feed, Replicate::fully()).await?;
        }
        Ok(())
    }
}

impl Rules for Puller {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        if peer.admission() == Admission::Open {
            return self.take(peer, self.of_others().await?).await;
        }
        let theirs = peer.introduce_feeds(self.ours().await?).await?;
        self.take(peer, if self.only.is_empty() { theirs } else { self.only.clone() }).await
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        let ours = self.ours().await?;
        if self.only.is_empty() {
            self.take(peer, keys).await?;
        }
        Ok(ours)
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(self.store.feed_by_discovery_key(key).await?)
    }

    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        // With a membership of ours, this would not have come here.
        Err(Denied::because(match message.kind.as_str() {
            SHOW => NO_MEMBERSHIP,
            _ => "nothing is answered here",
        }))
    }
}

/// A feed that has all that the peer has, for now.
#[derive(Serialize)]
struct Synced {
    #[serde(serialize_with = "text")]
    key: FeedKey,
    length: u64,
    byte_length: u64,
}

impl Show for Synced {
    fn text(&self) -> String {
        format!("{}  {} blocks  {} bytes", self.key, self.length, self.byte_length)
    }
}

/// Watches what comes of it.
struct Watcher {
    wanted: Wanted,
    events: Events,
    /// Whether the peer was admitted.
    admitted: bool,
    /// Whether it has told us all that it brings.
    acquainted: bool,
    in_sync: BTreeSet<DiscoveryKey>,
    refused: BTreeSet<DiscoveryKey>,
    /// Whether events were lost, so that it isn't known of every feed how it stands.
    unsure: bool,
    /// The first thing that went wrong.
    failure: Option<anyhow::Error>,
    /// The length at which a feed was last shown as complete.
    shown: BTreeMap<DiscoveryKey, u64>,
    output: Output,
}

impl Watcher {
    fn new(wanted: Wanted, events: Events, output: Output) -> Self {
        Self {
            wanted,
            events,
            admitted: false,
            acquainted: false,
            in_sync: BTreeSet::new(),
            refused: BTreeSet::new(),
            unsure: false,
            failure: None,
            shown: BTreeMap::new(),
            output,
        }
    }

    /// Until the connection has ended; how it did is in the answer.
    async fn follow(
        &mut self,
        connection: &Connection,
        progress: &Progress,
    ) -> anyhow::Result<Result<(), Error>> {
        let mut ticks = tokio::time::interval(TICK);
        let ended = connection.closed();
        tokio::pin!(ended);
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended,
                Some(event) = self.events.next() => self.take(event, progress)?,
                _ = ticks.tick() => self.draw(progress),
            }
        };
        // What was told before the end, and not taken yet.
        while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, self.events.next()).await {
            self.take(event, progress)?;
        }
        Ok(ended)
    }

    fn take(&mut self, event: Event, progress: &Progress) -> anyhow::Result<()> {
        match event {
            Event::PeerAdded(_) => self.admitted = true,
            Event::HandshakeDone(_) => self.acquainted = true,
            Event::FeedInSync { feed, .. } => {
                self.in_sync.insert(feed);
                progress.aside(|| self.show(feed))?;
            }
            Event::FeedRefused { feed, .. } => {
                self.refused.insert(feed);
            }
            Event::FeedOpened { feed, .. } => {
                self.refused.remove(&feed);
            }
            Event::ChannelFailed { error, .. } => {
                self.failure.get_or_insert_with(|| error.into());
            }
            Event::RuleFailed { failure, .. } => {
                self.failure.get_or_insert_with(|| failure.into());
            }
            Event::Missed(_) => self.unsure = true,
            _ => {}
        }
        Ok(())
    }

    /// Shows a feed that is complete, once for each of its lengths.
    fn show(&mut self, key: DiscoveryKey) -> anyhow::Result<()> {
        let Some(feed) = self.wanted.lock().get(&key).cloned() else { return Ok(()) };
        let info = feed.info();
        if info.contiguous_length < info.length || self.shown.insert(key, info.length) == Some(info.length) {
            return Ok(());
        }
        self.output.show(&Synced { key: feed.key(), length: info.length, byte_length: info.byte_length })
    }

    fn draw(&self, progress: &Progress) {
        let (mut done, mut total, mut received) = (0, 0, 0);
        for feed in self.wanted.lock().values() {
            let info = feed.info();
            done += info.contiguous_length;
            total += info.length;
            received += feed.traffic().bytes_received;
        }
        progress.set(done, total);
        progress.say(format!("of {} feeds, {received} bytes received", self.wanted.lock().len()));
    }

    /// Whether all that was wanted is there now that the connection has ended.
    fn judge(mut self, ended: Result<(), Error>, live: bool) -> anyhow::Result<()> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match ended {
            Err(Error::Refused) => bail!(REFUSED),
            Err(error) => return Err(error).context("the connection has ended"),
            Ok(()) if !self.admitted && !self.unsure => bail!(REFUSED),
            Ok(()) if live => bail!("the peer has closed the connection"),
            Ok(()) => {}
        }
        if !self.acquainted && !self.unsure {
            bail!("the peer has left before it told which feeds it has");
        }
        let wanted = self.wanted.lock().clone();
        for (key, feed) in &wanted {
            let info = feed.info();
            if self.refused.contains(key) {
                bail!("the peer does not have the feed {}", feed.key());
            }
            if !self.in_sync.contains(key) && !self.unsure {
                bail!("the peer has left before the feed {} was complete", feed.key());
            }
            if info.contiguous_length < info.length {
                bail!(
                    "the feed {} is not complete: {} of {} blocks, and the peer has no more of it for this store",
                    feed.key(),
                    info.contiguous_length,
                    info.length
                );
            }
        }
        for key in wanted.keys() {
            self.show(*key)?;
        }
        Ok(())
    }
}
