//! The ten messages of `hypercore/alpha`, each encoded beside its decoding.
//!
//! The layout is that of hypercore's `lib/messages.js`; see `protocol-spec/07-replication.md`. What follows
//! the last known field of a message is passed over, as Node does: that is where later versions put theirs.

use bytes::{Bytes, BytesMut};

use super::payload::Payload;
use crate::{
    encoding::{Reader, Writer},
    error::DecodeError,
    feed::{
        manifest::Manifest,
        proof::{
            BlockProof, BlockRequest, HashProof, Node, Proof, ProofRequest, SeekProof, SeekRequest,
            UpgradeProof, UpgradeRequest,
        },
    },
    limits::Limits,
};

/// [`NoData::reason`]: none given. Hypercore 10 never gives one.
pub const REASON_UNKNOWN: u64 = 0;
/// [`NoData::reason`]: what was asked for is not here.
pub const REASON_NOT_AVAILABLE: u64 = 1;
/// [`NoData::reason`]: what was asked for can't exist. Node counts these and gives up the whole connection
/// at 64.
pub const REASON_INVALID_REQUEST: u64 = 2;

/// Blocks from this length on are not copied into their message.
const APART_FROM: usize = 4 << 10;

/// A message of the `hypercore/alpha` channel.
///
/// ```
/// use party::{limits::Limits, replication::messages::{Message, Range}};
///
/// let message = Message::Range(Range { drop: false, start: 0, length: 300 });
/// let payload = message.encode();
/// assert_eq!(payload[..], [0, 0, 0xfd, 0x2c, 0x01]);
/// assert_eq!(Message::decode(message.message_type(), &payload, true, &Limits::default())?, Some(message));
/// # Ok::<(), party::error::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 0: where a side stands.
    Sync(Sync),
    /// Type 1: asks for a proof.
    Request(Request),
    /// Type 2: takes a request back. It may still be answered, if the answer was on its way.
    Cancel {
        /// The request's id.
        request: u64,
    },
    /// Type 3: answers a request.
    Data(Data),
    /// Type 4: says that a request can't be answered.
    NoData(NoData),
    /// Type 5: asks to be told what is stored of a range.
    Want(Want),
    /// Type 6: takes a want back.
    Unwant(Want),
    /// Type 7: tells what is stored of a range, bit by bit.
    Bitfield(Bitfield),
    /// Type 8: tells that a range is stored now, or is not any more.
    Range(Range),
    /// Type 9: what applications say to each other beside replication.
    Extension(Extension),
}

/// Where a side stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The sender's fork.
    pub fork: u64,
    /// The sender's length in blocks, stored or not.
    pub length: u64,
    /// The receiver's length as the sender knows it, if both are of the same fork; else 0.
    pub remote_length: u64,
    /// Whether the sender can prove the growth from `remote_length` to `length`.
    pub can_upgrade: bool,
    /// Whether the sender answers requests.
    pub uploading: bool,
    /// Whether the sender may make requests. If neither side does, a Node peer closes the channel.
    pub downloading: bool,
    /// Whether the sender can show the manifest.
    pub has_manifest: bool,
    /// Whether the sender takes data that it did not ask for.
    pub allow_push: bool,
}

/// Asks for a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the sender; 0 is kept for the check whether two forks contradict each other.
    pub id: u64,
    /// The fork that it is about.
    pub fork: u64,
    /// What is asked for.
    pub proof: ProofRequest,
    /// Requests of a higher priority are answered first.
    pub priority: u64,
}

/// Answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The request's id; 0 if nobody asked.
    pub request: u64,
    /// The answer, not verified yet.
    pub proof: Proof,
}

/// Says that a request can't be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoData {
    /// The request's id.
    pub request: u64,
    /// Why; one of [`REASON_UNKNOWN`], [`REASON_NOT_AVAILABLE`], [`REASON_INVALID_REQUEST`].
    pub reason: u64,
}

/// A range of blocks that the sender wants to be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The first block.
    pub start: u64,
    /// How many blocks.
    pub length: u64,
    /// Whether it is enough to be told of one block in the range.
    pub any: bool,
}

/// What is stored of a range, bit by bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    /// The block of the first bit, a multiple of 32.
    pub start: u64,
    /// 32 blocks each, the lowest bit first.
    pub words: Vec<u32>,
}

/// A range of blocks that is stored now, or is not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whether the range is gone.
    pub drop: bool,
    /// The first block.
    pub start: u64,
    /// How many blocks.
    pub length: u64,
}

/// A message of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Which extension; empty means the one of the message before.
    pub name: String,
    /// The message.
    pub message: Bytes,
}

impl Message {
    /// Its number in the channel.
    pub fn message_type(&self) -> u64 {
        match self {
            Self::Sync(_) => 0,
            Self::Request(_) => 1,
            Self::Cancel { .. } => 2,
            Self::Data(_) => 3,
            Self::NoData(_) => 4,
            Self::Want(_) => 5,
            Self::Unwant(_) => 6,
            Self::Bitfield(_) => 7,
            Self::Range(_) => 8,
            Self::Extension(_) => 9,
        }
    }

    /// Its bytes, without the type.
    //= ENC-8, REPL-7
    pub fn encode(&self) -> Bytes {
        self.encode_for(true)
    }

    //= protocol-spec/07-replication.md#request-1-and-data-3
    /// Its bytes as a remote can read them whose [`RemoteHandshake`](super::RemoteHandshake) says of
    /// [`seeks`](super::RemoteHandshake::seeks) what is given here. For one that says `false`, hypercore 10.19 and
    /// older, what it would take for something else is left out: seeks, requests of the manifest, and priorities.
    //= REPL-17
    pub fn encode_for(&self, seeks: bool) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        match self {
            Self::Sync(sync) => sync.encode(&mut out),
            Self::Request(request) => request.encode(seeks, &mut out),
            Self::Cancel { request } => out.put_uint(*request),
            Self::Data(data) => data.encode(&mut out),
            Self::NoData(no_data) => no_data.encode(&mut out),
            Self::Want(want) | Self::Unwant(want) => want.encode(&mut out),
            Self::Bitfield(bitfield) => bitfield.encode(&mut out),
            Self::Range(range) => range.encode(&mut out),
            Self::Extension(extension) => {
                out.put_string(&extension.name);
                out.put_bytes(&extension.message);
            }
        }
        out.freeze()
    }

    /// As [`encode_for`](Self::encode_for), without a copy of a large block.
    pub fn payload_for(&self, seeks: bool) -> Payload {
        let Self::Data(data @ Data { proof: Proof { block: Some(block), .. }, .. }) = self else {
            return self.encode_for(seeks).into();
        };
        if block.value.len() < APART_FROM {
            return self.encode_for(seeks).into();
        }
        let mut front = BytesMut::with_capacity(64);
        data.encode_front(&mut front);
        let mut back = BytesMut::with_capacity(self.size_hint().saturating_sub(block.value.len()));
        data.encode_back(&mut back);
        Payload::around(block.value.clone(), front.freeze(), back.freeze())
    }

    /// Reads a message; `None` for a type that is not known, which is to be skipped.
    ///
    /// `seeks` is what the remote's [`RemoteHandshake`](super::RemoteHandshake) says: the seek requests of
    /// peers that say `false`, hypercore 10.19 and older, have no padding field, and their flags have another meaning.
    ///
    /// # Errors
    /// A [`DecodeError`]. Nothing is allocated beyond the size of `payload`; the value of a block is a slice
    /// of it.
    //= ENC-9, ENC-11, MUX-4, REPL-6, REPL-8
    pub fn decode(
        message_type: u64,
        payload: &Bytes,
        seeks: bool,
        limits: &Limits,
    ) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(payload);
        let reader = &mut reader;
        Ok(Some(match message_type {
            0 => Self::Sync(Sync::decode(reader)?),
            1 => Self::Request(Request::decode(reader, seeks)?),
            2 => Self::Cancel { request: reader.uint()? },
            3 => Self::Data(Data::decode(reader, payload, limits)?),
            4 => Self::NoData(NoData::decode(reader)?),
            5 => Self::Want(Want::decode(reader)?),
            6 => Self::Unwant(Want::decode(reader)?),
            7 => Self::Bitfield(Bitfield::decode(reader)?),
            8 => Self::Range(Range::decode(reader)?),
            9 => Self::Extension(Extension {
                name: reader.string()?.to_owned(),
                message: payload.slice_ref(reader.rest()),
            }),
            _ => return Ok(None),
        }))
    }

    /// Enough room for most messages, so that a block is copied once.
    fn size_hint(&self) -> usize {
        match self {
            Self::Data(Data { proof, .. }) => {
                let (value, nodes) =
                    proof.block.as_ref().map_or((0, 0), |block| (block.value.len(), block.nodes.len()));
                let upgrade = proof
                    .upgrade
                    .as_ref()
                    .map_or(0, |upgrade| upgrade.nodes.len() + upgrade.additional_nodes.len() + 4);
                64 + value + 50 * (nodes + upgrade)
            }
            Self::Bitfield(bitfield) => 16 + 4 * bitfield.words.len(),
            Self::Extension(extension) => 16 + extension.name.len() + extension.message.len(),
            _ => 64,
        }
    }
}

/// The bit of a flags field.
fn flag(set: bool, bit: u32) -> u64 {
    u64::from(set) << bit
}

fn has(flags: u64, bit: u32) -> bool {
    flags & (1 << bit) != 0
}

/// Reads a field that is there if its flag is.
fn when<T>(present: bool, read: impl FnOnce() -> Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
    present.then(read).transpose()
}

impl Sync {
    fn encode(&self, out: &mut impl Writer) {
        out.put_uint(
            flag(self.can_upgrade, 0)
                | flag(self.uploading, 1)
                | flag(self.downloading, 2)
                | flag(self.has_manifest, 3)
                | flag(self.allow_push, 4),
        );
        out.put_uint(self.fork);
        out.put_uint(self.length);
        out.put_uint(self.remote_length);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            fork: reader.uint()?,
            length: reader.uint()?,
            remote_length: reader.uint()?,
            can_upgrade: has(flags, 0),
            uploading: has(flags, 1),
            downloading: has(flags, 2),
            has_manifest: has(flags, 3),
            allow_push: has(flags, 4),
        })
    }
}

impl Request {
    fn encode(&self, seeks: bool, out: &mut impl Writer) {
        let (proof, has_priority) = (&self.proof, seeks && self.priority != 0);
        let seek = proof.seek.as_ref().filter(|_| seeks);
        out.put_uint(
            flag(proof.block.is_some(), 0)
                | flag(proof.hash.is_some(), 1)
                | flag(seek.is_some(), 2)
                | flag(proof.upgrade.is_some(), 3)
                | flag(seeks && proof.manifest, 4)
                | flag(has_priority, 5),
        );
        out.put_uint(self.id);
        out.put_uint(self.fork);
        for part in [&proof.block, &proof.hash].into_iter().flatten() {
            out.put_uint(part.index);
            out.put_uint(part.nodes);
        }
        if let Some(seek) = seek {
            out.put_uint(seek.bytes);
            out.put_uint(seek.padding);
        }
        if let Some(upgrade) = &proof.upgrade {
            out.put_uint(upgrade.start);
            out.put_uint(upgrade.length);
        }
        if has_priority {
            out.put_uint(self.priority);
        }
    }

    fn decode(reader: &mut Reader<'_>, seeks: bool) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        let id = reader.uint()?;
        let fork = reader.uint()?;
        let mut block =
            |present| when(present, || Ok(BlockRequest { index: reader.uint()?, nodes: reader.uint()? }));
        let (block, hash) = (block(has(flags, 0))?, block(has(flags, 1))?);
        let seek = when(has(flags, 2), || {
            Ok(SeekRequest { bytes: reader.uint()?, padding: if seeks { reader.uint()? } else { 0 } })
        })?;
        let upgrade =
            when(has(flags, 3), || Ok(UpgradeRequest { start: reader.uint()?, length: reader.uint()? }))?;
        // A peer of 10.19 knows no manifest, and means its priority with that flag.
        let (manifest, priority) =
            if seeks { (has(flags, 4), has(flags, 5)) } else { (false, has(flags, 4)) };
        let priority = when(priority, || reader.uint())?.unwrap_or(0);
        Ok(Self { id, fork, proof: ProofRequest { block, hash, seek, upgrade, manifest }, priority })
    }
}

impl Data {
    fn encode(&self, out: &mut impl Writer) {
        self.encode_front(out);
        if let Some(block) = &self.proof.block {
            out.put_bytes(&block.value);
        }
        self.encode_back(out);
    }

    /// What comes before the bytes of the block.
    fn encode_front(&self, out: &mut impl Writer) {
        let proof = &self.proof;
        out.put_uint(
            flag(proof.block.is_some(), 0)
                | flag(proof.hash.is_some(), 1)
                | flag(proof.seek.is_some(), 2)
                | flag(proof.upgrade.is_some(), 3)
                | flag(proof.manifest.is_some(), 4),
        );
        out.put_uint(self.request);
        out.put_uint(proof.fork);
        if let Some(block) = &proof.block {
            out.put_uint(block.index);
            out.put_uint(block.value.len() as u64);
        }
    }

    /// What comes after them.
    fn encode_back(&self, out: &mut impl Writer) {
        let proof = &self.proof;
        if let Some(block) = &proof.block {
            encode_nodes(&block.nodes, out);
        }
        if let Some(hash) = &proof.hash {
            out.put_uint(hash.index);
            encode_nodes(&hash.nodes, out);
        }
        if let Some(seek) = &proof.seek {
            out.put_uint(seek.bytes);
            encode_nodes(&seek.nodes, out);
        }
        if let Some(upgrade) = &proof.upgrade {
            out.put_uint(upgrade.start);
            out.put_uint(upgrade.length);
            encode_nodes(&upgrade.nodes, out);
            encode_nodes(&upgrade.additional_nodes, out);
            out.put_buffer(&upgrade.signature);
        }
        if let Some(manifest) = &proof.manifest {
            manifest.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>, payload: &Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        let request = reader.uint()?;
        let fork = reader.uint()?;
        let block = when(has(flags, 0), || {
            Ok(BlockProof {
                index: reader.uint()?,
                value: payload.slice_ref(reader.buffer()?),
                nodes: decode_nodes(reader, limits)?,
            })
        })?;
        let hash = when(has(flags, 1), || {
            Ok(HashProof { index: reader.uint()?, nodes: decode_nodes(reader, limits)? })
        })?;
        let seek = when(has(flags, 2), || {
            Ok(SeekProof { bytes: reader.uint()?, nodes: decode_nodes(reader, limits)? })
        })?;
        let upgrade = when(has(flags, 3), || {
            Ok(Box::new(UpgradeProof {
                start: reader.uint()?,
                length: reader.uint()?,
                nodes: decode_nodes(reader, limits)?,
                additional_nodes: decode_nodes(reader, limits)?,
                signature: payload.slice_ref(reader.buffer()?),
            }))
        })?;
        let manifest = when(has(flags, 4), || Manifest::decode(reader, limits).map(Box::new))?;
        Ok(Self { request, proof: Proof { fork, block, hash, seek, upgrade, manifest } })
    }
}

/// The bytes that a node takes at least.
const NODE_MIN: usize = 1 + 1 + 32;

fn encode_nodes(nodes: &[Node], out: &mut impl Writer) {
    out.put_uint(nodes.len() as u64);
    for node in nodes {
        out.put_uint(node.index);
        out.put_uint(node.size);
        out.put_bytes(&node.hash);
    }
}

//= FEED-68, LIMIT-14
fn decode_nodes(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<Node>, DecodeError> {
    let n = reader.count(NODE_MIN, limits.max_proof_nodes)?;
    (0..n).map(|_| Ok(Node { index: reader.uint()?, size: reader.uint()?, hash: reader.array()? })).collect()
}

impl NoData {
    fn encode(&self, out: &mut impl Writer) {
        out.put_uint(self.request);
        out.put_uint(flag(self.reason != 0, 0));
        if self.reason != 0 {
            out.put_uint(self.reason);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let request = reader.uint()?;
        let flags = if reader.is_empty() { 0 } else { reader.uint()? };
        Ok(Self { request, reason: when(has(flags, 0), || reader.uint())?.unwrap_or(0) })
    }
}

impl Want {
    fn encode(&self, out: &mut impl Writer) {
        out.put_uint(self.start);
        out.put_uint(self.length);
        if self.any {
            out.put_uint(1);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (start, length) = (reader.uint()?, reader.uint()?);
        let flags = if reader.is_empty() { 0 } else { reader.uint()? };
        Ok(Self { start, length, any: has(flags, 0) })
    }
}

impl Bitfield {
    fn encode(&self, out: &mut impl Writer) {
        out.put_uint(self.start);
        out.put_uint(self.words.len() as u64);
        for word in &self.words {
            out.put_bytes(&word.to_le_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.uint()?;
        let n = reader.count(4, usize::MAX)?;
        let words = (0..n).map(|_| Ok(u32::from_le_bytes(reader.array()?))).collect::<Result<_, _>>()?;
        Ok(Self { start, words })
    }
}

impl Range {
    fn encode(&self, out: &mut impl Writer) {
        out.put_uint(flag(self.drop, 0) | flag(self.length == 1, 1));
        out.put_uint(self.start);
        if self.length != 1 {
            out.put_uint(self.length);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        let start = reader.uint()?;
        let length = if has(flags, 1) { 1 } else { reader.uint()? };
        Ok(Self { drop: has(flags, 0), start, length })
    }
}
