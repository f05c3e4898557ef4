//! The messages of a feed channel, and its handshake.

use anyhow::{Result, ensure};
use party::{
    error::{Error, PeerMisbehaved},
    key::{FeedKey, PublicKey},
    limits::Limits,
    replication::{Channel, capability as capability_of, handshake as handshake_of, messages::Message},
    session::Session,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fields;
use crate::vectors::{Bytes, Kind, Outcome, Refusal, kind::read};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("message", message).wire("/bytes"),
    Kind::new("capability", capability),
    Kind::new("handshake", handshake).wire("/bytes"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received {
    #[serde(rename = "type")]
    message_type: u64,
    /// Whether the sender understands seeks, which releases before 10.20 don't.
    seeks: bool,
    bytes: Bytes,
}

#[derive(Serialize)]
struct Understood {
    message: Option<Value>,
    /// How it is written anew, if not as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<Bytes>,
}

fn message(input: &Value) -> Result<Outcome> {
    let input: Received = read(input)?;
    let decoded = Message::decode(input.message_type, &input.bytes.shared(), input.seeks, &Limits::default());
    let Ok(decoded) = decoded else { return Outcome::refuse(Refusal::Decode) };
    let Some(message) = decoded else {
        // A message of a type that is passed over, whatever is in it.
        return Outcome::accept(Understood { message: None, again: None })?.seen(&input.bytes);
    };
    ensure!(message.message_type() == input.message_type, "a message of another type");
    let again = Bytes::from(message.encode());
    let read_again = Message::decode(input.message_type, &again.shared(), true, &Limits::default());
    ensure!(read_again == Ok(Some(message.clone())), "written anew, it is another: {read_again:?}");
    let again = (again != input.bytes).then_some(again);
    // There is one form in which it is written, and many others in which it may come.
    let other_form = again.is_some().then_some(input.bytes);
    Outcome::accept(Understood { message: Some(fields::of_message(&message)?), again })?.seen(other_form)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    initiator: bool,
    key: Bytes,
    binding: Bytes,
}

fn session(binding: [u8; 64], is_initiator: bool) -> Session {
    let [local, remote] = [1, 2].map(|byte| PublicKey::from_bytes([byte; 32]));
    Session { binding, is_initiator, local, remote }
}

fn capability(input: &Value) -> Result<Outcome> {
    let input: Named = read(input)?;
    let (key, binding) = (FeedKey::from_bytes(input.key.array()?), input.binding.array()?);
    let (ours, theirs) = (session(binding, input.initiator), session(binding, !input.initiator));
    let shown = capability_of(&ours, true, &key);
    ensure!(capability_of(&theirs, false, &key) == shown, "the other end expects another");
    let handshake = Bytes(handshake_of(&ours, &key));
    Outcome::accept(json!({ "capability": Bytes::from(shown), "handshake": handshake }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    /// Whether who shows it is the initiator.
    initiator: bool,
    key: Bytes,
    binding: Bytes,
    bytes: Bytes,
}

fn handshake(input: &Value) -> Result<Outcome> {
    let input: Shown = read(input)?;
    let key = FeedKey::from_bytes(input.key.array()?);
    let session = session(input.binding.array()?, !input.initiator);
    match Channel::verify_handshake(&session, &key, &input.bytes) {
        Ok(remote) => Outcome::accept(json!({ "seeks": remote.seeks() }))?.seen(&input.bytes),
        Err(Error::PeerMisbehaved(PeerMisbehaved::WrongCapability) | Error::Decode(_)) => {
            Outcome::refuse(Refusal::Channel)
        }
        Err(error) => Err(error.into()),
    }
}
