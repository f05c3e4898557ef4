//! The behaviour of handshake and stream together. What goes over the wire, byte for byte, is checked by
//! the vectors of `conformance/vectors/`.

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{
    error::{ApiMisuse, Error, PeerMisbehaved},
    key::{KeyPair, PublicKey},
    limits::Limits,
    session::Session,
};

fn alice() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

fn bob() -> KeyPair {
    KeyPair::from_seed(&[2; 32])
}

fn xx() -> [HandshakeConfig; 2] {
    [HandshakeConfig::xx(true, alice(), [11; 32]), HandshakeConfig::xx(false, bob(), [12; 32])]
}

fn ik() -> [HandshakeConfig; 2] {
    let initiator = HandshakeConfig::ik_initiator(alice(), bob().public(), [11; 32]);
    [initiator, HandshakeConfig::ik_responder(bob(), [12; 32])]
}

fn new(config: HandshakeConfig) -> Handshake {
    Handshake::new(config, &Limits::default()).unwrap()
}

/// One end, before and after.
enum End {
    Handshake(Handshake),
    Stream(SecretStream),
}

impl End {
    fn outgoing(&mut self) -> Bytes {
        match self {
            Self::Handshake(handshake) => handshake.poll_transmit().unwrap_or_default(),
            Self::Stream(stream) => stream.outgoing().split().freeze(),
        }
    }

    fn handle_input(self, input: &mut BytesMut) -> Result<Self, Error> {
        let mut stream = match self {
            Self::Handshake(handshake) => match handshake.handle_input(input)? {
                Progress::Pending(handshake) => return Ok(Self::Handshake(handshake)),
                Progress::Established(stream) => stream,
            },
            Self::Stream(stream) => stream,
        };
        stream.handle_input(input)?;
        Ok(Self::Stream(stream))
    }
}

/// Carries bytes to and fro until both are silent, at most `piece` at a time, and lets `change` change what
/// goes over. The first error ends it.
fn connect(
    configs: [HandshakeConfig; 2],
    piece: usize,
    mut change: impl FnMut(usize, &mut BytesMut),
) -> Result<[SecretStream; 2], Error> {
    let mut ends = configs.map(|config| Some(End::Handshake(new(config))));
    let mut inputs = [BytesMut::new(), BytesMut::new()];
    let mut is_silent = false;
    while !is_silent {
        is_silent = true;
        for (from, to) in [(0, 1), (1, 0)] {
            let mut bytes = BytesMut::from(&ends[from].as_mut().unwrap().outgoing()[..]);
            is_silent &= bytes.is_empty();
            change(from, &mut bytes);
            for piece in bytes.chunks(piece) {
                inputs[to].extend_from_slice(piece);
                ends[to] = Some(ends[to].take().unwrap().handle_input(&mut inputs[to])?);
            }
        }
    }
    Ok(ends.map(|end| match end.unwrap() {
        End::Stream(stream) => stream,
        End::Handshake(_) => panic!("pending"),
    }))
}

fn intact(_: usize, _: &mut BytesMut) {}

fn misbehaved<T: std::fmt::Debug>(result: Result<T, Error>) -> PeerMisbehaved {
    match result.unwrap_err() {
        Error::PeerMisbehaved(error) => error,
        other => panic!("{other}"),
    }
}

/// Two streams that have heard nothing of each other.
fn streams_without_headers(limits: &Limits) -> [SecretStream; 2] {
    [true, false].map(|is_initiator| {
        let (us, them) = if is_initiator { (alice(), bob()) } else { (bob(), alice()) };
        let session = Session { binding: [7; 64], is_initiator, local: us.public(), remote: them.public() };
        let (tx, rx) = if is_initiator { ([3; 32], [4; 32]) } else { ([4; 32], [3; 32]) };
        SecretStream::from_split(Split { tx: tx.into(), rx: rx.into(), session }, [9; 24], limits)
    })
}

/// Two streams whose headers have gone over.
fn streams(limits: &Limits) -> [SecretStream; 2] {
    let [mut a, mut b] = streams_without_headers(limits);
    b.handle_input(&mut a.outgoing().split()).unwrap();
    a.handle_input(&mut b.outgoing().split()).unwrap();
    [a, b]
}

fn messages(stream: &mut SecretStream) -> Vec<Bytes> {
    std::iter::from_fn(|| stream.poll_message()).collect()
}

/// What `stream` gets and how it ends when `wire` is all that comes.
fn receive(stream: &mut SecretStream, wire: &[u8]) -> (Vec<Bytes>, Result<(), PeerMisbehaved>) {
    let mut input = BytesMut::from(wire);
    let end = match stream.handle_input(&mut input) {
        Ok(()) => stream.handle_eof(),
        result => Err(misbehaved(result)),
    };
    (messages(stream), end)
}

//= OVER-2
#[test]
fn both_patterns_end_with_both_ends_agreed() {
    for configs in [xx(), ik()] {
        let [a, b] = connect(configs, usize::MAX, intact).unwrap();
        assert_eq!(a.session().binding, b.session().binding);
        assert_eq!((a.session().local, a.session().remote), (alice().public(), bob().public()));
        assert_eq!((b.session().local, b.session().remote), (bob().public(), alice().public()));
        assert!(a.session().is_initiator && !b.session().is_initiator);
    }
}

//= NOISE-8
#[test]
fn other_randomness_gives_another_connection() {
    let [a, _] = connect(xx(), usize::MAX, intact).unwrap();
    let [initiator, responder] = xx();
    let initiator = HandshakeConfig { ephemeral_seed: [13; 32].into(), ..initiator };
    let [b, _] = connect([initiator, responder], usize::MAX, intact).unwrap();
    assert_ne!(a.session().binding, b.session().binding);
}

#[test]
fn a_handshake_in_single_bytes_is_the_same_handshake() {
    for configs in [xx, ik] {
        let [a, _] = connect(configs(), usize::MAX, intact).unwrap();
        let [b, _] = connect(configs(), 1, intact).unwrap();
        assert_eq!(a.session().binding, b.session().binding);
    }
}

//= STREAM-8
#[test]
fn what_follows_the_handshake_stays_in_the_input() {
    let [initiator, responder] = ik().map(new);
    let (mut initiator, mut input) = (initiator, BytesMut::new());
    input.extend_from_slice(&initiator.poll_transmit().unwrap());
    input.extend_from_slice(b"rest");
    let progress = responder.handle_input(&mut input).unwrap();
    assert!(matches!(progress, Progress::Established(_)));
    assert_eq!(&input[..], b"rest");
}

//= NOISE-10
#[test]
fn a_prologue_that_differs_ends_the_handshake() {
    for [initiator, responder] in [xx(), ik()] {
        let responder = HandshakeConfig { prologue: b"another".to_vec(), ..responder };
        let result = connect([initiator, responder], usize::MAX, intact);
        assert_eq!(misbehaved(result), PeerMisbehaved::HandshakeFailed);
    }
}

#[test]
fn a_payload_in_a_handshake_message_is_passed_over() {
    let seed = zeroize::Zeroizing::new([11; 32]);
    let initiator = HandshakeState::new(Pattern::Xx, true, &alice(), None, &[], seed).unwrap();
    let (_, message) = initiator.write(b"what a later version may say").unwrap();
    let [_, responder] = xx().map(new);
    let mut input = BytesMut::new();
    input.extend_from_slice(&[message.len() as u8, 0, 0]);
    input.extend_from_slice(&message);
    assert!(matches!(responder.handle_input(&mut input), Ok(Progress::Pending(_))));
}

//= NOISE-15
#[test]
fn a_peer_that_is_not_the_expected_one_learns_nothing_of_us() {
    let stranger = KeyPair::from_seed(&[3; 32]).public();
    let [initiator, responder] = xx();
    let initiator = HandshakeConfig { remote: Some(stranger), ..initiator };
    let mut sent = 0;
    let result = connect([initiator, responder], usize::MAX, |from, bytes| {
        if from == 0 {
            sent += bytes.len();
        }
    });
    assert_eq!(misbehaved(result), PeerMisbehaved::UnexpectedPeer);
    // The first message and its length: an ephemeral key.
    assert_eq!(sent, 3 + 32);

    let [initiator, responder] = ik();
    let responder = HandshakeConfig { remote: Some(stranger), ..responder };
    let result = connect([initiator, responder], usize::MAX, intact);
    assert_eq!(misbehaved(result), PeerMisbehaved::UnexpectedPeer);
}

#[test]
fn dialling_a_key_that_is_none_is_a_misuse() {
    let no_point = PublicKey::from_bytes([2; 32]);
    let identity = PublicKey::from_bytes(std::array::from_fn(|i| u8::from(i == 0)));
    let mut missing = HandshakeConfig::ik_initiator(alice(), identity, [11; 32]);
    for remote in [Some(no_point), Some(identity), None] {
        missing.remote = remote;
        let result = Handshake::new(missing.clone(), &Limits::default());
        assert_eq!(result.map(drop), Err(ApiMisuse::BadKey));
    }
}

//= protocol-spec/03-noise.md#the-dh-function
#[test]
fn an_ephemeral_key_of_small_order_ends_the_handshake() {
    let identity: [u8; 32] = std::array::from_fn(|i| u8::from(i == 0));
    for (configs, from) in [(xx(), 0), (xx(), 1), (ik(), 0), (ik(), 1)] {
        let result = connect(configs, usize::MAX, |sender, bytes| {
            if sender == from && bytes.len() > 3 {
                bytes[3..35].copy_from_slice(&identity);
            }
        });
        assert_eq!(misbehaved(result), PeerMisbehaved::HandshakeFailed);
    }
}

//= NOISE-14, LIMIT-2
#[test]
fn handshake_messages_have_a_limit() {
    let [_, responder] = xx().map(new);
    // The length alone is enough.
    let result = responder.handle_input(&mut BytesMut::from(&[1, 16, 0][..]));
    assert_eq!(misbehaved(result), PeerMisbehaved::FrameLength(4097));
    let [_, responder] = xx().map(new);
    assert!(matches!(responder.handle_input(&mut BytesMut::from(&[0, 16, 0][..])), Ok(Progress::Pending(_))));
    let [_, responder] = xx().map(new);
    let result = responder.handle_input(&mut BytesMut::from(&[0, 0, 0][..]));
    assert_eq!(misbehaved(result), PeerMisbehaved::HandshakeFailed);
}

#[test]
fn the_steps_of_a_handshake_are_taken_in_turn() {
    let state = |is_initiator: bool| {
        let seed = zeroize::Zeroizing::new([u8::from(is_initiator); 32]);
        HandshakeState::new(Pattern::Xx, is_initiator, &alice(), None, &[], seed).unwrap()
    };
    let misuse = |error: Error| matches!(error, Error::ApiMisuse(ApiMisuse::NotOurTurn));
    assert!(misuse(state(true).read(&[0; 32]).unwrap_err()));
    assert!(misuse(state(false).write(&[]).unwrap_err()));
    assert_eq!(state(true).split().map(drop), Err(ApiMisuse::NotOurTurn));
    let too_large = state(true).write(&[0; 65_536]).unwrap_err();
    assert!(matches!(too_large, Error::ApiMisuse(ApiMisuse::MessageTooLarge { .. })));
}

#[test]
fn messages_go_both_ways_after_a_handshake() {
    for configs in [xx(), ik()] {
        let [mut a, mut b] = connect(configs, usize::MAX, intact).unwrap();
        for message in [&b"ping"[..], b"and another", &[7; 100_000]] {
            a.seal(message).unwrap();
            b.handle_input(&mut a.outgoing().split()).unwrap();
            assert_eq!(b.poll_message().unwrap(), message);
            b.seal(message).unwrap();
            a.handle_input(&mut b.outgoing().split()).unwrap();
            assert_eq!(a.poll_message().unwrap(), message);
        }
    }
}

//= STREAM-15
#[test]
fn keep_alives_are_counted_and_not_returned() {
    let [mut a, mut b] = streams(&Limits::default());
    a.keep_alive();
    a.seal(b"message").unwrap();
    a.seal(b"").unwrap();
    assert_eq!(a.outgoing().len(), 3 * 20 + 7);
    let wire = a.outgoing().split();
    assert_eq!(receive(&mut b, &wire), (vec![Bytes::from_static(b"message")], Ok(())));
    assert_eq!(b.keep_alives(), 2);
}

//= STREAM-21
#[test]
fn a_cut_is_told_from_an_end() {
    let [mut a, mut b] = streams(&Limits::default());
    assert_eq!(b.handle_eof(), Ok(()));
    a.seal(b"message").unwrap();
    let wire = a.outgoing().split();
    for cut in 1..wire.len() {
        let [_, mut b] = streams(&Limits::default());
        assert_eq!(receive(&mut b, &wire[..cut]), (vec![], Err(PeerMisbehaved::Truncated)));
    }
    assert_eq!(receive(&mut b, &wire).1, Ok(()));

    let [before_the_header, _] = streams_without_headers(&Limits::default());
    assert_eq!(before_the_header.handle_eof(), Err(PeerMisbehaved::Truncated));
}

//= STREAM-6, STREAM-7
#[test]
fn a_header_of_another_length_or_id_ends_the_stream() {
    for length in [0, 5, 55, 57, 65_535] {
        let [mut a, _] = streams_without_headers(&Limits::default());
        // Nothing has to follow the length.
        let wire = &u32::to_le_bytes(length)[..3];
        assert_eq!(receive(&mut a, wire), (vec![], Err(PeerMisbehaved::WrongStreamHeader)));
    }
    let [mut a, mut b] = streams_without_headers(&Limits::default());
    let mut header = b.outgoing().split();
    header[34] ^= 1;
    assert_eq!(receive(&mut a, &header), (vec![], Err(PeerMisbehaved::WrongStreamHeader)));
}

//= STREAM-7
#[test]
fn what_we_sent_reflected_ends_the_stream() {
    let [mut a, _] = streams_without_headers(&Limits::default());
    let own = a.outgoing().split();
    assert_eq!(receive(&mut a, &own), (vec![], Err(PeerMisbehaved::WrongStreamHeader)));
}

//= STREAM-11
#[test]
fn a_frame_too_short_to_be_sealed_ends_the_stream() {
    for length in 0..17 {
        let [mut a, mut b] = streams(&Limits::default());
        a.seal(b"before").unwrap();
        let mut wire = a.outgoing().split();
        wire.extend_from_slice(&[length, 0, 0]);
        let (messages, end) = receive(&mut b, &wire);
        assert_eq!(messages, [&b"before"[..]]);
        assert_eq!(end, Err(PeerMisbehaved::FrameLength(length.into())));
    }
}

//= LIMIT-1
#[test]
fn a_frame_beyond_the_limit_ends_the_stream_at_its_length() {
    let limits = Limits { max_frame: 1_000, ..Limits::default() };
    let [mut a, mut b] = streams(&limits);
    a.seal(&[0; 1_000 - SEAL_OVERHEAD]).unwrap();
    assert_eq!(receive(&mut b, &a.outgoing().split()).1, Ok(()));
    a.seal(&[0; 1_001 - SEAL_OVERHEAD]).unwrap();
    let wire = a.outgoing().split();
    assert_eq!(receive(&mut b, &wire[..3]).1, Err(PeerMisbehaved::FrameLength(1_001)));
}

//= STREAM-3
#[test]
fn the_longest_frame_costs_no_more_than_what_has_come_of_it() {
    let [_, mut b] = streams(&Limits::default());
    let mut input = BytesMut::with_capacity(4_096);
    input.extend_from_slice(&[0xff, 0xff, 0xff]);
    for _ in 0..16 {
        input.extend_from_slice(&[0; 200]);
        b.handle_input(&mut input).unwrap();
        assert_eq!(input.capacity(), 4_096);
    }
    assert_eq!(input.len(), 3 + 16 * 200);
    assert!(b.poll_message().is_none());
    assert_eq!(b.handle_eof(), Err(PeerMisbehaved::Truncated));
}

//= STREAM-4, STREAM-14
#[test]
fn the_longest_message_goes_over_and_a_longer_one_is_refused() {
    let [mut a, mut b] = streams(&Limits::default());
    let message = vec![7; MAX_MESSAGE + 1];
    let refused = ApiMisuse::MessageTooLarge { len: message.len(), max: MAX_MESSAGE };
    assert_eq!(a.seal(&message), Err(refused));
    assert!(a.outgoing().is_empty());
    a.seal(&message[1..]).unwrap();
    b.handle_input(&mut a.outgoing().split()).unwrap();
    assert_eq!(b.poll_message().unwrap(), message[1..]);
}

//= NOISE-16
#[test]
fn the_first_error_is_final() {
    let [mut a, mut b] = streams(&Limits::default());
    a.seal(b"first").unwrap();
    let mut bad = a.outgoing().split();
    let good = bad.clone();
    bad[10] ^= 1;
    for wire in [&bad[..], &good, &[]] {
        assert_eq!(receive(&mut b, wire), (vec![], Err(PeerMisbehaved::DecryptionFailed)));
    }
    assert_eq!(b.handle_eof(), Err(PeerMisbehaved::DecryptionFailed));
}

#[test]
fn a_message_that_is_kept_keeps_its_bytes() {
    let [mut a, mut b] = streams(&Limits::default());
    let mut kept = Vec::new();
    for i in 0..2_000_usize {
        a.seal(&vec![i as u8; i * 7 % 5_000 + 1]).unwrap();
        b.handle_input(a.outgoing()).unwrap();
        kept.push(b.poll_message().unwrap());
    }
    for (i, message) in kept.iter().enumerate() {
        assert_eq!(*message, vec![i as u8; i * 7 % 5_000 + 1]);
    }
}

#[test]
fn secrets_are_not_shown() {
    let config = HandshakeConfig::xx(true, alice(), [251; 32]);
    assert!(!format!("{config:?}").contains("251"));
    let split = Split {
        tx: [251; 32].into(),
        rx: [251; 32].into(),
        session: streams_without_headers(&Limits::default())[0].session().clone(),
    };
    assert!(!format!("{split:?}").contains("251"));
}

#[test]
fn what_is_shown_of_a_connection_is_whose_it_is() {
    let handshake = new(HandshakeConfig::xx(true, alice(), [251; 32]));
    let stream = &streams_without_headers(&Limits::default())[0];
    for shown in [format!("{handshake:?}"), format!("{stream:?}")] {
        assert!(shown.contains(&format!("{:?}", alice().public())), "{shown}");
        assert!(!shown.contains("251"), "{shown}");
    }
}

#[test]
fn short_messages_share_memory_and_a_long_one_has_its_own() {
    let [mut a, mut b] = streams(&Limits::default());
    let mut next_to_the_last = |len: usize| {
        for _ in 0..2 {
            a.seal(&vec![7; len]).unwrap();
        }
        b.handle_input(a.outgoing()).unwrap();
        let [first, second] = [b.poll_message().unwrap(), b.poll_message().unwrap()];
        second.as_ptr() == first.as_ptr().wrapping_add(len)
    };
    // The second finds room where the first ends.
    for (len, shares) in [(1, true), (1_000, true), (4 << 10, true), ((4 << 10) + 1, false), (1 << 20, false)]
    {
        assert_eq!(next_to_the_last(len), shares, "{len} bytes");
    }
}

fn cut(wire: &[u8], cuts: &[Index]) -> Vec<BytesMut> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    cuts.extend([0, wire.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| BytesMut::from(&wire[cut[0]..cut[1]])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    //= STREAM-2
    #[test]
    fn any_split_of_the_bytes_gives_the_same_messages(
        sent in vec(vec(any::<u8>(), 0..300), 0..20),
        cuts in vec(any::<Index>(), 0..40),
    ) {
        let [mut a, mut b] = streams(&Limits::default());
        for message in &sent {
            a.seal(message).unwrap();
        }
        let wire = a.outgoing().split();
        let mut input = BytesMut::new();
        let mut received = Vec::new();
        for piece in cut(&wire, &cuts) {
            input.extend_from_slice(&piece);
            b.handle_input(&mut input).unwrap();
            received.extend(messages(&mut b));
        }
        let expected: Vec<&Vec<u8>> = sent.iter().filter(|message| !message.is_empty()).collect();
        prop_assert_eq!(received, expected);
        prop_assert_eq!(b.keep_alives() as usize, sent.iter().filter(|message| message.is_empty()).count());
        prop_assert_eq!(b.handle_eof(), Ok(()));
    }

    //= STREAM-12, STREAM-13
    #[test]
    fn a_flipped_bit_in_the_stream_is_found(
        sent in vec(vec(any::<u8>(), 0..100), 1..6),
        at in any::<Index>(),
        bit in 0..8_u8,
    ) {
        let [mut a, mut b] = streams_without_headers(&Limits::default());
        for message in &sent {
            b.seal(message).unwrap();
        }
        let mut wire = b.outgoing().split();
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        let (received, end) = receive(&mut a, &wire);
        prop_assert!(end.is_err());
        let expected: Vec<&Vec<u8>> = sent.iter().filter(|message| !message.is_empty()).collect();
        prop_assert!(received.iter().zip(&expected).all(|(got, sent)| got == *sent));
        prop_assert!(received.len() <= expected.len());
    }

    //= NOISE-12
    #[test]
    fn a_flipped_bit_in_the_handshake_is_found(
        (is_ik, from, nth) in prop::sample::select(
            &[(false, 0, 0), (false, 1, 0), (false, 0, 1), (true, 0, 0), (true, 1, 0)][..]
        ),
        at in any::<Index>(),
        bit in 0..8_u8,
    ) {
        let mut count = 0;
        let flip = |sender: usize, bytes: &mut BytesMut| {
            if sender == from && !bytes.is_empty() {
                if count == nth {
                    // In the Noise message: a length that is too long is waited for.
                    let length = usize::from(bytes[0]);
                    bytes[3 + at.index(length)] ^= 1 << bit;
                }
                count += 1;
            }
        };
        let result = connect(if is_ik { ik() } else { xx() }, usize::MAX, flip);
        prop_assert_eq!(misbehaved(result), PeerMisbehaved::HandshakeFailed);
    }

    //= OVER-6
    #[test]
    fn no_bytes_are_worse_than_an_error(data in vec(any::<u8>(), 0..400)) {
        for config in xx().into_iter().chain(ik()) {
            let _ = new(config).handle_input(&mut BytesMut::from(&data[..]));
        }
        let [mut a, _] = streams_without_headers(&Limits::default());
        let [_, mut b] = streams(&Limits::default());
        for stream in [&mut a, &mut b] {
            let (messages, _) = receive(stream, &data);
            prop_assert!(messages.is_empty());
        }
    }
}
