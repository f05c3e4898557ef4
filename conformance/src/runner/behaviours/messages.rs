//! What members say on the party channel.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use party::mux::ChannelId;

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, hex},
    speech::{self, BUSY, EPHEMERAL, ERROR, FINISH, Field, REFUSED, REQUEST, RESPONSE, TIMEOUT, UNSUPPORTED},
    wire::Wire,
};

const AREA: &str = "messages";

/// Payloads for which the channel is closed: a name, the type, the payload.
const BROKEN: &[(&str, u64, &[u8])] = &[
    ("a request that is no protobuf", REQUEST, &[0xff; 16]),
    ("a request that is cut short", REQUEST, &[8, 1, 0x1a, 9, 1]),
    ("an id of another wire type", REQUEST, &[0x0a, 1, 1]),
    ("a body of another wire type", REQUEST, &[8, 1, 0x18, 1]),
    ("a kind that is no UTF-8", REQUEST, &[8, 1, 0x1a, 3, 0x0a, 1, 0xff]),
    ("an answer that is no protobuf", RESPONSE, &[0xff; 16]),
    ("an error that is no protobuf", ERROR, &[0xff; 16]),
    ("an ephemeral message that is no protobuf", EPHEMERAL, &[0xff; 16]),
    ("a finish that is no protobuf", FINISH, &[0xff; 16]),
    ("a field without a number", EPHEMERAL, &[0, 1]),
    ("the id 0", REQUEST, &[8, 0, 0x1a, 0]),
    ("no id", REQUEST, &[0x1a, 0]),
    ("an id above 2^53 - 1", REQUEST, &[8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 0x1a, 0]),
];

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "request",
        "A request is handed to the rule, and answered with what that says.",
        ["PARTY-59", "PARTY-72"],
        [Party],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let (mut wire, channel) = s.member(dials).await?;
                wire.send(channel, REQUEST, &speech::asks(1, "word", b"party")).await?;
                let answer = wire.response(channel, 1).await?;
                s.event("request a 776f7264 7061727479").await?;
                let custom = speech::bytes_of(&answer, 3).context("the answer is of another kind")?;
                ensure!(custom == speech::custom("word", b"ytrap"), "the answer is {custom:?}");
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "request-denied",
        "A rule that denies a request is answered with REFUSED.",
        ["PARTY-84", "PARTY-66"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell("rule a request deny").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &speech::asks(1, "t", b"v")).await?;
            let error = wire.failure(channel, 1).await?;
            ensure!(speech::number_of(&error, 2) == REFUSED, "the code is another: {error:?}");
            ensure!(speech::bytes_of(&error, 3).is_none_or(|reason| reason.is_empty()), "it says why");
            wire.barrier().await?;
        }
    ),
    behaviour!(
        AREA,
        "rule-too-slow",
        "A rule that doesn't decide in time is answered with TIMEOUT.",
        ["PARTY-84"],
        [Party, Patience],
        |s| {
            s.tell("patience rule 200").await?;
            s.prepare().await?;
            s.tell("rule a request hang").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &speech::asks(1, "t", b"v")).await?;
            let error = wire.failure(channel, 1).await?;
            ensure!(speech::number_of(&error, 2) == TIMEOUT, "the code is another: {error:?}");
            wire.barrier().await?;
        }
    ),
    behaviour!(
        AREA,
        "unsupported",
        "A request of a kind that isn't known is answered with UNSUPPORTED.",
        ["PARTY-61"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            for (id, body) in [(1, vec![]), (2, speech::bytes(9, b"later"))] {
                wire.send(channel, REQUEST, &[speech::number(1, id), body].concat()).await?;
                let error = wire.failure(channel, id).await?;
                ensure!(speech::number_of(&error, 2) == UNSUPPORTED, "the code is another: {error:?}");
            }
            s.silent("request").await?;
        }
    ),
    behaviour!(
        AREA,
        "busy",
        "64 requests may be open; the next one is answered with BUSY at once.",
        ["PARTY-57", "PARTY-58"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell("rule a request hang").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            for id in 1..=64 {
                wire.send(channel, REQUEST, &speech::asks(id, "t", b"v")).await?;
                s.event("request a").await?;
            }
            // More than 64 may be allowed.
            let mut id = 65;
            let error = loop {
                wire.send(channel, REQUEST, &speech::asks(id, "t", b"v")).await?;
                if !s.shim.has_told("request a").await? {
                    break wire.failure(channel, id).await?;
                }
                s.event("request a").await?;
                id += 1;
                ensure!(id < 5_000, "there is no limit");
            };
            ensure!(speech::number_of(&error, 2) == BUSY, "the code is another: {error:?}");
        }
    ),
    behaviour!(
        AREA,
        "at-the-same-time",
        "Requests don't wait for each other.",
        ["PARTY-56", "PARTY-57"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell("rule a request hang").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &speech::asks(1, "t", b"v")).await?;
            s.event("request a").await?;
            s.tell("rule a request allow").await?;
            wire.send(channel, REQUEST, &speech::asks(2, "t", b"v")).await?;
            wire.response(channel, 2).await?;
        }
    ),
    behaviour!(AREA, "gaps-in-ids", "Ids may have gaps, up to 2^53 - 1.", ["PARTY-55"], [Party], |s| {
        s.prepare().await?;
        let (mut wire, channel) = s.member(Dials::Runner).await?;
        for id in [1, 2, 100, 1 << 40, (1 << 53) - 1] {
            wire.send(channel, REQUEST, &speech::asks(id, "t", b"v")).await?;
            wire.response(channel, id).await?;
        }
    }),
    behaviour!(
        AREA,
        "ids-again",
        "A request with an id that is not greater than the last closes the channel.",
        ["PARTY-55", "PARTY-52"],
        [Party],
        |s| {
            for ids in [[5, 5], [5, 4]] {
                s.prepare().await?;
                let (mut wire, channel) = s.member(Dials::Runner).await?;
                for id in ids {
                    wire.send(channel, REQUEST, &speech::asks(id, "t", b"v")).await?;
                }
                wire.closed(channel).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "broken",
        "A payload that is not its protobuf, or has an impossible id, closes the channel only.",
        ["PARTY-45", "PARTY-52", "PARTY-54"],
        [Party],
        |s| {
            s.prepare().await?;
            for (what, kind, payload) in BROKEN {
                let (mut wire, channel) = s.member(Dials::Runner).await?;
                wire.send(channel, *kind, payload).await?;
                wire.closed(channel).await.context(*what)?;
            }
            s.silent("request").await?;
        }
    ),
    behaviour!(
        AREA,
        "unknown-type",
        "Messages of unknown types and unknown fields are ignored.",
        ["PARTY-43", "PARTY-44", "MUX-4"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            for kind in [5, 6, 1000] {
                wire.send(channel, kind, &[0xff; 50]).await?;
            }
            let fields =
                [speech::bytes(77, b"later"), speech::number(78, 9), vec![0xf5, 4, 1, 2, 3, 4]].concat();
            wire.send(channel, REQUEST, &[speech::asks(1, "t", b"v"), fields].concat()).await?;
            wire.response(channel, 1).await?;
        }
    ),
    behaviour!(AREA, "longest", "A payload of 1 MiB is taken.", ["PARTY-48"], [Party], |s| {
        s.prepare().await?;
        let (mut wire, channel) = s.member(Dials::Runner).await?;
        let payload = loop_to_length(1 << 20, |length| speech::asks(1, "t", &vec![7; length]));
        wire.send(channel, REQUEST, &payload).await?;
        wire.response(channel, 1).await?;
    }),
    behaviour!(
        AREA,
        "too-long",
        "A payload far above its limit closes the channel.",
        ["PARTY-47"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, EPHEMERAL, &speech::ephemeral("t", &vec![7; 15 << 20])).await?;
            wire.closed(channel).await?;
            s.silent("ephemeral").await?;
        }
    ),
    behaviour!(
        AREA,
        "ephemeral",
        "Ephemeral messages come to the rule, in order.",
        ["PARTY-75"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            for n in 0..50 {
                wire.send(channel, EPHEMERAL, &speech::ephemeral("mood", &[n])).await?;
            }
            for n in 0..50 {
                let words = s.event("ephemeral a").await?;
                ensure!(words == ["6d6f6f64".to_owned(), hex(&[n])], "message {n} is {words:?}");
            }
        }
    ),
    behaviour!(
        AREA,
        "empty-ephemeral",
        "An ephemeral message without a value is an empty one.",
        ["PARTY-74"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, EPHEMERAL, &[]).await?;
            s.event("ephemeral a - -").await?;
        }
    ),
    behaviour!(
        AREA,
        "ephemeral-flood",
        "A rule that is too slow for ephemeral messages costs bounded memory.",
        ["PARTY-76"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell("rule a ephemeral hang").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            for _ in 0..2_000 {
                wire.send(channel, EPHEMERAL, &speech::ephemeral("t", &[7; 4_000])).await?;
            }
            wire.send(channel, REQUEST, &speech::asks(1, "t", b"v")).await?;
            wire.response(channel, 1).await?;
        }
    ),
    behaviour!(
        AREA,
        "introduction",
        "Introduced keys come to the rule in their order, twice if they are there twice.",
        ["PARTY-68"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let keys = [[3; 32], [1; 32], [3; 32], [2; 32]];
            wire.send(channel, REQUEST, &speech::introduces(1, &keys, &[])).await?;
            let answer = wire.response(channel, 1).await?;
            ensure!(speech::bytes_of(&answer, 2) == Some(vec![]), "the answer is {answer:?}");
            let words = s.event("introduction a").await?;
            ensure!(words == keys.map(|key| hex(&key)), "the rule hears {words:?}");
        }
    ),
    behaviour!(
        AREA,
        "empty-introduction",
        "An empty introduction is one, and its empty answer too.",
        ["PARTY-67"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &[8, 1, 0x12, 0]).await?;
            let answer = wire.response(channel, 1).await?;
            ensure!(speech::bytes_of(&answer, 2) == Some(vec![]), "the answer is {answer:?}");
            ensure!(s.event("introduction a").await?.is_empty());
        }
    ),
    behaviour!(
        AREA,
        "brought-in-return",
        "An introduction is answered with what the rule brings, in its order.",
        ["PARTY-59", "PARTY-68"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell(format!("bring a {} {}", hex(&[9; 32]), hex(&[8; 32]))).await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &speech::introduces(1, &[], &[])).await?;
            let answer = wire.response(channel, 1).await?;
            let body =
                speech::fields(&speech::bytes_of(&answer, 2).context("the answer is of another kind")?)?;
            ensure!(speech::all_bytes(&body, 1) == [[9; 32], [8; 32]], "it brings {body:?}");
        }
    ),
    behaviour!(
        AREA,
        "introduction-denied",
        "An introduction that the rule denies is answered with REFUSED.",
        ["PARTY-84"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell("rule a introduce deny").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &speech::introduces(1, &[[1; 32]], &[])).await?;
            let error = wire.failure(channel, 1).await?;
            ensure!(speech::number_of(&error, 2) == REFUSED, "the code is another: {error:?}");
        }
    ),
    behaviour!(AREA, "most-keys", "4096 keys in one introduction are taken.", ["PARTY-49"], [Party], |s| {
        s.prepare().await?;
        let (mut wire, channel) = s.member(Dials::Runner).await?;
        wire.send(channel, REQUEST, &speech::introduces(1, &[[1; 32]; 4096], &[])).await?;
        wire.response(channel, 1).await?;
        ensure!(s.event("introduction a").await?.len() == 4096);
    }),
    behaviour!(
        AREA,
        "too-many-keys",
        "Keys far above the limit close the channel.",
        ["PARTY-47"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &speech::introduces(1, &[[1; 32]; 30_000], &[])).await?;
            wire.closed(channel).await?;
            s.silent("introduction").await?;
        }
    ),
    behaviour!(
        AREA,
        "short-key",
        "A feed key that doesn't have 32 bytes closes the channel.",
        ["PARTY-46"],
        [Party],
        |s| {
            s.prepare().await?;
            for length in [0, 31, 33] {
                let (mut wire, channel) = s.member(Dials::Runner).await?;
                let body = [speech::bytes(1, &[1; 32]), speech::bytes(1, &vec![1; length])].concat();
                wire.send(channel, REQUEST, &speech::transaction(1, 2, &body)).await?;
                wire.closed(channel).await?;
            }
            s.silent("introduction").await?;
        }
    ),
    behaviour!(
        AREA,
        "labels",
        "Labels come with their keys; empty and missing ones are none.",
        ["PARTY-70"],
        [Party, Labels],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let long = "x".repeat(256);
            wire.send(
                channel,
                REQUEST,
                &speech::introduces(1, &[[1; 32], [2; 32], [3; 32], [4; 32]], &["café", "", &long]),
            )
            .await?;
            wire.response(channel, 1).await?;
            let words = s.event("introduction a").await?;
            let key = |n: u8| hex(&[n; 32]);
            let expected = [
                format!("{}={}", key(1), hex("café".as_bytes())),
                key(2),
                format!("{}={}", key(3), hex(long.as_bytes())),
                key(4),
            ];
            ensure!(words == expected, "the rule hears {words:?}");
        }
    ),
    behaviour!(
        AREA,
        "labels-brought",
        "The labels that it brings stand beside their keys.",
        ["PARTY-59", "PARTY-71"],
        [Party, Labels],
        |s| {
            s.prepare().await?;
            s.tell(format!("bring a {} {}={}", hex(&[9; 32]), hex(&[8; 32]), hex(b"notes"))).await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, REQUEST, &speech::introduces(1, &[], &[])).await?;
            let answer = wire.response(channel, 1).await?;
            let body = speech::bytes_of(&answer, 2).context("the answer is of another kind")?;
            ensure!(body == speech::introduction(&[[9; 32], [8; 32]], &["", "notes"]), "it brings {body:?}");
        }
    ),
    behaviour!(
        AREA,
        "bad-labels",
        "More labels than keys, one that is no UTF-8, or far too long, closes the channel.",
        ["PARTY-69", "PARTY-45", "PARTY-47"],
        [Party, Labels],
        |s| {
            s.prepare().await?;
            let long = vec![b'x'; 100_000];
            for labels in [vec![&b"a"[..], b"b"], vec![&[0xff, 0xfe][..]], vec![&long[..]]] {
                let (mut wire, channel) = s.member(Dials::Runner).await?;
                let labels: Vec<u8> = labels.iter().flat_map(|label| speech::bytes(2, label)).collect();
                let body = [speech::bytes(1, &[1; 32]), labels].concat();
                wire.send(channel, REQUEST, &speech::transaction(1, 2, &body)).await?;
                wire.closed(channel).await?;
            }
            s.silent("introduction").await?;
        }
    ),
    behaviour!(
        AREA,
        "finish",
        "A side that has nothing under way says so, whether it is finite or not, and stays.",
        ["PARTY-77", "PARTY-83"],
        [Party],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let (mut wire, channel) = s.member(dials).await?;
                wire.finish(channel).await?;
                wire.send(channel, FINISH, &[]).await?;
                wire.barrier().await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "finish-again",
        "A message takes its Finish back, and it says it again when it is done.",
        ["PARTY-80", "PARTY-81"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            for id in 1..=3 {
                wire.finish(channel).await?;
                wire.send(channel, REQUEST, &speech::asks(id, "t", b"v")).await?;
                wire.response(channel, id).await?;
            }
            wire.finish(channel).await?;
        }
    ),
    behaviour!(
        AREA,
        "finish-waits",
        "It doesn't say that it is done while a rule is under way.",
        ["PARTY-78"],
        [Party],
        |s| {
            s.prepare().await?;
            s.tell("rule a handshake hang").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.nothing("a Finish", |event| {
            matches!(event, party::mux::Event::Message { channel: from, message_type: FINISH, .. } if *from == channel)
        })
        .await?;
        }
    ),
    behaviour!(
        AREA,
        "finite",
        "A finite side ends the connection when both have said that they are done.",
        ["PARTY-82"],
        [Party, Finite],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                s.tell("finite").await?;
                let (mut wire, channel) = s.member(dials).await?;
                wire.finish(channel).await?;
                wire.barrier().await?;
                wire.send(channel, FINISH, &[]).await?;
                wire.ends().await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "finite-waits",
        "A Finish that was taken back doesn't end a finite connection.",
        ["PARTY-80", "PARTY-82"],
        [Party, Finite],
        |s| {
            s.prepare().await?;
            s.tell("finite").await?;
            s.tell("rule a handshake hang").await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, FINISH, &[]).await?;
            wire.send(channel, EPHEMERAL, &speech::ephemeral("t", b"v")).await?;
            s.event("ephemeral a").await?;
            wire.barrier().await?;
        }
    ),
];

impl Wire {
    /// Waits for a message of a type, with this id.
    async fn transaction(
        &mut self,
        what: &str,
        channel: ChannelId,
        kind: u64,
        id: Option<u64>,
    ) -> Result<Vec<Field>> {
        let payload: Bytes = self
            .message(what, channel, |said, payload| {
                let fields = speech::fields(payload).unwrap_or_default();
                let is_it = said == kind && id.is_none_or(|id| speech::number_of(&fields, 1) == id);
                is_it.then(|| payload.clone())
            })
            .await?;
        speech::fields(&payload)
    }

    /// Waits for the response to a request of ours.
    pub(super) async fn response(&mut self, channel: ChannelId, id: u64) -> Result<Vec<Field>> {
        self.transaction("a response", channel, RESPONSE, Some(id)).await
    }

    /// Waits for an error in answer to a request of ours.
    pub(super) async fn failure(&mut self, channel: ChannelId, id: u64) -> Result<Vec<Field>> {
        self.transaction("an error", channel, ERROR, Some(id)).await
    }

    /// Waits for a request: its id, and its body.
    pub(super) async fn asked(&mut self, channel: ChannelId) -> Result<(u64, Vec<u8>)> {
        let fields = self.transaction("a request", channel, REQUEST, None).await?;
        let body = speech::bytes_of(&fields, 3).or_else(|| speech::bytes_of(&fields, 2));
        Ok((speech::number_of(&fields, 1), body.context("a request without a body")?))
    }

    async fn finish(&mut self, channel: ChannelId) -> Result<()> {
        self.message("a Finish", channel, |kind, payload| {
            (kind == FINISH && payload.is_empty()).then_some(())
        })
        .await
    }
}

/// A payload of exactly this length.
fn loop_to_length(length: usize, make: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    (0..32)
        .map(|less| make(length - less))
        .find(|payload| payload.len() == length)
        .unwrap_or_else(|| make(length / 2))
}
