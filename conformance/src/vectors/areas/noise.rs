//! Noise: handshakes message by message, and which keys are taken.

use anyhow::{Result, bail, ensure};
use party::{
    error::{ApiMisuse, Error, PeerMisbehaved},
    key::{KeyPair, PublicKey},
    limits::Limits,
    noise::{Handshake, HandshakeConfig, HandshakeState, Pattern},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::vectors::{Bytes, Expect, Kind, Outcome, Refusal, kind::read};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("handshake", handshake),
    Kind::new("diffie_hellman", diffie_hellman).wire("/public_key").comparing(without_secret),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    static_seed: Bytes,
    static_public_key: Bytes,
    pub(super) ephemeral_seed: Bytes,
}

impl End {
    pub(super) fn key_pair(&self) -> Result<KeyPair> {
        let pair = KeyPair::from_seed(&self.static_seed.array()?);
        ensure!(pair.public().as_bytes()[..] == *self.static_public_key, "another public key");
        Ok(pair)
    }
}

#[derive(Clone, Copy, Deserialize)]
pub(super) enum PatternName {
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
#[serde(deny_unknown_fields)]
struct Shaken {
    pattern: PatternName,
    prologue: Bytes,
    responder_prologue: Bytes,
    initiator: End,
    responder: End,
    dialled: Option<Bytes>,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    payload: Bytes,
    /// What arrives, if it is not what was sent.
    instead: Option<Bytes>,
}

#[derive(Serialize)]
struct Agreed {
    sent: Vec<Bytes>,
    handshake_hash: Bytes,
    initiator_key: Bytes,
    responder_key: Bytes,
}

/// Plays both ends, up to the first that refuses.
fn handshake(input: &Value) -> Result<Outcome> {
    let input: Shaken = read(input)?;
    let dialled = input.dialled.as_ref().map(Bytes::array).transpose()?.map(PublicKey::from_bytes);
    let state = |is_initiator: bool| -> Result<HandshakeState> {
        let (end, prologue, remote) = match is_initiator {
            true => (&input.initiator, &input.prologue, dialled),
            false => (&input.responder, &input.responder_prologue, None),
        };
        let seed = end.ephemeral_seed.array()?.into();
        let pattern = input.pattern.into();
        Ok(HandshakeState::new(pattern, is_initiator, &end.key_pair()?, remote, prologue, seed)?)
    };
    let (mut writer, mut reader) = (state(true)?, state(false)?);
    let mut sent = Vec::new();
    for (i, message) in input.messages.iter().enumerate() {
        let (wrote, bytes) = match writer.write(&message.payload) {
            Ok(wrote) => wrote,
            // A key that is no good shows when it is used for the answer.
            Err(error) => return failed(&error, &sent),
        };
        sent.push(Bytes(bytes));
        let arrives = message.instead.as_ref().unwrap_or(&sent[i]);
        let (read, payload) = match reader.read(arrives) {
            Ok(read) => read,
            Err(error) => return failed(&error, &sent),
        };
        ensure!(message.instead.is_some() || payload == *message.payload, "another payload in message {i}");
        (writer, reader) = (read, wrote);
    }
    if input.messages.iter().any(|message| message.instead.is_some()) {
        // Whoever is to answer next finds out.
        match writer.write(&[]) {
            Err(error @ Error::PeerMisbehaved(_)) => return failed(&error, &sent),
            Err(error) => bail!("the handshake is over: {error}"),
            Ok(_) => bail!("an answer to a message that was changed"),
        }
    }
    let (one, other) = (writer.split()?, reader.split()?);
    let (initiator, responder) = if one.session.is_initiator { (one, other) } else { (other, one) };
    ensure!(initiator.session.binding == responder.session.binding, "two handshake hashes");
    ensure!(initiator.tx == responder.rx && initiator.rx == responder.tx, "two pairs of keys");
    ensure!(initiator.session.remote == responder.session.local, "another responder");
    ensure!(responder.session.remote == initiator.session.local, "another initiator");
    Outcome::accept(Agreed {
        sent,
        handshake_hash: initiator.session.binding.into(),
        initiator_key: initiator.tx[..].into(),
        responder_key: initiator.rx[..].into(),
    })
}

fn failed(error: &Error, sent: &[Bytes]) -> Result<Outcome> {
    match error {
        Error::PeerMisbehaved(PeerMisbehaved::HandshakeFailed) => {
            Outcome::refuse_after(Refusal::Handshake, json!({ "sent": sent }))
        }
        error => bail!("it fails otherwise: {error}"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    seed: Bytes,
    public_key: Bytes,
}

/// Wherever a key comes in, as an ephemeral key or as the static key that is dialled, the bad ones are refused.
fn diffie_hellman(input: &Value) -> Result<Outcome> {
    let Exchange { seed, public_key } = read(input)?;
    let (seed, ours): ([u8; 32], _) = (seed.array()?, KeyPair::from_seed(&[1; 32]));
    let responder = HandshakeState::new(Pattern::Xx, false, &ours, None, &[], seed.into())?;
    let (responder, _) = responder.read(&public_key)?;
    let answer = responder.write(&[]);

    let remote = PublicKey::from_bytes(public_key.array()?);
    let dialling = HandshakeConfig::ik_initiator(KeyPair::from_seed(&seed), remote, [2; 32]);
    let dialled = Handshake::new(dialling, &Limits::default());
    match (answer, dialled) {
        // Every secret gives other bytes from here on.
        (Ok((_, answer)), Ok(_)) => Outcome::accept(json!({}))?.seen(Bytes(answer)),
        (Err(Error::PeerMisbehaved(PeerMisbehaved::HandshakeFailed)), Err(ApiMisuse::BadKey)) => {
            Outcome::refuse(Refusal::Handshake)
        }
        (answer, dialled) => {
            bail!("as an ephemeral key: {:?}, as a static one: {:?}", answer.err(), dialled.err())
        }
    }
}

/// A handshake doesn't show its secrets. That they are those of Node is tested where they are made, beside
/// `party::noise`'s resolver.
fn without_secret(expect: Expect) -> Expect {
    match expect {
        Expect::Accept(_) => Expect::Accept(json!({})),
        refused => refused,
    }
}
