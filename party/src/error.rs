//! Errors, sorted by who erred.
//!
//! [`DecodeError`] and [`PeerMisbehaved`] are the remote's doing, [`ApiMisuse`] is the program's,
//! [`StorageError`] and `Io` are the machine's. Nothing that a peer sends gives [`ApiMisuse`].

use std::{io, sync::Arc};

use crate::key::{DiscoveryKey, PublicKey};

/// What can go wrong on a connection or with a feed. Cheap to clone: everybody who waits for something that
/// failed gets the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The remote broke the protocol.
    #[error("the peer misbehaved: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The remote sent bytes that are no message.
    #[error("the peer sent what can't be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// The call can't be carried out as it was made.
    #[error("{0}")]
    ApiMisuse(#[from] ApiMisuse),
    /// Stored data could not be read or written.
    #[error("storage: {0}")]
    Storage(#[from] StorageError),
    /// The transport failed.
    #[error("connection: {0}")]
    Io(Arc<io::Error>),
    /// A block that is not what the app's codec reads. Whoever wrote the feed may write anything.
    #[error("block {index} can't be decoded: {why}")]
    NotDecodable {
        /// Its index.
        index: u64,
        /// What the codec says.
        why: String,
    },
    /// What a peer has asked or answered is not what the app's codec reads.
    #[error("a message of the kind {kind:?} can't be decoded: {why}")]
    MessageNotDecodable {
        /// Its kind.
        kind: String,
        /// What the codec says.
        why: String,
    },
    /// The signers of a feed have signed two trees that exclude each other: it is not replicated any more. See
    /// [`Feed::conflict`](crate::feed::Feed::conflict).
    #[error("the signers of the feed {0} have contradicted themselves")]
    FeedConflict(DiscoveryKey),
    /// A block that is not stored here, where it was not to be waited for.
    #[error("block {0} is not available")]
    NotAvailable(u64),
    /// The remote refused, and didn't say more.
    #[error("the peer refused")]
    Refused,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection or channel was closed before this was done.
    #[error("closed")]
    Closed,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Why bytes are not the message that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the value does, or a length says more than is there.
    #[error("the message ends too early")]
    UnexpectedEnd,
    /// An integer above 2^53 - 1.
    #[error("an integer is above 2^53 - 1")]
    IntegerTooLarge,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A list with more items than are ever needed.
    #[error("a list has more than {max} items")]
    TooMany {
        /// The most that is accepted.
        max: usize,
    },
    /// A version, type or flag that is not known and can't be passed over.
    #[error("unknown {what}: {value}")]
    Unknown {
        /// What it is a value of.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A party message that is not its protobuf.
    #[error("malformed party message")]
    Protobuf,
    /// A field has a length or a value that it can't have.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// How a remote broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A Noise message that does not verify, or a public key of small order.
    #[error("the Noise handshake failed")]
    HandshakeFailed,
    /// The remote holds another static key than the one that was dialled.
    #[error("another peer than the one expected")]
    UnexpectedPeer,
    /// The first frame after the handshake is not a header of 32 + 24 bytes, or its id is not the one bound
    /// to this handshake and role.
    #[error("wrong secret stream header")]
    WrongStreamHeader,
    /// A frame longer than [`Limits::max_frame`](crate::limits::Limits::max_frame), or one too short to be
    /// sealed.
    #[error("a frame of {0} bytes")]
    FrameLength(usize),
    /// A frame of which so many bytes came, more slowly than
    /// [`Limits::min_frame_rate`](crate::limits::Limits::min_frame_rate) allows.
    #[error("a frame comes too slowly: {0} bytes of it so far")]
    SlowFrame(usize),
    /// A frame that does not decrypt.
    #[error("a frame does not decrypt")]
    DecryptionFailed,
    /// The stream ended in the middle of a frame or of the handshake.
    #[error("the stream was cut")]
    Truncated,
    /// An open with an id that is in use or more than one above the highest.
    #[error("an open with an invalid channel id")]
    InvalidOpen,
    /// A reject of a channel that was never opened.
    #[error("a reject of an unknown channel")]
    UnknownReject,
    /// More of something than a limit allows.
    #[error("beyond the limit {0}")]
    LimitExceeded(&'static str),
    /// A capability that does not prove knowledge of the feed's key.
    #[error("a wrong capability")]
    WrongCapability,
    /// A proof that does not verify.
    #[error("an invalid proof: {0}")]
    InvalidProof(&'static str),
    /// A signature that is not the feed's.
    #[error("an invalid signature")]
    InvalidSignature,
    /// A manifest that does not hash to the feed's key.
    #[error("a manifest of another feed")]
    WrongManifest,
    /// A request that no feed of our length could answer.
    #[error("an invalid request: {0}")]
    InvalidRequest(&'static str),
    /// Data that was not asked for.
    #[error("data that was not asked for")]
    UnrequestedData,
    /// A membership proof that is not valid for this connection and role.
    #[error("a wrong membership proof")]
    WrongMembershipProof,
    /// Answers to transactions that do not exist.
    #[error("answers to unknown transactions")]
    UnknownTransaction,
    /// A message that has no place in the state that the channel is in.
    #[error("an unexpected message: {0}")]
    UnexpectedMessage(&'static str),
    /// A message about credentials that is none.
    #[error("a message about credentials that can't be decoded: {0}")]
    Sync(DecodeError),
    /// A membership or a revocation that does not hold.
    #[error("a credential that does not hold: {0}")]
    Credential(#[from] CredentialFlaw),
}

/// Why a membership or a revocation does not hold, or can't be made. Links are counted from 1, as the founder's
/// is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialFlaw {
    /// A link that is not signed by the key that the link before it names; the first, by the founder.
    #[error("link {link} is not signed by the key that may")]
    Signature {
        /// Which link.
        link: usize,
    },
    /// A link that allows what the one before it does not.
    #[error("link {link} widens {what}")]
    Widens {
        /// Which link.
        link: usize,
        /// What it widens.
        what: Widening,
    },
    /// A link that names a key to which nobody can hold the secret.
    #[error("link {link} names no usable key")]
    BadKey {
        /// Which link.
        link: usize,
    },
    /// A link to a device that lets the device delegate.
    #[error("link {link} lets a device delegate")]
    DeviceDelegates {
        /// Which link.
        link: usize,
    },
    /// It was good until then, in seconds since 1970.
    #[error("it has expired at {0}")]
    Expired(u64),
    /// The last link names another key than the one that the connection's handshake proved.
    #[error("it is another peer's")]
    OtherKey,
    /// What is to be signed by the key that the last link names is to be signed by another.
    #[error("this key can't sign it")]
    NotTheSigner,
    /// The revocation is not signed by the key of the chain that it says has signed.
    #[error("the revocation is not signed by who it says")]
    RevocationSignature,
    /// It belongs to another party.
    #[error("it belongs to another party")]
    OtherParty,
    /// Terms that say nothing or that have no encoding.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// It is larger than a limit of [`Limits`](crate::limits::Limits) allows.
    #[error("beyond the limit {0}")]
    LimitExceeded(&'static str),
}

/// What a link widens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Widening {
    /// It covers a feed that the link before does not.
    #[error("the feeds")]
    Feeds,
    /// It lets the holder be served where the link before does not.
    #[error("reading")]
    Read,
    /// It lets the holder bring blocks where the link before does not.
    #[error("bringing")]
    Bring,
    /// It covers blocks that the link before does not, or that can't be compared with it.
    #[error("the blocks")]
    Blocks,
    /// It is good for longer.
    #[error("the time")]
    Expiry,
    /// It gives sight where the link before is blind.
    #[error("blindness")]
    Blind,
    /// More links may follow than the link before allows, or none was to follow it.
    #[error("the delegation")]
    Depth,
}

/// What a caller can't ask for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// An append to a feed whose secret key is not here.
    #[error("the feed {0} is not writable here")]
    NotWritable(DiscoveryKey),
    /// A block longer than [`Limits::max_block`](crate::limits::Limits::max_block).
    #[error("a block of {len} bytes; the most is {max}")]
    BlockTooLarge {
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A manifest that does not hash to the feed's key, or contradicts itself.
    #[error("a manifest of another feed")]
    WrongManifest,
    /// A manifest that was to be made.
    #[error("no such manifest: {0}")]
    InvalidManifest(ManifestFlaw),
    /// A signature of several signers that was to be made.
    #[error("{0}")]
    Signing(#[from] SigningError),
    /// A membership or a revocation that was to be made.
    #[error("no such credential: {0}")]
    Credential(#[from] CredentialFlaw),
    /// A message of a kind that begins with `party/`: such kinds are kept for the specification.
    #[error("messages of the kind {0:?} are not the app's to send")]
    ReservedKind(String),
    /// A credential that only who has a membership can make or show.
    #[error("there is no membership of ours in this party")]
    NoMembership,
    /// A membership of ours that was revoked.
    #[error("the membership was revoked")]
    MembershipRevoked,
    /// A key of which no membership is known here that goes through who would revoke it.
    #[error("no membership of {0} is known that this key can revoke")]
    UnknownMember(PublicKey),
    /// A feed whose manifest no peer has shown yet, and which can't be verified without it.
    #[error("the manifest of the feed is not known yet")]
    UnknownManifest,
    /// Blocks that are not those of the feed's prologue.
    #[error("not the prologue of the feed")]
    NotThePrologue,
    /// A draft that was made for another state of the feed than it is in now.
    #[error("the feed has moved on: it has {length} blocks on fork {fork}")]
    FeedMovedOn {
        /// The feed's length.
        length: u64,
        /// Its fork.
        fork: u64,
    },
    /// A name that is taken.
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    /// A feed that the store has already, made under a key pair that was handed in.
    #[error("the store has the feed {0} already")]
    FeedExists(DiscoveryKey),
    /// A party that is there already, under whatever name.
    #[error("the party {0} is there already")]
    PartyExists(DiscoveryKey),
    /// A party that is not there.
    #[error("no such party")]
    UnknownParty,
    /// Rules that nobody has registered under this name.
    #[error("no rules are registered under the name {0:?}")]
    UnknownRules(String),
    /// A primary key for a store that has another.
    #[error("the store has another primary key")]
    OtherPrimaryKey,
    /// A party that the connection is in already.
    #[error("the connection is in the party {0} already")]
    PartyJoined(DiscoveryKey),
    /// A feed that was purged from its store while a handle of it was held.
    #[error("the feed {0} was purged from the store")]
    Purged(DiscoveryKey),
    /// A block or a length beyond the end of the feed.
    #[error("{index} is beyond the end of the feed, which has {length} blocks")]
    BeyondEnd {
        /// What was asked for.
        index: u64,
        /// The feed's length.
        length: u64,
    },
    /// Something for which a block or a tree node is needed that is not stored here.
    #[error("what this needs of the feed is not stored here")]
    NotStored,
    /// A truncation to a fork that is not above the feed's.
    #[error("the fork {fork} is not above the feed's, {current}")]
    ForkNotHigher {
        /// The fork that was asked for.
        fork: u64,
        /// The feed's.
        current: u64,
    },
    /// The feed was truncated, or has taken another course, in the middle of what was asked for.
    #[error("the feed has changed to another fork meanwhile")]
    ForkChanged,
    /// A truncation into the part of a feed that its manifest fixes.
    #[error("the first {0} blocks are fixed by the feed's manifest")]
    FixedByManifest(u64),
    /// A value that the codec has no block for.
    #[error("a value can't be encoded: {why}")]
    NotEncodable {
        /// What the codec says.
        why: String,
    },
    /// A batch over feeds that are not in one storage.
    #[error("the feeds of a batch are in different storages")]
    DifferentStorages,
    /// A feed that the store does not have.
    #[error("no such feed")]
    UnknownFeed,
    /// A message longer than the wire can carry.
    #[error("a message of {len} bytes; the most is {max}")]
    MessageTooLarge {
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// More of something than a limit of ours allows.
    #[error("beyond the limit {0}")]
    LimitExceeded(&'static str),
    /// A key that is no point of the curve, or of small order.
    #[error("not a usable public key")]
    BadKey,
    /// A Noise message written or read when it is the other end's turn, or a split of an unfinished handshake.
    #[error("not the turn for this step of the handshake")]
    NotOurTurn,
    /// The connection is in open mode, or in no party that admits this peer.
    #[error("the peer is not admitted to a party")]
    NotAdmitted,
    /// A block that is not encrypted with the key at hand: its prefix tells a fork that the feed never had.
    #[error("block {index} is not encrypted with this key")]
    WrongEncryptionKey {
        /// Which block.
        index: u64,
    },
    /// A block too short to be encrypted, in a feed that is read with a key.
    #[error("block {index} is not encrypted")]
    NotEncrypted {
        /// Which block.
        index: u64,
    },
    /// A feed whose blocks are encrypted was read or appended to without the key.
    #[error("the feed {0} is encrypted, and its key is not here")]
    EncryptionKeyMissing(DiscoveryKey),
}

/// Why a manifest can't be made: peers would refuse it, or no block under it could ever be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestFlaw {
    /// A version other than 0, 1 and 2.
    #[error("there is no version {0}")]
    UnknownVersion(u8),
    /// Neither signers nor a prologue.
    #[error("it has neither a signer nor a prologue")]
    NobodySigns,
    /// A quorum that all signers together don't reach.
    #[error("a quorum of {quorum} of {signers} signers")]
    QuorumTooHigh {
        /// How many were to sign.
        quorum: u64,
        /// How many there are.
        signers: u64,
    },
    /// A quorum of 0 with signers: no signature would ever do.
    #[error("a quorum of nobody")]
    QuorumOfNobody,
    /// A signer that is named twice would have two votes.
    #[error("the signer {0} is named twice")]
    SameSignerTwice(PublicKey),
    /// More signers or linked feeds than [`Limits::max_signers`](crate::limits::Limits::max_signers).
    #[error("more than {max} signers or linked feeds")]
    TooMany {
        /// The most.
        max: usize,
    },
    /// A field that the chosen version does not have.
    #[error("{field} need version {version}")]
    NeedsVersion {
        /// The field.
        field: &'static str,
        /// The first version that has it.
        version: u8,
    },
    /// User data longer than [`MAX_USER_DATA`](crate::feed::manifest::MAX_USER_DATA).
    #[error("{len} bytes of user data; the most is {max}")]
    UserDataTooLong {
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A prologue of no blocks, or of more than a feed can have.
    #[error("a prologue of {0} blocks")]
    PrologueLength(u64),
}

/// Why a signature for several signers could not be made or assembled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// A key pair that is none of the feed's signers.
    #[error("{0} is no signer of this feed")]
    NotASigner(PublicKey),
    /// A number that no signer has.
    #[error("there is no signer {signer}")]
    UnknownSigner {
        /// The number.
        signer: u64,
    },
    /// It is about another feed.
    #[error("this is about another feed")]
    OtherFeed,
    /// It is about another tree, length or fork.
    #[error("this is about another tree")]
    OtherTree,
    /// A signature that is not this signer's.
    #[error("the signature of signer {signer} is wrong")]
    WrongSignature {
        /// The signer's number.
        signer: u64,
    },
    /// Two parts of one signer.
    #[error("two parts of signer {signer}")]
    SameSignerTwice {
        /// The signer's number.
        signer: u64,
    },
    /// A signature over a longer tree, where the manifest does not allow patches.
    #[error("signer {signer} signed a longer tree, and patches are not allowed")]
    PatchNotAllowed {
        /// The signer's number.
        signer: u64,
    },
    /// A signature over a longer tree without the nodes that lead to it.
    #[error("the nodes are missing that lead to what signer {signer} signed")]
    MissingPatch {
        /// The signer's number.
        signer: u64,
    },
    /// Fewer signatures than the quorum, or a quorum of nobody.
    #[error("{have} signatures of {need}")]
    TooFew {
        /// How many there are.
        have: u64,
        /// How many it takes.
        need: u64,
    },
    /// A signature that doesn't hold for what it came with.
    #[error("the signature does not hold")]
    NotSigned,
    /// A draft that changes nothing.
    #[error("nothing to sign")]
    NothingToSign,
}

impl From<SigningError> for Error {
    fn from(error: SigningError) -> Self {
        Self::ApiMisuse(error.into())
    }
}

/// Why stored data could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process, or another handle in this one, has the store open.
    #[error("the store {path} is in use by another process")]
    Locked {
        /// The store's folder.
        path: String,
    },
    /// The folder holds other files and no store; nothing in it was touched.
    #[error("the folder {path} has other files in it and is not a store")]
    NotAStore {
        /// The folder.
        path: String,
    },
    /// Another version of this library wrote the store, in a format that this one doesn't know.
    #[error("the store {path} has the format {found:?}, which this version does not know")]
    UnknownFormat {
        /// The store's folder.
        path: String,
        /// What its marker says.
        found: String,
    },
    /// The stored bytes are not what was written. Names what is damaged.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What is damaged.
        what: String,
    },
    /// The database failed. Nothing of the batch was stored.
    #[error("{0}")]
    Database(String),
    /// The file system failed.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// While the store was suspended, another process has written to it. What is known of it in memory is out
    /// of date, and must not be written: the store has to be opened again.
    #[error("another process has changed the store {path} while it was suspended")]
    ChangedElsewhere {
        /// The store's folder.
        path: String,
    },
    /// What a snapshot held on to may have been deleted meanwhile: the store was suspended, or had to
    /// recover from a failed disk, since the snapshot was taken.
    #[error("the snapshot was lost when the store was opened again")]
    SnapshotLost,
}

impl From<io::Error> for StorageError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
