//! Sessions of a feed channel, with all that a real reader says.

use std::{sync::Arc, time::Instant};

use anyhow::{Result, bail, ensure};
use party::{
    feed::Feed,
    key::PublicKey,
    limits::Limits,
    replication::{Channel, Options, Output, Pace, Swarm, messages::Message},
    session::Session,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::world::{FeedKind, block, written};
use crate::vectors::{
    Bytes, Kind, Outcome,
    kind::{block_on, read},
};

pub(super) const KINDS: &[Kind] = &[Kind::new("served", |input| block_on(served(input)))];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    feed: FeedKind,
    length: u64,
    writer_is_initiator: bool,
    binding: Bytes,
    /// That of the reader's open.
    handshake: Bytes,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Receive {
        #[serde(rename = "type")]
        message_type: u64,
        bytes: Bytes,
    },
    Append {
        blocks: u64,
    },
}

#[derive(Serialize)]
struct Answer {
    #[serde(rename = "type")]
    message_type: u64,
    bytes: Bytes,
}

async fn served(input: &Value) -> Result<Outcome> {
    let input: Input = read(input)?;
    let feed = written(input.feed, input.length).await?;
    let [local, remote] = [1, 2].map(|byte| PublicKey::from_bytes([byte; 32]));
    let is_initiator = input.writer_is_initiator;
    let session = Session { binding: input.binding.array()?, is_initiator, local, remote };
    let limits = Limits::default();
    let (swarm, pace) = (Arc::new(Swarm::default()), Arc::new(Pace::new(&limits)));
    let mut channel = Channel::new(&session, &feed.key(), Options::default(), &limits, &swarm, &pace);
    let handshake = Bytes(channel.handshake());
    let remote = Channel::verify_handshake(&session, &feed.key(), &input.handshake)?;
    feed.with_local(|local| channel.handle_opened(remote, local));
    // Time stands still: there is nothing to wait for.
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let mut answers = Vec::new();
    drain(&mut channel, &feed, now, &mut answers).await?;
    for step in input.steps {
        match step {
            Step::Receive { message_type, bytes } => {
                feed.with_local(|local| channel.handle_message(message_type, bytes.shared(), local, now))?;
            }
            Step::Append { blocks } => {
                let from = feed.info().length;
                feed.append_batch((from..from + blocks).map(|n| block(n, 0)).collect()).await?;
                feed.with_local(|local| channel.handle_local_change(local));
            }
        }
        drain(&mut channel, &feed, now, &mut answers).await?;
    }
    Outcome::accept(json!({ "handshake": handshake, "answers": answers }))
}

/// Does what the channel wants done, and keeps what answers requests.
async fn drain(channel: &mut Channel, feed: &Feed, now: Instant, answers: &mut Vec<Answer>) -> Result<()> {
    while let Some(output) = feed.with_local(|local| channel.poll_output(local, now)) {
        match output {
            Output::Send { message_type, payload } => {
                let bytes = payload.into_bytes();
                match Message::decode(message_type, &bytes, true, &Limits::default())? {
                    Some(Message::Data(_) | Message::NoData(_)) => {
                        answers.push(Answer { message_type, bytes: Bytes::from(&bytes) });
                    }
                    Some(Message::Request(_)) => bail!("a writer that asks for something"),
                    message => ensure!(message.is_some(), "a message of no known type"),
                }
            }
            Output::Serve { ticket, request, fork } => {
                let proof = feed.prove(request, fork).await;
                channel.handle_served(ticket, proof.map_err(drop));
            }
            other => bail!("a writer that wants {other:?}"),
        }
    }
    Ok(())
}
