//! The party channel: what a member computes, and what is said.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use party::{
    admission::{
        Body, Event, Hello, Introduced, Message, PartyChannel, RefusalCode, TransactionId, membership,
    },
    error::Error,
    key::{FeedKey, PartyKey, PublicKey},
    limits::Limits,
    session::Session,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    runner::speech,
    vectors::{Bytes, Kind, Outcome, Refusal, kind::read},
};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("values", values),
    Kind::new("hello", hello).wire("/bytes"),
    Kind::new("message", message).wire("/bytes"),
    Kind::new("transactions", transactions),
];

fn session(binding: [u8; 64], is_initiator: bool) -> Session {
    let [local, remote] = [1, 2].map(|byte| PublicKey::from_bytes([byte; 32]));
    Session { binding, is_initiator, local, remote }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    party_key: Bytes,
    binding: Bytes,
}

fn values(input: &Value) -> Result<Outcome> {
    let input: Known = read(input)?;
    let key = PartyKey::from_bytes(input.party_key.array()?);
    let binding = input.binding.array()?;
    let (initiator, responder) = (session(binding, true), session(binding, false));
    let channel_id = membership::channel_id(&initiator, &key);
    ensure!(channel_id == membership::channel_id(&responder, &key), "two channel ids");
    let proofs = [&initiator, &responder].map(|session| membership::prove(session, &key));
    ensure!(membership::verify(&responder, &key, &proofs[0]), "the initiator's proof doesn't hold");
    ensure!(membership::verify(&initiator, &key, &proofs[1]), "the responder's proof doesn't hold");
    Outcome::accept(json!({
        "discovery_key": Bytes::from(key.discovery_key().as_bytes()),
        "channel_id": Bytes::from(channel_id),
        "proof_of_initiator": Bytes::from(proofs[0]),
        "proof_of_responder": Bytes::from(proofs[1]),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Greeting {
    party_key: Bytes,
    binding: Bytes,
    /// Whether who shows it is the initiator.
    initiator: bool,
    bytes: Bytes,
}

fn hello(input: &Value) -> Result<Outcome> {
    let input: Greeting = read(input)?;
    let (key, session) =
        (PartyKey::from_bytes(input.party_key.array()?), session(input.binding.array()?, !input.initiator));
    let Ok(hello) = Hello::decode(input.bytes.shared()) else { return Outcome::refuse(Refusal::Channel) };
    if !membership::verify(&session, &key, &hello.proof) {
        return Outcome::refuse(Refusal::Channel);
    }
    let other_form = (hello.encode() != input.bytes.0).then_some(&input.bytes);
    Outcome::accept(json!({ "features": hello.features }))?.seen(other_form)
}

/// What is asked or answered.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::vectors) enum Said {
    IntroduceFeeds(Vec<Named>),
    Custom(CustomValue),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vectors) struct Named {
    key: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vectors) struct CustomValue {
    #[serde(rename = "type")]
    kind: String,
    value: Bytes,
}

impl From<&Body> for Said {
    fn from(body: &Body) -> Self {
        let named = |feed: &Introduced| Named { key: feed.key.as_bytes().into(), label: feed.label.clone() };
        match body {
            Body::IntroduceFeeds(feeds) => Self::IntroduceFeeds(feeds.iter().map(named).collect()),
            Body::Custom(message) => Self::Custom(message.into()),
        }
    }
}

impl From<&Message> for CustomValue {
    fn from(message: &Message) -> Self {
        Self { kind: message.kind.clone(), value: Bytes::from(&message.value) }
    }
}

impl From<CustomValue> for Message {
    fn from(value: CustomValue) -> Self {
        Self::new(value.kind, value.value.0)
    }
}

impl Said {
    fn body(self) -> Result<Body> {
        let feed = |named: Named| {
            let feed = Introduced::new(FeedKey::from_bytes(named.key.array()?));
            anyhow::Ok(match named.label {
                Some(label) => feed.labelled(label),
                None => feed,
            })
        };
        Ok(match self {
            Self::IntroduceFeeds(feeds) => {
                Body::IntroduceFeeds(feeds.into_iter().map(feed).collect::<Result<_>>()?)
            }
            Self::Custom(value) => Body::Custom(value.into()),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[serde(rename = "type")]
    message_type: u64,
    bytes: Bytes,
}

/// To a side that has made two requests: an introduction, 1, and a custom one, 2.
fn message(input: &Value) -> Result<Outcome> {
    let input: Payload = read(input)?;
    let mut side = Side::new();
    side.ask(Said::IntroduceFeeds(vec![]))?;
    side.ask(Said::Custom(CustomValue { kind: "word".to_owned(), value: Bytes::default() }))?;
    side.wrote();
    if let Err(error) = side.channel.handle_message(input.message_type, input.bytes.shared()) {
        return refused(&error, json!(null));
    }
    let events = side.told();
    let again = again(&side)?;
    let is_same_form = again.as_ref() == Some(&input.bytes);
    let mut came =
        json!({ "events": events, "writes": side.wrote(), "finished": side.channel.remote_finished() });
    if let Some(again) = again.filter(|_| !is_same_form) {
        came["again"] = serde_json::to_value(again)?;
    }
    Outcome::accept(came)?.seen((!is_same_form).then_some(input.bytes))
}

fn refused(error: &Error, after: Value) -> Result<Outcome> {
    match error {
        Error::Decode(_) | Error::PeerMisbehaved(_) if after.is_null() => Outcome::refuse(Refusal::Channel),
        Error::Decode(_) | Error::PeerMisbehaved(_) => Outcome::refuse_after(Refusal::Channel, after),
        error => bail!("it fails otherwise: {error}"),
    }
}

/// How what has come would be written by one who says the same. A request has the id 1 then.
fn again(side: &Side) -> Result<Option<Bytes>> {
    let mut other = Side::new();
    match side.last.as_ref() {
        Some(Heard::Request(body)) => {
            other.channel.request(body.clone(), other.now)?;
        }
        Some(Heard::Ephemeral(message)) => other.channel.send_ephemeral(message.clone())?,
        Some(Heard::Answer(request, body)) => {
            let id = *request as u64 + 1;
            let asked = match body {
                Body::IntroduceFeeds(_) => speech::introduces(id, &[], &[]),
                Body::Custom(_) => speech::asks(id, "word", b""),
            };
            other.channel.handle_message(speech::REQUEST, asked.into())?;
            other.told();
            let told = other.theirs.pop().context("the request was not told")?;
            other.channel.respond(told, body.clone())?;
        }
        Some(Heard::Refusal) | None => return Ok(None),
    }
    Ok(other.wrote().pop().map(|(_, bytes)| bytes))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Talk {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    /// A request of our own.
    Ask {
        body: Said,
    },
    /// Answers the n-th request of the remote's that was told, from 0 on.
    Respond {
        request: usize,
        body: Said,
    },
    /// Refuses it.
    Refuse {
        request: usize,
        code: u64,
    },
    Ephemeral {
        message: CustomValue,
    },
    Finish,
    /// So much time goes by.
    Wait {
        seconds: u64,
    },
    Receive {
        #[serde(rename = "type")]
        message_type: u64,
        bytes: Bytes,
    },
}

fn transactions(input: &Value) -> Result<Outcome> {
    let Talk { steps } = read(input)?;
    let mut side = Side::new();
    let mut came = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let done = side.act(step).with_context(|| format!("step {number}"))?;
        came.push(json!({
            "events": side.told(),
            "writes": side.wrote(),
            "finished": side.channel.remote_finished(),
        }));
        if let Err(error) = done {
            return refused(&error, json!({ "steps": came }));
        }
    }
    Outcome::accept(json!({ "steps": came }))
}

/// One side of a channel.
struct Side {
    channel: PartyChannel,
    now: Instant,
    ours: Vec<TransactionId>,
    theirs: Vec<TransactionId>,
    last: Option<Heard>,
}

enum Heard {
    Request(Body),
    Ephemeral(Message),
    /// To which request of ours, from 0 on.
    Answer(usize, Body),
    /// That there is no answer. Why isn't told.
    Refusal,
}

impl Side {
    fn new() -> Self {
        let channel = PartyChannel::new(&Limits::default());
        // When it begins makes no difference.
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        Self { channel, now, ours: vec![], theirs: vec![], last: None }
    }

    fn ask(&mut self, body: Said) -> Result<()> {
        self.ours.push(self.channel.request(body.body()?, self.now)?);
        Ok(())
    }

    /// An error inside is the remote's doing, one outside is the scenario's.
    fn act(&mut self, step: Step) -> Result<Result<(), Error>> {
        let theirs = |side: &Self, n: usize| side.theirs.get(n).copied().context("no such request was told");
        match step {
            Step::Ask { body } => self.ask(body)?,
            Step::Respond { request, body } => {
                self.channel.respond(theirs(self, request)?, body.body()?)?;
            }
            Step::Refuse { request, code } => {
                let code = match code {
                    1 => RefusalCode::Refused,
                    2 => RefusalCode::Timeout,
                    3 => RefusalCode::Busy,
                    4 => RefusalCode::Unsupported,
                    other => bail!("there is no code {other}"),
                };
                self.channel.refuse(theirs(self, request)?, code);
            }
            Step::Ephemeral { message } => self.channel.send_ephemeral(message.into())?,
            Step::Finish => self.channel.finish(),
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.channel.handle_timeout(self.now);
            }
            Step::Receive { message_type, bytes } => {
                return Ok(self.channel.handle_message(message_type, bytes.shared()));
            }
        }
        Ok(Ok(()))
    }

    fn wrote(&mut self) -> Vec<(u64, Bytes)> {
        let written = std::iter::from_fn(|| self.channel.poll_transmit());
        written.map(|(message_type, bytes)| (message_type, Bytes(bytes))).collect()
    }

    fn told(&mut self) -> Vec<Value> {
        let mut told = Vec::new();
        while let Some(event) = self.channel.poll_event() {
            told.push(match event {
                Event::Request { id, body } => {
                    self.theirs.push(id);
                    let said = json!({ "event": "request", "body": Said::from(&body) });
                    self.last = Some(Heard::Request(body));
                    said
                }
                Event::Answered { id, result } => {
                    let request = self.ours.iter().position(|ours| *ours == id).unwrap_or(usize::MAX);
                    self.last = Some(match &result {
                        Ok(body) => Heard::Answer(request, body.clone()),
                        Err(_) => Heard::Refusal,
                    });
                    match result {
                        Ok(body) => {
                            json!({ "event": "answered", "request": request, "body": Said::from(&body) })
                        }
                        Err(Error::Timeout) => json!({ "event": "timeout", "request": request }),
                        Err(_) => json!({ "event": "refused", "request": request }),
                    }
                }
                Event::Ephemeral(message) => {
                    let said = json!({ "event": "ephemeral", "message": CustomValue::from(&message) });
                    self.last = Some(Heard::Ephemeral(message));
                    said
                }
            });
        }
        told
    }
}
