//! The mux: one end against a remote that sends anything, and two honest ends against each other.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use party::{
    encoding::{Reader, Writer},
    error::Error,
    limits::Limits,
    mux::{ChannelId, CloseReason, DEFAULT_COALESCING, Event, Incoming, Mux},
};

use super::script::Script;

/// Bounds low enough to be met.
fn limits() -> Limits {
    Limits {
        max_frame: 300,
        max_channels: 8,
        max_incoming_opens: 4,
        max_early_bytes: 3_000,
        max_channel_name: 8,
        max_channel_handshake: 16,
        ..Limits::default()
    }
}

/// The first byte says which of the two bodies takes the rest.
pub fn mux(data: &[u8]) {
    match data {
        [0, rest @ ..] => hostile_remote(rest),
        [_, rest @ ..] => honest_ends(rest),
        [] => {}
    }
}

/// Up to `max` bytes.
fn bytes<'a>(script: &mut Script<'a>, max: usize) -> &'a [u8] {
    let length = script.below(max + 1);
    script.bytes(length)
}

/// One of the ids that a remote may think of.
fn id(script: &mut Script<'_>) -> u64 {
    match script.byte() {
        254 => 1 << 31,
        255 => (1 << 53) - 1,
        small => u64::from(small % 12),
    }
}

fn protocol(script: &mut Script<'_>) -> &'static str {
    ["x", "y", "alias"][script.below(3)]
}

fn key(script: &mut Script<'_>) -> Option<&'static [u8]> {
    [None, Some(&b"1"[..]), Some(&b"22"[..])][script.below(3)]
}

/// One end. The remote sends whatever the data says, the program does whatever it says. No panic, no error but
/// the remote's, no event that has no place, no frame that an honest remote would refuse, nothing beyond a bound.
pub fn hostile_remote(data: &[u8]) {
    let mut script = Script::new(data);
    let mut end = End::new();
    while !script.is_over() {
        match script.byte() % 16 {
            0 => end.mux.handle_message(Bytes::copy_from_slice(bytes(&mut script, 40))),
            1..=4 => {
                let message = hostile_message(&mut script);
                end.mux.handle_message(message);
            }
            5 => {
                let mut batch = BytesMut::from(&[0, 0, 0][..]);
                for _ in 0..script.below(8) {
                    let message = hostile_message(&mut script);
                    let mut reader = Reader::new(&message);
                    batch.put_uint(0);
                    batch.put_uint(reader.uint().expect("a channel"));
                    batch.put_buffer(reader.rest());
                }
                end.mux.handle_message(batch.freeze());
            }
            6 => {
                end.poll_event();
            }
            7..=8 => while end.poll_event() {},
            9 => {
                let (protocol, key) = (protocol(&mut script), key(&mut script));
                if let Ok(channel) = end.mux.open(protocol, key, bytes(&mut script, 20)) {
                    end.began(channel);
                }
            }
            10 => {
                if let Some(incoming) = end.pick_incoming(&mut script)
                    && let Ok(Some(channel)) = end.mux.accept(incoming, bytes(&mut script, 20))
                {
                    end.began(channel);
                    end.live.insert(channel, true);
                }
            }
            11 => {
                if let Some(incoming) = end.pick_incoming(&mut script) {
                    end.mux.reject(incoming);
                }
            }
            12 => {
                if let Some(channel) = end.pick_channel(&mut script) {
                    end.mux.close(channel);
                    end.live.remove(&channel);
                }
            }
            13 => {
                if let Some(channel) = end.pick_channel(&mut script) {
                    let (message_type, payload) = (id(&mut script), bytes(&mut script, 255));
                    let payload = [payload, payload];
                    let sent = end.mux.send_parts(channel, message_type, &payload);
                    if sent == Ok(true) {
                        assert!(end.live.contains_key(&channel), "sent on a channel that has ended");
                        end.sent.push_back((message_type, payload.concat()));
                    }
                }
            }
            14 => match script.below(4) {
                0 => end.mux.cork(),
                1 => end.mux.uncork(),
                2 => end.mux.set_coalescing(0),
                _ => end.mux.set_coalescing(DEFAULT_COALESCING),
            },
            _ => end.transmit(),
        }
        end.check();
    }
    while end.poll_event() {}
    (0..data.len()).for_each(|_| end.mux.uncork());
    end.transmit();
    assert_eq!(end.mux.unsent_bytes(), 0);
    assert!(end.sent.is_empty(), "never written: {:?}", end.sent);
}

fn hostile_message(script: &mut Script<'_>) -> Bytes {
    let mut out = BytesMut::new();
    match script.below(8) {
        0..=2 => {
            out.put_bytes(&[0, 1]);
            out.put_uint(id(script));
            out.put_string(protocol(script));
            out.put_optional_buffer(key(script));
            out.put_bytes(bytes(script, 20));
        }
        3 => {
            out.put_bytes(&[0, 2]);
            out.put_uint(id(script));
        }
        4 => {
            out.put_bytes(&[0, 3]);
            out.put_uint(id(script));
        }
        5 => {
            out.put_uint(0);
            out.put_uint(id(script));
            out.put_bytes(bytes(script, 8));
        }
        _ => {
            out.put_uint(id(script));
            out.put_uint(id(script));
            out.put_bytes(bytes(script, 250));
        }
    }
    out.freeze()
}

/// One end and what its program knows of it.
struct End {
    mux: Mux,
    /// Channels that are not closed, and whether they are known to be paired.
    live: BTreeMap<ChannelId, bool>,
    /// Every channel there was.
    all: Vec<ChannelId>,
    incoming: Vec<Incoming>,
    /// What was sent and is not written yet.
    sent: VecDeque<(u64, Vec<u8>)>,
    /// How many of them the remote has seen the opens of.
    written: usize,
    /// Our ids that the remote has seen an open of and no close since, and the highest there was.
    ids: BTreeMap<u64, ChannelId>,
    highest: u64,
    failed: Option<String>,
}

impl End {
    fn new() -> Self {
        let mut mux = Mux::new(&limits());
        mux.set_aliases("x", &["alias"]);
        Self {
            mux,
            live: BTreeMap::new(),
            all: Vec::new(),
            incoming: Vec::new(),
            sent: VecDeque::new(),
            written: 0,
            ids: BTreeMap::new(),
            highest: 0,
            failed: None,
        }
    }

    fn began(&mut self, channel: ChannelId) {
        assert!(!self.all.contains(&channel), "a handle is used twice");
        self.all.push(channel);
        self.live.insert(channel, false);
    }

    fn pick_incoming(&self, script: &mut Script<'_>) -> Option<Incoming> {
        self.incoming.get(script.below(self.incoming.len())).copied()
    }

    fn pick_channel(&self, script: &mut Script<'_>) -> Option<ChannelId> {
        self.all.get(script.below(self.all.len())).copied()
    }

    fn poll_event(&mut self) -> bool {
        let event = match self.mux.poll_event() {
            Ok(event) => event,
            Err(error) => {
                assert!(matches!(error, Error::PeerMisbehaved(_) | Error::Decode(_)), "{error}");
                let error = error.to_string();
                assert_eq!(*self.failed.get_or_insert_with(|| error.clone()), error);
                return false;
            }
        };
        assert!(self.failed.is_none() || event.is_none());
        match &event {
            None => return false,
            Some(Event::Incoming { incoming, protocol, .. }) => {
                assert_ne!(protocol, "alias");
                assert!(!self.incoming.contains(incoming), "an open is told twice");
                self.incoming.push(*incoming);
            }
            Some(Event::Opened { channel, .. }) => {
                assert_eq!(self.live.insert(*channel, true), Some(false));
            }
            Some(Event::Message { channel, .. }) => assert_eq!(self.live.get(channel), Some(&true)),
            Some(Event::Closed { channel, reason }) => {
                let was_paired = self.live.remove(channel);
                assert_eq!(was_paired, Some(*reason == CloseReason::Remote));
            }
        }
        true
    }

    /// What a remote makes of what we write.
    fn transmit(&mut self) {
        while let Some(frame) = self.mux.poll_transmit() {
            assert!(!frame.is_empty() && frame.len() <= limits().max_frame - 17);
            for (channel, message) in messages(&frame) {
                let mut reader = Reader::new(&message);
                let message_type = reader.uint().expect("a type");
                if channel != 0 {
                    assert!(self.ids.contains_key(&channel), "a message on a channel that is not open");
                    assert_eq!(self.sent.pop_front(), Some((message_type, reader.rest().to_vec())));
                    continue;
                }
                let id = reader.uint().expect("an id");
                match message_type {
                    1 => {
                        let before = self.ids.insert(id, self.all[self.written]);
                        self.written += 1;
                        assert!(
                            before.is_none_or(|channel| !self.mux.is_open(channel)),
                            "an id in use is opened"
                        );
                        assert!(id <= self.highest + 1, "ids grow by more than one");
                        self.highest = self.highest.max(id);
                    }
                    2 => assert!(reader.is_empty()),
                    3 => {
                        self.ids.remove(&id);
                    }
                    other => panic!("control message {other}"),
                }
            }
        }
    }

    fn check(&self) {
        assert!(self.mux.channels() <= limits().max_channels);
        assert!(self.highest <= limits().max_channels as u64);
        for channel in &self.all {
            // A close that is not told yet has taken effect already.
            assert!(!self.mux.is_open(*channel) || self.live.contains_key(channel));
        }
    }
}

/// Takes a plaintext of ours apart.
fn messages(frame: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut reader = Reader::new(frame);
    let mut channel = reader.uint().expect("a channel");
    let alone = vec![(channel, reader.remaining().to_vec())];
    if channel != 0 || reader.uint().expect("a type") != 0 {
        return alone;
    }
    channel = reader.uint().expect("a channel");
    let mut messages = Vec::new();
    while !reader.is_empty() {
        match reader.buffer().expect("a message") {
            [] => channel = reader.uint().expect("a channel"),
            message => messages.push((channel, message.to_vec())),
        }
    }
    messages
}

/// Two honest ends whose programs open, accept, reject, send and close as the data says, while what they write
/// is on the way for as long as it says. Neither gets an error; both agree on who is paired with whom; no message
/// on a channel that both have is lost, doubled or out of order; each channel ends once; no id is lost.
pub fn honest_ends(data: &[u8]) {
    let mut script = Script::new(data);
    let mut pair = [Peer::new(), Peer::new()];
    while !script.is_over() {
        let side = script.below(2);
        match script.byte() % 16 {
            0..=1 => pair[side].open(protocol(&mut script), key(&mut script)),
            2..=3 => {
                let (accept, which) = (script.below(3) > 0, script.byte());
                pair[side].answer(usize::from(which), accept);
            }
            4..=6 => {
                let (channel, len) = (script.byte(), script.below(200));
                pair[side].send(usize::from(channel), len);
            }
            7 => pair[side].close(script.byte().into()),
            8 => match script.below(4) {
                0 => pair[side].mux.cork(),
                1 => pair[side].mux.uncork(),
                2 => pair[side].mux.set_coalescing(0),
                _ => pair[side].mux.set_coalescing(DEFAULT_COALESCING),
            },
            9..=11 => pair[side].transmit(),
            12..=13 => deliver(&mut pair, side),
            _ => {
                for _ in 0..script.below(4) {
                    poll(&mut pair, side);
                }
            }
        }
    }
    // Everybody answers and closes everything, and all of it arrives.
    (0..data.len()).for_each(|_| pair.iter_mut().for_each(|peer| peer.mux.uncork()));
    settle(&mut pair);
    for peer in &mut pair {
        (0..peer.channels.len()).for_each(|channel| peer.close(channel));
    }
    settle(&mut pair);
    for side in 0..2 {
        check_ended(&pair[side], &pair[1 - side]);
    }
    for peer in &mut pair {
        peer.open("last", None);
        let frame = peer.mux.poll_transmit().expect("an open");
        let (_, message) = messages(&frame).remove(0);
        let mut reader = Reader::new(&message);
        reader.uint().expect("a type");
        assert!(reader.uint().expect("an id") <= peer.peak.max(1) as u64, "an id is lost");
    }
}

/// One of two honest ends.
struct Peer {
    mux: Mux,
    channels: Vec<Channel>,
    numbers: BTreeMap<ChannelId, usize>,
    /// Opens to be answered, and the number of the channel at the other end.
    incoming: Vec<(Incoming, usize)>,
    /// Written and not arrived.
    wire: VecDeque<Bytes>,
    /// The most channels there were at once.
    peak: usize,
}

/// A channel as its program sees it.
struct Channel {
    id: ChannelId,
    /// The number of the channel at the other end.
    paired: Option<usize>,
    sent: u32,
    received: u32,
    closed: bool,
    ended: Option<CloseReason>,
}

impl Peer {
    fn new() -> Self {
        // No bound is to be met here, other than that of a frame.
        let mut mux = Mux::new(&Limits { max_frame: 300, ..Limits::default() });
        mux.set_aliases("x", &["alias"]);
        Self {
            mux,
            channels: Vec::new(),
            numbers: BTreeMap::new(),
            incoming: Vec::new(),
            wire: VecDeque::new(),
            peak: 0,
        }
    }

    fn began(&mut self, id: ChannelId, paired: Option<usize>) {
        assert!(self.numbers.insert(id, self.channels.len()).is_none(), "a handle is used twice");
        self.peak = self.peak.max(self.mux.channels());
        self.channels.push(Channel { id, paired, sent: 0, received: 0, closed: false, ended: None });
    }

    /// The handshake says which channel it is.
    fn handshake(&self) -> [u8; 4] {
        (self.channels.len() as u32).to_be_bytes()
    }

    fn open(&mut self, protocol: &str, key: Option<&[u8]>) {
        let handshake = self.handshake();
        let id = self.mux.open(protocol, key, &handshake).expect("within the limits");
        self.began(id, None);
    }

    fn answer(&mut self, which: usize, accept: bool) {
        if self.incoming.is_empty() {
            return;
        }
        let (incoming, paired) = self.incoming.remove(which % self.incoming.len());
        if !accept {
            self.mux.reject(incoming);
        } else if let Some(id) = self.mux.accept(incoming, &self.handshake()).expect("within the limits") {
            self.began(id, Some(paired));
        }
    }

    fn send(&mut self, which: usize, len: usize) {
        let Some(number) = which.checked_rem(self.channels.len()) else { return };
        let channel = &mut self.channels[number];
        let mut payload = [(number as u32).to_be_bytes(), channel.sent.to_be_bytes()].concat();
        payload.resize(8 + len, 0);
        let sent = self.mux.send(channel.id, 0, &payload).expect("within the limits");
        assert!(!sent || (!channel.closed && channel.ended.is_none()));
        channel.sent += u32::from(sent);
    }

    fn close(&mut self, which: usize) {
        let Some(number) = which.checked_rem(self.channels.len()) else { return };
        let channel = &mut self.channels[number];
        self.mux.close(channel.id);
        channel.closed = true;
    }

    fn transmit(&mut self) {
        self.wire.extend(std::iter::from_fn(|| self.mux.poll_transmit()));
    }
}

fn deliver(pair: &mut [Peer; 2], from: usize) {
    if let Some(frame) = pair[from].wire.pop_front() {
        pair[1 - from].mux.handle_message(frame);
    }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize
}

fn poll(pair: &mut [Peer; 2], side: usize) -> bool {
    let [first, second] = pair;
    let (peer, other) = if side == 0 { (first, second) } else { (second, first) };
    let Some(event) = peer.mux.poll_event().expect("an honest remote") else { return false };
    if let Event::Incoming { incoming, handshake, .. } = &event {
        assert!(!peer.incoming.iter().any(|(other, _)| other == incoming), "an open is told twice");
        peer.incoming.push((*incoming, number(handshake)));
        return true;
    }
    let channel = event.channel().and_then(|id| peer.numbers.get(&id)).expect("a channel of ours");
    let channel = &mut peer.channels[*channel];
    assert!(!channel.closed && channel.ended.is_none(), "told after the end");
    match event {
        Event::Opened { handshake, .. } => {
            assert_eq!(channel.paired, None);
            channel.paired = Some(number(&handshake));
        }
        Event::Message { payload, .. } => {
            assert_eq!(channel.paired, Some(number(&payload)), "a message of another channel");
            assert_eq!(number(&payload[4..]), channel.received as usize, "a message lost or out of order");
            channel.received += 1;
        }
        Event::Closed { reason, .. } => {
            channel.ended = Some(reason);
            match channel.paired {
                None => assert_eq!(reason, CloseReason::Rejected),
                Some(theirs) => {
                    assert_eq!(reason, CloseReason::Remote);
                    let theirs = &other.channels[theirs];
                    assert!(theirs.closed, "ended, and nobody closed it");
                    assert_eq!(channel.received, theirs.sent, "a message lost");
                }
            }
        }
        Event::Incoming { .. } => {}
    }
    true
}

fn settle(pair: &mut [Peer; 2]) {
    loop {
        let mut quiet = true;
        for side in 0..2 {
            while poll(pair, side) {
                quiet = false;
            }
            while let Some(which) = pair[side].incoming.len().checked_sub(1) {
                pair[side].answer(which, which % 2 == 0);
                quiet = false;
            }
            pair[side].transmit();
            while !pair[side].wire.is_empty() {
                deliver(pair, side);
                quiet = false;
            }
        }
        if quiet {
            return;
        }
    }
}

fn check_ended(peer: &Peer, other: &Peer) {
    assert_eq!((peer.mux.channels(), peer.mux.unsent_bytes()), (0, 0));
    for (number, channel) in peer.channels.iter().enumerate() {
        assert!(channel.closed || channel.ended.is_some());
        assert!(!peer.mux.is_open(channel.id));
        let Some(theirs) = channel.paired.and_then(|theirs| other.channels[theirs].paired) else { continue };
        assert_eq!(theirs, number, "the ends differ on who is paired with whom");
    }
}
