//! What it asks of a member and says to it on the party channel, and what it makes of the answers.

use anyhow::ensure;

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, hex},
    speech::{self, EPHEMERAL, ERROR, REFUSED, REQUEST, RESPONSE},
};

const AREA: &str = "messages";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "asks",
        "What it asks counts from 1, and it hears the answers in whatever order.",
        ["PARTY-53", "PARTY-56"],
        [Party],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let (mut wire, channel) = s.member(dials).await?;
                let mut names = Vec::new();
                for n in 1..=3 {
                    names.push(s.word(format!("request a 74 {}", hex(&[n]))).await?);
                    let (id, body) = wire.asked(channel).await?;
                    ensure!(
                        id == u64::from(n) && body == speech::custom("t", &[n]),
                        "request {n} is {id} {body:?}"
                    );
                }
                for n in [2, 3, 1] {
                    wire.send(
                        channel,
                        RESPONSE,
                        &speech::transaction(n, 3, &speech::custom("u", &[n as u8])),
                    )
                    .await?;
                }
                for (n, name) in (1_u8..).zip(names) {
                    s.event(&format!("answer {name} custom 75 {}", hex(&[n]))).await?;
                }
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "introduces",
        "What it introduces is on the wire in order, and it hears what is brought.",
        ["PARTY-53", "PARTY-68"],
        [Party, Labels],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let name =
                s.word(format!("introduce a {} {}={}", hex(&[5; 32]), hex(&[4; 32]), hex(b"notes"))).await?;
            let (id, body) = wire.asked(channel).await?;
            ensure!(
                body == speech::introduction(&[[5; 32], [4; 32]], &["", "notes"]),
                "it introduces {body:?}"
            );
            wire.send(channel, RESPONSE, &speech::introduces(id, &[[7; 32]], &["x"])).await?;
            s.event(&format!("answer {name} feeds {}=78", hex(&[7; 32]))).await?;
        }
    ),
    behaviour!(
        AREA,
        "is-refused",
        "Errors end its transactions; a code that it doesn't know is a refusal.",
        ["PARTY-65"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            for code in [REFUSED, 0, 99] {
                let name = s.word("request a 74 76").await?;
                let (id, _) = wire.asked(channel).await?;
                wire.send(channel, ERROR, &speech::failure(id, code)).await?;
                s.event(&format!("answer {name} error refused")).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "answer-of-another-kind",
        "An answer of another kind than was asked, or of none, closes the channel.",
        ["PARTY-60", "PARTY-64"],
        [Party],
        |s| {
            for field in [Some(2), None] {
                s.prepare().await?;
                let (mut wire, channel) = s.member(Dials::Runner).await?;
                let name = s.word("request a 74 76").await?;
                let (id, _) = wire.asked(channel).await?;
                let body = field.map_or_else(Vec::new, |field| speech::bytes(field, &[]));
                wire.send(channel, RESPONSE, &[speech::number(1, id), body].concat()).await?;
                wire.closed(channel).await?;
                s.event(&format!("answer {name} error")).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "stray-answers",
        "Answers to nothing are ignored, and many of them close the channel.",
        ["PARTY-63"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            wire.send(channel, RESPONSE, &speech::transaction(7, 3, b"")).await?;
            wire.send(channel, ERROR, &speech::failure(8, REFUSED)).await?;
            wire.send(channel, REQUEST, &speech::asks(1, "t", b"v")).await?;
            wire.response(channel, 1).await?;
            for id in 10..40 {
                wire.send(channel, ERROR, &speech::failure(id, REFUSED)).await?;
            }
            wire.closed(channel).await?;
        }
    ),
    behaviour!(
        AREA,
        "answered-twice",
        "A second answer to a request doesn't count.",
        ["PARTY-63"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let name = s.word("request a 74 76").await?;
            let (id, _) = wire.asked(channel).await?;
            for value in [b"1", b"2"] {
                wire.send(channel, RESPONSE, &speech::transaction(id, 3, &speech::custom("t", value)))
                    .await?;
            }
            s.event(&format!("answer {name} custom 74 31")).await?;
            wire.barrier().await?;
            s.silent(&format!("answer {name}")).await?;
        }
    ),
    behaviour!(
        AREA,
        "late-answer",
        "A transaction that isn't answered times out, and a late answer is ignored.",
        ["PARTY-62"],
        [Party, Patience],
        |s| {
            s.tell("patience answer 200").await?;
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let mut ids = Vec::new();
            for _ in 0..20 {
                let name = s.word("request a 74 76").await?;
                ids.push((name, wire.asked(channel).await?.0));
            }
            for (name, id) in ids {
                s.event(&format!("answer {name} error timeout")).await?;
                wire.send(channel, RESPONSE, &speech::transaction(id, 3, b"")).await?;
            }
            wire.send(channel, REQUEST, &speech::asks(1, "t", b"v")).await?;
            wire.response(channel, 1).await?;
        }
    ),
    behaviour!(
        AREA,
        "closed-meanwhile",
        "When the channel closes, its open transactions have failed.",
        ["PARTY-64"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            let name = s.word("request a 74 76").await?;
            wire.asked(channel).await?;
            wire.mux.close(channel);
            wire.flush().await?;
            s.event(&format!("answer {name} error")).await?;
            s.event("left a").await?;
        }
    ),
    behaviour!(
        AREA,
        "says",
        "Ephemeral messages that it sends are on the wire as they should be.",
        ["PARTY-74"],
        [Party],
        |s| {
            s.prepare().await?;
            let (mut wire, channel) = s.member(Dials::Runner).await?;
            s.tell("ephemeral a 6d6f6f64 0102").await?;
            let said = wire
                .message("an ephemeral message", channel, |kind, payload| {
                    (kind == EPHEMERAL).then(|| payload.clone())
                })
                .await?;
            ensure!(said[..] == speech::ephemeral("mood", &[1, 2]), "it says {said:?}");
        }
    ),
];
