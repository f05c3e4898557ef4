//! What the store knows of each feed, and where it keeps that.
//!
//! ```text
//! next-slot                 uint: the slot for the next feed
//! feed/<discovery key>      a feed record
//! name/<UTF-8>              the discovery key of the feed with this name
//! secret/<discovery key>    the seed of a writable feed, where no file keeps it
//! ```

use bytes::Bytes;

use crate::{
    encoding::{Reader, Writer},
    error::DecodeError,
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

pub(super) const FEEDS: &[u8] = b"feed/";

/// A feed of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeedRecord {
    pub(super) slot: Slot,
    pub(super) key: FeedKey,
    /// Whether the store has the seed that signs it.
    pub(super) is_writable: bool,
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
            flag(self.is_writable, WRITABLE)
                | flag(self.name.is_some(), NAME)
                | flag(self.manifest.is_some(), MANIFEST),
        );
        out.put_uint(self.slot.0);
        out.put_bytes(self.key.as_bytes());
        if let Some(name) = &self.name {
            out.put_string(name);
        }
        if let Some(manifest) = &self.manifest {
            manifest.encode(&mut out);
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
        Ok(Self {
            slot: Slot(reader.uint()?),
            key: FeedKey::from_bytes(reader.array()?),
            is_writable: flags & WRITABLE != 0,
            name: if flags & NAME != 0 { Some(reader.string()?.to_owned()) } else { None },
            manifest: if flags & MANIFEST != 0 {
                Some(Manifest::decode(&mut reader, &Limits::default())?)
            } else {
                None
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

pub(super) fn name(name: &str) -> Key {
    Key::Record([b"name/", name.as_bytes()].concat())
}

pub(super) fn secret(discovery_key: &DiscoveryKey) -> Key {
    Key::Record([&b"secret/"[..], discovery_key.as_bytes()].concat())
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
            is_writable: true,
            name: Some("Grüße".into()),
            manifest: Some(manifest),
        };
        let bare = FeedRecord { is_writable: false, name: None, manifest: None, ..full.clone() };
        for record in [full, bare] {
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
    }
}
