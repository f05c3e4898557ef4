//! Those who belong to a circle, and want the others to store what is false, or to wait in vain.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use bytes::Bytes;
use party::{
    admission::{Body, Event as PartyEvent, Introduced, RefusalCode},
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockProof, HashProof, Proof, UpgradeProof},
        storage::Slot,
    },
    key::{DiscoveryKey, FeedKey, KeyPair},
    limits::Limits,
    mux::{ChannelId, Event},
    replication::{
        self,
        messages::{Data, Message, NoData, REASON_INVALID_REQUEST, Range, Request, Sync},
    },
};
use tokio::time::Instant;

use super::{Adversary, Raw, node};
use crate::{
    dice::Dice,
    simulator::{checker::Checker, plan::Traitor},
};

/// Blocks of a feed that is made up.
const FAKES: u64 = 40;

impl Adversary {
    pub(super) async fn be_traitor(&self, kind: Traitor, mut raw: Raw, mut dice: Dice) -> Result<()> {
        let mut inside = self.enter(&mut raw).await?;
        let fake = fake(&mut dice).await?;
        let circle = self.world.directory.circle(self.peer);
        let feeds: BTreeMap<DiscoveryKey, FeedKey> = circle
            .iter()
            .map(|writer| self.world.directory.feed(*writer))
            .map(|feed| (feed.discovery_key(), feed))
            .collect();
        let introduced: Vec<Introduced> = feeds.values().copied().map(Introduced::new).collect();
        inside.channel.request(Body::IntroduceFeeds(introduced.clone()), Instant::now().into_std())?;
        inside.send(&mut raw)?;
        for (id, feed) in &feeds {
            let shown = replication::handshake(raw.session(), feed);
            raw.mux.open(replication::PROTOCOL, Some(id.as_bytes()), &shown)?;
        }
        loop {
            match raw.event().await? {
                Event::Incoming { incoming, id, .. } => {
                    let id = id.and_then(|id| Some(DiscoveryKey::from_bytes(id.as_ref().try_into().ok()?)));
                    match id.and_then(|id| feeds.get(&id)) {
                        Some(feed) => {
                            let shown = replication::handshake(raw.session(), feed);
                            if let Some(channel) = raw.mux.accept(incoming, &shown)? {
                                claim(&mut raw, channel, &mut dice)?;
                            }
                        }
                        None => raw.mux.reject(incoming),
                    }
                }
                Event::Opened { channel, .. } => claim(&mut raw, channel, &mut dice)?,
                Event::Message { channel, message_type, payload } if channel == inside.id => {
                    inside.channel.handle_message(message_type, payload)?;
                    while let Some(event) = inside.channel.poll_event() {
                        match event {
                            PartyEvent::Request { id, body: Body::IntroduceFeeds(_) } => {
                                inside.channel.respond(id, Body::IntroduceFeeds(introduced.clone()))?;
                            }
                            PartyEvent::Request { id, .. } => {
                                inside.channel.refuse(id, RefusalCode::Refused);
                            }
                            _ => {}
                        }
                    }
                    inside.send(&mut raw)?;
                }
                Event::Message { channel, message_type, payload } if kind == Traitor::Forger => {
                    let message = Message::decode(message_type, &payload, true, &Limits::default())?;
                    if let Some(Message::Request(request)) = message {
                        let proof = match dice.percent(50) {
                            true => fake.prove(request.proof.clone(), request.fork).await.ok().flatten(),
                            false => None,
                        };
                        let answer = match proof {
                            Some(proof) => {
                                Message::Data(Data { request: request.id, proof: unnamed(proof, &mut dice) })
                            }
                            None => self.forge(&circle, &request, &mut dice),
                        };
                        raw.mux.send(channel, answer.message_type(), &answer.encode())?;
                    }
                }
                Event::Message { .. } | Event::Closed { .. } => {}
            }
        }
    }

    /// An answer that is false, in one way or another.
    fn forge(&self, circle: &[usize], request: &Request, dice: &mut Dice) -> Message {
        let asked = &request.proof;
        let mut id = request.id;
        let mut index = asked.block.map_or(0, |block| block.index);
        let value: Bytes = match dice.below(3) {
            0 => vec![dice.next() as u8; dice.below(600) as usize].into(),
            // A block that somebody has written, though not there.
            _ => Checker::block(self.world.config.seed, *dice.pick(circle), dice.below(20)),
        };
        let mut nodes = |count: u64| -> Vec<_> { (0..count).map(|n| node(n * 2 + 1, dice)).collect() };
        let (beside, roots, more) = (nodes(2), nodes(3), nodes(1));
        match dice.below(8) {
            0 => return Message::NoData(NoData { request: id, reason: REASON_INVALID_REQUEST }),
            1 => id = 0,
            2 => id += 7,
            3 => index += 1,
            _ => {}
        }
        let block = asked.block.map(|_| BlockProof { index, value, nodes: beside.clone() });
        let hash = asked.hash.map(|hash| HashProof { index: hash.index, nodes: beside });
        let upgrade = asked.upgrade.map(|upgrade| {
            let mut signature = vec![0; 100];
            dice.fill(&mut signature);
            Box::new(UpgradeProof {
                start: upgrade.start,
                length: upgrade.length,
                nodes: roots,
                additional_nodes: more,
                signature: signature.into(),
            })
        });
        let proof = Proof { fork: request.fork, block, hash, upgrade, ..Proof::default() };
        Message::Data(Data { request: id, proof })
    }
}

/// A feed of which everything is right, but that somebody else has signed it.
async fn fake(dice: &mut Dice) -> Result<Feed> {
    let identity = Identity::writer(KeyPair::from_seed(&dice.seed()));
    let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    feed.append_batch((0..FAKES).map(|_| dice.seed().to_vec().into()).collect()).await?;
    Ok(feed)
}

/// The proof, mostly without the manifest that would say whose it is.
fn unnamed(proof: Proof, dice: &mut Dice) -> Proof {
    if dice.percent(20) { proof } else { Proof { manifest: None, ..proof } }
}

/// Says to have everything, and more than there is.
fn claim(raw: &mut Raw, channel: ChannelId, dice: &mut Dice) -> Result<()> {
    let length = if dice.percent(30) { 1 << 40 } else { 1 + dice.below(FAKES) };
    let sync = Message::Sync(Sync {
        fork: 0,
        length,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: dice.percent(50),
    });
    let range = Message::Range(Range { drop: false, start: 0, length });
    for message in [sync, range] {
        raw.mux.send(channel, message.message_type(), &message.encode())?;
    }
    Ok(())
}
