//! Parties of our peers and of Node peers, whose party was written from the spec alone (`conformance/node/party.js`).
#![cfg(feature = "node")]

mod common;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use common::{Dials, hex, in_time, no_complaints};
use conformance::node::{FeedInfo, Kind, NodeOptions, NodePeer, block, digest_of_blocks};
use party::{
    connection::{self, Connection, Listener},
    error::Error,
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey},
    party::{Event, Events, Party},
    peer::{Introduced, Message, Peer},
    rules::{self, Denied, Rules, WholeStore},
    store::{FeedOptions, Store},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const PARTY: [u8; 32] = [0x70; 32];
const OTHER_PARTY: [u8; 32] = [0x71; 32];
const BLOCKS: u64 = 40;
const SIZE: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn two_of_ours_and_two_node_peers_end_with_everyones_blocks() -> Result<()> {
    in_time(async {
        let ours = [Member::new(PARTY), Member::new(PARTY)];
        let nodes = [node()?, node()?];
        let mut keys = Vec::new();
        for (seed, member) in (1..).zip(&ours) {
            keys.push((seed, member.write(seed).await?.to_string()));
        }
        let mut names = Vec::new();
        for (seed, node) in (3..).zip(&nodes) {
            keys.push((seed, write(node, "mine", seed).await?.key));
            names.push(enter(node, PARTY, json!({})).await?);
        }

        // Each with each: ours with ours, Node with Node, and both ways of dialling between them.
        let _between_ours = ours[0].dial(ours[1].listen().await?).await?;
        let _to_first = ours[0].dial(nodes[0].listen().await?).await?;
        nodes[1].dial(ours[0].listen().await?).await?;
        nodes[0].dial(ours[1].listen().await?).await?;
        let _to_second = ours[1].dial(nodes[1].listen().await?).await?;
        nodes[0].dial(nodes[1].listen().await?).await?;

        for member in &ours {
            for (seed, key) in &keys {
                member.has(key, *seed, BLOCKS).await?;
            }
        }
        for node in &nodes {
            for (seed, key) in &keys {
                node_has(node, key, *seed, BLOCKS).await?;
            }
        }

        // Everyone answers everyone of the other kind.
        for (member, node, name) in [(&ours[0], &nodes[0], &names[0]), (&ours[1], &nodes[1], &names[1])] {
            let answer = member.peer(name).await?.request("word", "party").await?;
            ensure!(answer == Message::new("word", "ytrap"), "Node answers {answer:?}");
            ensure!(ask(node, &member.name(), "word", "party").await?["hex"] == hex(b"ytrap"));
        }
        for node in &nodes {
            no_complaints(node)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_travel_on_through_a_node_peer_and_grow_there() -> Result<()> {
    in_time(async {
        let (first, last, node) = (Member::new(PARTY), Member::new(PARTY), node()?);
        enter(&node, PARTY, json!({})).await?;
        let port = node.listen().await?;
        let _near = first.dial(port).await?;
        let _far = last.dial(port).await?;
        let key = first.write(5).await?;
        last.has(&key.to_string(), 5, BLOCKS).await?;
        let feed = first.store.feed(&key).await?;
        feed.append_batch((BLOCKS..2 * BLOCKS).map(|index| block(5, index, SIZE)).collect::<Vec<_>>())
            .await?;
        last.has(&key.to_string(), 5, 2 * BLOCKS).await?;
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_ephemeral_messages_arrive_both_ways() -> Result<()> {
    for dials in [Dials::Node, Dials::Rust] {
        in_time(async {
            let (mut member, node) = (Member::new(PARTY), node()?);
            let theirs = write(&node, "notes", 6).await?.key;
            let name = enter(&node, PARTY, json!({})).await?;
            let _connection = meet(&member, &node, dials).await?;
            let peer = member.peer(&name).await?;
            let ours = member.store.create_feed("ours", FeedOptions::default()).await?.key();
            let brought = peer.introduce_labelled([Introduced::new(ours).labelled("café")]).await?;
            let theirs = Introduced::new(theirs.parse::<FeedKey>()?).labelled("notes");
            ensure!(brought.contains(&theirs), "Node brings {brought:?}");
            let labelled = node.events().into_iter().any(|event| event["labels"] == json!(["café"]));
            ensure!(labelled, "Node heard no label: {:?}", node.events());

            ensure!(peer.send_ephemeral("mood", vec![1, 2]).await?, "it is not sent");
            node.wait_for("told", 1).await?;
            let told = node.events().into_iter().find(|event| event["event"] == "told").unwrap_or_default();
            ensure!(
                (&told["type"], &told["hex"]) == (&json!("mood"), &json!("0102")),
                "Node was told {told}"
            );
            node.call(json!({"do": "tell", "to": member.name(), "type": "mood", "hex": "0304"})).await?;
            ensure!(member.told.recv().await == Some(Message::new("mood", vec![3, 4])));
            no_complaints(&node)
        })
        .await
        .with_context(|| format!("{dials:?} dials"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_another_party_key_gets_nothing() -> Result<()> {
    for (dials, node_party, pad) in
        [(Dials::Node, OTHER_PARTY, 0), (Dials::Rust, OTHER_PARTY, 0), (Dials::Node, OTHER_PARTY, 4)]
    {
        in_time(async {
            let (mut member, node) = (Member::new(PARTY), node()?);
            let ours = member.write(7).await?.to_string();
            write(&node, "theirs", 8).await?;
            enter(&node, node_party, json!({ "padTo": pad })).await?;
            match dials {
                Dials::Node => node.dial(member.listen().await?).await?,
                Dials::Rust => {
                    let refused = member.dial(node.listen().await?).await?.closed().await;
                    ensure!(matches!(refused, Err(Error::Refused)), "it ended with {refused:?}");
                }
            }
            node.wait_for("refused", 1).await?;
            ensure!(node.events().iter().all(|event| event["event"] != "admitted"), "it was admitted");
            ensure!(node.open("ours", &ours).await?.length == 0, "it got blocks");
            ensure!(member.store.list().await?.len() == 1, "it got a key");
            ensure!(member.told.try_recv().is_err() && member.party.peers().is_empty());
            Ok(())
        })
        .await
        .with_context(|| format!("{dials:?} dials, padded to {pad}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_a_node_peer_that_denies_is_a_refusal_and_the_connection_lives() -> Result<()> {
    in_time(async {
        let (member, node) = (Member::with(PARTY, Manner::SharesNothing), node()?);
        let secret = write(&node, "secret", 9).await?.key;
        let name = enter(&node, PARTY, json!({"keep": ["secret"], "deny": ["request"]})).await?;
        let mut events = member.party.events();
        let _connection = meet(&member, &node, Dials::Rust).await?;
        let peer = member.peer(&name).await?;
        let refused = peer.request("word", "party").await;
        ensure!(matches!(refused, Err(Error::Refused)), "the answer is {refused:?}");

        // A feed that is there, and one that is not.
        for key in [secret.parse::<FeedKey>()?, FeedKey::from_bytes([3; 32])] {
            let feed = member.store.feed(&key).await?;
            peer.replicate(&feed).await?;
            refusal(&mut events, &key.discovery_key()).await?;
            ensure!(feed.info().length == 0, "it got blocks");
        }
        ensure!(peer.introduce_feeds([]).await?.is_empty(), "it tells what it keeps");
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_ours_that_denies_is_a_refusal_to_a_node_peer() -> Result<()> {
    in_time(async {
        let member = Member::with(PARTY, Manner::AnswersNothing);
        let node = node()?;
        let name = enter(&node, PARTY, json!({})).await?;
        let _connection = meet(&member, &node, Dials::Node).await?;
        member.peer(&name).await?;
        node.wait_for("admitted", 1).await?;
        let refused = ask(&node, &member.name(), "word", "party").await;
        ensure!(format!("{refused:?}").contains("REFUSED"), "the answer is {refused:?}");
        let key = member.write(10).await?.to_string();
        node_has(&node, &key, 10, BLOCKS).await?;
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_rule_of_a_node_peer_that_denies_ends_the_membership() -> Result<()> {
    in_time(async {
        let (member, node) = (Member::new(PARTY), node()?);
        enter(&node, PARTY, json!({"deny": ["handshake", "introduceFeeds"]})).await?;
        let mut events = member.party.events();
        let _connection = meet(&member, &node, Dials::Rust).await?;
        while !matches!(events.next().await.context("the party is gone")?, Event::PeerRemoved(_)) {}
        node.wait_for("left", 1).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finite_connection_ends_by_itself_when_both_have_everything() -> Result<()> {
    for (dials, node_is_finite) in [(Dials::Rust, true), (Dials::Rust, false), (Dials::Node, true)] {
        in_time(async {
            let (member, node) = (Member::new(PARTY), node()?);
            let ours = member.write(11).await?.to_string();
            let theirs = write(&node, "theirs", 12).await?.key;
            enter(&node, PARTY, json!({ "finite": node_is_finite })).await?;
            match dials {
                Dials::Rust => {
                    let port = node.listen().await?;
                    let connecting = connection::dial(("127.0.0.1", port), &member.key_pair).await?;
                    let connecting = connecting.join(&member.party);
                    let connection =
                        if node_is_finite { connecting.await? } else { connecting.finite().await? };
                    connection.closed().await?;
                }
                Dials::Node => node.dial(member.listen().await?).await?,
            }
            node.wait_for("streamClosed", 1).await?;
            member.has(&theirs, 12, BLOCKS).await?;
            node_has(&node, &ours, 11, BLOCKS).await?;
            no_complaints(&node)
        })
        .await
        .with_context(|| format!("{dials:?} dials, Node is finite: {node_is_finite}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_a_node_peer_takes_back_and_an_exclusion_take_effect() -> Result<()> {
    in_time(async {
        let (member, node) = (Member::new(PARTY), node()?);
        let theirs = write(&node, "theirs", 13).await?.key;
        let name = enter(&node, PARTY, json!({})).await?;
        let _connection = meet(&member, &node, Dials::Node).await?;
        member.has(&theirs, 13, BLOCKS).await?;
        let peer = member.peer(&name).await?;
        node.call(json!({"do": "withdraw", "to": member.name(), "name": "theirs"})).await?;
        node.append("theirs", 13, BLOCKS, SIZE).await?;
        // What is asked and answered now would come behind the blocks.
        peer.request("word", "party").await?;
        let feed = member.store.feed(&theirs.parse::<FeedKey>()?).await?;
        ensure!(feed.info().length == BLOCKS, "it got {} blocks", feed.info().length);
        node.call(json!({"do": "release", "to": member.name(), "name": "theirs"})).await?;
        member.has(&theirs, 13, 2 * BLOCKS).await?;

        node.call(json!({"do": "exclude", "publicKey": member.name()})).await?;
        peer.left().await;
        no_complaints(&node)
    })
    .await
}

/// One of our peers: it shares its store, and answers with what it was asked, backwards.
struct Member {
    store: Store,
    key_pair: KeyPair,
    party: Party,
    /// Ephemeral messages.
    told: mpsc::UnboundedReceiver<Message>,
}

impl Member {
    fn new(party: [u8; 32]) -> Self {
        Self::with(party, Manner::Shares)
    }

    fn with(party: [u8; 32], manner: Manner) -> Self {
        let store = Store::memory();
        let (tell, told) = mpsc::unbounded_channel();
        let rules = Sharing { all: WholeStore::new(store.clone()), manner, tell };
        Self {
            store,
            key_pair: KeyPair::generate(),
            party: Party::new(PartyKey::from_bytes(party), rules),
            told,
        }
    }

    /// Its static key in hex, which is how Node peers name it.
    fn name(&self) -> String {
        hex(self.key_pair.public().as_bytes())
    }

    async fn write(&self, seed: u32) -> Result<FeedKey> {
        let feed = self.store.create_feed(&format!("feed {seed}"), FeedOptions::default()).await?;
        feed.append_batch((0..BLOCKS).map(|index| block(seed, index, SIZE)).collect::<Vec<_>>()).await?;
        Ok(feed.key())
    }

    async fn listen(&self) -> Result<u16> {
        let listener = Listener::bind(("127.0.0.1", 0), &self.key_pair).await?;
        let port = listener.local_addr()?.port();
        let party = self.party.clone();
        tokio::spawn(async move {
            while let Ok((connecting, _)) = listener.accept().await {
                let party = party.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = connecting.join(&party).await {
                        // How the other end goes is its own matter.
                        let _ = connection.closed().await;
                    }
                });
            }
        });
        Ok(port)
    }

    async fn dial(&self, port: u16) -> Result<Connection> {
        Ok(connection::dial(("127.0.0.1", port), &self.key_pair).await?.join(&self.party).await?)
    }

    /// The member with this static key, in hex, once it is here.
    async fn peer(&self, name: &str) -> Result<Peer> {
        let mut events = self.party.events();
        loop {
            let named = |peer: &Peer| hex(peer.remote_public_key().as_bytes()) == name;
            if let Some(peer) = self.party.peers().into_iter().find(named) {
                return Ok(peer);
            }
            events.next().await.context("the party is gone")?;
        }
    }

    /// Waits until it has this feed's blocks, and compares them.
    async fn has(&self, key: &str, seed: u32, count: u64) -> Result<()> {
        let feed = self.store.feed(&key.parse::<FeedKey>()?).await?;
        let mut changes = feed.subscribe();
        while feed.info().contiguous_length < count {
            changes.changed().await;
        }
        for index in 0..count {
            let stored = feed.get(index).await?;
            ensure!(stored == Some(block(seed, index, SIZE)), "block {index} of feed {seed} is another");
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Shares,
    /// Shares, and denies requests.
    AnswersNothing,
    /// Introduces no feed and takes none.
    SharesNothing,
}

struct Sharing {
    all: WholeStore,
    manner: Manner,
    tell: mpsc::UnboundedSender<Message>,
}

impl Rules for Sharing {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        if self.manner == Manner::SharesNothing {
            return Ok(());
        }
        self.all.handshake(peer).await
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        if self.manner == Manner::SharesNothing {
            return Ok(Vec::new());
        }
        self.all.introduce_feeds(peer, keys).await
    }

    async fn find_feed(&self, peer: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        self.all.find_feed(peer, key).await
    }

    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        if self.manner == Manner::AnswersNothing {
            return Err(Denied::because("it was told to"));
        }
        Ok(Message::new(message.kind, message.value.iter().rev().copied().collect::<Bytes>()))
    }

    async fn ephemeral(&self, _: &Peer, message: Message) -> rules::Result<()> {
        Ok(self.tell.send(message)?)
    }
}

fn node() -> Result<Arc<NodePeer>> {
    Ok(Arc::new(NodePeer::spawn(&NodeOptions::store())?))
}

/// Its connections are in this party from now on; gives its static key in hex.
async fn enter(node: &NodePeer, party: [u8; 32], options: Value) -> Result<String> {
    let mut command = options;
    command["do"] = "enter".into();
    command["party"] = hex(&party).into();
    let answer = node.call(command).await?;
    Ok(answer["publicKey"].as_str().context("the answer has no key")?.to_owned())
}

async fn write(node: &NodePeer, name: &str, seed: u32) -> Result<FeedInfo> {
    node.create(name, Kind::Default).await?;
    node.append(name, seed, BLOCKS, SIZE).await
}

/// Connects the two; ours is kept by whoever gets it, if it was ours that dialled.
async fn meet(member: &Member, node: &NodePeer, dials: Dials) -> Result<Option<Connection>> {
    match dials {
        Dials::Rust => Ok(Some(member.dial(node.listen().await?).await?)),
        Dials::Node => node.dial(member.listen().await?).await.map(|()| None),
    }
}

async fn ask(node: &NodePeer, to: &str, kind: &str, value: &str) -> Result<Value> {
    node.call(json!({"do": "request", "to": to, "type": kind, "hex": hex(value.as_bytes())})).await
}

/// Waits until a Node peer has this feed's blocks, wanting none of them, and compares them.
async fn node_has(node: &NodePeer, key: &str, seed: u32, count: u64) -> Result<()> {
    let name = format!("to look at {key}");
    node.open(&name, key).await?;
    node.reach(&name, 0, count, &[(0, count)]).await?;
    ensure!(node.digest(&name).await? == digest_of_blocks(seed, count, SIZE), "other blocks came");
    Ok(())
}

async fn refusal(events: &mut Events, feed: &DiscoveryKey) -> Result<()> {
    loop {
        if matches!(events.next().await.context("the party is gone")?, Event::FeedRefused { feed: refused, .. } if refused == *feed)
        {
            return Ok(());
        }
    }
}
