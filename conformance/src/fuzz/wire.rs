//! Two honest ends, and somebody on the wire between them who does as the fuzzer says.
//!
//! Whatever is done to the bytes, what an end receives is the beginning of what the other sent, and both
//! agree on who they are. If the bytes are only cut and joined, everything arrives.

use bytes::{Bytes, BytesMut};
use party::{
    error::{Error, PeerMisbehaved},
    key::KeyPair,
    limits::Limits,
    noise::{Handshake, HandshakeConfig, Pattern, Progress, SecretStream, Split},
    session::Session,
};

use super::script::Script;

/// Noise from the first byte, XX or IK, and what follows.
pub fn handshake(data: &[u8]) {
    let mut script = Script::new(data);
    let pattern = if script.flag() { Pattern::Ik } else { Pattern::Xx };
    let limits = Limits::default();
    let keys = [KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32])];
    let remote = keys[1].public();
    let start = |is_initiator: bool, local: KeyPair| {
        let remote = (is_initiator && pattern == Pattern::Ik).then_some(remote);
        let config = HandshakeConfig {
            pattern,
            remote,
            ..HandshakeConfig::xx(is_initiator, local, [u8::from(is_initiator); 32])
        };
        State::Handshake(Handshake::new(config, &limits).expect("the keys are good"))
    };
    let [initiator, responder] = keys;
    Wire::new([start(true, initiator), start(false, responder)]).run(&mut script);
}

/// The secret stream from its header on.
pub fn secret_stream(data: &[u8]) {
    let limits = Limits { max_frame: 10_000, ..Limits::default() };
    let keys = [KeyPair::from_seed(&[1; 32]).public(), KeyPair::from_seed(&[2; 32]).public()];
    let start = |is_initiator: bool| {
        let (us, them) = if is_initiator { (0, 1) } else { (1, 0) };
        let session = Session { binding: [3; 64], is_initiator, local: keys[us], remote: keys[them] };
        let split = Split { tx: [us as u8; 32].into(), rx: [them as u8; 32].into(), session };
        State::Stream(SecretStream::from_split(split, [us as u8; 24], &limits))
    };
    Wire::new([start(true), start(false)]).run(&mut Script::new(data));
}

struct Wire {
    ends: [End; 2],
    /// What each end has sent and the other has not got yet.
    in_flight: [BytesMut; 2],
    is_intact: bool,
}

struct End {
    state: State,
    input: BytesMut,
    sent: Vec<Vec<u8>>,
    received: Vec<Bytes>,
    keep_alives_sent: u64,
}

enum State {
    Handshake(Handshake),
    Stream(SecretStream),
    Failed,
}

impl Wire {
    fn new(states: [State; 2]) -> Self {
        let ends = states.map(|state| End {
            state,
            input: BytesMut::new(),
            sent: Vec::new(),
            received: Vec::new(),
            keep_alives_sent: 0,
        });
        let mut wire = Self { ends, in_flight: Default::default(), is_intact: true };
        wire.collect();
        wire
    }

    fn run(mut self, script: &mut Script<'_>) {
        while !script.is_over() {
            let from = usize::from(script.flag());
            match script.byte() % 8 {
                0 => self.deliver(from, usize::MAX),
                1 => {
                    let count = usize::from(script.byte()) + 1;
                    self.deliver(from, count);
                }
                2 => {
                    let (at, bits) = (script.number(), script.byte());
                    self.tamper(from, |bytes| {
                        let length = bytes.len().max(1);
                        if let Some(byte) = bytes.get_mut(at % length) {
                            *byte ^= bits;
                        }
                    });
                }
                3 => {
                    let (at, length) = (script.number(), usize::from(script.byte()));
                    let inserted = script.bytes(length);
                    self.tamper(from, |bytes| {
                        let tail = bytes.split_off(at % (bytes.len() + 1));
                        bytes.extend_from_slice(inserted);
                        bytes.unsplit(tail);
                    });
                }
                4 => {
                    let (at, length) = (script.number(), usize::from(script.byte()));
                    self.tamper(from, |bytes| {
                        let mut tail = bytes.split_off(at % (bytes.len() + 1));
                        let rest = tail.split_off(length.min(tail.len()));
                        bytes.unsplit(rest);
                    });
                }
                // Reflects what the other end has sent, as far as it is still on the wire.
                5 => {
                    let reflected = self.in_flight[1 - from].clone();
                    self.tamper(from, |bytes| *bytes = reflected);
                }
                6 => {
                    let length = script.number() % 6_000;
                    self.ends[from].seal(vec![length as u8; length]);
                }
                _ => self.ends[from].keep_alive(),
            }
            self.collect();
            self.check();
        }
        if self.is_intact {
            self.deliver_all();
        }
    }

    fn deliver(&mut self, from: usize, count: usize) {
        let bytes = &mut self.in_flight[from];
        let bytes = bytes.split_to(count.min(bytes.len()));
        self.ends[1 - from].handle_input(&bytes, self.is_intact);
    }

    fn tamper(&mut self, from: usize, change: impl FnOnce(&mut BytesMut)) {
        let before = self.in_flight[from].clone();
        change(&mut self.in_flight[from]);
        self.is_intact &= self.in_flight[from] == before;
    }

    fn collect(&mut self) {
        for (end, in_flight) in self.ends.iter_mut().zip(&mut self.in_flight) {
            match &mut end.state {
                State::Handshake(handshake) => {
                    in_flight.extend_from_slice(&handshake.poll_transmit().unwrap_or_default());
                }
                State::Stream(stream) => in_flight.unsplit(stream.outgoing().split()),
                State::Failed => {}
            }
        }
    }

    fn check(&self) {
        let [a, b] = &self.ends;
        for (receiver, sender) in [(a, b), (b, a)] {
            assert!(receiver.received.len() <= sender.sent.len(), "a message that was not sent");
            assert!(receiver.received.iter().zip(&sender.sent).all(|(got, sent)| got[..] == sent[..]));
        }
        if let (State::Stream(a), State::Stream(b)) = (&a.state, &b.state) {
            assert_eq!(a.session().binding, b.session().binding);
            assert_eq!((a.session().local, a.session().remote), (b.session().remote, b.session().local));
        }
    }

    fn deliver_all(&mut self) {
        while self.in_flight.iter().any(|bytes| !bytes.is_empty()) {
            self.deliver(0, usize::MAX);
            self.deliver(1, usize::MAX);
            self.collect();
        }
        self.check();
        let [a, b] = &mut self.ends;
        a.check_complete(b);
        b.check_complete(a);
    }
}

impl End {
    fn handle_input(&mut self, bytes: &[u8], is_intact: bool) {
        self.input.extend_from_slice(bytes);
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Handshake(handshake) => match handshake.handle_input(&mut self.input) {
                Ok(Progress::Pending(handshake)) => State::Handshake(handshake),
                Ok(Progress::Established(stream)) => State::Stream(stream),
                Err(error) => failed(error, is_intact),
            },
            state => state,
        };
        if let State::Stream(stream) = &mut self.state {
            let result = stream.handle_input(&mut self.input);
            let messages: Vec<Bytes> = std::iter::from_fn(|| stream.poll_message()).collect();
            assert!(messages.iter().all(|message| !message.is_empty()));
            self.received.extend(messages);
            if let Err(error) = result {
                let again = stream.handle_input(&mut BytesMut::from(&[0; 3][..]));
                assert!(again.is_err(), "a stream that failed goes on");
                assert!(stream.handle_eof().is_err());
                self.state = failed(error, is_intact);
            }
        }
    }

    fn check_complete(&mut self, sender: &Self) {
        let State::Stream(stream) = &mut self.state else { panic!("no stream") };
        assert_eq!(self.received.len(), sender.sent.len());
        assert_eq!(stream.keep_alives(), sender.keep_alives_sent);
        assert_eq!(stream.handle_eof(), Ok(()));
    }

    fn seal(&mut self, message: Vec<u8>) {
        if message.is_empty() {
            self.keep_alive();
        } else if let State::Stream(stream) = &mut self.state {
            stream.seal(&message).expect("a short message");
            self.sent.push(message);
        }
    }

    fn keep_alive(&mut self) {
        if let State::Stream(stream) = &mut self.state {
            stream.keep_alive();
            self.keep_alives_sent += 1;
        }
    }
}

fn failed(error: Error, is_intact: bool) -> State {
    assert!(!is_intact, "{error}");
    let Error::PeerMisbehaved(error) = error else { panic!("not the peer's fault: {error}") };
    assert_ne!(error, PeerMisbehaved::Truncated);
    State::Failed
}
