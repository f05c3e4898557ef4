//! What the store knows of each feed, and where it keeps that and what it knows of parties.
//!
//! ```text
//! next-slot                 uint: the slot for the next feed
//! feed/<discovery key>      a feed record
//! name/<UTF-8>              the discovery key of the feed with this name in the root namespace
//! named/<namespace><UTF-8>  the same in another namespace, by its 32 bytes
//! secret/<discovery key>    the seed of a feed that was made from one, where no file keeps it
//! party/<discovery key>     a party record (see `parties`)
//! party-secret/<discovery key>  the key of a party, where no file keeps it
//! credential/<discovery key><kind>...  what is known of who is in a party (see `credentials`)
//! primary-key               the primary key, where no file keeps it
//! primary-key-check         by which the primary key is known
//! ```

use bytes::Bytes;

use super::{damaged, names::Namespace};
use crate::{
    encoding::{Reader, Writer},
    error::{DecodeError, StorageError},
    feed::{
        manifest::Manifest,
        storage::{Key, Slot},
    },
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
};

/// The layout of a record; a later one gets the next number.
const VERSION: u64 = 1;

const WRITABLE: u64 = 1;
const NAME: u64 = 2;
const MANIFEST: u64 = 4;
const NAMESPACE: u64 = 8;
const DERIVED: u64 = 16;
/// What is to be understood of a record; a flag that isn't among these is a later version's.
const FLAGS: u64 = WRITABLE | NAME | MANIFEST | NAMESPACE | DERIVED;

pub(super) const FEEDS: &[u8] = b"feed/";
pub(super) const PARTIES: &[u8] = b"party/";
pub(super) const CREDENTIALS: &[u8] = b"credential/";

/// Where the key pair of a feed comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From others: it can't be written here.
    Others,
    /// From a seed that is kept among the secrets.
    Seed,
    /// From the primary key and its name.
    Name,
}

/// A feed of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeedRecord {
    pub(super) slot: Slot,
    pub(super) key: FeedKey,
    pub(super) origin: Origin,
    /// The namespace of its name; the root's for one that has none.
    pub(super) namespace: Namespace,
    pub(super) name: Option<String>,
    /// The manifest it was made with; of a feed of others, the feed itself keeps it once a peer has sent it.
    pub(super) manifest: Option<Manifest>,
}

impl FeedRecord {
    pub(super) fn encode(&self) -> Bytes {
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        let mut out = Vec::new();
        out.put_uint(VERSION);
        out.put_uint(
            flag(self.origin != Origin::Others, WRITABLE)
                | flag(self.name.is_some(), NAME)
                | flag(self.manifest.is_some(), MANIFEST)
                | flag(!self.namespace.is_root(), NAMESPACE)
                | flag(self.origin == Origin::Name, DERIVED),
        );
        out.put_uint(self.slot.0);
        out.put_bytes(self.key.as_bytes());
        if let Some(name) = &self.name {
            out.put_string(name);
        }
        if let Some(manifest) = &self.manifest {
            manifest.encode(&mut out);
        }
        if !self.namespace.is_root() {
            out.put_bytes(self.namespace.as_bytes());
        }
        out.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.uint()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "feed record version", value: version });
        }
        let flags = reader.uint()?;
        if flags & !FLAGS != 0 {
            return Err(DecodeError::Unknown { what: "feed record flags", value: flags });
        }
        Ok(Self {
            slot: Slot(reader.uint()?),
            key: FeedKey::from_bytes(reader.array()?),
            origin: match (flags & WRITABLE != 0, flags & DERIVED != 0) {
                (false, _) => Origin::Others,
                (true, false) => Origin::Seed,
                (true, true) => Origin::Name,
            },
            name: if flags & NAME != 0 { Some(reader.string()?.to_owned()) } else { None },
            manifest: if flags & MANIFEST != 0 {
                Some(Manifest::decode(&mut reader, &Limits::default())?)
            } else {
                None
            },
            namespace: if flags & NAMESPACE != 0 {
                Namespace::from_bytes(reader.array()?)
            } else {
                Namespace::default()
            },
        })
    }
}

pub(super) fn encode_slot(slot: Slot) -> Bytes {
    let mut out = Vec::new();
    out.put_uint(slot.0);
    out.into()
}

pub(super) fn decode_slot(bytes: &[u8]) -> Result<Slot, DecodeError> {
    Reader::new(bytes).uint().map(Slot)
}

pub(super) fn next_slot() -> Key {
    Key::Record(b"next-slot".to_vec())
}

pub(super) fn feed(discovery_key: &DiscoveryKey) -> Key {
    Key::Record([FEEDS, discovery_key.as_bytes()].concat())
}

pub(super) fn name(namespace: &Namespace, name: &str) -> Key {
    Key::Record(name_prefix(namespace, name))
}

/// What the names in `namespace` that begin with `prefix` begin with.
pub(super) fn name_prefix(namespace: &Namespace, prefix: &str) -> Vec<u8> {
    match namespace.is_root() {
        true => [b"name/", prefix.as_bytes()].concat(),
        false => [&b"named/"[..], namespace.as_bytes(), prefix.as_bytes()].concat(),
    }
}

/// What a name leads to.
pub(super) fn decode_discovery_key(bytes: &[u8]) -> Result<DiscoveryKey, StorageError> {
    match <[u8; 32]>::try_from(bytes) {
        Ok(key) => Ok(DiscoveryKey::from_bytes(key)),
        Err(_) => Err(damaged("the name of a feed")),
    }
}

pub(super) fn secret(discovery_key: &DiscoveryKey) -> Key {
    Key::Record([&b"secret/"[..], discovery_key.as_bytes()].concat())
}

pub(super) fn party(discovery_key: &DiscoveryKey) -> Key {
    Key::Record([PARTIES, discovery_key.as_bytes()].concat())
}

pub(super) fn party_secret(discovery_key: &DiscoveryKey) -> Key {
    Key::Record([&b"party-secret/"[..], discovery_key.as_bytes()].concat())
}

pub(super) fn primary_key() -> Key {
    Key::Record(b"primary-key".to_vec())
}

pub(super) fn primary_key_check() -> Key {
    Key::Record(b"primary-key-check".to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPair;

    #[test]
    fn a_record_comes_back() {
        let manifest = Manifest::single(KeyPair::from_seed(&[1; 32]).public());
        let full = FeedRecord {
            slot: Slot(300),
            key: manifest.key(),
            origin: Origin::Name,
            namespace: Namespace::from_bytes([5; 32]),
            name: Some("Grüße".into()),
            manifest: Some(manifest),
        };
        let bare = FeedRecord {
            origin: Origin::Others,
            namespace: Namespace::default(),
            name: None,
            manifest: None,
            ..full.clone()
        };
        let seeded = FeedRecord { origin: Origin::Seed, ..full.clone() };
        for record in [full, bare, seeded] {
            let bytes = record.encode();
            assert_eq!(FeedRecord::decode(&bytes), Ok(record));
            for end in 0..bytes.len() {
                assert!(FeedRecord::decode(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn a_later_version_is_refused() {
        assert!(FeedRecord::decode(&[2, 0]).is_err());
        let record = [&[1, 32, 0][..], &[7; 32]].concat();
        assert!(FeedRecord::decode(&record).is_err());
    }
}
