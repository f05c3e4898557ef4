//! Who gets the channel of which feed.

use anyhow::{Context as _, ensure};
use party::{
    key::{FeedKey, KeyPair},
    mux::Event,
    replication::{PROTOCOL, capability, handshake},
};

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    feeds::ask_block,
    scene::{BOTH, Dials, OTHER, PARTY},
    wire::{Wire, open},
};

const AREA: &str = "feeds";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "released",
        "Who releases a feed opens its channel, with the capability of its role.",
        ["PARTY-88", "REPL-1", "REPL-2", "MUX-23"],
        [Write],
        |s| {
            for dials in BOTH {
                s.served(dials, 1).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "released-later",
        "A feed that is released while the peer is there is opened then.",
        ["PARTY-88", "PARTY-105"],
        [Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            let mut wire = s.joined(Dials::Runner).await?;
            wire.nothing("an open", |event| matches!(event, Event::Incoming { .. })).await?;
            s.tell(format!("release f {}", s.room())).await?;
            wire.feed_offered(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "asked-for",
        "An open of a feed that the rules name is answered, with a capability.",
        ["PARTY-89", "REPL-3", "PARTY-91"],
        [Write],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let key = s.written("f", 1).await?;
                s.tell(format!("permit f {}", s.room())).await?;
                let mut wire = s.joined(dials).await?;
                wire.feed(&key).await?;
                s.event(&format!("find {} {}", s.room(), key.discovery_key())).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "refused-alike",
        "Unknown feeds, forbidden ones and wrong capabilities get the same reject, in order.",
        ["PARTY-87", "PARTY-92", "PARTY-94", "PARTY-96"],
        [Party, Write],
        |s| {
            s.prepare().await?;
            let forbidden = s.written("f", 1).await?;
            let mut permitted = Vec::new();
            for name in ["g", "h", "i", "j"] {
                permitted.push(s.written(name, 1).await?);
                s.tell(format!("permit {name} a")).await?;
            }
            let mut wire = s.connect(Dials::Runner).await?;
            wire.say(&open(1, party::admission::PROTOCOL, &wire.party_id(&PARTY), &wire.hello(&PARTY)))
                .await?;
            s.event("admitted a").await?;
            let (unknown, other) = (FeedKey::from_bytes([7; 32]), FeedKey::from_bytes([8; 32]));
            let right = handshake(wire.session(), &forbidden);
            let opens = [
                (unknown, handshake(wire.session(), &unknown)),
                (forbidden, right.clone()),
                (permitted[0], right.clone()),
                (permitted[1], vec![0; 33]),
                (permitted[2], vec![]),
                (permitted[3], right[..20].to_vec()),
                (other, vec![1; 33]),
            ];
            for (id, (key, handshake)) in (2..).zip(&opens) {
                wire.say(&open(id, PROTOCOL, key.discovery_key().as_bytes(), handshake)).await?;
            }
            let mut before = Vec::new();
            for (id, _) in (2..).zip(&opens) {
                let said = wire.rejected(id).await;
                before.extend(said.with_context(|| format!("the answer to open {id}, after {before:?}"))?);
            }
            // What the shim says on the party's channel is another matter.
            ensure!(before.iter().all(|said| said.channel != 0 || said.kind == 1), "there is {before:?}");
            let opened = before.iter().filter(|said| said.channel == 0).count();
            ensure!(opened <= 1, "it opens {opened} channels");
        }
    ),
    behaviour!(
        AREA,
        "echoed-capability",
        "The capability of the other role is none.",
        ["REPL-2", "REPL-3"],
        [Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            s.tell(format!("permit f {}", s.room())).await?;
            let mut wire = s.joined(Dials::Runner).await?;
            let echoed = [&[1][..], &capability(wire.session(), false, &key)].concat();
            wire.is_rejected(PROTOCOL, Some(key.discovery_key().as_bytes()), &echoed).await?;
            wire.feed(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "capability-of-another-connection",
        "A capability that was good on another connection is none on this one.",
        ["REPL-3"],
        [Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            s.tell(format!("permit f {}", s.room())).await?;
            let mut first = s.joined(Dials::Runner).await?;
            let shown = handshake(first.session(), &key);
            first.feed(&key).await?;
            let mut second = s.connect_as(Dials::Runner, &KeyPair::from_seed(&[5; 32])).await?;
            if s.room() == "a" {
                second.admit(&PARTY).await?;
            }
            second.is_rejected(PROTOCOL, Some(key.discovery_key().as_bytes()), &shown).await?;
        }
    ),
    behaviour!(
        AREA,
        "answered-with-a-wrong-capability",
        "Who answers its open with a wrong capability loses the channel, and nothing was said on it.",
        ["PARTY-93", "REPL-4", "REPL-5"],
        [Write],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let key = s.written("f", 1).await?;
                s.tell(format!("release f {}", s.room())).await?;
                let mut wire = s.joined(dials).await?;
                let (incoming, shown) = wire.offered(PROTOCOL, key.discovery_key().as_bytes()).await?;
                if let Some(channel) = wire.mux.accept(incoming, &shown)? {
                    wire.closed(channel).await?;
                    wire.nothing("a message", |event| event.channel() == Some(channel)).await?;
                }
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "silent-until-answered",
        "Nothing is said on a feed's channel before the other's capability has come.",
        ["REPL-5"],
        [Party, Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            s.tell("release f a").await?;
            let mut wire = s.connect(Dials::Runner).await?;
            wire.say(&open(1, party::admission::PROTOCOL, &wire.party_id(&PARTY), &wire.hello(&PARTY)))
                .await?;
            let mut theirs = None;
            while theirs.is_none() {
                let said = wire.said().await?.ok_or_else(|| anyhow::anyhow!("the connection ends"))?;
                let is_it = said.payload.windows(32).any(|window| window == key.discovery_key().as_bytes());
                theirs = ((said.channel, said.kind) == (0, 1) && is_it).then(|| said.payload[0]);
            }
            wire.say(&Wire::open_unknown(2)).await?;
            let said = wire.rejected(2).await?;
            ensure!(said.iter().all(|said| Some(said.channel as u8) != theirs), "it says {said:?}");
        }
    ),
    behaviour!(
        AREA,
        "another-party",
        "A feed that is released in one party can't be had through another.",
        ["PARTY-87", "PARTY-25"],
        [Party, Write],
        |s| {
            s.prepare().await?;
            s.enter("b", &OTHER).await?;
            let key = s.written("f", 1).await?;
            s.tell("release f b").await?;
            let (mut wire, _) = s.member(Dials::Runner).await?;
            wire.feed_refused(&key).await?;
            wire.admit(&OTHER).await?;
            wire.feed_offered(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "rule-denies",
        "A rule that denies, or hangs, is a reject or none yet, and harms nothing.",
        ["PARTY-84", "PARTY-92"],
        [Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            let room = s.room();
            s.tell(format!("permit f {room}")).await?;
            s.tell(format!("rule {room} find deny")).await?;
            let mut wire = s.joined(Dials::Runner).await?;
            wire.feed_refused(&key).await?;
            s.tell(format!("rule {room} find allow")).await?;
            wire.feed(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "rejected",
        "A feed that the peer has rejected is not opened again until it is released anew.",
        ["PARTY-97"],
        [Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            s.tell(format!("release f {}", s.room())).await?;
            let mut wire = s.joined(Dials::Runner).await?;
            let (incoming, _) = wire.offered(PROTOCOL, key.discovery_key().as_bytes()).await?;
            wire.mux.reject(incoming);
            wire.flush().await?;
            s.append("f", 1..3).await?;
            wire.nothing("an open", |event| matches!(event, Event::Incoming { .. })).await?;
        }
    ),
    behaviour!(
        AREA,
        "withdrawn",
        "A feed that is taken back is closed at once, and rejected from then on.",
        ["PARTY-98", "PARTY-99", "PARTY-105"],
        [Write, Withdraw],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 3).await?;
            wire.has_length(channel, 3).await?;
            s.tell(format!("withdraw f {}", s.room())).await?;
            wire.closed(channel).await?;
            wire.feed_refused(&key).await?;
            s.tell(format!("release f {}", s.room())).await?;
            wire.feed_offered(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "nothing-after-withdrawal",
        "Once a feed was taken back, no block of it is sent any more.",
        ["PARTY-100"],
        [Write, Withdraw],
        |s| {
            let (mut wire, channel, _) = s.served(Dials::Runner, 50).await?;
            wire.reads(channel).await?;
            wire.has_length(channel, 50).await?;
            s.tell(format!("withdraw f {}", s.room())).await?;
            for index in 0..50 {
                // On a channel that is closed, for all that we know.
                wire.mux.send(
                    channel,
                    1,
                    &party::replication::messages::Message::Request(party::replication::messages::Request {
                        id: index + 1,
                        fork: 0,
                        proof: ask_block(index, 9),
                        priority: 0,
                    })
                    .encode(),
                )?;
            }
            wire.flush().await?;
            wire.nothing("data", |event| matches!(event, Event::Message { channel: from, message_type: 3, .. } if *from == channel)).await?;
        }
    ),
    behaviour!(
        AREA,
        "late-answer-to-a-withdrawn-open",
        "An answer that crosses the close of its own open is swallowed, and never rejected.",
        ["MUX-14", "MUX-15"],
        [Party, Write, Withdraw],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            s.tell("release f a").await?;
            let mut wire = s.connect(Dials::Runner).await?;
            wire.say(&open(1, party::admission::PROTOCOL, &wire.party_id(&PARTY), &wire.hello(&PARTY)))
                .await?;
            let id = key.discovery_key();
            loop {
                let said = wire.said().await?.ok_or_else(|| anyhow::anyhow!("the connection ends"))?;
                if (said.channel, said.kind) == (0, 1)
                    && said.payload.windows(32).any(|window| window == id.as_bytes())
                {
                    break;
                }
            }
            s.tell("withdraw f a").await?;
            wire.say(&open(2, PROTOCOL, id.as_bytes(), &handshake(wire.session(), &key))).await?;
            wire.say(&Wire::open_unknown(3)).await?;
            let before = wire.rejected(3).await?;
            let rejects: Vec<_> = before.iter().filter(|said| (said.channel, said.kind) == (0, 2)).collect();
            ensure!(rejects.is_empty(), "it rejects {rejects:?}");
        }
    ),
    behaviour!(
        AREA,
        "party-left",
        "When the only party that releases it is left, a feed's channel is closed.",
        ["PARTY-36", "PARTY-98"],
        [Party, Write, Live],
        |s| {
            let (mut wire, channel, key) = s.served(Dials::Runner, 1).await?;
            s.tell("leave a").await?;
            wire.closed(channel).await?;
            wire.feed_refused(&key).await?;
        }
    ),
    behaviour!(
        AREA,
        "two-parties-release",
        "A feed's channel lives as long as any party releases it.",
        ["PARTY-98", "PARTY-36"],
        [Party, Write, Live],
        |s| {
            s.prepare().await?;
            s.enter("b", &OTHER).await?;
            let key = s.written("f", 2).await?;
            s.tell("release f a").await?;
            s.tell("release f b").await?;
            let (mut wire, _) = s.member(Dials::Runner).await?;
            let channel = wire.feed_offered(&key).await?;
            wire.admit(&OTHER).await?;
            s.event("admitted b").await?;
            s.tell("leave a").await?;
            s.event("left a").await?;
            wire.reads(channel).await?;
            ensure!(wire.asks(channel, 1, ask_block(0, 1)).await?.is_some(), "it isn't served any more");
        }
    ),
    behaviour!(
        AREA,
        "peer-leaves",
        "When the peer closes the party's channel, the feeds that it was given by that are closed.",
        ["PARTY-36", "PARTY-98"],
        [Party, Write],
        |s| {
            s.prepare().await?;
            let key = s.written("f", 1).await?;
            s.tell("release f a").await?;
            let (mut wire, party) = s.member(Dials::Runner).await?;
            let channel = wire.feed_offered(&key).await?;
            wire.mux.close(party);
            wire.closed(channel).await?;
            wire.feed_refused(&key).await?;
        }
    ),
];
