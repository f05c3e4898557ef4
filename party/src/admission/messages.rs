//! The messages of the party channel as values of ours. The bytes are protobuf, generated from
//! `protocol-spec/party.proto`; what protobuf can't say, such as the length of a key, is checked here.

use bytes::Bytes;
use prost::Message as _;

use super::proto;
use crate::{
    error::{ApiMisuse, DecodeError, PeerMisbehaved},
    hash::Hash,
    key::FeedKey,
    limits::Limits,
};

/// The version of the party protocol that is spoken here.
const VERSION: u32 = 1;

/// The handshake of a party channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Bits of optional features; none is defined yet.
    pub features: u64,
    /// The membership proof.
    pub proof: Bytes,
}

impl Hello {
    /// A hello with this proof.
    pub fn new(proof: Hash) -> Self {
        Self { features: 0, proof: Bytes::copy_from_slice(&proof) }
    }

    /// What goes into the Protomux open.
    //= PARTY-5
    pub fn encode(&self) -> Vec<u8> {
        proto::Hello { version: VERSION, features: self.features, proof: self.proof.clone() }.encode_to_vec()
    }

    /// Reads what stood in the Protomux open.
    ///
    /// # Errors
    /// [`DecodeError::Protobuf`], or [`DecodeError::Unknown`] for a version other than ours.
    //= PARTY-9
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let hello = proto::Hello::decode(bytes).map_err(|_| DecodeError::Protobuf)?;
        if hello.version != VERSION {
            return Err(DecodeError::Unknown { what: "party version", value: hello.version.into() });
        }
        Ok(Self { features: hello.features, proof: hello.proof })
    }
}

/// A message of the application's, which says itself how it is to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// How `value` is to be read, in words that the application's peers agree on.
    pub kind: String,
    /// The value.
    pub value: Bytes,
}

impl Message {
    /// A message of this kind.
    pub fn new(kind: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { kind: kind.into(), value: value.into() }
    }
}

/// A feed that is introduced, and what whoever introduces it calls it.
///
/// Both are claims. Nothing proves that there is such a feed, nor that its writer would call it so: show the label to
/// people, and go by the key.
///
/// ```
/// use party::{key::FeedKey, peer::Introduced};
///
/// let notes = Introduced::new(FeedKey::from_bytes([1; 32])).labelled("notes");
/// assert_eq!(notes.label.as_deref(), Some("notes"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Introduced {
    /// Which feed.
    pub key: FeedKey,
    /// A text for people, of at most [`Limits::max_label`] bytes; an empty one counts as none.
    pub label: Option<String>,
}

impl Introduced {
    /// A feed without a label.
    pub fn new(key: FeedKey) -> Self {
        Self { key, label: None }
    }

    /// The same feed with this label.
    #[must_use]
    pub fn labelled(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()).filter(|label| !label.is_empty()), ..self }
    }
}

impl From<FeedKey> for Introduced {
    fn from(key: FeedKey) -> Self {
        Self::new(key)
    }
}

/// What a transaction asks or answers. An answer is of the same kind as its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Feeds: what the asker offers, or what the other has to offer in return.
    IntroduceFeeds(Vec<Introduced>),
    /// The application's.
    Custom(Message),
}

impl Body {
    //= PARTY-51, PARTY-71
    fn check(&self, limits: &Limits) -> Result<(), ApiMisuse> {
        let Self::IntroduceFeeds(feeds) = self else { return Ok(()) };
        if feeds.len() > limits.max_introduced_feeds {
            return Err(ApiMisuse::LimitExceeded("max_introduced_feeds"));
        }
        let is_long =
            |feed: &Introduced| feed.label.as_ref().is_some_and(|label| label.len() > limits.max_label);
        if feeds.iter().any(is_long) { Err(ApiMisuse::LimitExceeded("max_label")) } else { Ok(()) }
    }
}

/// Why a transaction was refused, as far as the remote says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// A rule denied it or failed.
    Refused,
    /// The rule took too long.
    Timeout,
    /// Too many transactions at once; it may be tried again.
    Busy,
    /// The remote doesn't know this kind of transaction.
    Unsupported,
}

/// Everything that goes over an open party channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Request { id: u64, body: Option<Body> },
    Response { id: u64, body: Option<Body> },
    Error { id: u64, code: RefusalCode },
    Ephemeral(Message),
    Finish,
}

const REQUEST: u64 = 0;
const RESPONSE: u64 = 1;
const ERROR: u64 = 2;
const EPHEMERAL: u64 = 3;
const FINISH: u64 = 4;

impl Frame {
    pub(super) fn encode(self, limits: &Limits) -> Result<(u64, Vec<u8>), ApiMisuse> {
        if let Self::Request { body: Some(body), .. } | Self::Response { body: Some(body), .. } = &self {
            body.check(limits)?;
        }
        let (message_type, bytes) = match self {
            Self::Request { id, body } => {
                (REQUEST, proto::Request { id, body: body.map(Into::into) }.encode_to_vec())
            }
            Self::Response { id, body } => {
                (RESPONSE, proto::Response { id, body: body.map(Into::into) }.encode_to_vec())
            }
            Self::Error { id, code } => {
                let code = proto::error::Code::from(code).into();
                (ERROR, proto::Error { id, code, reason: String::new() }.encode_to_vec())
            }
            Self::Ephemeral(message) => {
                (EPHEMERAL, proto::Ephemeral { custom: Some(message.into()) }.encode_to_vec())
            }
            Self::Finish => (FINISH, proto::Finish {}.encode_to_vec()),
        };
        //= PARTY-50
        if bytes.len() > limits.max_party_message {
            return Err(ApiMisuse::MessageTooLarge { len: bytes.len(), max: limits.max_party_message });
        }
        Ok((message_type, bytes))
    }

    /// `None` for a message type that is not known, which is passed over.
    //= PARTY-47, PARTY-48
    pub(super) fn decode(
        message_type: u64,
        bytes: Bytes,
        limits: &Limits,
    ) -> Result<Option<Self>, crate::error::Error> {
        if bytes.len() > limits.max_party_message {
            return Err(PeerMisbehaved::LimitExceeded("max_party_message").into());
        }
        Ok(Some(match message_type {
            REQUEST => {
                let request = decode::<proto::Request>(bytes)?;
                let body = match request.body {
                    Some(proto::request::Body::IntroduceFeeds(keys)) => Some(introduction(keys, limits)?),
                    Some(proto::request::Body::Custom(custom)) => Some(Body::Custom(custom.into())),
                    None => None,
                };
                Self::Request { id: request.id, body }
            }
            RESPONSE => {
                let response = decode::<proto::Response>(bytes)?;
                let body = match response.body {
                    Some(proto::response::Body::IntroduceFeeds(keys)) => Some(introduction(keys, limits)?),
                    Some(proto::response::Body::Custom(custom)) => Some(Body::Custom(custom.into())),
                    None => None,
                };
                Self::Response { id: response.id, body }
            }
            ERROR => {
                let error = decode::<proto::Error>(bytes)?;
                Self::Error { id: error.id, code: error.code().into() }
            }
            EPHEMERAL => {
                let ephemeral = decode::<proto::Ephemeral>(bytes)?;
                //= PARTY-74
                Self::Ephemeral(ephemeral.custom.unwrap_or_default().into())
            }
            FINISH => {
                decode::<proto::Finish>(bytes)?;
                Self::Finish
            }
            _ => return Ok(None),
        }))
    }
}

/// What a field of the page is not, is passed over; what is one of another wire type is an error.
//= PARTY-44, PARTY-45
fn decode<M: prost::Message + Default>(bytes: Bytes) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|_| DecodeError::Protobuf)
}

//= PARTY-46, PARTY-47, PARTY-49, PARTY-67, PARTY-68, PARTY-69, PARTY-70
fn introduction(feeds: proto::IntroduceFeeds, limits: &Limits) -> Result<Body, crate::error::Error> {
    let proto::IntroduceFeeds { keys, labels } = feeds;
    if keys.len() > limits.max_introduced_feeds {
        return Err(PeerMisbehaved::LimitExceeded("max_introduced_feeds").into());
    }
    if labels.len() > keys.len() {
        return Err(DecodeError::Invalid("label of no feed").into());
    }
    if labels.iter().any(|label| label.len() > limits.max_label) {
        return Err(PeerMisbehaved::LimitExceeded("max_label").into());
    }
    let mut labels = labels.into_iter();
    let feeds = keys.iter().map(|key| {
        let key = <[u8; 32]>::try_from(&key[..]).map_err(|_| DecodeError::Invalid("feed key"))?;
        let label = labels.next().filter(|label| !label.is_empty());
        Ok(Introduced { key: FeedKey::from_bytes(key), label })
    });
    Ok(Body::IntroduceFeeds(feeds.collect::<Result<_, DecodeError>>()?))
}

fn introduced(feeds: Vec<Introduced>) -> proto::IntroduceFeeds {
    let keys = feeds.iter().map(|feed| Bytes::copy_from_slice(feed.key.as_bytes())).collect();
    let labelled = feeds.iter().rposition(|feed| feed.label.is_some()).map_or(0, |last| last + 1);
    let labels = feeds.into_iter().take(labelled).map(|feed| feed.label.unwrap_or_default()).collect();
    proto::IntroduceFeeds { keys, labels }
}

impl From<Body> for proto::request::Body {
    fn from(body: Body) -> Self {
        match body {
            Body::IntroduceFeeds(keys) => Self::IntroduceFeeds(introduced(keys)),
            Body::Custom(message) => Self::Custom(message.into()),
        }
    }
}

impl From<Body> for proto::response::Body {
    fn from(body: Body) -> Self {
        match body {
            Body::IntroduceFeeds(keys) => Self::IntroduceFeeds(introduced(keys)),
            Body::Custom(message) => Self::Custom(message.into()),
        }
    }
}

impl From<Message> for proto::Custom {
    fn from(message: Message) -> Self {
        Self { r#type: message.kind, value: message.value }
    }
}

impl From<proto::Custom> for Message {
    fn from(custom: proto::Custom) -> Self {
        Self { kind: custom.r#type, value: custom.value }
    }
}

impl From<RefusalCode> for proto::error::Code {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Refused => Self::Refused,
            RefusalCode::Timeout => Self::Timeout,
            RefusalCode::Busy => Self::Busy,
            RefusalCode::Unsupported => Self::Unsupported,
        }
    }
}

impl From<proto::error::Code> for RefusalCode {
    //= PARTY-65
    fn from(code: proto::error::Code) -> Self {
        match code {
            proto::error::Code::Timeout => Self::Timeout,
            proto::error::Code::Busy => Self::Busy,
            proto::error::Code::Unsupported => Self::Unsupported,
            // What we don't know is a refusal all the same.
            proto::error::Code::Refused | proto::error::Code::Unspecified => Self::Refused,
        }
    }
}
