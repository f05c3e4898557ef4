//! Frames, headers and sealed messages.

use anyhow::{Result, bail};
use bytes::BytesMut;
use party::{
    error::{Error, PeerMisbehaved},
    key::PublicKey,
    limits::Limits,
    noise::{Handshake, HandshakeConfig, Pattern, Progress, SecretStream, Split},
    session::Session,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::noise::{End, PatternName};
use crate::vectors::{Bytes, Kind, Outcome, Refusal, kind::read};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("sealed", sealed),
    Kind::new("opened", opened).wire("/wire").bound(),
    Kind::new("conversation", conversation).wire("/comes").bound(),
];

/// Of a header, the bytes that its sender has drawn.
const RANDOM: usize = 24;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    handshake_hash: Bytes,
    sender_is_initiator: bool,
    sender_key: Bytes,
    sender_header: Bytes,
    messages: Vec<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opened {
    handshake_hash: Bytes,
    sender_is_initiator: bool,
    sender_key: Bytes,
    wire: Bytes,
}

#[derive(Serialize)]
struct Came {
    messages: Vec<Bytes>,
    #[serde(skip_serializing_if = "is_zero")]
    keep_alives: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn session(binding: [u8; 64], is_initiator: bool) -> Session {
    let [local, remote] = [1, 2].map(|byte| PublicKey::from_bytes([byte; 32]));
    Session { binding, is_initiator, local, remote }
}

fn sealed(input: &Value) -> Result<Outcome> {
    let input: Sealed = read(input)?;
    let session = session(input.handshake_hash.array()?, input.sender_is_initiator);
    let tx: [u8; 32] = input.sender_key.array()?;
    let split = Split { tx: tx.into(), rx: [0x99; 32].into(), session };
    let mut sender = SecretStream::from_split(split, input.sender_header.array()?, &Limits::default());
    for message in &input.messages {
        sender.seal(message)?;
    }
    Outcome::accept(json!({ "wire": Bytes::from(sender.outgoing()) }))
}

/// However the transport splits it, the same comes of it.
fn opened(input: &Value) -> Result<Outcome> {
    let input: Opened = read(input)?;
    let whole = open(&input, input.wire.len())?;
    for piece in [1, 2, 61] {
        anyhow::ensure!(
            open(&input, piece)? == whole,
            "in pieces of {piece} bytes something else comes of it"
        );
    }
    Ok(whole)
}

/// What comes of it in pieces of so many bytes.
fn open(input: &Opened, piece: usize) -> Result<Outcome> {
    let session = session(input.handshake_hash.array()?, !input.sender_is_initiator);
    let rx: [u8; 32] = input.sender_key.array()?;
    let split = Split { tx: [0x99; 32].into(), rx: rx.into(), session };
    let mut receiver = SecretStream::from_split(split, [0x77; RANDOM], &Limits::default());
    let mut came = Came { messages: vec![], keep_alives: 0 };
    let mut buffered = BytesMut::new();
    let mut outcome = Ok(());
    for bytes in input.wire.chunks(piece.max(1)) {
        buffered.extend_from_slice(bytes);
        outcome = receiver.handle_input(&mut buffered);
        came.messages.extend(std::iter::from_fn(|| receiver.poll_message()).map(Bytes::from));
        if outcome.is_err() {
            break;
        }
    }
    came.keep_alives = receiver.keep_alives();
    let outcome = outcome.and_then(|()| Ok(receiver.handle_eof()?));
    let how = match outcome {
        Ok(()) => {
            // A header is not authenticated by itself: what is wrong with it shows in the first message.
            let unproved = (came.messages.is_empty() && came.keep_alives == 0).then_some(&input.wire);
            return Outcome::accept(came)?.seen(unproved);
        }
        Err(Error::PeerMisbehaved(PeerMisbehaved::WrongStreamHeader)) => Refusal::StreamHeader,
        Err(Error::PeerMisbehaved(PeerMisbehaved::FrameLength(_))) => Refusal::FrameLength,
        Err(Error::PeerMisbehaved(PeerMisbehaved::DecryptionFailed)) => Refusal::Decryption,
        // Only with lengths that were changed.
        Err(Error::PeerMisbehaved(PeerMisbehaved::Truncated)) => Refusal::Connection,
        Err(error) => bail!("it fails otherwise: {error}"),
    };
    Outcome::refuse_after(how, came)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    pattern: PatternName,
    is_initiator: bool,
    local: End,
    remote_public_key: Bytes,
    comes: Bytes,
}

#[derive(Serialize)]
struct Said {
    sent: Bytes,
    handshake_hash: Bytes,
    remote_public_key: Bytes,
    messages: Vec<Bytes>,
}

/// Takes the place of one end, and hears what the other end said to Node.
fn conversation(input: &Value) -> Result<Outcome> {
    let input: Conversation = read(input)?;
    let remote = PublicKey::from_bytes(input.remote_public_key.array()?);
    let us =
        HandshakeConfig::xx(input.is_initiator, input.local.key_pair()?, input.local.ephemeral_seed.array()?);
    let config = HandshakeConfig { pattern: Pattern::from(input.pattern), remote: Some(remote), ..us };
    match converse(config, &input.comes) {
        Ok(said) => Outcome::accept(said),
        // Only with bytes that were changed.
        Err(Error::PeerMisbehaved(_)) => Outcome::refuse(Refusal::Connection),
        Err(error) => bail!("it fails otherwise: {error}"),
    }
}

fn converse(config: HandshakeConfig, comes: &[u8]) -> Result<Said, Error> {
    let mut handshake = Handshake::new(config, &Limits::default())?;
    let mut sent = handshake.poll_transmit().unwrap_or_default().to_vec();
    let mut input = BytesMut::from(comes);
    let Progress::Established(mut stream) = handshake.handle_input(&mut input)? else {
        return Err(PeerMisbehaved::Truncated.into());
    };
    stream.handle_input(&mut input)?;
    sent.extend_from_slice(stream.outgoing());
    sent.truncate(sent.len().saturating_sub(RANDOM));
    let messages = std::iter::from_fn(|| stream.poll_message()).map(Bytes::from).collect();
    stream.handle_eof()?;
    Ok(Said {
        sent: sent.into(),
        handshake_hash: stream.session().binding.into(),
        remote_public_key: stream.session().remote.as_bytes().into(),
        messages,
    })
}
