//! What a shim asks for of a feed of ours, and what it takes.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use party::{
    feed::{
        manifest::Manifest,
        proof::{BlockProof, HashProof, Proof, UpgradeProof},
    },
    key::KeyPair,
    replication::{
        PROTOCOL,
        messages::{Bitfield, Data, Message, NoData, Range, Request},
    },
};

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    feeds::{feed_of, grow, honestly, syncs},
    scene::{BOTH, Dials, Scene, block},
};

const AREA: &str = "reading";

/// What is done to a proof; `false` if it has not what it takes.
type Forge = fn(&mut Proof) -> bool;

macro_rules! forged {
    ($name:literal, $sentence:literal, [$($must:literal),*], $forge:expr) => {
        behaviour!(AREA, $name, $sentence, [$($must),*], [Read], |s| {
            forged(s, $forge).await?;
        })
    };
}

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "all",
        "It gets all of a feed that it wants, whoever dials, and says what it has.",
        ["REPL-12", "REPL-13", "REPL-22", "REPL-59"],
        [Read],
        |s| {
            for dials in BOTH {
                let feed = feed_of(40).await?;
                let (mut wire, channel) = s.reads(dials, &feed).await?;
                s.tell("download f 0 40").await?;
                wire.serves(channel, &feed).await?;
                let serving = wire.answering_well(channel, feed);
                s.event("downloaded f 0 40").await?;
                for index in 0..40 {
                    s.has_block("f", index, &block(index)).await?;
                }
                let mut served = serving.stop().await?;
                served.wire.has_length(channel, 40).await.ok();
                let first = &served.requests[0].proof;
                ensure!(first.manifest && first.upgrade.is_some(), "its first request is {first:?}");
                let ids: Vec<u64> = served.requests.iter().map(|request| request.id).collect();
                ensure!(!ids.contains(&0), "it uses the id 0");
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "some",
        "It asks for the blocks that it wants, and for no others.",
        ["REPL-20", "REPL-98"],
        [Read],
        |s| {
            let feed = feed_of(100).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 40 43").await?;
            wire.serves(channel, &feed).await?;
            let serving = wire.answering_well(channel, feed);
            s.event("downloaded f 40 43").await?;
            s.has_block("f", 41, &block(41)).await?;
            s.lacks_block("f", 39).await?;
            let served = serving.stop().await?;
            let asked: Vec<u64> =
                served.requests.iter().filter_map(|request| Some(request.proof.block?.index)).collect();
            ensure!(asked.iter().all(|index| (40..43).contains(index)), "it asks for {asked:?}");
        }
    ),
    behaviour!(AREA, "grows", "It follows a feed that grows.", ["REPL-14", "REPL-13"], [Read], |s| {
        let feed = feed_of(5).await?;
        let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
        s.tell("download f 0 *").await?;
        wire.serves(channel, &feed).await?;
        let serving = wire.answering_well(channel, feed.clone());
        for length in [5, 6, 20, 21] {
            grow(&feed, length).await?;
            s.reaches("f", length, 0).await?;
        }
        s.tell("download f 0 21").await?;
        s.event("downloaded f 0 21").await?;
        serving.stop().await?;
    }),
    behaviour!(AREA, "out-of-order", "Answers may come in any order.", ["REPL-23", "FEED-67"], [Read], |s| {
        let feed = feed_of(30).await?;
        let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
        s.tell("download f 0 30").await?;
        wire.serves(channel, &feed).await?;
        let (mut waiting, mut blocks) = (Vec::new(), BTreeSet::new());
        let serving = wire.answering(channel, feed, move |request, proof| {
            waiting.push(honestly(request, proof));
            blocks.extend(request.proof.block.map(|block| block.index));
            // Two by two, the later one first; nothing is held back of an upgrade, nor of the last.
            let is_full = waiting.len() >= 2 || blocks.len() == 30 || request.proof.upgrade.is_some();
            if is_full { waiting.drain(..).rev().collect() } else { Vec::new() }
        });
        s.event("downloaded f 0 30").await?;
        s.has_block("f", 13, &block(13)).await?;
        serving.stop().await?;
    }),
    behaviour!(
        AREA,
        "only-what-is-there",
        "Of a peer that has parts of a feed it asks for these.",
        ["REPL-20", "REPL-66"],
        [Read],
        |s| {
            let feed = feed_of(64).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 0 *").await?;
            wire.tell(channel, Message::Sync(syncs(64, 0))).await?;
            wire.tell(channel, Message::Bitfield(Bitfield { start: 0, words: vec![0x00ff_0000, 0] })).await?;
            wire.tell(channel, Message::Range(Range { drop: false, start: 40, length: 2 })).await?;
            let serving = wire.answering_well(channel, feed.clone());
            s.tell("download f 16 24").await?;
            s.tell("download f 40 42").await?;
            s.event("downloaded f 16 24").await?;
            s.event("downloaded f 40 42").await?;
            let mut served = serving.stop().await?;
            served.wire.barrier().await?;
            let asked: Vec<u64> =
                served.requests.iter().filter_map(|request| Some(request.proof.block?.index)).collect();
            ensure!(
                asked.iter().all(|index| (16..24).contains(index) || (40..42).contains(index)),
                "it asks for {asked:?}"
            );
        }
    ),
    behaviour!(
        AREA,
        "dropped",
        "What the other side has no longer it isn't asked for.",
        ["REPL-20", "REPL-66"],
        [Read],
        |s| {
            let feed = feed_of(64).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            wire.serves(channel, &feed).await?;
            wire.tell(channel, Message::Range(Range { drop: true, start: 0, length: 32 })).await?;
            wire.tell(channel, Message::Range(Range { drop: false, start: 32, length: 32 })).await?;
            wire.barrier().await?;
            s.tell("download f 0 *").await?;
            let serving = wire.answering_well(channel, feed.clone());
            s.tell("download f 32 64").await?;
            s.event("downloaded f 32 64").await?;
            let served = serving.stop().await?;
            let asked: Vec<u64> =
                served.requests.iter().filter_map(|request| Some(request.proof.block?.index)).collect();
            ensure!(asked.iter().all(|index| *index >= 32), "it asks for {asked:?}");
        }
    ),
    behaviour!(
        AREA,
        "refused",
        "What it was refused it doesn't ask for again at once; it gets it from another peer.",
        ["REPL-53", "REPL-52"],
        [Read],
        |s| {
            let feed = feed_of(10).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 0 10").await?;
            wire.serves(channel, &feed).await?;
            let serving = wire.answering(channel, feed.clone(), |request, proof| {
                let refuses = request.proof.block.is_some() && request.proof.upgrade.is_none();
                let no_data = Message::NoData(NoData { request: request.id, reason: 1 });
                vec![if refuses { no_data } else { honestly(request, proof) }]
            });
            s.reaches("f", 10, 0).await?;
            helped(s, &feed, 10).await?;
            let served = serving.stop().await?;
            ensure!(served.requests.len() < 100, "it asks {} times", served.requests.len());
        }
    ),
    behaviour!(
        AREA,
        "claims",
        "A length that is only claimed is not taken for one; nor does one that shrinks do harm.",
        ["REPL-14", "REPL-60"],
        [Read],
        |s| {
            let feed = feed_of(10).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 0 10").await?;
            let far = Message::Range(Range { drop: false, start: 0, length: 1 << 40 });
            for length in [1 << 40, 100, 3] {
                wire.tell(channel, Message::Sync(syncs(length, 0))).await?;
                wire.tell(channel, far.clone()).await?;
            }
            s.tell("ping").await?;
            ensure!(s.tell("state f").await? == ["0", "0"], "it takes a claim for a length");
            s.shim.check_memory()?;
            // Who answers nothing would be waited for, for a while.
            drop(wire);
            helped(s, &feed, 10).await?;
        }
    ),
    behaviour!(
        AREA,
        "unrequested",
        "Data that it has not asked for is not stored, whatever it is.",
        ["REPL-33", "REPL-46"],
        [Read],
        |s| {
            let feed = feed_of(10).await?;
            for id in [0, 999] {
                let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
                let mut sync = syncs(10, 0);
                (sync.uploading, sync.can_upgrade) = (false, false);
                wire.tell(channel, Message::Sync(sync)).await?;
                let proof = feed.prove(crate::runner::feeds::ask_block(3, 9), 0).await?;
                let proof = proof.unwrap_or_else(|| Proof {
                    block: Some(BlockProof { index: 3, value: block(3).into(), nodes: vec![] }),
                    ..Proof::default()
                });
                wire.tell(channel, Message::Data(Data { request: id, proof })).await?;
                let upgrade = feed
                    .prove(
                        party::feed::proof::ProofRequest {
                            manifest: true,
                            ..crate::runner::feeds::ask_upgrade(0, 10)
                        },
                        0,
                    )
                    .await?;
                if let Some(proof) = upgrade {
                    wire.tell(channel, Message::Data(Data { request: id + 1, proof })).await?;
                }
                // It may have closed the channel.
                let _ = wire.barrier().await;
                s.lacks_block("f", 3).await?;
                ensure!(s.tell("state f").await? == ["0", "0"], "it takes what it hasn't asked for");
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "fifteen-megabytes",
        "Fifteen megabytes that it has not asked for are not stored.",
        ["REPL-33", "REPL-49"],
        [Read],
        |s| {
            let feed = feed_of(10).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            wire.serves(channel, &feed).await?;
            let block = BlockProof { index: 3, value: vec![1; 15_000_000].into(), nodes: vec![] };
            let proof = Proof { block: Some(block), ..Proof::default() };
            wire.tell(channel, Message::Data(Data { request: 999, proof })).await?;
            let _ = wire.barrier().await;
            s.lacks_block("f", 3).await?;
            s.shim.check_memory()?;
        }
    ),
    behaviour!(
        AREA,
        "wrong-capability",
        "Who shows a wrong capability for a feed that it reads is asked for nothing.",
        ["REPL-4", "REPL-5", "PARTY-93"],
        [Read],
        |s| {
            let feed = feed_of(3).await?;
            s.prepare().await?;
            s.tell(format!("add f {}", feed.key())).await?;
            s.tell(format!("release f {}", s.room())).await?;
            s.tell("download f 0 *").await?;
            let mut wire = s.joined(Dials::Runner).await?;
            let (incoming, _) = wire.offered(PROTOCOL, feed.discovery_key().as_bytes()).await?;
            if let Some(channel) = wire.mux.accept(incoming, &[1; 33])? {
                wire.closed(channel).await?;
                wire.nothing("a message", |event| event.channel() == Some(channel)).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "passes-on",
        "What it has got it serves to others.",
        ["REPL-58", "REPL-23"],
        [Read],
        |s| {
            let feed = feed_of(12).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 0 12").await?;
            wire.serves(channel, &feed).await?;
            let serving = wire.answering_well(channel, feed.clone());
            s.event("downloaded f 0 12").await?;
            let _served = serving.stop().await?;
            let mut other = s.connect_as(Dials::Runner, &KeyPair::from_seed(&[6; 32])).await?;
            if s.room() == "a" {
                other.admit(&crate::runner::scene::PARTY).await?;
            }
            let channel = other.feed_offered(&feed.key()).await?;
            other.reads(channel).await?;
            let ask = party::feed::proof::ProofRequest {
                manifest: true,
                ..crate::runner::feeds::ask_upgrade(0, 12)
            };
            let Some(proof) = other.asks(channel, 1, ask).await? else {
                anyhow::bail!("it doesn't prove its length")
            };
            crate::runner::feeds::holds(&crate::runner::feeds::copy_of(&feed.key()).await?, proof).await?;
            ensure!(other.asks(channel, 2, crate::runner::feeds::ask_block(7, 2)).await?.is_some());
        }
    ),
    behaviour!(
        AREA,
        "lower-fork",
        "A peer in a lower fork, or one without blocks, does it no harm.",
        ["REPL-76", "REPL-78", "FEED-77"],
        [Read, Truncate],
        |s| {
            let feed = feed_of(6).await?;
            feed.truncate(3).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 0 *").await?;
            wire.serves(channel, &feed).await?;
            let serving = wire.answering_well(channel, feed.clone());
            s.reaches("f", 3, 1).await?;
            let mut served = serving.stop().await?;
            served.wire.tell(channel, Message::Sync(syncs(100, 0))).await?;
            served.wire.barrier().await?;
            ensure!(s.tell("state f").await? == ["3", "1"], "it goes back to a lower fork");
        }
    ),
    behaviour!(
        AREA,
        "follows-a-fork",
        "It follows a writer that has truncated its feed, and keeps what is common.",
        ["REPL-77", "REPL-82", "REPL-76", "FEED-77"],
        [Read, Truncate],
        |s| {
            let feed = feed_of(10).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 0 *").await?;
            wire.serves(channel, &feed).await?;
            let serving = wire.answering_well(channel, feed.clone());
            s.tell("download f 0 10").await?;
            s.event("downloaded f 0 10").await?;
            feed.truncate(6).await?;
            feed.append_batch(vec![Bytes::from_static(b"another"), Bytes::from_static(b"one")]).await?;
            s.reaches("f", 8, 1).await?;
            s.tell("download f 0 8").await?;
            s.event("downloaded f 0 8").await?;
            s.has_block("f", 6, b"another").await?;
            s.has_block("f", 5, &block(5)).await?;
            serving.stop().await?;
        }
    ),
    behaviour!(
        AREA,
        "forged-fork",
        "A higher fork that the writer hasn't signed is not followed.",
        ["FEED-77", "REPL-38"],
        [Read, Truncate],
        |s| {
            let feed = feed_of(10).await?;
            let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
            s.tell("download f 0 10").await?;
            wire.serves(channel, &feed).await?;
            let serving = wire.answering_well(channel, feed.clone());
            s.event("downloaded f 0 10").await?;
            let mut served = serving.stop().await?;
            served.wire.tell(channel, Message::Sync(syncs(10, 7))).await?;
            let forger = feed.clone();
            let upgrade = forger
                .prove(
                    party::feed::proof::ProofRequest {
                        manifest: true,
                        ..crate::runner::feeds::ask_upgrade(0, 10)
                    },
                    0,
                )
                .await?;
            let serving = served.wire.answering(channel, feed.clone(), move |request, _| {
                let forged = upgrade.clone().map(|proof| Proof { fork: 7, ..proof });
                vec![if request.fork == 7 { honestly(request, forged) } else { honestly(request, None) }]
            });
            // It may have done with this peer, or ignore it.
            let served = serving.stop_when_asked().await?;
            ensure!(!served.requests.is_empty() || served.closed, "it has not asked");
            s.tell("ping").await?;
            ensure!(s.tell("state f").await? == ["10", "0"], "it follows a forged fork");
            s.has_block("f", 9, &block(9)).await?;
        }
    ),
    behaviour!(
        AREA,
        "closes-after-forgeries",
        "Who sends forged proofs without end loses the channel.",
        ["REPL-39"],
        [Read],
        |s| {
            let forge: Forge = |proof| of_block(proof, |block| block.value = Bytes::from_static(b"forged"));
            ensure!(forged(s, forge).await?, "it closes neither the channel nor the connection");
        }
    ),
    forged!(
        "other-block",
        "A block that is another is not stored.",
        ["REPL-38", "FEED-56", "FEED-63"],
        |proof| { of_block(proof, |block| block.value = Bytes::from_static(b"forged")) }
    ),
    forged!(
        "other-hash",
        "A block with a node of another hash is not stored.",
        ["REPL-38", "FEED-56"],
        |proof| { of_block(proof, |block| block.nodes[0].hash[0] ^= 1) }
    ),
    forged!(
        "other-sizes",
        "A block with nodes of other sizes is not stored.",
        ["REPL-38", "FEED-56"],
        |proof| {
            of_block(proof, |block| {
                block.nodes[0].size += 1;
                block.nodes[1].size -= 1;
            })
        }
    ),
    forged!("too-few-nodes", "A block with too few nodes is not stored.", ["REPL-38", "FEED-67"], |proof| {
        of_block(proof, |block| block.nodes.truncate(block.nodes.len() - 1))
    }),
    forged!(
        "other-index",
        "A block with the index of another is not stored.",
        ["REPL-34", "REPL-38", "FEED-57"],
        |proof| { of_block(proof, |block| block.index += 1) }
    ),
    forged!(
        "other-signature",
        "An upgrade with another signature is not taken.",
        ["REPL-38", "FEED-26", "FEED-59"],
        |proof| {
            of_upgrade(proof, |upgrade| {
                let mut signature = upgrade.signature.to_vec();
                let at = signature.len() / 2;
                signature[at] ^= 1;
                upgrade.signature = signature.into();
            })
        }
    ),
    forged!(
        "no-signature",
        "An upgrade without a signature is not taken.",
        ["REPL-38", "FEED-24", "FEED-59"],
        |proof| { of_upgrade(proof, |upgrade| upgrade.signature = Bytes::new()) }
    ),
    forged!("other-root", "An upgrade with another root is not taken.", ["REPL-38", "FEED-59"], |proof| {
        of_upgrade(proof, |upgrade| upgrade.nodes[0].hash[0] ^= 1)
    }),
    forged!(
        "other-root-size",
        "An upgrade with a root of another size is not taken.",
        ["REPL-38", "FEED-59"],
        |proof| { of_upgrade(proof, |upgrade| upgrade.nodes[0].size += 1) }
    ),
    forged!("too-few-roots", "An upgrade that lacks a root is not taken.", ["REPL-38", "FEED-62"], |proof| {
        of_upgrade(proof, |upgrade| upgrade.nodes.truncate(upgrade.nodes.len() - 1))
    }),
    forged!(
        "shorter-upgrade",
        "An upgrade that claims another length is not taken.",
        ["REPL-38", "FEED-59", "FEED-62"],
        |proof| { of_upgrade(proof, |upgrade| upgrade.length -= 1) }
    ),
    forged!("empty-upgrade", "An upgrade of no blocks is not taken.", ["REPL-38", "FEED-61"], |proof| {
        of_upgrade(proof, |upgrade| {
            upgrade.length = 0;
            upgrade.nodes.clear();
        })
    }),
    forged!(
        "other-manifest",
        "Another manifest than that of the feed is not taken.",
        ["FEED-14", "REPL-38"],
        |proof| {
            let another = Manifest::single(KeyPair::from_seed(&[9; 32]).public());
            proof.manifest.as_mut().map(|manifest| **manifest = another).is_some()
        }
    ),
    forged!("other-fork", "An answer in another fork is not taken.", ["REPL-27", "FEED-59"], |proof| {
        proof.fork += 1;
        true
    }),
    forged!(
        "more-parts",
        "An answer with a part that was not asked for is not stored.",
        ["REPL-34"],
        |proof| {
            proof.hash = Some(HashProof { index: 1, nodes: vec![] });
            true
        }
    ),
];

fn of_block(proof: &mut Proof, forge: impl FnOnce(&mut BlockProof)) -> bool {
    proof.block.as_mut().filter(|block| block.nodes.len() > 1).map(forge).is_some()
}

fn of_upgrade(proof: &mut Proof, forge: impl FnOnce(&mut UpgradeProof)) -> bool {
    proof.upgrade.as_deref_mut().filter(|upgrade| !upgrade.nodes.is_empty()).map(forge).is_some()
}

/// Answers with forged proofs. The shim must take nothing of it, and get all from an honest peer. Gives whether it has closed the
/// channel on us.
async fn forged(s: &mut Scene, forge: Forge) -> Result<bool> {
    let feed = feed_of(100).await?;
    let (mut wire, channel) = s.reads(Dials::Runner, &feed).await?;
    s.tell("download f 0 100").await?;
    wire.serves(channel, &feed).await?;
    let forged = Arc::new(AtomicBool::new(false));
    let has_forged = forged.clone();
    let serving = wire.answering(channel, feed.clone(), move |request: &Request, proof| {
        let no_data = Message::NoData(NoData { request: request.id, reason: 1 });
        let Some(mut proof) = proof else { return vec![no_data] };
        if has_forged.load(Ordering::SeqCst) && request.id == 0 {
            // It wants to know whether there are two signed trees, and there are not.
            return vec![no_data];
        }
        if forge(&mut proof) {
            has_forged.store(true, Ordering::SeqCst);
        }
        vec![honestly(request, Some(proof))]
    });
    let served = serving.until_enough(s.patience).await?;
    ensure!(forged.load(Ordering::SeqCst), "it has asked for nothing that can be forged");
    let closed = served.closed;
    drop(served);
    s.silent("downloaded f").await?;
    helped(s, &feed, 100).await?;
    for index in [0, 1, 50, 99] {
        s.has_block("f", index, &block(index)).await?;
    }
    Ok(closed)
}

/// An honest peer comes, and then the shim has all.
async fn helped(s: &mut Scene, feed: &party::feed::Feed, length: u64) -> Result<()> {
    let mut wire = s.connect_as(Dials::Runner, &KeyPair::from_seed(&[6; 32])).await?;
    if s.room() == "a" {
        wire.admit(&crate::runner::scene::PARTY).await?;
    }
    let channel = wire.feed_offered(&feed.key()).await?;
    wire.serves(channel, feed).await?;
    let serving = wire.answering_well(channel, feed.clone());
    s.event(&format!("downloaded f 0 {length}")).await?;
    serving.stop().await?;
    Ok(())
}
