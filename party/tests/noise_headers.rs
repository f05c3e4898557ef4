//! What is drawn for a handshake, and what of it is told.

use bytes::BytesMut;
use party::{
    key::KeyPair,
    limits::Limits,
    noise::{Handshake, HandshakeConfig, HandshakeState, Pattern, Progress, SecretStream, Split},
};
use zeroize::Zeroizing;

/// The stream's header stands at the end of what the initiator has sent when the handshake is over.
fn header_of(seed: u8) -> Vec<u8> {
    let limits = Limits::default();
    let start = |is_initiator, seed: u8| {
        let pair = KeyPair::from_seed(&[if is_initiator { 1 } else { 2 }; 32]);
        Handshake::new(HandshakeConfig::xx(is_initiator, pair, [seed; 32]), &limits).unwrap()
    };
    let (mut alice, bob) = (start(true, seed), start(false, 99));
    let mut wire = BytesMut::from(&alice.poll_transmit().unwrap()[..]);
    let Progress::Pending(mut bob) = bob.handle_input(&mut wire).unwrap() else { panic!("too early") };
    let mut wire = BytesMut::from(&bob.poll_transmit().unwrap()[..]);
    let Progress::Established(mut alice) = alice.handle_input(&mut wire).unwrap() else { panic!("too late") };
    let sent = alice.outgoing().split();
    sent[sent.len() - 24..].to_vec()
}

/// The keys of two connections differ anyway; a header that repeats would still tell that a seed was used again.
//= STREAM-1
#[test]
fn the_header_of_a_stream_is_as_random_as_the_seed_of_its_handshake() {
    let headers: Vec<_> = (1..=20).map(header_of).collect();
    assert_eq!(headers[0], header_of(1), "of one seed it is one header");
    for (n, header) in headers.iter().enumerate() {
        assert!(!headers[..n].contains(header), "two seeds gave one header");
        let zeros = header.iter().filter(|byte| **byte == header[0]).count();
        assert!(zeros < 8, "not what a hash looks like: {header:?}");
    }
}

/// Both states of a handshake that is over.
fn finished(pattern: Pattern) -> [HandshakeState; 2] {
    let pairs = [1, 2].map(|seed| KeyPair::from_seed(&[seed; 32]));
    let remote = (pattern == Pattern::Ik).then(|| pairs[1].public());
    let start = |is_initiator, pair, remote, seed| {
        HandshakeState::new(pattern, is_initiator, pair, remote, b"", Zeroizing::new([seed; 32])).unwrap()
    };
    let mut ends = [Some(start(true, &pairs[0], remote, 11)), Some(start(false, &pairs[1], None, 12))];
    for turn in (0..2).cycle() {
        let speaker = ends[turn].take().unwrap();
        if speaker.is_finished() {
            ends[turn] = Some(speaker);
            break;
        }
        let (speaker, message) = speaker.write(b"").unwrap();
        ends[turn] = Some(speaker);
        let listener = ends[1 - turn].take().unwrap();
        ends[1 - turn] = Some(listener.read(&message).unwrap().0);
    }
    ends.map(Option::unwrap)
}

//= NOISE-10
#[test]
fn a_pattern_is_known_by_its_name() {
    assert_eq!(Pattern::Xx.protocol_name(), "Noise_XX_Ed25519_ChaChaPoly_BLAKE2b");
    assert_eq!(Pattern::Ik.protocol_name(), "Noise_IK_Ed25519_ChaChaPoly_BLAKE2b");
}

#[test]
fn the_keys_of_a_finished_handshake_fit_together_and_are_not_shown() {
    for pattern in [Pattern::Xx, Pattern::Ik] {
        let [alice, bob]: [Split; 2] = finished(pattern).map(|end| end.split().unwrap());
        assert_eq!((&alice.tx, &alice.rx), (&bob.rx, &bob.tx));
        assert_ne!(alice.tx, alice.rx);
        assert_eq!(alice.session.binding, bob.session.binding);
        let shown = format!("{alice:?}");
        assert!(shown.starts_with("Split"), "{shown}");
        let secret = format!("{:?}", &alice.tx[..4]);
        assert!(!shown.contains(secret.trim_matches(['[', ']'])), "{shown}");
        let stream: SecretStream = SecretStream::from_split(alice, [7; 24], &Limits::default());
        assert!(!format!("{stream:?}").contains(secret.trim_matches(['[', ']'])));
    }
}
