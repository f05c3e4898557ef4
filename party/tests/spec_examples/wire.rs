//! Integers, the handshake, the secret stream, and channels.

use bytes::BytesMut;
use party::{
    encoding::Writer as _,
    hash::namespace,
    key::KeyPair,
    limits::Limits,
    mux::{Event, Mux},
    noise::{Handshake, HandshakeConfig, HandshakeState, Pattern, SecretStream, Split},
};
use zeroize::Zeroizing;

use super::{Example, Line, line};

pub(crate) fn examples() -> Vec<Example> {
    let [header, message, keep_alive] = stream();
    vec![
        ("integers", integers()),
        ("handshake", handshake()),
        ("handshake-frame", vec![frame()]),
        ("stream-header", header),
        ("stream-message", message),
        ("stream-keep-alive", keep_alive),
        (
            "namespaces",
            vec![
                line(namespace("hyperswarm/secret-stream", 0), "`hyperswarm/secret-stream`, 0"),
                line(namespace("hypercore", 0), "`hypercore`, 0"),
                line(namespace("party", 0), "`party`, 0"),
            ],
        ),
    ]
    .into_iter()
    .chain(channels())
    .collect()
}

fn integers() -> Vec<Line> {
    let mut lines = Vec::new();
    for (n, what) in [
        (0, "0"),
        (0xfc, "252"),
        (0xfd, "253"),
        (0xffff, "65,535"),
        (1 << 16, "65,536"),
        (1 << 32, "2^32"),
        ((1 << 53) - 1, "2^53 - 1"),
    ] {
        let mut bytes = Vec::new();
        bytes.put_uint(n);
        lines.push(line(bytes, what));
    }
    let mut string = Vec::new();
    string.put_string("party");
    lines.push(line(string, "the string `party`"));
    lines
}

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

/// XX between the static keys of the seeds 1 and 2, with the ephemeral ones of 3 and 4.
fn split() -> (Vec<Vec<u8>>, [Split; 2]) {
    let [mut initiator, mut responder] =
        [(true, 1, 3), (false, 2, 4)].map(|(is_initiator, own, ephemeral)| {
            let ephemeral = Zeroizing::new([ephemeral; 32]);
            HandshakeState::new(Pattern::Xx, is_initiator, &pair(own), None, &[], ephemeral).unwrap()
        });
    let mut messages = Vec::new();
    while !(initiator.is_finished() && responder.is_finished()) {
        let message;
        if initiator.is_my_turn() {
            (initiator, message) = initiator.write(&[]).unwrap();
            (responder, _) = responder.read(&message).unwrap();
        } else {
            (responder, message) = responder.write(&[]).unwrap();
            (initiator, _) = initiator.read(&message).unwrap();
        }
        messages.push(message.to_vec());
    }
    (messages, [initiator.split().unwrap(), responder.split().unwrap()])
}

fn handshake() -> Vec<Line> {
    let (messages, [initiator, _]) = split();
    vec![
        line(pair(1).public().as_bytes(), "static public key of the initiator"),
        line(pair(2).public().as_bytes(), "of the responder"),
        line(&messages[0], "message 1: its ephemeral public key"),
        line(&messages[1], "message 2"),
        line(&messages[2], "message 3"),
        line(initiator.session.binding, "h"),
        line(*initiator.tx, "k1"),
        line(*initiator.rx, "k2"),
    ]
}

fn frame() -> Line {
    let config = HandshakeConfig::xx(true, pair(1), [3; 32]);
    let mut handshake = Handshake::new(config, &Limits::default()).unwrap();
    line(handshake.poll_transmit().unwrap(), "3 bytes of length, and message 1")
}

/// What the initiator sends after that handshake: its header, of 24 bytes of 9, `party`, and a keep-alive.
fn stream() -> [Vec<Line>; 3] {
    let (_, [ours, theirs]) = split();
    let limits = Limits::default();
    let mut stream = SecretStream::from_split(ours, [9; 24], &limits);
    let header = stream.outgoing().split();
    stream.seal(b"party").unwrap();
    let message = stream.outgoing().split();
    stream.keep_alive();
    let keep_alive = stream.outgoing().split();
    // And it is read.
    let mut other = SecretStream::from_split(theirs, [8; 24], &limits);
    let mut input = BytesMut::from(&[&header[..], &message, &keep_alive].concat()[..]);
    other.handle_input(&mut input).unwrap();
    assert_eq!(other.poll_message().unwrap(), "party");
    assert!(other.poll_message().is_none() && input.is_empty());
    [
        vec![line(&header[..3], "length"), line(&header[3..35], "id, r = 0"), line(&header[35..], "header")],
        vec![
            line(&message[..3], "length: 5 and 17"),
            line(&message[3..4], "encrypted tag"),
            line(&message[4..9], "ciphertext"),
            line(&message[9..], "authenticator"),
        ],
        vec![line(&keep_alive[..3], "length"), line(&keep_alive[3..], "tag and authenticator")],
    ]
}

fn channels() -> Vec<Example> {
    let limits = Limits::default();
    let (mut a, mut b) = (Mux::new(&limits), Mux::new(&limits));
    let first = a.open("example", Some(&[1, 2]), &[9]).unwrap();
    let open = a.poll_transmit().unwrap();
    b.handle_message(open.clone());
    let Some(Event::Incoming { incoming, .. }) = b.poll_event().unwrap() else { panic!("no open") };
    b.accept(incoming, &[8]).unwrap();
    a.handle_message(b.poll_transmit().unwrap());
    assert!(matches!(a.poll_event(), Ok(Some(Event::Opened { .. }))));

    a.send(first, 5, &[0xaa, 0xbb]).unwrap();
    let message = a.poll_transmit().unwrap();
    let second = a.open("other", None, &[]).unwrap();
    a.send(first, 5, &[0xaa]).unwrap();
    a.send(first, 6, &[]).unwrap();
    a.send(second, 0, &[0xcc]).unwrap();
    let batch = a.poll_transmit().unwrap();
    b.handle_message(batch.clone());
    let rejected = std::iter::from_fn(|| b.poll_event().unwrap()).find_map(|event| match event {
        Event::Incoming { incoming, .. } => Some(incoming),
        _ => None,
    });
    b.reject(rejected.unwrap());
    let reject = b.poll_transmit().unwrap();
    a.close(first);
    let close = a.poll_transmit().unwrap();
    vec![
        (
            "mux-open",
            vec![
                line(&open[..2], "control message, open"),
                line(&open[2..3], "number of the channel"),
                line(&open[3..11], "`example`"),
                line(&open[11..14], "channel id 01 02"),
                line(&open[14..], "channel handshake"),
            ],
        ),
        (
            "mux-message",
            vec![
                line(&message[..1], "number of the channel"),
                line(&message[1..2], "type 5"),
                line(&message[2..], "payload"),
            ],
        ),
        ("mux-batch", batch_lines(&batch)),
        (
            "mux-reject",
            vec![
                line(&reject[..2], "control message, reject"),
                line(&reject[2..], "number of the one who opened"),
            ],
        ),
        (
            "mux-close",
            vec![line(&close[..2], "control message, close"), line(&close[2..], "number of the channel")],
        ),
    ]
}

fn batch_lines(batch: &[u8]) -> Vec<Line> {
    let mut lines = vec![
        line(&batch[..2], "control message, batch"),
        line(&batch[2..3], "of channel 0, the control channel, first"),
    ];
    let mut rest = &batch[3..];
    while let Some((&length, more)) = rest.split_first() {
        let (take, what) = match (length, more.first()) {
            (0, Some(0)) => (2, "now of the control channel"),
            (0, Some(1)) => (2, "now of channel 1"),
            (0, _) => (2, "now of channel 2"),
            (_, Some(1)) if rest.len() > 8 => {
                (1 + usize::from(length), "open of channel 2, `other`, without an id")
            }
            _ => (1 + usize::from(length), "length, type and payload"),
        };
        lines.push(line(&rest[..take], what));
        rest = &rest[take..];
    }
    lines
}
