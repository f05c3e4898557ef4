//! The channel of a feed, from the runner's end: reading what a shim serves, and serving, well or badly, what it reads.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use party::{
    feed::{
        Feed,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
    },
    key::FeedKey,
    limits::Limits,
    mux::{ChannelId, Event},
    replication::{
        PROTOCOL, capability, handshake,
        messages::{Data, Message, NoData, Range, Request, Sync},
    },
    store::{FeedOptions, Store},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{scene::block, wire::Wire};

impl Wire {
    /// Waits until the shim opens the channel of a feed, with a capability that holds, and answers.
    pub(super) async fn feed_offered(&mut self, key: &FeedKey) -> Result<ChannelId> {
        let (incoming, shown) = self.offered(PROTOCOL, key.discovery_key().as_bytes()).await?;
        self.check_capability(key, &shown)?;
        let ours = handshake(self.session(), key);
        let channel = self.mux.accept(incoming, &ours)?.context("the open is taken back")?;
        self.flush().await?;
        Ok(channel)
    }

    /// Opens the channel of a feed, which must be answered with a capability that holds.
    pub(super) async fn feed(&mut self, key: &FeedKey) -> Result<ChannelId> {
        let ours = handshake(self.session(), key);
        let (channel, shown) =
            self.is_answered(PROTOCOL, Some(key.discovery_key().as_bytes()), &ours).await?;
        self.check_capability(key, &shown)?;
        Ok(channel)
    }

    /// Opens the channel of a feed, which must be rejected.
    pub(super) async fn feed_refused(&mut self, key: &FeedKey) -> Result<()> {
        let ours = handshake(self.session(), key);
        self.is_rejected(PROTOCOL, Some(key.discovery_key().as_bytes()), &ours).await
    }

    pub(super) fn check_capability(&self, key: &FeedKey, shown: &[u8]) -> Result<()> {
        let expected = capability(self.session(), false, key);
        ensure!(shown.len() >= 33 && shown[1..33] == expected, "the shim shows a wrong capability");
        Ok(())
    }

    pub(super) async fn tell(&mut self, channel: ChannelId, message: Message) -> Result<()> {
        self.send(channel, message.message_type(), &message.encode()).await
    }

    /// Waits for a message of a feed's channel that `pick` takes.
    pub(super) async fn hears<T>(
        &mut self,
        what: &str,
        channel: ChannelId,
        mut pick: impl FnMut(Message) -> Option<T>,
    ) -> Result<T> {
        self.message(what, channel, |kind, payload| {
            Message::decode(kind, payload, true, &Limits::default()).ok().flatten().and_then(&mut pick)
        })
        .await
    }

    /// Says that we have nothing and read.
    pub(super) async fn reads(&mut self, channel: ChannelId) -> Result<()> {
        self.tell(channel, Message::Sync(syncs(0, 0))).await
    }

    /// Waits until the shim says that it has so many blocks.
    pub(super) async fn has_length(&mut self, channel: ChannelId, length: u64) -> Result<Sync> {
        self.hears("a sync with the length", channel, |message| match message {
            Message::Sync(sync) if sync.length == length => Some(sync),
            _ => None,
        })
        .await
    }

    /// Asks, and waits for the answer: `None` if it is `noData`.
    pub(super) async fn asks(
        &mut self,
        channel: ChannelId,
        id: u64,
        proof: ProofRequest,
    ) -> Result<Option<Proof>> {
        self.asks_in(channel, id, 0, proof).await
    }

    pub(super) async fn asks_in(
        &mut self,
        channel: ChannelId,
        id: u64,
        fork: u64,
        proof: ProofRequest,
    ) -> Result<Option<Proof>> {
        self.tell(channel, Message::Request(Request { id, fork, proof, priority: 0 })).await?;
        self.gets(channel, id).await
    }

    /// Waits for the answer to a request.
    pub(super) async fn gets(&mut self, channel: ChannelId, id: u64) -> Result<Option<Proof>> {
        self.hears("an answer", channel, |message| match message {
            Message::Data(Data { request, proof }) if request == id => Some(Some(proof)),
            Message::NoData(NoData { request, .. }) if request == id => Some(None),
            _ => None,
        })
        .await
    }

    /// Says that we have this feed, all of it.
    pub(super) async fn serves(&mut self, channel: ChannelId, feed: &Feed) -> Result<()> {
        let info = feed.info();
        self.tell(channel, Message::Sync(syncs(info.length, info.fork))).await?;
        if info.length > 0 {
            self.tell(channel, Message::Range(Range { drop: false, start: 0, length: info.length })).await?;
        }
        Ok(())
    }

    /// Says where we stand, to who has said this of itself.
    async fn tells(&mut self, channel: ChannelId, length: u64, fork: u64, heard: (u64, u64)) -> Result<()> {
        let mut sync = syncs(length, fork);
        sync.remote_length = if heard.1 == fork { heard.0 } else { 0 };
        sync.can_upgrade = length > sync.remote_length && heard.1 == fork;
        self.tell(channel, Message::Sync(sync)).await
    }

    /// Answers requests, as `answer` has it, until told to stop, or until the channel or the connection ends.
    pub(super) fn answering(
        mut self,
        channel: ChannelId,
        feed: Feed,
        mut answer: impl FnMut(&Request, Option<Proof>) -> Vec<Message> + Send + 'static,
    ) -> Serving {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut requests = Vec::new();
            let mut closed = false;
            let mut changes = feed.subscribe();
            // What the shim has said of itself last: its length, its fork.
            let mut heard = (0, 0);
            loop {
                let next = self.until("a request", |event| match event {
                    Event::Message { channel: from, message_type, payload } if *from == channel => {
                        Message::decode(*message_type, payload, true, &Limits::default())
                            .ok()
                            .flatten()
                            .map(Some)
                    }
                    Event::Closed { channel: from, .. } if *from == channel => Some(None),
                    _ => None,
                });
                let next = tokio::select! {
                    biased;
                    _ = &mut stopped => break,
                    () = changes.changed() => {
                        let info = feed.info();
                        self.tells(channel, info.length, info.fork, heard).await?;
                        let range = Range { drop: false, start: 0, length: info.length };
                        self.tell(channel, Message::Range(range)).await?;
                        continue;
                    }
                    next = next => next,
                };
                match next {
                    Ok(Some(Message::Request(request))) => {
                        let proof = feed.prove(request.proof.clone(), request.fork).await?;
                        for message in answer(&request, proof) {
                            // It may have closed the channel meanwhile, which comes as an event.
                            self.mux.send(channel, message.message_type(), &message.encode())?;
                        }
                        requests.push(request);
                    }
                    Ok(Some(Message::Sync(sync))) => {
                        if heard != (sync.length, sync.fork) {
                            heard = (sync.length, sync.fork);
                            let info = feed.info();
                            self.tells(channel, info.length, info.fork, heard).await?;
                        }
                    }
                    Ok(Some(_)) => {}
                    // The channel is closed, or the connection has ended, or it has been silent for too long.
                    Ok(None) => {
                        closed = true;
                        break;
                    }
                    Err(_) => {
                        closed = !self.raw.seems_alive();
                        break;
                    }
                }
            }
            Ok(Served { wire: self, requests, closed })
        });
        Serving { stop, task }
    }

    /// Answers requests as they should be.
    pub(super) fn answering_well(self, channel: ChannelId, feed: Feed) -> Serving {
        self.answering(channel, feed, |request, proof| vec![honestly(request, proof)])
    }
}

/// A task that serves a feed.
pub(super) struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Served>>,
}

/// What came of it.
pub(super) struct Served {
    pub(super) wire: Wire,
    pub(super) requests: Vec<Request>,
    /// The shim has closed the channel or ended the connection.
    pub(super) closed: bool,
}

impl Serving {
    /// Ends it.
    pub(super) async fn stop(self) -> Result<Served> {
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.task.await?
    }

    /// Ends it when something was asked, or after a moment in which nothing was.
    pub(super) async fn stop_when_asked(self) -> Result<Served> {
        // Whether it asks at all is its own matter, so that there is nothing to wait for but time.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        self.stop().await
    }

    /// Waits until the shim has had enough, or asks for nothing any more, or has asked for as long as we are patient.
    pub(super) async fn until_enough(mut self, patience: Duration) -> Result<Served> {
        match tokio::time::timeout(patience, &mut self.task).await {
            Ok(served) => served?,
            Err(_) => self.stop().await,
        }
    }
}

/// An honest answer.
pub(super) fn honestly(request: &Request, proof: Option<Proof>) -> Message {
    match proof {
        Some(proof) => Message::Data(Data { request: request.id, proof }),
        None => Message::NoData(NoData { request: request.id, reason: 1 }),
    }
}

pub(super) fn syncs(length: u64, fork: u64) -> Sync {
    Sync {
        fork,
        length,
        remote_length: 0,
        can_upgrade: length > 0,
        uploading: true,
        downloading: true,
        has_manifest: length > 0,
        allow_push: false,
    }
}

/// A feed of ours with blocks `block 0` and so on.
pub(super) async fn feed_of(blocks: u64) -> Result<Feed> {
    let feed = Store::memory().create_feed("feed", FeedOptions::default()).await?;
    grow(&feed, blocks).await?;
    Ok(feed)
}

/// Appends up to this length.
pub(super) async fn grow(feed: &Feed, length: u64) -> Result<()> {
    let blocks: Vec<Bytes> = (feed.info().length..length).map(|n| block(n).into()).collect();
    if !blocks.is_empty() {
        feed.append_batch(blocks).await?;
    }
    Ok(())
}

pub(super) fn ask_block(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() }
}

pub(super) fn ask_hash(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest { hash: Some(BlockRequest { index, nodes }), ..ProofRequest::default() }
}

pub(super) fn ask_upgrade(start: u64, length: u64) -> ProofRequest {
    ProofRequest { upgrade: Some(UpgradeRequest { start, length }), ..ProofRequest::default() }
}

/// Takes a proof into a copy of the feed, which must hold.
pub(super) async fn holds(copy: &Feed, proof: Proof) -> Result<party::feed::Ingested> {
    let taken = copy.ingest(vec![proof]).await.pop().context("nothing came of the proof")?;
    taken.context("the proof doesn't hold")
}

/// A copy of a feed, empty at first.
pub(super) async fn copy_of(key: &FeedKey) -> Result<Feed> {
    Ok(Store::memory().feed(key).await?)
}
