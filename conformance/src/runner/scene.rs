//! Where a behaviour takes place: a shim, and how to meet it.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use party::{
    admission::{PROTOCOL, membership},
    feed::Feed,
    key::{FeedKey, KeyPair, PartyKey, PublicKey},
    mux::{ChannelId, Event, Incoming},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout_at,
};

use super::{
    feature::Feature,
    shim::{Shim, now},
    speech,
    wire::{Raw, Wire},
};

/// The party that behaviours are about.
pub(super) const PARTY: PartyKey = PartyKey::from_bytes([0x70; 32]);
/// Another one.
pub(super) const OTHER: PartyKey = PartyKey::from_bytes([0x71; 32]);

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dials {
    /// The runner: the shim is the responder.
    Runner,
    /// The shim: it is the initiator.
    Shim,
}

/// Both ways.
pub(super) const BOTH: [Dials; 2] = [Dials::Runner, Dials::Shim];

/// A shim, and how to meet it.
pub(super) struct Scene {
    pub(super) shim: Shim,
    pub(super) patience: Duration,
    /// Where the shim listens.
    port: Option<u16>,
}

impl Scene {
    pub(super) fn new(shim: Shim, patience: Duration) -> Self {
        Self { shim, patience, port: None }
    }

    pub(super) fn into_shim(self) -> Shim {
        self.shim
    }

    /// A fresh shim, for the next round of a behaviour.
    pub(super) async fn again(&mut self) -> Result<()> {
        self.port = None;
        self.shim.reset().await
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.shim.features.contains(&feature)
    }

    pub(super) async fn tell(&mut self, command: impl AsRef<str>) -> Result<Vec<String>> {
        self.shim.tell(command.as_ref()).await
    }

    /// As `tell`, for a command that is answered with one word.
    pub(super) async fn word(&mut self, command: impl AsRef<str>) -> Result<String> {
        let mut words = self.tell(&command).await?;
        ensure!(words.len() == 1, "{} is answered with {words:?}", command.as_ref());
        Ok(words.remove(0))
    }

    pub(super) async fn event(&mut self, beginning: &str) -> Result<Vec<String>> {
        self.shim.event(beginning).await
    }

    /// No such event has come.
    pub(super) async fn silent(&mut self, beginning: &str) -> Result<()> {
        ensure!(!self.shim.has_told(beginning).await?, "there is an `event {beginning}`");
        Ok(())
    }

    /// Gives the shim its key, and the party `a`, or the open mode if it knows no parties.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        self.identify().await?;
        if self.has(Feature::Party) {
            self.enter("a", &PARTY).await
        } else {
            self.tell("open").await.map(drop)
        }
    }

    pub(super) async fn identify(&mut self) -> Result<()> {
        let shown = self.word(format!("key {}", hex(&[2; 32]))).await?;
        ensure!(shown == hex(shim_key().as_bytes()), "another key pair than the one of the seed: {shown}");
        Ok(())
    }

    pub(super) async fn enter(&mut self, name: &str, key: &PartyKey) -> Result<()> {
        self.tell(format!("party {name} {}", hex(key.as_bytes()))).await.map(drop)
    }

    /// A connection below Noise.
    pub(super) async fn tcp(&mut self, dials: Dials) -> Result<Raw> {
        let deadline = now() + self.patience;
        let io = match dials {
            Dials::Runner => {
                let port = match self.port {
                    Some(port) => port,
                    None => self.word("listen").await?.parse().context("listen is answered with a port")?,
                };
                self.port = Some(port);
                timeout_at(deadline, TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
                    .await
                    .context("the shim doesn't take the connection")??
            }
            Dials::Shim => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                self.tell(format!("dial {}", listener.local_addr()?.port())).await?;
                timeout_at(deadline, listener.accept()).await.context("the shim doesn't dial")??.0
            }
        };
        Ok(Raw::new(io, self.patience))
    }

    /// A connection on which both static keys are proved, and nothing is said yet.
    pub(super) async fn connect(&mut self, dials: Dials) -> Result<Wire> {
        self.connect_as(dials, &runner()).await
    }

    pub(super) async fn connect_as(&mut self, dials: Dials, key_pair: &KeyPair) -> Result<Wire> {
        let wire = self.tcp(dials).await?.shake_hands(dials == Dials::Runner, key_pair).await?;
        ensure!(wire.session().remote == shim_key(), "the shim holds another static key than it was given");
        Ok(wire)
    }

    /// A fresh shim, and a connection to it.
    pub(super) async fn meet(&mut self, dials: Dials) -> Result<Wire> {
        self.prepare().await?;
        self.connect(dials).await
    }

    /// A connection on which both are members of the party `a`.
    pub(super) async fn member(&mut self, dials: Dials) -> Result<(Wire, ChannelId)> {
        let mut wire = self.connect(dials).await?;
        let channel = wire.admit(&PARTY).await?;
        self.event(&format!("admitted a {}", hex(runner().public().as_bytes()))).await?;
        Ok((wire, channel))
    }

    /// What the party is called, or the open mode if the shim knows no parties.
    pub(super) fn room(&self) -> &'static str {
        if self.has(Feature::Party) { "a" } else { "open" }
    }

    /// A connection on which feeds may be opened.
    pub(super) async fn joined(&mut self, dials: Dials) -> Result<Wire> {
        if self.has(Feature::Party) { Ok(self.member(dials).await?.0) } else { self.connect(dials).await }
    }

    /// A fresh shim that has released a feed `f` of so many blocks to us, and the channel that it has opened for that.
    pub(super) async fn served(&mut self, dials: Dials, blocks: u64) -> Result<(Wire, ChannelId, FeedKey)> {
        self.prepare().await?;
        let key = self.written("f", blocks).await?;
        self.tell(format!("release f {}", self.room())).await?;
        let mut wire = self.joined(dials).await?;
        let channel = wire.feed_offered(&key).await?;
        Ok((wire, channel, key))
    }

    /// A fresh shim that reads a feed `f` of ours, and the channel that it has opened for that.
    pub(super) async fn reads(&mut self, dials: Dials, feed: &Feed) -> Result<(Wire, ChannelId)> {
        self.prepare().await?;
        self.tell(format!("add f {}", feed.key())).await?;
        self.tell(format!("release f {}", self.room())).await?;
        let mut wire = self.joined(dials).await?;
        let channel = wire.feed_offered(&feed.key()).await?;
        Ok((wire, channel))
    }

    /// Makes a feed there with blocks `block 0` and so on, and gives its key.
    pub(super) async fn written(&mut self, name: &str, blocks: u64) -> Result<FeedKey> {
        let words = self.tell(format!("create {name}")).await?;
        self.append(name, 0..blocks).await?;
        words
            .first()
            .context("create is answered with a key")?
            .parse()
            .map_err(|_| anyhow!("no key: {words:?}"))
    }

    pub(super) async fn append(&mut self, name: &str, blocks: std::ops::Range<u64>) -> Result<()> {
        if !blocks.is_empty() {
            let length = blocks.end;
            let blocks: Vec<String> = blocks.map(|n| hex(&block(n))).collect();
            let said = self.word(format!("append {name} {}", blocks.join(" "))).await?;
            ensure!(said == length.to_string(), "append is answered with {said}");
        }
        Ok(())
    }

    /// Waits until a feed of the shim's has come to this.
    pub(super) async fn reaches(&mut self, name: &str, length: u64, fork: u64) -> Result<()> {
        let wanted = [length.to_string(), fork.to_string()];
        // What it tells from now on, or has told, or is so.
        while self.tell(format!("state {name}")).await? != wanted {
            self.event(&format!("length {name}")).await?;
        }
        Ok(())
    }

    /// A block that the shim must have.
    pub(super) async fn has_block(&mut self, name: &str, index: u64, value: &[u8]) -> Result<()> {
        let stored = self.word(format!("get {name} {index}")).await?;
        ensure!(stored == hex(value), "block {index} is {stored}");
        Ok(())
    }

    /// A block that it must not have.
    pub(super) async fn lacks_block(&mut self, name: &str, index: u64) -> Result<()> {
        let stored = self.word(format!("get {name} {index}")).await?;
        ensure!(stored == "absent", "block {index} is {stored}");
        Ok(())
    }
}

impl Wire {
    /// What we call the party's channel on this connection.
    pub(super) fn party_id(&self, party: &PartyKey) -> [u8; 32] {
        membership::channel_id(self.session(), party)
    }

    /// Our Hello.
    pub(super) fn hello(&self, party: &PartyKey) -> Vec<u8> {
        speech::hello(1, 0, &membership::prove(self.session(), party))
    }

    /// Becomes a member, from either end.
    pub(super) async fn admit(&mut self, party: &PartyKey) -> Result<ChannelId> {
        let id = self.party_id(party);
        let hello = self.hello(party);
        if self.session().is_initiator {
            let (channel, shown) = self.is_answered(PROTOCOL, Some(&id), &hello).await?;
            self.check_hello(party, &shown)?;
            Ok(channel)
        } else {
            let (incoming, shown) = self.offered(PROTOCOL, &id).await?;
            self.check_hello(party, &shown)?;
            let channel = self.mux.accept(incoming, &hello)?.context("the open is taken back")?;
            self.flush().await?;
            Ok(channel)
        }
    }

    /// The other side's Hello shows that it is a member.
    pub(super) fn check_hello(&self, party: &PartyKey, shown: &[u8]) -> Result<()> {
        let fields = speech::fields(shown)?;
        ensure!(speech::number_of(&fields, 1) == 1, "the version of the Hello is another");
        let proof = speech::bytes_of(&fields, 3).unwrap_or_default();
        ensure!(membership::verify(self.session(), party, &proof), "the shim's Hello proves nothing");
        Ok(())
    }

    /// Waits until the other side opens this channel; it is not answered yet.
    pub(super) async fn offered(&mut self, protocol: &str, id: &[u8]) -> Result<(Incoming, Vec<u8>)> {
        self.until("an open", |event| match event {
            Event::Incoming { incoming, protocol: named, id: Some(named_id), handshake }
                if named == protocol && &named_id[..] == id =>
            {
                Some((*incoming, handshake.to_vec()))
            }
            _ => None,
        })
        .await
    }
}

/// Who the runner is.
pub(super) fn runner() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

/// Who the shim is.
pub(super) fn shim_key() -> PublicKey {
    KeyPair::from_seed(&[2; 32]).public()
}

pub(super) fn block(index: u64) -> Vec<u8> {
    format!("block {index}").into_bytes()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
