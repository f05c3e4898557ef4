//! Noise and the secret stream against what Node's packages put on the wire: the same seeds give the same
//! bytes, what Node accepts is accepted, and what it refuses is refused.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use conformance::vectors::{Hex, cases};
use party::{
    error::{ApiMisuse, Error, PeerMisbehaved},
    key::{KeyPair, PublicKey},
    limits::Limits,
    noise::{Handshake, HandshakeConfig, HandshakeState, Pattern, Progress, SecretStream, Split},
    session::Session,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Party {
    static_seed: Hex,
    static_public_key: Hex,
    ephemeral_seed: Hex,
}

impl Party {
    fn key_pair(&self) -> Result<KeyPair> {
        let pair = KeyPair::from_seed(&self.static_seed.array()?);
        ensure!(pair.public().as_bytes()[..] == *self.static_public_key, "another public key");
        Ok(pair)
    }
}

#[derive(Clone, Copy, Deserialize)]
enum PatternName {
    #[serde(rename = "XX")]
    Xx,
    #[serde(rename = "IK")]
    Ik,
}

impl From<PatternName> for Pattern {
    fn from(name: PatternName) -> Self {
        match name {
            PatternName::Xx => Self::Xx,
            PatternName::Ik => Self::Ik,
        }
    }
}

#[derive(Deserialize)]
struct NoiseCase {
    name: String,
    expect: String,
    #[serde(flatten)]
    kind: NoiseKind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum NoiseKind {
    Handshake(Box<HandshakeCase>),
    DiffieHellman(DiffieHellmanCase),
}

#[derive(Deserialize)]
struct HandshakeCase {
    pattern: PatternName,
    prologue: Hex,
    responder_prologue: Hex,
    initiator: Party,
    responder: Party,
    dialled: Option<Hex>,
    messages: Vec<Message>,
    handshake_hash: Option<Hex>,
    initiator_key: Option<Hex>,
    responder_key: Option<Hex>,
}

#[derive(Deserialize)]
struct Message {
    payload: Hex,
    sent: Hex,
    received: Hex,
}

#[derive(Deserialize)]
struct DiffieHellmanCase {
    seed: Hex,
    public_key: Hex,
    shared: Option<Hex>,
}

#[derive(Deserialize)]
struct StreamCase {
    name: String,
    expect: String,
    #[serde(flatten)]
    kind: StreamKind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum StreamKind {
    Stream(WireCase),
    Conversation(Box<ConversationCase>),
}

#[derive(Deserialize)]
struct WireCase {
    handshake_hash: Hex,
    sender_is_initiator: bool,
    sender_key: Hex,
    sender_header: Hex,
    canonical: bool,
    messages: Vec<Hex>,
    wire: Hex,
}

#[derive(Deserialize)]
struct ConversationCase {
    pattern: PatternName,
    initiator: Party,
    responder: Party,
    handshake_hash: Hex,
    from_initiator: Hex,
    from_responder: Hex,
    messages_to_initiator: Vec<Hex>,
    messages_to_responder: Vec<Hex>,
}

//= NOISE-1, NOISE-11, NOISE-17, STREAM-1
#[test]
fn handshakes_are_those_of_node() -> Result<()> {
    let mut count = 0;
    for case in cases::<NoiseCase>("noise.json")? {
        if let NoiseKind::Handshake(handshake) = &case.kind {
            check_handshake(handshake, &case.expect).with_context(|| case.name.clone())?;
            count += 1;
        }
    }
    ensure!(count > 0);
    Ok(())
}

//= NOISE-2
#[test]
fn diffie_hellman_is_that_of_node() -> Result<()> {
    let mut count = 0;
    for case in cases::<NoiseCase>("noise.json")? {
        if let NoiseKind::DiffieHellman(exchange) = &case.kind {
            check_diffie_hellman(exchange, &case.expect).with_context(|| case.name.clone())?;
            count += 1;
        }
    }
    ensure!(count > 0);
    Ok(())
}

//= STREAM-5, STREAM-9, STREAM-10
#[test]
fn streams_are_those_of_node() -> Result<()> {
    for case in cases::<StreamCase>("secret_stream.json")? {
        if let StreamKind::Stream(wire) = &case.kind {
            check_opening(wire, &case.expect).with_context(|| case.name.clone())?;
            if wire.canonical {
                check_sealing(wire).with_context(|| case.name.clone())?;
            }
        }
    }
    Ok(())
}

#[test]
fn conversations_are_those_of_node() -> Result<()> {
    let mut count = 0;
    for case in cases::<StreamCase>("secret_stream.json")? {
        if let StreamKind::Conversation(conversation) = &case.kind {
            check_conversation(conversation, true).with_context(|| case.name.clone())?;
            check_conversation(conversation, false).with_context(|| case.name.clone())?;
            count += 1;
        }
    }
    ensure!(count > 0);
    Ok(())
}

/// Plays both ends. Each must write what Node's wrote, and fail where Node's failed.
fn check_handshake(case: &HandshakeCase, expect: &str) -> Result<()> {
    let dialled = case.dialled.as_ref().map(Hex::array).transpose()?.map(PublicKey::from_bytes);
    let state = |is_initiator: bool| -> Result<HandshakeState> {
        let (party, prologue, remote) = match is_initiator {
            true => (&case.initiator, &case.prologue, dialled),
            false => (&case.responder, &case.responder_prologue, None),
        };
        let seed = party.ephemeral_seed.array()?.into();
        Ok(HandshakeState::new(
            case.pattern.into(),
            is_initiator,
            &party.key_pair()?,
            remote,
            prologue,
            seed,
        )?)
    };
    let mut ends = [state(true)?, state(false)?];

    let last = case.messages.len() - 1;
    for (i, message) in case.messages.iter().enumerate() {
        let [initiator, responder] = ends;
        let (writer, reader) =
            if i.is_multiple_of(2) { (initiator, responder) } else { (responder, initiator) };
        let (writer, sent) = writer.write(&message.payload)?;
        ensure!(sent == *message.sent, "message {i} is {:?}", Hex(sent));

        let read = reader.read(&message.received);
        let (reader, payload) = match (read, expect) {
            (Ok(read), _) => read,
            (Err(Error::PeerMisbehaved(PeerMisbehaved::HandshakeFailed)), "handshake_failed")
                if i == last =>
            {
                return Ok(());
            }
            (Err(error), _) => bail!("message {i} fails: {error}"),
        };
        if message.sent == message.received {
            ensure!(payload == *message.payload, "another payload in message {i}");
        }
        ends = if i.is_multiple_of(2) { [writer, reader] } else { [reader, writer] };
    }

    let [initiator, responder] = ends;
    if expect == "handshake_failed" {
        // A key that is no good shows when it is used for the answer.
        let answering = if last.is_multiple_of(2) { responder } else { initiator };
        let answer = answering.write(&[]);
        ensure!(matches!(answer, Err(Error::PeerMisbehaved(PeerMisbehaved::HandshakeFailed))), "accepted");
        return Ok(());
    }
    let (a, b) = (initiator.split()?, responder.split()?);
    ensure!(Some(&a.session.binding[..]) == case.handshake_hash.as_deref(), "another handshake hash");
    ensure!(Some(&a.tx[..]) == case.initiator_key.as_deref(), "another key of the initiator");
    ensure!(Some(&a.rx[..]) == case.responder_key.as_deref(), "another key of the responder");
    ensure!(a.session.binding == b.session.binding && a.tx == b.rx && a.rx == b.tx, "no agreement");
    ensure!(a.session.remote == b.session.local && b.session.remote == a.session.local, "another peer");
    Ok(())
}

/// Wherever a key comes in, as an ephemeral key or as the static key that is dialled, the bad ones are refused.
/// That good ones give the recorded secret is checked beside the function, which is private.
fn check_diffie_hellman(case: &DiffieHellmanCase, expect: &str) -> Result<()> {
    let seed = case.seed.array()?;
    let responder =
        HandshakeState::new(Pattern::Xx, false, &KeyPair::from_seed(&[1; 32]), None, &[], seed.into())?;
    let (responder, _) = responder.read(&case.public_key)?;
    let answer = responder.write(&[]);

    let remote = PublicKey::from_bytes(case.public_key.array()?);
    let dialling = HandshakeConfig::ik_initiator(KeyPair::from_seed(&seed), remote, [2; 32]);
    let dialled = Handshake::new(dialling, &Limits::default());
    match expect {
        "ok" => {
            ensure!(case.shared.is_some());
            answer.context("refused")?;
            dialled.context("refused as a static key")?;
        }
        "refused" => {
            ensure!(
                matches!(answer, Err(Error::PeerMisbehaved(PeerMisbehaved::HandshakeFailed))),
                "accepted"
            );
            ensure!(matches!(dialled, Err(ApiMisuse::BadKey)), "accepted as a static key");
        }
        other => bail!("unknown expectation {other}"),
    }
    Ok(())
}

fn stream(case: &WireCase, is_sender: bool) -> Result<SecretStream> {
    let key: [u8; 32] = case.sender_key.array()?;
    let other = [0x99; 32];
    let (tx, rx, header) = match is_sender {
        true => (key, other, case.sender_header.array()?),
        false => (other, key, [0x77; 24]),
    };
    let session = Session {
        binding: case.handshake_hash.array()?,
        is_initiator: case.sender_is_initiator == is_sender,
        local: PublicKey::from_bytes([1; 32]),
        remote: PublicKey::from_bytes([2; 32]),
    };
    let split = Split { tx: tx.into(), rx: rx.into(), session };
    Ok(SecretStream::from_split(split, header, &Limits::default()))
}

fn check_sealing(case: &WireCase) -> Result<()> {
    let mut sender = stream(case, true)?;
    for message in &case.messages {
        sender.seal(message)?;
    }
    ensure!(sender.outgoing()[..] == *case.wire, "sealed {:?}", Hex(sender.outgoing().to_vec()));
    Ok(())
}

fn check_opening(case: &WireCase, expect: &str) -> Result<()> {
    let mut receiver = stream(case, false)?;
    let mut input = BytesMut::from(&case.wire[..]);
    let outcome = match receiver.handle_input(&mut input) {
        Ok(()) => "ok",
        Err(Error::PeerMisbehaved(PeerMisbehaved::WrongStreamHeader)) => "wrong_stream_header",
        Err(Error::PeerMisbehaved(PeerMisbehaved::FrameLength(_))) => "frame_length",
        Err(Error::PeerMisbehaved(PeerMisbehaved::DecryptionFailed)) => "decryption_failed",
        Err(error) => bail!("{error}"),
    };
    ensure!(outcome == expect, "{outcome} instead of {expect}");
    let messages: Vec<Bytes> = std::iter::from_fn(|| receiver.poll_message()).collect();
    let expected: Vec<&Hex> = case.messages.iter().filter(|message| !message.is_empty()).collect();
    ensure!(messages.len() == expected.len(), "{} messages instead of {}", messages.len(), expected.len());
    ensure!(messages.iter().zip(expected).all(|(message, expected)| message[..] == **expected));
    let keep_alives = case.messages.iter().filter(|message| message.is_empty()).count();
    ensure!(receiver.keep_alives() == keep_alives as u64, "{} keep-alives", receiver.keep_alives());
    if expect == "ok" {
        receiver.handle_eof()?;
    }
    Ok(())
}

/// Takes the place of one end, and hears what the other end said to Node.
fn check_conversation(case: &ConversationCase, is_initiator: bool) -> Result<()> {
    let (us, them) = match is_initiator {
        true => (&case.initiator, &case.responder),
        false => (&case.responder, &case.initiator),
    };
    let remote = PublicKey::from_bytes(them.static_public_key.array()?);
    let pattern = Pattern::from(case.pattern);
    let config = HandshakeConfig {
        pattern,
        remote: Some(remote),
        ..HandshakeConfig::xx(is_initiator, us.key_pair()?, us.ephemeral_seed.array()?)
    };
    let (from_us, from_them, messages) = match is_initiator {
        true => (&case.from_initiator, &case.from_responder, &case.messages_to_initiator),
        false => (&case.from_responder, &case.from_initiator, &case.messages_to_responder),
    };

    let mut handshake = Handshake::new(config, &Limits::default())?;
    let mut sent = handshake.poll_transmit().unwrap_or_default().to_vec();
    let mut input = BytesMut::from(&from_them[..]);
    let Progress::Established(mut stream) = handshake.handle_input(&mut input)? else { bail!("no stream") };
    stream.handle_input(&mut input)?;
    sent.extend_from_slice(stream.outgoing());

    // The same bytes up to the header, which is random.
    let id_end = sent.len() - 24;
    ensure!(from_us.starts_with(&sent[..id_end]), "sent {:?}", Hex(sent));
    ensure!(stream.session().binding[..] == *case.handshake_hash, "another handshake hash");
    ensure!(stream.session().remote == remote, "another peer");
    for message in messages {
        ensure!(stream.poll_message().as_deref() == Some(message), "another message");
    }
    ensure!(stream.poll_message().is_none() && stream.handle_eof().is_ok());
    Ok(())
}
