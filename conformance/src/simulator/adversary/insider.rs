//! Those who are members of the party, and want what their circle, none, doesn't give them.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use party::{
    admission::{self, Body, Event as PartyEvent, Hello, Introduced, Message, PartyChannel, RefusalCode},
    feed::proof::{BlockRequest, ProofRequest, UpgradeRequest},
    key::FeedKey,
    limits::Limits,
    mux::{ChannelId, Event},
    replication::{
        self,
        messages::{Message as FeedMessage, Request},
    },
    session::Session,
};
use tokio::time::{Instant, sleep};

use super::{Adversary, Raw};
use crate::{
    dice::Dice,
    simulator::{checker::Invariant, plan::Insider},
};

/// Messages of a flood at a time, and between two of them.
const BURST: usize = 400;
const CALM: Duration = Duration::from_secs(60);

/// A member's channel of the party, once it is open.
pub(super) struct Inside {
    pub(super) id: ChannelId,
    pub(super) channel: PartyChannel,
}

impl Adversary {
    /// Gets admitted, as every member is.
    pub(super) async fn enter(&self, raw: &mut Raw) -> Result<Inside> {
        let (id, proof) = self.membership(raw.session());
        let hello = Hello::new(proof).encode();
        let is_initiator = raw.session().is_initiator;
        if is_initiator {
            raw.mux.open(admission::PROTOCOL, Some(&id), &hello)?;
        }
        loop {
            let channel = match raw.event().await? {
                Event::Opened { channel, .. } => channel,
                Event::Incoming { incoming, id: offered, .. } if offered.as_deref() == Some(&id[..]) => {
                    match raw.mux.accept(incoming, &hello)? {
                        Some(channel) => channel,
                        None => continue,
                    }
                }
                Event::Incoming { incoming, .. } => {
                    raw.mux.reject(incoming);
                    continue;
                }
                _ => continue,
            };
            raw.flush().await?;
            return Ok(Inside { id: channel, channel: PartyChannel::new(&Limits::default()) });
        }
    }

    pub(super) async fn be_insider(
        &self,
        kind: Insider,
        mut raw: Raw,
        victim: usize,
        mut dice: Dice,
    ) -> Result<()> {
        match kind {
            Insider::Snoop => {
                let inside = self.enter(&mut raw).await?;
                self.snoop(raw, inside, victim, dice).await
            }
            Insider::Flood => {
                let mut inside = self.enter(&mut raw).await?;
                loop {
                    for _ in 0..BURST {
                        self.say_anything(&mut inside.channel, &mut dice)?;
                        inside.send(&mut raw)?;
                        raw.flush().await?;
                    }
                    sleep(CALM).await;
                }
            }
            Insider::Liar => self.lie(raw, victim, dice).await,
        }
    }

    /// Shows proofs that don't hold: any bytes, one that is wrong in a bit, the one that the victim itself has to show.
    async fn lie(&self, mut raw: Raw, victim: usize, mut dice: Dice) -> Result<()> {
        let (id, mut proof) = self.membership(raw.session());
        match dice.below(3) {
            0 => proof = dice.seed(),
            1 => proof[dice.below(32) as usize] ^= 1 << dice.below(8),
            _ => {
                let is_initiator = !raw.session().is_initiator;
                proof = self.membership(&Session { is_initiator, ..raw.session().clone() }).1;
            }
        }
        let hello = Hello::new(proof).encode();
        if raw.session().is_initiator {
            raw.mux.open(admission::PROTOCOL, Some(&id), &hello)?;
        }
        loop {
            match raw.event().await? {
                Event::Incoming { incoming, .. } => drop(raw.mux.accept(incoming, &hello)?),
                Event::Opened { .. } => self.broken(victim, "takes a proof that doesn't hold from"),
                Event::Message { .. } => {
                    self.broken(victim, "sends a message after a proof that doesn't hold to")
                }
                Event::Closed { .. } => {}
            }
        }
    }

    /// Opens what it knows the keys of, and asks for all of it.
    async fn snoop(&self, mut raw: Raw, mut inside: Inside, victim: usize, mut dice: Dice) -> Result<()> {
        let feeds: Vec<FeedKey> = self
            .world
            .directory
            .circle(victim)
            .into_iter()
            .map(|peer| self.world.directory.feed(peer))
            .collect();
        let known = feeds.iter().copied().map(Introduced::new).collect();
        inside.channel.request(Body::IntroduceFeeds(known), Instant::now().into_std())?;
        inside.send(&mut raw)?;
        for feed in &feeds {
            let id = feed.discovery_key();
            let mut shown = replication::handshake(raw.session(), feed);
            if dice.percent(30) {
                shown[1 + dice.below(32) as usize] ^= 1;
            }
            let channel = raw.mux.open(replication::PROTOCOL, Some(id.as_bytes()), &shown)?;
            // Before it is answered: it may be taken up when it is.
            for index in 0..4 {
                let proof = ProofRequest {
                    block: Some(BlockRequest { index, nodes: 0 }),
                    upgrade: Some(UpgradeRequest { start: 0, length: index + 1 }),
                    manifest: true,
                    ..ProofRequest::default()
                };
                let request = FeedMessage::Request(Request { id: index + 1, fork: 0, proof, priority: 0 });
                raw.mux.send(channel, request.message_type(), &request.encode())?;
            }
        }
        loop {
            match raw.event().await? {
                // It was released to us, or so it seems.
                Event::Incoming { incoming, protocol, .. } => {
                    raw.mux.reject(incoming);
                    if protocol == replication::PROTOCOL {
                        self.leaked(victim, "opens a feed");
                    }
                }
                Event::Opened { .. } => self.leaked(victim, "answers to the open of a feed"),
                Event::Message { channel, message_type, payload } if channel == inside.id => {
                    inside.channel.handle_message(message_type, payload)?;
                    while let Some(event) = inside.channel.poll_event() {
                        match event {
                            PartyEvent::Request { id, body: Body::IntroduceFeeds(_) } => {
                                self.leaked(victim, "introduces its feeds");
                                inside.channel.refuse(id, RefusalCode::Refused);
                            }
                            PartyEvent::Answered { result: Ok(Body::IntroduceFeeds(keys)), .. }
                                if !keys.is_empty() =>
                            {
                                self.leaked(victim, "names its feeds");
                            }
                            _ => {}
                        }
                    }
                    inside.send(&mut raw)?;
                }
                Event::Message { .. } => self.leaked(victim, "sends something of a feed"),
                Event::Closed { .. } => {}
            }
        }
    }

    /// A message that is valid, and that nobody waits for.
    fn say_anything(&self, channel: &mut PartyChannel, dice: &mut Dice) -> Result<()> {
        let value = Bytes::from(vec![dice.next() as u8; dice.below(2_000) as usize]);
        let now = Instant::now().into_std();
        // An error is that too many transactions of ours are open.
        match dice.below(4) {
            0 => drop(channel.request(Body::Custom(Message::new("more", value)), now)),
            1 => {
                let keys = (0..dice.below(50)).map(|_| FeedKey::from_bytes(dice.seed()).into()).collect();
                drop(channel.request(Body::IntroduceFeeds(keys), now));
            }
            _ => channel.send_ephemeral(Message::new("more", value))?,
        }
        Ok(())
    }

    fn leaked(&self, victim: usize, what: &str) {
        let what = format!("peer {victim} {what} to peer {}, who is of no circle", self.peer);
        self.world.checker.fail(Invariant::Authority, what);
    }
}

impl Inside {
    /// Hands over what the channel has to send.
    pub(super) fn send(&mut self, raw: &mut Raw) -> Result<()> {
        while let Some((message_type, payload)) = self.channel.poll_transmit() {
            raw.mux.send(self.id, message_type, &payload)?;
        }
        Ok(())
    }
}
