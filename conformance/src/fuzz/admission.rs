//! The channel of a party: two honest ends on a slow wire, and one end whose remote says anything.
#![allow(clippy::disallowed_methods, reason = "any time will do to begin with")]

use std::{
    collections::{BTreeMap, VecDeque},
    mem::discriminant,
    time::{Duration, Instant},
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use party::{
    admission::{
        Body, Event, Hello, Introduced, Message, PartyChannel, RefusalCode, TransactionId, membership,
    },
    error::{ApiMisuse, DecodeError, Error, PeerMisbehaved},
    key::{FeedKey, PartyKey, PublicKey},
    limits::Limits,
    session::Session,
};

use super::{
    input::{Few, Short, steps},
    protobuf::Field,
};

/// Bounds low enough to be met.
pub(super) fn limits() -> Limits {
    Limits {
        max_party_message: 300,
        max_introduced_feeds: 3,
        max_label: 20,
        max_remote_transactions: 3,
        max_local_transactions: 5,
        max_stray_answers: 2,
        ..Limits::default()
    }
}

/// What is asked or answered, as the fuzzer makes it up.
#[derive(Arbitrary, Clone, Debug)]
pub(super) enum Said<'a> {
    Feeds(Few<(u8, Short<'a>), 4>),
    Custom(Short<'a>, Short<'a>),
}

impl Said<'_> {
    pub(super) fn body(&self) -> Body {
        match self {
            Self::Feeds(feeds) => {
                let feeds = feeds.0.iter().map(|(key, label)| {
                    Introduced::new(FeedKey::from_bytes([*key; 32]))
                        .labelled(String::from_utf8_lossy(label.0))
                });
                Body::IntroduceFeeds(feeds.collect())
            }
            Self::Custom(kind, value) => Body::Custom(message(*kind, *value)),
        }
    }

    /// As an answer to something of the kind of `asked`.
    fn answer(&self, asked: &Body) -> Body {
        let body = self.body();
        match asked {
            _ if discriminant(&body) == discriminant(asked) => body,
            Body::IntroduceFeeds(_) => Body::IntroduceFeeds(vec![]),
            Body::Custom(_) => Body::Custom(Message::default()),
        }
    }
}

pub(super) fn message(kind: Short<'_>, value: Short<'_>) -> Message {
    Message::new(String::from_utf8_lossy(kind.0), Bytes::copy_from_slice(value.0))
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Code {
    Refused,
    Timeout,
    Busy,
    Unsupported,
}

impl From<Code> for RefusalCode {
    fn from(code: Code) -> Self {
        match code {
            Code::Refused => Self::Refused,
            Code::Timeout => Self::Timeout,
            Code::Busy => Self::Busy,
            Code::Unsupported => Self::Unsupported,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Ask(Said<'a>),
    Answer(u8, Said<'a>),
    Refuse(u8, Code),
    Tell(Short<'a>, Short<'a>),
    Finish,
    Resume,
    Deliver(u8),
    Wait(u16),
}

/// The first byte says which of the bodies takes the rest.
pub fn admission(data: &[u8]) {
    match data {
        [first, rest @ ..] if first % 4 == 0 => admission_proof(rest),
        [first, rest @ ..] if first % 4 == 1 => admitted_by_hostile(rest),
        [_, rest @ ..] => admitted_pair(rest),
        [] => {}
    }
}

/// Hellos of whoever may be at the other end. Only who knows the key of the party, on this connection and in the other
/// role, makes one that is believed.
pub fn admission_proof(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let sessions = [0, 1].map(|end| Session {
        binding: [4; 64],
        is_initiator: end == 0,
        local: PublicKey::from_bytes([1 + end; 32]),
        remote: PublicKey::from_bytes([2 - end; 32]),
    });
    let party = PartyKey::from_bytes([7; 32]);
    assert_eq!(
        membership::channel_id(&sessions[0], &party),
        membership::channel_id(&sessions[1], &party),
        "the ends open different channels"
    );
    let Ok((from_us, other_party, other_connection, changes)) =
        input.arbitrary::<(bool, bool, bool, Few<(u8, u8), 4>)>()
    else {
        return;
    };
    let mut session = sessions[usize::from(!from_us)].clone();
    session.binding[63] ^= u8::from(other_connection);
    let proved = membership::prove(&session, &PartyKey::from_bytes([7 + u8::from(other_party); 32]));
    let honest = membership::prove(&sessions[1], &party);
    let mut bytes = Hello::new(proved).encode();
    for (at, bits) in changes.0 {
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= bits;
    }
    if let Ok(rest) = input.arbitrary::<Short<'_>>() {
        bytes.extend_from_slice(rest.0);
    }
    match Hello::decode(bytes.into()) {
        Ok(hello) => {
            let is_true = hello.proof == honest[..];
            assert_eq!(membership::verify(&sessions[0], &party, &hello.proof), is_true);
            assert_eq!(Hello::decode(hello.encode().into()), Ok(hello));
        }
        Err(error) => assert!(matches!(error, DecodeError::Protobuf | DecodeError::Unknown { .. })),
    }
}

/// Two honest ends. What one asks, the other hears, once and in its words; each question has one outcome, which is the
/// answer, the refusal, or that it took too long; and nothing grows beyond its bound.
pub fn admitted_pair(data: &[u8]) {
    let mut pair = Pair { ends: [End::new(), End::new()], wires: Default::default(), now: Instant::now() };
    for (from, step) in steps::<(bool, Step<'_>)>(Unstructured::new(data)) {
        pair.step(usize::from(from), step);
        pair.settle();
    }
    // In the end all comes to rest.
    pair.deliver(0, usize::MAX);
    pair.deliver(1, usize::MAX);
    pair.wait(limits().transaction_timeout);
    pair.settle();
    for end in &pair.ends {
        assert!(end.asked.is_empty(), "a question without an outcome");
    }
}

struct End {
    channel: PartyChannel,
    /// Questions without an outcome.
    asked: BTreeMap<TransactionId, Asked>,
    /// All that has been asked, and not been heard yet.
    unheard: VecDeque<(TransactionId, Body)>,
    /// Questions of the other end, not answered yet.
    heard: Vec<(TransactionId, Body)>,
    told: VecDeque<Message>,
    /// Questions whose outcome was that it took too long.
    given_up: usize,
    has_finished: bool,
    /// It has been told something that it could not keep apart from misbehaviour.
    is_over: bool,
}

struct Asked {
    kind: std::mem::Discriminant<Body>,
    deadline: Instant,
    answer: Option<Outcome>,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Answered(Body),
    Refused,
    Late,
}

struct Pair {
    ends: [End; 2],
    /// What each end has sent, and the other has not got.
    wires: [VecDeque<(u64, Vec<u8>)>; 2],
    now: Instant,
}

impl End {
    fn new() -> Self {
        Self {
            channel: PartyChannel::new(&limits()),
            asked: BTreeMap::new(),
            unheard: VecDeque::new(),
            heard: Vec::new(),
            told: VecDeque::new(),
            given_up: 0,
            has_finished: false,
            is_over: false,
        }
    }
}

fn is_misuse(error: &ApiMisuse) -> bool {
    let limits = ["max_label", "max_introduced_feeds"];
    match error {
        ApiMisuse::MessageTooLarge { .. } => true,
        ApiMisuse::LimitExceeded(limit) => limits.contains(limit),
        _ => false,
    }
}

impl Pair {
    fn step(&mut self, from: usize, step: Step<'_>) {
        let [a, b] = &mut self.ends;
        let (end, other) = if from == 0 { (a, b) } else { (b, a) };
        match step {
            Step::Ask(said) => {
                let body = said.body();
                match end.channel.request(body.clone(), self.now) {
                    Ok(id) => {
                        let deadline = self.now + limits().transaction_timeout;
                        let asked = Asked { kind: discriminant(&body), deadline, answer: None };
                        assert!(end.asked.insert(id, asked).is_none(), "an id is used again");
                        end.unheard.push_back((id, body));
                    }
                    Err(ApiMisuse::LimitExceeded("max_local_transactions")) => {
                        assert_eq!(end.asked.len(), limits().max_local_transactions);
                    }
                    Err(error) => assert!(is_misuse(&error), "{error}"),
                }
            }
            Step::Answer(which, said) if !end.heard.is_empty() => {
                let (id, asked) = end.heard.remove(usize::from(which) % end.heard.len());
                let answer = said.answer(&asked);
                let outcome = match end.channel.respond(id, answer.clone()) {
                    Ok(()) => Outcome::Answered(answer),
                    Err(error) => {
                        assert!(is_misuse(&error), "{error}");
                        Outcome::Refused
                    }
                };
                other.expect(id, outcome);
            }
            Step::Refuse(which, code) if !end.heard.is_empty() => {
                let (id, _) = end.heard.remove(usize::from(which) % end.heard.len());
                end.channel.refuse(id, code.into());
                other
                    .expect(id, if matches!(code, Code::Timeout) { Outcome::Late } else { Outcome::Refused });
            }
            Step::Tell(kind, value) => {
                let message = message(kind, value);
                match end.channel.send_ephemeral(message.clone()) {
                    Ok(()) => end.told.push_back(message),
                    Err(error) => assert!(is_misuse(&error), "{error}"),
                }
            }
            Step::Finish => end.channel.finish(),
            Step::Resume => end.channel.resume(),
            Step::Deliver(count) => self.deliver(from, count.into()),
            Step::Wait(millis) => self.wait(Duration::from_millis(millis.into())),
            Step::Answer(..) | Step::Refuse(..) => {}
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            if end.channel.poll_timeout().is_some_and(|at| at <= self.now) {
                end.channel.handle_timeout(self.now);
            }
            assert!(end.channel.poll_timeout().is_none_or(|at| at > self.now));
        }
    }

    fn deliver(&mut self, from: usize, count: usize) {
        let wire = &mut self.wires[from];
        let end = &mut self.ends[1 - from];
        for (message_type, payload) in wire.drain(..count.min(wire.len())) {
            end.has_finished = message_type == 4;
            match end.channel.handle_message(message_type, payload.into()) {
                Ok(()) => assert_eq!(end.channel.remote_finished(), end.has_finished),
                // Answers that come after more questions than are remembered.
                Err(Error::PeerMisbehaved(PeerMisbehaved::UnknownTransaction)) => {
                    assert!(end.given_up > limits().max_local_transactions + limits().max_stray_answers);
                    end.is_over = true;
                }
                Err(error) => panic!("an honest end is blamed: {error}"),
            }
        }
    }

    /// Takes all that the channels have to say.
    fn settle(&mut self) {
        for n in 0..2 {
            let [a, b] = &mut self.ends;
            let (end, other) = if n == 0 { (a, b) } else { (b, a) };
            while let Some(event) = end.channel.poll_event() {
                match event {
                    Event::Request { id, body } => {
                        // Those before it were told to wait, as there were too many.
                        let passed = other.unheard.iter().position(|(asked, _)| *asked == id);
                        let passed = passed.expect("a question that was not asked");
                        let busy: Vec<_> = other.unheard.drain(..passed).collect();
                        for (busy, _) in busy {
                            other.expect(busy, Outcome::Refused);
                        }
                        assert_eq!(other.unheard.pop_front(), Some((id, body.clone())));
                        end.heard.push((id, body));
                        assert!(end.heard.len() <= limits().max_remote_transactions);
                    }
                    Event::Answered { id, result } => end.check(id, result, self.now),
                    Event::Ephemeral(message) => assert_eq!(other.told.pop_front(), Some(message)),
                }
            }
            self.wires[n].extend(std::iter::from_fn(|| end.channel.poll_transmit()));
            assert!(end.asked.len() <= limits().max_local_transactions);
            assert!(end.channel.is_idle() == (end.asked.is_empty() && end.heard.is_empty()));
        }
    }
}

impl End {
    /// Notes what the other end has made of a question.
    fn expect(&mut self, id: TransactionId, outcome: Outcome) {
        if let Some(asked) = self.asked.get_mut(&id) {
            asked.answer = Some(outcome);
        }
    }

    fn check(&mut self, id: TransactionId, result: Result<Body, Error>, now: Instant) {
        let asked = self.asked.remove(&id).expect("a second outcome");
        match result {
            Ok(body) => {
                assert_eq!(asked.kind, discriminant(&body));
                assert_eq!(asked.answer, Some(Outcome::Answered(body)));
            }
            Err(Error::Timeout) if asked.deadline <= now => self.given_up += 1,
            Err(Error::Timeout) => assert_eq!(asked.answer, Some(Outcome::Late)),
            // If it was never heard, there were too many of them.
            Err(Error::Refused) => assert!(matches!(asked.answer, None | Some(Outcome::Refused))),
            Err(error) => panic!("{error}"),
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Heard<'a> {
    /// A message of a type, any.
    Bytes(u8, Short<'a>),
    Fields(u8, Few<Field<'a>, 6>),
    Request(u8, Said<'a>),
    Response(u8, Said<'a>),
    Error(u8, Code),
    Local(Step<'a>),
}

/// One end, whose remote says anything. Whatever it says has a typed error or a place, and no more is kept than may be.
pub fn admitted_by_hostile(data: &[u8]) {
    let limits = limits();
    let mut channel = PartyChannel::new(&limits);
    // What another end would send: it is that of a channel, with ids of our choice.
    let mut now = Instant::now();
    let mut heard: Vec<(TransactionId, Body)> = Vec::new();
    let mut asked = BTreeMap::new();
    for step in steps::<Heard<'_>>(Unstructured::new(data)) {
        let (message_type, payload) = match step {
            Heard::Bytes(message_type, payload) => (u64::from(message_type % 6), payload.0.to_vec()),
            Heard::Fields(message_type, fields) => {
                (u64::from(message_type % 6), Field::encode_all(&fields.0))
            }
            Heard::Request(id, said) => (0, super::party_messages::transaction(id.into(), &said.body())),
            Heard::Response(id, said) => (1, super::party_messages::transaction(id.into(), &said.body())),
            Heard::Error(id, code) => (2, super::party_messages::refusal(id.into(), code.into())),
            Heard::Local(step) => {
                match step {
                    Step::Ask(said) => {
                        let body = said.body();
                        if let Ok(id) = channel.request(body.clone(), now) {
                            asked.insert(id, discriminant(&body));
                        }
                    }
                    Step::Answer(which, said) if !heard.is_empty() => {
                        let (id, asked) = heard.remove(usize::from(which) % heard.len());
                        let _ = channel.respond(id, said.answer(&asked));
                    }
                    Step::Refuse(which, code) if !heard.is_empty() => {
                        let (id, _) = heard.remove(usize::from(which) % heard.len());
                        channel.refuse(id, code.into());
                    }
                    Step::Wait(millis) => {
                        now += Duration::from_millis(millis.into());
                        channel.handle_timeout(now);
                    }
                    _ => channel.finish(),
                }
                (u64::MAX, vec![])
            }
        };
        let result = channel.handle_message(message_type, payload.into());
        while let Some(event) = channel.poll_event() {
            match event {
                Event::Request { id, body } => heard.push((id, body)),
                Event::Answered { id, result } => {
                    let kind = asked.remove(&id).expect("an outcome of nothing that was asked");
                    assert!(result.is_err() || result.is_ok_and(|body| discriminant(&body) == kind));
                }
                Event::Ephemeral(_) => {}
            }
        }
        let sent = std::iter::from_fn(|| channel.poll_transmit());
        assert!(sent.fuse().all(|(_, payload)| payload.len() <= limits.max_party_message));
        assert!(heard.len() <= limits.max_remote_transactions);
        assert_eq!(channel.is_idle(), heard.is_empty() && asked.is_empty());
        if let Err(error) = result {
            assert!(matches!(error, Error::PeerMisbehaved(_) | Error::Decode(_)), "{error}");
            return;
        }
    }
}
