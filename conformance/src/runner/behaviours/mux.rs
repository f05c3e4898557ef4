//! Channels: opens, rejects, closes, batches.

use anyhow::ensure;
use party::{admission, key::PartyKey};

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, PARTY},
    wire::{UNKNOWN, Wire, batch, open, uint},
};

const AREA: &str = "mux";

/// Messages that can't be read, each of which ends the connection.
const UNREADABLE: &[(&str, &[u8])] = &[
    ("an open without an id", &[0, 1]),
    ("an open without a protocol", &[0, 1, 1]),
    ("a protocol beyond the end", &[0, 1, 1, 9, b'x']),
    ("a protocol that is no UTF-8", &[0, 1, 1, 2, 0xff, 0xfe, 0]),
    ("a channel id beyond the end", &[0, 1, 1, 1, b'x', 40, 1]),
    ("a reject without an id", &[0, 2]),
    ("a close without an id", &[0, 3]),
    ("a control message without a type", &[0]),
    ("a message without a type", &[7]),
    ("an integer that is cut short", &[0xfd, 1]),
    ("an integer above 2^53 - 1", &[0, 3, 0xff, 0, 0, 0, 0, 0, 0, 0x20, 0]),
    ("a batch without a channel", &[0, 0]),
];

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "unknown-protocol",
        "An open of an unknown protocol is rejected.",
        ["MUX-17", "MUX-19"],
        [],
        |s| {
            for dials in BOTH {
                let mut wire = s.meet(dials).await?;
                for id in [None, Some(&[1; 32][..]), Some(&[1][..])] {
                    wire.is_rejected(UNKNOWN, id, b"handshake").await?;
                }
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "unknown-ids",
        "A close of, and messages to, channels that are not open are ignored.",
        ["MUX-34", "MUX-35"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for message in [&[0, 3, 99][..], &[99, 0, 1, 2, 3], &[1, 0], &[0, 3, 0], &[99, 77]] {
                wire.say(message).await?;
            }
            wire.say(&Wire::open_unknown(1)).await?;
            ensure!(wire.rejected(1).await?.is_empty(), "something else is said");
        }
    ),
    behaviour!(
        AREA,
        "stray-reject",
        "A reject of what was not opened ends the connection.",
        ["MUX-36"],
        [],
        |s| {
            for dials in BOTH {
                let mut wire = s.meet(dials).await?;
                wire.say(&[0, 2, 77]).await?;
                wire.ends().await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "unknown-control",
        "A control message of an unknown type is ignored.",
        ["MUX-3"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for kind in [4, 5, 100] {
                wire.say(&[0, kind, 1, 2, 3]).await?;
            }
            wire.say(&batch(&[(0, &[9, 1]), (0, &open(1, UNKNOWN, &[], &[])[1..])])).await?;
            wire.rejected(1).await?;
        }
    ),
    behaviour!(AREA, "open-zero", "An open with the id 0 ends the connection.", ["MUX-25"], [], |s| {
        let mut wire = s.meet(Dials::Runner).await?;
        wire.say(&Wire::open_unknown(0)).await?;
        wire.ends().await?;
    }),
    behaviour!(
        AREA,
        "open-gap",
        "An open with an id that is more than one above the highest ends the connection.",
        ["MUX-27"],
        [],
        |s| {
            s.prepare().await?;
            for id in [2, 3, 1000, 1 << 31, 1 << 40] {
                let mut wire = s.connect(Dials::Runner).await?;
                wire.say(&Wire::open_unknown(id)).await?;
                wire.ends().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "open-in-use",
        "An open with an id that is in use ends the connection.",
        ["MUX-26"],
        [Party],
        |s| {
            s.prepare().await?;
            let mut wire = s.connect(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            wire.say(&open(1, admission::PROTOCOL, &id, &hello)).await?;
            s.event("admitted a").await?;
            wire.say(&Wire::open_unknown(1)).await?;
            wire.ends().await?;
        }
    ),
    behaviour!(
        AREA,
        "id-after-a-reject",
        "The id of an open that was rejected is free again.",
        ["MUX-24", "MUX-38"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for _ in 0..20 {
                wire.say(&Wire::open_unknown(1)).await?;
                wire.rejected(1).await?;
            }
            wire.say(&Wire::open_unknown(2)).await?;
            wire.rejected(2).await?;
        }
    ),
    behaviour!(
        AREA,
        "id-after-a-close",
        "The id of a channel that was paired is free at once when it is closed.",
        ["MUX-37", "MUX-32"],
        [Party],
        |s| {
            s.prepare().await?;
            let mut wire = s.connect(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            for _ in 0..5 {
                wire.say(&open(1, admission::PROTOCOL, &id, &hello)).await?;
                s.event("admitted a").await?;
                wire.say(&[0, 3, 1]).await?;
                s.event("left a").await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "close-is-not-answered",
        "A close is never answered.",
        ["MUX-32", "MUX-33"],
        [Party],
        |s| {
            s.prepare().await?;
            let mut wire = s.connect(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            wire.say(&open(1, admission::PROTOCOL, &id, &hello)).await?;
            s.event("admitted a").await?;
            wire.say(&[0, 3, 1]).await?;
            s.event("left a").await?;
            wire.say(&Wire::open_unknown(2)).await?;
            let before = wire.rejected(2).await?;
            ensure!(
                !before.iter().any(|said| (said.channel, said.kind) == (0, 3)),
                "there is a close: {before:?}"
            );
        }
    ),
    behaviour!(
        AREA,
        "early-close",
        "An open that is closed before it was answered is answered all the same.",
        ["MUX-39"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            wire.say(&batch(&[(0, &open(1, UNKNOWN, &[], &[])[1..]), (0, &[3, 1])])).await?;
            wire.rejected(1).await?;
        }
    ),
    behaviour!(
        AREA,
        "early-messages",
        "Messages behind an open that is rejected are lost, and harm nothing.",
        ["MUX-28", "MUX-35"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for n in 1..=10 {
                let message = [&[n, n][..], &[7; 1000]].concat();
                wire.say(&Wire::open_unknown(u64::from(n))).await?;
                wire.say(&message).await?;
                wire.say(&message).await?;
            }
            for n in 1..=10 {
                wire.rejected(n).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "opened-twice",
        "Several opens of one pair are each answered, in their order.",
        ["MUX-17", "MUX-20"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for id in 1..=5 {
                wire.say(&open(id, UNKNOWN, &[7; 32], &[])).await?;
            }
            for id in 1..=5 {
                wire.rejected(id).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "many-opens",
        "Three thousand opens in a row are all answered.",
        ["MUX-17", "MUX-43"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let opens: Vec<Vec<u8>> =
                (1..=3000).map(|id| open(id, UNKNOWN, &uint(id), &[])[1..].to_vec()).collect();
            for some in opens.chunks(100) {
                let items: Vec<(u64, &[u8])> = some.iter().map(|open| (0, &open[..])).collect();
                wire.say(&batch(&items)).await?;
            }
            for id in 1..=3000 {
                wire.rejected(id).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "who-does-not-read",
        "A peer that opens without end and reads nothing takes no memory without end, and harms no other.",
        ["MUX-43"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            wire.raw.patience = std::time::Duration::from_millis(300);
            for _ in 0..200 {
                let opens: Vec<Vec<u8>> =
                    (1..=1000).map(|id| open(id, UNKNOWN, &[7; 200], &[])[1..].to_vec()).collect();
                let items: Vec<(u64, &[u8])> = opens.iter().map(|open| (0, &open[..])).collect();
                wire.say(&batch(&items)).await?;
                if !wire.raw.seems_alive() {
                    break;
                }
                wire.raw.input.clear();
            }
            s.shim.check_memory()?;
            s.connect(Dials::Runner).await?.barrier().await?;
        }
    ),
    behaviour!(
        AREA,
        "batch",
        "The items of a batch count as messages of their own.",
        ["MUX-7", "MUX-40"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let opens: Vec<Vec<u8>> = (1..=50).map(|id| open(id, UNKNOWN, &[], &[])[1..].to_vec()).collect();
            let mut items: Vec<(u64, &[u8])> = vec![(99, &[0, 1]), (98, &[0, 1])];
            items.extend(opens.iter().map(|open| (0, &open[..])));
            wire.say(&batch(&items)).await?;
            for id in 1..=50 {
                wire.rejected(id).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "batch-that-changes-channels",
        "A batch may change the channel as often as it likes, and end with a change.",
        ["MUX-7"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            wire.say(&[0, 0, 5, 0, 6, 0, 7, 2, 0, 1, 0, 0]).await?;
            wire.say(&[0, 0, 5]).await?;
            wire.say(&Wire::open_unknown(1)).await?;
            wire.rejected(1).await?;
        }
    ),
    behaviour!(
        AREA,
        "batch-in-a-batch",
        "A batch within a batch ends the connection.",
        ["MUX-8", "MUX-9"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let inner = batch(&[(0, &open(1, UNKNOWN, &[], &[])[1..])]);
            wire.say(&batch(&[(0, &inner[1..])])).await?;
            wire.ends_silently().await?;
        }
    ),
    behaviour!(
        AREA,
        "batch-beyond-its-end",
        "An item that reaches beyond the end of its batch ends the connection.",
        ["MUX-11"],
        [],
        |s| {
            s.prepare().await?;
            for length in [1, 100] {
                let mut wire = s.connect(Dials::Runner).await?;
                let item = &open(1, UNKNOWN, &[], &[])[1..];
                let mut bytes = vec![0, 0, 0];
                bytes.extend(uint(item.len() as u64 + length));
                bytes.extend_from_slice(item);
                wire.say(&bytes).await?;
                wire.ends_silently().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "item-within-its-bounds",
        "An item that is too short for what is in it doesn't read into the next, but ends the connection.",
        ["MUX-12", "MUX-5"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let item = &open(1, UNKNOWN, &[], &[])[1..];
            let (front, back) = item.split_at(5);
            wire.say(&batch(&[(0, front), (0, back)])).await?;
            wire.ends_silently().await?;
        }
    ),
    behaviour!(
        AREA,
        "unreadable",
        "A control message or batch that can't be decoded ends the connection.",
        ["MUX-5", "ENC-3", "ENC-5", "ENC-7"],
        [],
        |s| {
            use anyhow::Context as _;
            s.prepare().await?;
            for (what, message) in UNREADABLE {
                let mut wire = s.connect(Dials::Runner).await?;
                wire.barrier().await?;
                wire.say(message).await?;
                wire.ends().await.context(*what)?;
            }
        }
    ),
    behaviour!(
        AREA,
        "long-forms",
        "Integers in a longer form than needed are taken, and bytes after the end passed over.",
        ["ENC-4", "ENC-11"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let name = [&[0xfd, UNKNOWN.len() as u8, 0], UNKNOWN.as_bytes()].concat();
            wire.say(&[&[0, 1, 0xfe, 1, 0, 0, 0], &name[..], &[0xff, 0, 0, 0, 0, 0, 0, 0, 0]].concat())
                .await?;
            wire.rejected(1).await?;
            wire.say(&[0, 3, 0xfd, 99, 0, 1, 2, 3]).await?;
            wire.say(&Wire::open_unknown(1)).await?;
            wire.rejected(1).await?;
        }
    ),
    behaviour!(
        AREA,
        "announced-lengths",
        "Lengths that the message doesn't hold take no memory.",
        ["ENC-5", "ENC-6"],
        [],
        |s| {
            s.prepare().await?;
            for _ in 0..20 {
                let mut wire = s.connect(Dials::Runner).await?;
                wire.say(&[&[0, 1, 1, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0]].concat())
                    .await?;
                wire.ends().await?;
            }
            s.shim.check_memory()?;
        }
    ),
    behaviour!(
        AREA,
        "names-byte-for-byte",
        "Names and channel ids are compared byte for byte.",
        ["MUX-21"],
        [Party],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let (id, hello) = (wire.party_id(&PARTY), wire.hello(&PARTY));
            for name in ["Party/1", "party/1 ", "party/", "party/11", "party/1\0"] {
                wire.is_rejected(name, Some(&id), &hello).await?;
            }
            wire.is_rejected(admission::PROTOCOL, Some(&[&id[..], &[0]].concat()), &hello).await?;
            wire.is_rejected(admission::PROTOCOL, Some(&id[..31]), &hello).await?;
            wire.is_rejected(admission::PROTOCOL, None, &hello).await?;
            wire.admit(&PARTY).await?;
        }
    ),
    behaviour!(
        AREA,
        "garbage-on-a-channel",
        "A payload that can't be decoded closes its channel, and the connection lives.",
        ["MUX-6", "PARTY-45", "PARTY-52"],
        [Party],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let (mut wire, channel) = s.member(dials).await?;
                wire.send(channel, 0, &[0xff; 32]).await?;
                wire.closed(channel).await?;
                s.event("left a").await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "garbage-on-one-of-two",
        "A channel that is closed for garbage leaves the others as they are.",
        ["MUX-6", "PARTY-52"],
        [Party],
        |s| {
            let other = PartyKey::from_bytes([9; 32]);
            s.prepare().await?;
            s.enter("b", &other).await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let second = wire.admit(&other).await?;
            s.event("admitted b").await?;
            wire.send(channel, 0, &[0xff; 32]).await?;
            wire.closed(channel).await?;
            wire.send(second, 3, &crate::runner::speech::ephemeral("t", b"v")).await?;
            s.event("ephemeral b 74 76").await?;
        }
    ),
];
