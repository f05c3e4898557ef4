//! Replays what two real protomux ends did, one end at a time: given the same calls and the frames of the
//! other end, ours must tell the same and write the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use party::{
    encoding::Reader,
    limits::Limits,
    mux::{ChannelId, Event, Incoming, Mux},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    serves: Vec<String>,
    accepts: Vec<String>,
    steps: Vec<Step>,
    expect: Vec<Expect>,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Step {
    Open(Open),
    Accept(Open),
    Reject,
    Send {
        channel: String,
        #[serde(rename = "type")]
        message_type: u64,
        payload: String,
    },
    Close {
        channel: String,
    },
    Cork,
    Uncork,
    Receive {
        frame: String,
    },
}

#[derive(Deserialize)]
struct Open {
    channel: String,
    protocol: String,
    #[serde(default)]
    aliases: Vec<String>,
    id: Option<String>,
    #[serde(default)]
    handshake: String,
}

#[derive(Deserialize)]
struct Expect {
    writes: Vec<String>,
    events: Vec<Told>,
    #[serde(default)]
    refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told {
    Incoming {
        protocol: String,
        id: String,
    },
    Opened {
        channel: String,
        handshake: String,
    },
    Message {
        channel: String,
        #[serde(rename = "type")]
        message_type: u64,
        payload: String,
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

struct End<'a> {
    case: &'a Case,
    answer: Answer,
    mux: Mux,
    names: BTreeMap<ChannelId, String>,
    channels: BTreeMap<String, ChannelId>,
    /// With what the remote said in its open.
    waiting: VecDeque<(Incoming, String)>,
    accepted: usize,
    told: Vec<Told>,
}

impl<'a> End<'a> {
    fn new(case: &'a Case, answer: Answer) -> Self {
        Self {
            case,
            answer,
            mux: Mux::new(&Limits::default()),
            names: BTreeMap::new(),
            channels: BTreeMap::new(),
            waiting: VecDeque::new(),
            accepted: 0,
            told: Vec::new(),
        }
    }

    fn act(&mut self, step: &Step, at: &str) {
        match step {
            Step::Open(open) => {
                let aliases: Vec<&str> = open.aliases.iter().map(String::as_str).collect();
                self.mux.set_aliases(&open.protocol, &aliases);
                let channel = self.open(open);
                self.name(channel, &open.channel);
            }
            Step::Accept(open) => {
                let (incoming, theirs) = self.waiting.pop_front().expect("an open waits");
                let channel = match self.answer {
                    Answer::Open => self.open(open),
                    Answer::Accept => {
                        let channel = self.mux.accept(incoming, &unhex(&open.handshake));
                        // Our program knows it from the open; Node tells it now.
                        let (channel_name, handshake) = (open.channel.clone(), theirs);
                        self.told.push(Told::Opened { channel: channel_name, handshake });
                        channel.expect("within the limits").expect("not answered yet")
                    }
                };
                self.name(channel, &open.channel);
            }
            Step::Reject => {
                let (incoming, _) = self.waiting.pop_front().expect("an open waits");
                self.mux.reject(incoming);
            }
            Step::Send { channel, message_type, payload } => {
                let sent = self.mux.send(self.channels[channel], *message_type, &unhex(payload));
                assert!(sent.is_ok(), "{at}");
            }
            Step::Close { channel } => self.mux.close(self.channels[channel]),
            Step::Cork => self.mux.cork(),
            Step::Uncork => self.mux.uncork(),
            Step::Receive { frame } => self.mux.handle_message(unhex(frame).into()),
        }
    }

    fn open(&mut self, open: &Open) -> ChannelId {
        let id = open.id.as_deref().map(unhex);
        let channel = self.mux.open(&open.protocol, id.as_deref(), &unhex(&open.handshake));
        channel.expect("within the limits")
    }

    fn name(&mut self, channel: ChannelId, name: &str) {
        self.names.insert(channel, name.to_owned());
        self.channels.insert(name.to_owned(), channel);
    }

    fn tell(&mut self, event: Event) {
        let told = match event {
            Event::Incoming { incoming, protocol, id, handshake } => {
                self.incoming(incoming, protocol, id.map(|id| hex(&id)).unwrap_or_default(), &handshake);
                return;
            }
            Event::Opened { channel, handshake } => {
                Told::Opened { channel: self.names[&channel].clone(), handshake: hex(&handshake) }
            }
            Event::Message { channel, message_type, payload } => {
                Told::Message { channel: self.names[&channel].clone(), message_type, payload: hex(&payload) }
            }
            Event::Closed { channel, .. } => Told::Closed { channel: self.names[&channel].clone() },
        };
        self.told.push(told);
    }

    fn incoming(&mut self, incoming: Incoming, protocol: String, id: String, handshake: &Bytes) {
        if self.case.serves.contains(&protocol) {
            self.waiting.push_back((incoming, hex(handshake)));
            self.told.push(Told::Incoming { protocol, id });
        } else if self.case.accepts.contains(&protocol) {
            let channel =
                self.mux.accept(incoming, b"").expect("within the limits").expect("not answered yet");
            let name = format!("in{}", self.accepted);
            self.accepted += 1;
            self.name(channel, &name);
            self.told.push(Told::Incoming { protocol, id });
            self.told.push(Told::Opened { channel: name, handshake: hex(handshake) });
        } else {
            self.mux.reject(incoming);
        }
    }
}

/// What has been written, message by message, whichever way they were batched.
#[derive(Default)]
struct Written {
    messages: Vec<(u64, Vec<u8>)>,
    open: BTreeSet<u64>,
}

impl Written {
    fn add(&mut self, frame: &[u8]) {
        let mut reader = Reader::new(frame);
        let mut channel = reader.uint().expect("a channel");
        let body = reader.remaining();
        if channel != 0 || reader.uint().expect("a type") != 0 {
            return self.message(channel, body);
        }
        channel = reader.uint().expect("a channel");
        while !reader.is_empty() {
            match reader.buffer().expect("a message") {
                [] => channel = reader.uint().expect("a channel"),
                message => self.message(channel, message),
            }
        }
    }

    fn message(&mut self, channel: u64, message: &[u8]) {
        if channel == 0 {
            let mut reader = Reader::new(message);
            let (message_type, id) = (reader.uint().expect("a type"), reader.uint().expect("an id"));
            let stands = match message_type {
                1 => self.open.insert(id),
                3 => self.open.remove(&id),
                _ => true,
            };
            // We close once more what was closed while its open was on the way.
            if !stands && message_type == 3 {
                return;
            }
        }
        self.messages.push((channel, message.to_vec()));
    }
}

/// Returns how many frames were written, and how many of them are Node's to the byte.
fn replay(case: &Case, answer: Answer) -> (usize, usize) {
    let name = &case.name;
    let mut end = End::new(case, answer);
    let (mut ours, mut nodes) = (Written::default(), Written::default());
    let (mut frames, mut same) = (0, 0);
    assert_eq!(case.steps.len(), case.expect.len(), "{name}");
    for (number, (step, expect)) in case.steps.iter().zip(&case.expect).enumerate() {
        let at = format!("{name}, step {number}");
        end.act(step, &at);
        let refused = loop {
            match end.mux.poll_event() {
                Ok(Some(event)) => end.tell(event),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert_eq!(refused, expect.refused, "{at}");
        assert_eq!(std::mem::take(&mut end.told), expect.events, "{at}");
        let wrote: Vec<Bytes> = std::iter::from_fn(|| end.mux.poll_transmit()).collect();
        wrote.iter().for_each(|frame| ours.add(frame));
        expect.writes.iter().for_each(|frame| nodes.add(&unhex(frame)));
        assert_eq!(ours.messages, nodes.messages, "{at}");
        frames += wrote.len();
        same += wrote.iter().zip(&expect.writes).filter(|(ours, nodes)| hex(ours) == **nodes).count();
    }
    (frames, same)
}

//= MUX-2, MUX-8, MUX-10
#[test]
fn what_node_tells_and_writes_we_tell_and_write() {
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors/protomux.json")).expect("vectors");
    for answer in [Answer::Accept, Answer::Open] {
        let (mut frames, mut same) = (0, 0);
        for case in &vectors.cases {
            let (f, s) = replay(case, answer);
            frames += f;
            same += s;
        }
        // What differs are single messages that Node had corked, and closes that are said once more.
        assert!(frames > 500 && same * 100 > frames * 97, "{same} of {frames} frames are the same");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}
