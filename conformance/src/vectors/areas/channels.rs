//! Protomux: one end of a stream of messages, given the same calls and the frames of the other end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context as _, Result, ensure};
use party::{
    encoding::Reader,
    error::DecodeError,
    limits::Limits,
    mux::{ChannelId, Event, Incoming, Mux},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::vectors::{Bytes, Expect, Kind, Outcome, Refusal, kind::read};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("session", play).comparing(as_messages),
    Kind::new("frame", play).wire("/steps/4/frame").lax().comparing(as_messages),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    /// Protocols of which opens wait for a step.
    serves: Vec<String>,
    /// Protocols of which opens are accepted at once. All others are rejected.
    accepts: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Open(Open),
    Accept(Open),
    Reject,
    Send {
        channel: String,
        #[serde(rename = "type")]
        message_type: u64,
        payload: Bytes,
    },
    Close {
        channel: String,
    },
    Cork,
    Uncork,
    Receive {
        frame: Bytes,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    channel: String,
    protocol: String,
    #[serde(default)]
    aliases: Vec<String>,
    id: Option<Bytes>,
    #[serde(default)]
    handshake: Bytes,
}

/// What came of a step.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Came {
    writes: Vec<Bytes>,
    events: Vec<Told>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Told {
    Incoming {
        protocol: String,
        id: Bytes,
    },
    Opened {
        channel: String,
        handshake: Bytes,
    },
    Message {
        channel: String,
        #[serde(rename = "type")]
        message_type: u64,
        payload: Bytes,
    },
    Closed {
        channel: String,
    },
}

/// How an open of the remote's is answered.
#[derive(Clone, Copy)]
enum Answer {
    Accept,
    /// By an open of our own that finds it waiting.
    Open,
}

/// Whichever way opens are answered, the same must come of it.
fn play(input: &Value) -> Result<Outcome> {
    let input: Input = read(input)?;
    let outcome = replay(&input, Answer::Accept)?;
    let other = as_messages(replay(&input, Answer::Open)?.expect);
    ensure!(as_messages(outcome.expect.clone()) == other, "answered by opens, something else comes of it");
    Ok(outcome)
}

fn replay(input: &Input, answer: Answer) -> Result<Outcome> {
    let mut end = End {
        input,
        answer,
        mux: Mux::new(&Limits::default()),
        names: BTreeMap::new(),
        channels: BTreeMap::new(),
        waiting: VecDeque::new(),
        accepted: 0,
        told: Vec::new(),
    };
    let mut steps = Vec::new();
    for (number, step) in input.steps.iter().enumerate() {
        end.act(step).with_context(|| format!("step {number}"))?;
        let refused = loop {
            match end.mux.poll_event() {
                Ok(Some(event)) => end.tell(event)?,
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let writes = std::iter::from_fn(|| end.mux.poll_transmit()).map(Bytes::from).collect();
        steps.push(Came { writes, events: std::mem::take(&mut end.told) });
        if refused {
            // What an end still hears as it goes down is its own matter.
            if let Some(last) = steps.last_mut() {
                last.events.clear();
            }
            return Outcome::refuse_after(Refusal::Connection, json!({ "steps": steps }));
        }
    }
    Outcome::accept(json!({ "steps": steps }))
}

struct End<'a> {
    input: &'a Input,
    answer: Answer,
    mux: Mux,
    names: BTreeMap<ChannelId, String>,
    channels: BTreeMap<String, ChannelId>,
    /// With what the remote said in its open.
    waiting: VecDeque<(Incoming, Bytes)>,
    accepted: usize,
    told: Vec<Told>,
}

impl End<'_> {
    fn act(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Open(open) => {
                let aliases: Vec<&str> = open.aliases.iter().map(String::as_str).collect();
                self.mux.set_aliases(&open.protocol, &aliases);
                let channel = self.open(open)?;
                self.name(channel, &open.channel);
            }
            Step::Accept(open) => {
                let (incoming, theirs) = self.waiting.pop_front().context("no open waits")?;
                let channel = match self.answer {
                    Answer::Open => self.open(open)?,
                    Answer::Accept => {
                        let channel = self.mux.accept(incoming, &open.handshake)?;
                        // A program knows it from the open. Node tells it now.
                        self.told.push(Told::Opened { channel: open.channel.clone(), handshake: theirs });
                        channel.context("answered already")?
                    }
                };
                self.name(channel, &open.channel);
            }
            Step::Reject => {
                let (incoming, _) = self.waiting.pop_front().context("no open waits")?;
                self.mux.reject(incoming);
            }
            Step::Send { channel, message_type, payload } => {
                self.mux.send(self.channel(channel)?, *message_type, payload)?;
            }
            Step::Close { channel } => self.mux.close(self.channel(channel)?),
            Step::Cork => self.mux.cork(),
            Step::Uncork => self.mux.uncork(),
            Step::Receive { frame } => self.mux.handle_message(frame.shared()),
        }
        Ok(())
    }

    fn open(&mut self, open: &Open) -> Result<ChannelId> {
        Ok(self.mux.open(&open.protocol, open.id.as_deref(), &open.handshake)?)
    }

    fn channel(&self, name: &str) -> Result<ChannelId> {
        self.channels.get(name).copied().with_context(|| format!("there is no channel {name}"))
    }

    fn name(&mut self, channel: ChannelId, name: &str) {
        self.names.insert(channel, name.to_owned());
        self.channels.insert(name.to_owned(), channel);
    }

    fn named(&self, channel: ChannelId) -> Result<String> {
        self.names.get(&channel).cloned().context("an event of an unknown channel")
    }

    fn tell(&mut self, event: Event) -> Result<()> {
        let told = match event {
            Event::Incoming { incoming, protocol, id, handshake } => {
                return self.incoming(incoming, protocol, id.unwrap_or_default().into(), handshake.into());
            }
            Event::Opened { channel, handshake } => {
                Told::Opened { channel: self.named(channel)?, handshake: handshake.into() }
            }
            Event::Message { channel, message_type, payload } => {
                Told::Message { channel: self.named(channel)?, message_type, payload: payload.into() }
            }
            Event::Closed { channel, .. } => Told::Closed { channel: self.named(channel)? },
        };
        self.told.push(told);
        Ok(())
    }

    fn incoming(&mut self, incoming: Incoming, protocol: String, id: Bytes, handshake: Bytes) -> Result<()> {
        if self.input.serves.contains(&protocol) {
            self.waiting.push_back((incoming, handshake));
            self.told.push(Told::Incoming { protocol, id });
        } else if self.input.accepts.contains(&protocol) {
            let channel = self.mux.accept(incoming, b"")?.context("answered already")?;
            let name = format!("in{}", self.accepted);
            self.accepted += 1;
            self.name(channel, &name);
            self.told.push(Told::Incoming { protocol, id });
            self.told.push(Told::Opened { channel: name, handshake });
        } else {
            self.mux.reject(incoming);
        }
        Ok(())
    }
}

/// Leaves of what was written the messages, as an end may join them as it likes (`MUX-40`), without closes that are said
/// once more (`MUX-16`).
fn as_messages(expect: Expect) -> Expect {
    match expect {
        Expect::Accept(values) => Expect::Accept(unframed(values)),
        Expect::Refuse { how, after } => Expect::Refuse { how, after: after.map(unframed) },
    }
}

/// As it came, if it is not of the form that it should have: then it is not what is expected either.
fn unframed(values: Value) -> Value {
    let mut written = Written::default();
    let mut steps = Vec::new();
    let Some(Ok(came)) = values.get("steps").map(Vec::<Came>::deserialize) else { return values };
    for step in came {
        if step.writes.iter().any(|frame| written.add(frame).is_err()) {
            return values;
        }
        steps.push(json!({ "messages": std::mem::take(&mut written.messages), "events": step.events }));
    }
    json!({ "steps": steps })
}

/// What has been written, message by message.
#[derive(Default)]
struct Written {
    messages: Vec<(u64, Bytes)>,
    open: BTreeSet<u64>,
}

impl Written {
    fn add(&mut self, frame: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(frame);
        let mut channel = reader.uint()?;
        let body = reader.remaining();
        if channel != 0 || reader.uint()? != 0 {
            return self.message(channel, body);
        }
        channel = reader.uint()?;
        while !reader.is_empty() {
            match reader.buffer()? {
                [] => channel = reader.uint()?,
                message => self.message(channel, message)?,
            }
        }
        Ok(())
    }

    fn message(&mut self, channel: u64, message: &[u8]) -> Result<(), DecodeError> {
        if channel == 0 {
            let mut reader = Reader::new(message);
            let (message_type, id) = (reader.uint()?, reader.uint()?);
            let stands = match message_type {
                1 => self.open.insert(id),
                3 => self.open.remove(&id),
                _ => true,
            };
            if !stands && message_type == 3 {
                return Ok(());
            }
        }
        self.messages.push((channel, message.into()));
        Ok(())
    }
}
