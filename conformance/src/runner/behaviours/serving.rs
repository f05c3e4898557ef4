//! What a shim serves of a feed that it has.

use anyhow::{Context as _, ensure};
use party::{
    feed::proof::{BlockRequest, ProofRequest, SeekRequest, UpgradeRequest},
    replication::messages::{Bitfield, Extension, Message, Range, Request, Want},
};

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    feeds::{ask_block, ask_hash, ask_upgrade, copy_of, holds},
    scene::{BOTH, Dials, block, hex},
    wire::uint,
};

const AREA: &str = "serving";
const FAR: u64 = (1 << 53) - 1;

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "sync-first",
        "Its first message is a sync with its length, and its next says what it has from 0 on.",
        ["REPL-12", "REPL-58"],
        [Write],
        |s| {
            for dials in BOTH {
                let (mut wire, channel, _) = s.served(dials, 5).await?;
                let first = wire.hears("a message", channel, Some).await?;
                ensure!(
                    matches!(first, Message::Sync(sync) if sync.length == 5 && sync.uploading),
                    "the first is {first:?}"
                );
                let next = wire.hears("a message", channel, Some).await?;
                let all = Range { drop: false, start: 0, length: 5 };
                ensure!(next == Message::Range(all), "the second is {next:?}");
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "empty",
        "Of an empty feed it says a length of 0, and no range.",
        ["REPL-12", "REPL-58"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 0).await?;
            wire.has_length(channel, 0).await?;
            wire.barrier().await?;
            ensure!(wire.asks(channel, 1, ask_upgrade(0, 1)).await?.is_none(), "it proves what isn't there");
        }
    ),
    behaviour!(
        AREA,
        "upgrade",
        "It proves its length with its manifest and a signature.",
        ["REPL-26", "REPL-28", "FEED-1", "FEED-19", "FEED-22"],
        [Write],
        |s| {
            for dials in BOTH {
                let (mut wire, channel, key) = s.served(dials, 7).await?;
                wire.reads(channel).await?;
                let proof = ProofRequest { manifest: true, ..ask_upgrade(0, 7) };
                let proof = wire.asks(channel, 1, proof).await?.context("it has no data")?;
                ensure!(
                    proof.block.is_none() && proof.hash.is_none() && proof.seek.is_none(),
                    "there are more parts"
                );
                let copy = copy_of(&key).await?;
                ensure!(holds(&copy, proof).await?.length == Some(7));
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "blocks",
        "It proves each of its blocks, with as many nodes as are asked for.",
        ["REPL-23", "REPL-26", "FEED-57"],
        [Write],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 11).await?;
            wire.reads(channel).await?;
            let copy = copy_of(&key).await?;
            let first = ProofRequest { manifest: true, ..ask_upgrade(0, 11) };
            holds(&copy, wire.asks(channel, 1, first).await?.context("no upgrade")?).await?;
            for index in 0..11 {
                let nodes = if index < 8 { 3 } else { u64::from(index < 10) };
                let proof =
                    wire.asks(channel, index + 2, ask_block(index, nodes)).await?.context("no block")?;
                ensure!(proof.upgrade.is_none() && proof.manifest.is_none(), "there are more parts");
                let given = proof.block.as_ref().map(|block| block.nodes.len() as u64);
                ensure!(given == Some(nodes), "there are {given:?} nodes, not {nodes}");
                holds(&copy, proof).await?;
                ensure!(
                    copy.get(index).await?.is_some_and(|stored| stored[..] == block(index)),
                    "another block"
                );
            }
        }
    ),
    behaviour!(
        AREA,
        "block-and-upgrade",
        "It proves a block and an upgrade together.",
        ["REPL-26", "REPL-28", "FEED-62"],
        [Write],
        |s| {
            for index in [0, 4, 8] {
                let (mut wire, channel, key) = s.served(Dials::Runner, 9).await?;
                wire.reads(channel).await?;
                let ask = ProofRequest { manifest: true, ..ask_upgrade(0, 9) };
                let ask = ProofRequest { block: Some(BlockRequest { index, nodes: 0 }), ..ask };
                let proof = wire.asks(channel, 1, ask).await?.context("it has no data")?;
                let copy = copy_of(&key).await?;
                ensure!(holds(&copy, proof).await?.block == Some(index));
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "upgrades-of-any-length",
        "It proves any length up to its own, and by additional nodes the one that is signed.",
        ["REPL-28", "FEED-59"],
        [Write],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 13).await?;
            wire.reads(channel).await?;
            for length in 1..=13 {
                let ask = ProofRequest { manifest: true, ..ask_upgrade(0, length) };
                let proof = wire.asks(channel, length, ask).await?.context("it has no data")?;
                let proved = proof.upgrade.as_ref().map(|upgrade| upgrade.start + upgrade.length);
                ensure!(proved == Some(length), "it proves {proved:?} and not {length}");
                holds(&copy_of(&key).await?, proof).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "hashes",
        "It proves a node of its tree by its index.",
        ["REPL-23", "FEED-57"],
        [Write],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 8).await?;
            wire.reads(channel).await?;
            let copy = copy_of(&key).await?;
            let first = ProofRequest { manifest: true, ..ask_upgrade(0, 8) };
            holds(&copy, wire.asks(channel, 1, first).await?.context("no upgrade")?).await?;
            for (id, (index, nodes)) in (2..).zip([(0, 3), (3, 1), (14, 3), (9, 2)]) {
                let proof = wire.asks(channel, id, ask_hash(index, nodes)).await?.context("no node")?;
                let first = proof.hash.as_ref().and_then(|hash| hash.nodes.first()).map(|node| node.index);
                ensure!(first == Some(index), "the first node is {first:?}");
                holds(&copy, proof).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "seek",
        "It proves where a byte offset is, with an upgrade or with a node.",
        ["FEED-72", "FEED-73", "FEED-71"],
        [Write],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 8).await?;
            wire.reads(channel).await?;
            // Blocks have 7 bytes here.
            let seek = |bytes, padding| Some(SeekRequest { bytes, padding });
            for (id, bytes) in (1..).zip([0, 7, 20, 55]) {
                let ask = ProofRequest { seek: seek(bytes, 0), manifest: true, ..ask_upgrade(0, 8) };
                let proof = wire.asks(channel, id, ask).await?.context("no upgrade")?;
                holds(&copy_of(&key).await?, proof).await?;
            }
            let copy = copy_of(&key).await?;
            let first = ProofRequest { manifest: true, ..ask_upgrade(0, 8) };
            holds(&copy, wire.asks(channel, 10, first).await?.context("no upgrade")?).await?;
            let ask = ProofRequest { seek: seek(37, 0), ..ask_hash(8, 3) };
            let proof = wire.asks(channel, 11, ask).await?.context("no node")?;
            holds(&copy, proof).await?;
        }
    ),
    behaviour!(
        AREA,
        "seek-alone",
        "A seek by itself, or with absurd bytes or padding, is answered noData or without it, and harms nothing.",
        ["FEED-75", "FEED-71", "REPL-30"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 4).await?;
            wire.reads(channel).await?;
            let alone =
                ProofRequest { seek: Some(SeekRequest { bytes: 3, padding: 0 }), ..ProofRequest::default() };
            ensure!(wire.asks(channel, 1, alone).await?.is_none(), "it answers a seek alone");
            for (id, (bytes, padding)) in (2..).zip([(FAR, 0), (3, FAR), (FAR, FAR), (0, FAR)]) {
                let ask = ProofRequest { seek: Some(SeekRequest { bytes, padding }), ..ask_upgrade(0, 4) };
                wire.asks(channel, id, ask).await?;
            }
            ensure!(wire.asks(channel, 9, ask_block(0, 2)).await?.is_some());
        }
    ),
    behaviour!(
        AREA,
        "not-to-be-had",
        "What can't be proved is answered noData, and the channel lives.",
        ["REPL-29", "REPL-30", "REPL-85", "ENC-12"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 5).await?;
            wire.reads(channel).await?;
            let impossible = [
                ask_block(5, 0),
                ask_block(FAR, 0),
                ask_block(FAR / 2 + 1, 52),
                ask_block(0, FAR),
                ask_block(0, 60),
                ask_hash(FAR, 0),
                ask_hash(10, 0),
                ask_hash(0, FAR),
                ask_upgrade(0, 0),
                ask_upgrade(0, 6),
                ask_upgrade(5, 1),
                ask_upgrade(FAR, FAR),
                ask_upgrade(3, FAR),
            ];
            for (id, ask) in (1..).zip(impossible) {
                let answer = wire.asks(channel, id, ask.clone()).await?;
                ensure!(answer.is_none(), "{ask:?} is answered with {answer:?}");
            }
            ensure!(
                wire.asks_in(channel, 50, 1, ask_block(0, 2)).await?.is_none(),
                "it answers in another fork"
            );
            ensure!(wire.asks(channel, 51, ask_block(0, 2)).await?.is_some());
        }
    ),
    behaviour!(
        AREA,
        "many-at-once",
        "Four hundred requests at once are all answered, none is dropped.",
        ["REPL-23", "REPL-24"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 400).await?;
            wire.reads(channel).await?;
            for index in 0..400 {
                let request = Request { id: index + 1, fork: 0, proof: ask_block(index, 0), priority: 0 };
                wire.mux.send(channel, 1, &Message::Request(request).encode())?;
            }
            for index in 0..400 {
                let proof = wire.gets(channel, index + 1).await?.context("it has no data")?;
                ensure!(proof.block.is_some_and(|given| given.value[..] == block(index)), "another block");
            }
        }
    ),
    behaviour!(
        AREA,
        "priority",
        "Requests with a priority are answered as others are.",
        ["REPL-23", "REPL-32"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 4).await?;
            wire.reads(channel).await?;
            for (id, priority) in [(1, 0), (2, 1), (3, 5)] {
                let request = Request { id, fork: 0, proof: ask_block(id, 0), priority };
                wire.tell(channel, Message::Request(request)).await?;
            }
            for id in 1..=3 {
                ensure!(wire.gets(channel, id).await?.is_some(), "request {id} isn't answered");
            }
        }
    ),
    behaviour!(
        AREA,
        "cancel",
        "A cancel, of what it knows and of what it doesn't, is not answered and closes nothing.",
        ["REPL-51", "REPL-23"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 4).await?;
            wire.reads(channel).await?;
            wire.tell(channel, Message::Cancel { request: 77 }).await?;
            let request = Request { id: 1, fork: 0, proof: ask_block(1, 0), priority: 0 };
            wire.tell(channel, Message::Request(request)).await?;
            wire.tell(channel, Message::Cancel { request: 1 }).await?;
            ensure!(wire.asks(channel, 2, ask_block(2, 0)).await?.is_some());
            wire.nothing("an answer to a cancel", |event| matches!(event, party::mux::Event::Message { channel: from, message_type: 4, payload } if *from == channel && payload[0] == 77)).await?;
        }
    ),
    behaviour!(
        AREA,
        "id-again",
        "A request's id may be used again when it was answered.",
        ["REPL-18", "REPL-23"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 4).await?;
            wire.reads(channel).await?;
            for index in 0..4 {
                let proof = wire.asks(channel, 1, ask_block(index, 0)).await?.context("it has no data")?;
                ensure!(proof.block.is_some_and(|block| block.index == index), "another block");
            }
        }
    ),
    behaviour!(
        AREA,
        "id-zero",
        "A request with the id 0 is served as any other.",
        ["REPL-89"],
        [Write],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 4).await?;
            wire.reads(channel).await?;
            let ask = ProofRequest { manifest: true, ..ask_upgrade(0, 4) };
            let proof = wire.asks(channel, 0, ask).await?.context("it has no data")?;
            holds(&copy_of(&key).await?, proof).await?;
        }
    ),
    behaviour!(
        AREA,
        "grows",
        "What is appended is told by a sync and then a range, and can be proved.",
        ["REPL-13", "REPL-73", "FEED-60"],
        [Write],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 3).await?;
            let mut ours = crate::runner::feeds::syncs(0, 0);
            wire.tell(channel, Message::Sync(ours)).await?;
            wire.has_length(channel, 3).await?;
            let copy = copy_of(&key).await?;
            let ask = ProofRequest { manifest: true, ..ask_upgrade(0, 3) };
            holds(&copy, wire.asks(channel, 1, ask).await?.context("no upgrade")?).await?;
            ours.length = 3;
            wire.tell(channel, Message::Sync(ours)).await?;
            s.append("f", 3..6).await?;
            wire.has_length(channel, 6).await?;
            wire.hears("a range with the new blocks", channel, |message| match message {
                Message::Range(Range { drop: false, start, length }) => {
                    (start <= 3 && start + length >= 6).then_some(())
                }
                _ => None,
            })
            .await?;
            let proof = wire.asks(channel, 2, ask_upgrade(3, 3)).await?.context("no upgrade")?;
            ensure!(holds(&copy, proof).await?.length == Some(6));
        }
    ),
    behaviour!(AREA, "large-blocks", "A block of 4 MiB is served.", ["FEED-69", "STREAM-4"], [Write], |s| {
        let (mut wire, channel, _) = s.served(Dials::Runner, 0).await?;
        let large = vec![7; 4 << 20];
        s.tell(format!("append f {}", hex(&large))).await?;
        wire.reads(channel).await?;
        wire.has_length(channel, 1).await?;
        let proof = wire.asks(channel, 1, ask_block(0, 0)).await?.context("it has no data")?;
        ensure!(proof.block.is_some_and(|block| block.value == large), "another block");
    }),
    behaviour!(
        AREA,
        "want",
        "A want in a feed without gaps is answered with a range.",
        ["REPL-62"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 5).await?;
            wire.reads(channel).await?;
            wire.has_length(channel, 5).await?;
            wire.hears("the first range", channel, |message| {
                matches!(message, Message::Range(_)).then_some(())
            })
            .await?;
            wire.tell(channel, Message::Want(Want { start: 0, length: 1 << 21, any: false })).await?;
            wire.hears("a range", channel, |message| match message {
                Message::Range(Range { drop: false, start: 0, length }) => (length >= 5).then_some(()),
                Message::Bitfield(Bitfield { start: 0, words }) => (words.first()? & 31 == 31).then_some(()),
                _ => None,
            })
            .await?;
        }
    ),
    behaviour!(
        AREA,
        "want-with-gaps",
        "A want in a feed with gaps is answered with what is there.",
        ["REPL-62", "REPL-29"],
        [Write, Clear],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 8).await?;
            s.tell("clear f 2 4").await?;
            s.tell(format!("release f {}", s.room())).await?;
            let mut wire = s.joined(Dials::Runner).await?;
            let channel = wire.feed_offered(&key).await?;
            wire.reads(channel).await?;
            wire.tell(channel, Message::Want(Want { start: 0, length: 1 << 21, any: false })).await?;
            let words = wire
                .hears("a bitfield", channel, |message| match message {
                    Message::Bitfield(Bitfield { start: 0, words }) => Some(words),
                    _ => None,
                })
                .await?;
            ensure!(words.first().is_some_and(|word| word & 0xff == 0b1111_0011), "it says {words:?}");
            ensure!(wire.asks(channel, 1, ask_block(2, 0)).await?.is_none(), "it has what it has cleared");
            ensure!(wire.asks(channel, 2, ask_block(4, 0)).await?.is_some(), "it lacks what it has");
        }
    ),
    behaviour!(
        AREA,
        "wants-without-end",
        "Thousands of wants and ranges, and ranges of 2^40, cost bounded memory.",
        ["REPL-60", "REPL-61", "REPL-65"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 5).await?;
            wire.reads(channel).await?;
            for n in 0..3_000 {
                let want = Want { start: n << 21, length: 1 << 21, any: false };
                let range = Range { drop: n % 3 == 0, start: n * 2, length: 1 << 40 };
                wire.mux.send(channel, 5, &Message::Want(want).encode())?;
                wire.mux.send(channel, 8, &Message::Range(range).encode())?;
            }
            wire.tell(channel, Message::Bitfield(Bitfield { start: 1 << 40, words: vec![7; 65_536] }))
                .await?;
            ensure!(wire.asks(channel, 1, ask_block(0, 0)).await?.is_some());
            s.shim.check_memory()?;
        }
    ),
    behaviour!(
        AREA,
        "unknown-messages",
        "Unknown types and extensions on a feed's channel are ignored.",
        ["REPL-8", "REPL-70", "MUX-4"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 2).await?;
            for kind in [10, 11, 4_000] {
                wire.send(channel, kind, &[0xff; 40]).await?;
            }
            for name in ["conformance", "", "", "other"] {
                let extension = Extension { name: name.to_owned(), message: vec![0xff; 9].into() };
                wire.tell(channel, Message::Extension(extension)).await?;
            }
            wire.reads(channel).await?;
            ensure!(wire.asks(channel, 1, ask_block(0, 0)).await?.is_some());
        }
    ),
    behaviour!(
        AREA,
        "garbage",
        "A message that can't be decoded closes the feed's channel, and the connection lives.",
        ["REPL-9", "MUX-6", "ENC-3", "ENC-6"],
        [Write],
        |s| {
            let far = [&[0, 1][..], &[0xff; 9]].concat();
            let many = [&[0][..], &uint(1 << 30)].concat();
            for (kind, payload) in [(0, &[7][..]), (1, &[1, 1]), (8, &far), (7, &many), (3, &[2, 1, 0, 5])] {
                let (mut wire, channel, _) = s.served(Dials::Runner, 2).await?;
                wire.send(channel, kind, payload).await?;
                wire.closed(channel).await.with_context(|| format!("type {kind}"))?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "two-feeds",
        "Two feeds on a connection are served beside each other.",
        ["REPL-1", "REPL-23"],
        [Write],
        |s| {
            s.prepare().await?;
            let (room, one, other) = (s.room(), s.written("f", 3).await?, s.written("g", 4).await?);
            s.tell(format!("release f {room}")).await?;
            s.tell(format!("release g {room}")).await?;
            let mut wire = s.joined(Dials::Runner).await?;
            let channels = (wire.feed_offered(&one).await?, wire.feed_offered(&other).await?);
            wire.reads(channels.0).await?;
            wire.reads(channels.1).await?;
            ensure!(wire.asks(channels.1, 1, ask_block(3, 0)).await?.is_some());
            ensure!(wire.asks(channels.0, 1, ask_block(2, 0)).await?.is_some());
            ensure!(wire.asks(channels.0, 2, ask_block(3, 0)).await?.is_none());
        }
    ),
    behaviour!(
        AREA,
        "legacy",
        "A feed whose key is its signer's is proved by a signature of 64 bytes, without a manifest.",
        ["FEED-2", "FEED-19", "FEED-22"],
        [Write, Legacy],
        |s| {
            s.prepare().await?;
            let words = s.tell("create f legacy").await?;
            let key = words[0].parse().map_err(|_| anyhow::anyhow!("no key: {words:?}"))?;
            s.append("f", 0..5).await?;
            s.tell(format!("release f {}", s.room())).await?;
            let mut wire = s.joined(Dials::Runner).await?;
            let channel = wire.feed_offered(&key).await?;
            wire.reads(channel).await?;
            let proof = wire.asks(channel, 1, ask_upgrade(0, 5)).await?.context("it has no data")?;
            ensure!(proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.signature.len() == 64));
            holds(&copy_of(&key).await?, proof).await?;
        }
    ),
    behaviour!(
        AREA,
        "truncated",
        "A truncated feed is told by its new fork and length, and proved in that fork only.",
        ["REPL-74", "REPL-85", "FEED-76"],
        [Write, Truncate],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 6).await?;
            wire.reads(channel).await?;
            wire.has_length(channel, 6).await?;
            s.tell("truncate f 4").await?;
            let sync = wire.has_length(channel, 4).await?;
            ensure!(sync.fork == 1, "the fork is {}", sync.fork);
            ensure!(
                wire.asks_in(channel, 1, 0, ask_upgrade(0, 4)).await?.is_none(),
                "it answers in the old fork"
            );
            let ask = ProofRequest { manifest: true, ..ask_upgrade(0, 4) };
            let proof = wire.asks_in(channel, 2, 1, ask).await?.context("it has no data")?;
            ensure!(proof.fork == 1, "the fork of the answer is {}", proof.fork);
            copy_of(&key).await?.follow(proof).await.context("the proof doesn't hold")?;
        }
    ),
    behaviour!(
        AREA,
        "channel-again",
        "A feed's channel that was closed can be opened again.",
        ["MUX-37", "PARTY-89"],
        [Write],
        |s| {
            let (mut wire, mut channel, key) = s.served(Dials::Runner, 3).await?;
            for _ in 0..3 {
                wire.reads(channel).await?;
                ensure!(wire.asks(channel, 1, ask_block(0, 0)).await?.is_some());
                wire.mux.close(channel);
                wire.barrier().await?;
                channel = wire.feed(&key).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "upgrade-request-of-nothing",
        "Requests of no parts, and of both a block and a node, harm nothing.",
        ["REPL-23", "REPL-30"],
        [Write],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 3).await?;
            wire.reads(channel).await?;
            wire.asks(channel, 1, ProofRequest::default()).await?;
            let both = ProofRequest { hash: Some(BlockRequest { index: 0, nodes: 0 }), ..ask_block(0, 0) };
            let both = ProofRequest { upgrade: Some(UpgradeRequest { start: 0, length: 3 }), ..both };
            wire.asks(channel, 2, both).await?;
            ensure!(wire.asks(channel, 3, ask_block(0, 0)).await?.is_some());
        }
    ),
];
