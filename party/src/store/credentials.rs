//! What a store remembers of who is in a party by credential: our own membership, memberships and revocations that are
//! known, and on whose word feeds are taken. Whoever reads them verifies them.
//!
//! ```text
//! credential/<discovery key of the party>0                 our own membership
//! credential/<discovery key of the party>1<id>             a revocation
//! credential/<discovery key of the party>2<id>             a membership
//! credential/<discovery key of the party>3<discovery key>  the membership of the member on whose word a feed is taken
//! ```

use bytes::Bytes;

use super::{Store, damaged, finish, record};
use crate::{
    error::{Error, StorageError},
    feed::storage::{Key, Write},
    hash::Hash,
    key::DiscoveryKey,
};

/// Which of the records of a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Credential {
    Own,
    Revocation(Hash),
    Member(Hash),
    /// On whose word the feed is taken.
    Word(DiscoveryKey),
}

impl Credential {
    pub(super) fn record(&self, party: &DiscoveryKey) -> Key {
        let mut key = prefix(party);
        match self {
            Self::Own => key.push(b'0'),
            Self::Revocation(id) => {
                key.push(b'1');
                key.extend_from_slice(id);
            }
            Self::Member(id) => {
                key.push(b'2');
                key.extend_from_slice(id);
            }
            Self::Word(feed) => {
                key.push(b'3');
                key.extend_from_slice(feed.as_bytes());
            }
        }
        Key::Record(key)
    }

    /// Reads what stands behind the prefix.
    //= STORE-13
    fn decode(rest: &[u8]) -> Option<Self> {
        let (kind, id) = rest.split_first()?;
        match (kind, <Hash>::try_from(id)) {
            (b'0', _) if id.is_empty() => Some(Self::Own),
            (b'1', Ok(id)) => Some(Self::Revocation(id)),
            (b'2', Ok(id)) => Some(Self::Member(id)),
            (b'3', Ok(id)) => Some(Self::Word(DiscoveryKey::from_bytes(id))),
            _ => None,
        }
    }
}

fn prefix(party: &DiscoveryKey) -> Vec<u8> {
    [record::CREDENTIALS, party.as_bytes()].concat()
}

impl Store {
    /// What is remembered of a party.
    pub(crate) async fn credential_records(
        &self,
        party: &DiscoveryKey,
    ) -> Result<Vec<(Credential, Bytes)>, Error> {
        self.inner.check_open()?;
        let prefix = prefix(party);
        let found = self.inner.storage.records(prefix.clone()).await?;
        let records = found.into_iter().map(|(key, value)| {
            let credential = key.strip_prefix(&prefix[..]).and_then(Credential::decode);
            Ok((credential.ok_or_else(|| damaged("the name of a credential"))?, value))
        });
        Ok(records.collect::<Result<_, StorageError>>()?)
    }

    /// Remembers and forgets, all of it or nothing.
    pub(crate) async fn change_credentials(
        &self,
        party: &DiscoveryKey,
        changes: Vec<(Credential, Option<Bytes>)>,
    ) -> Result<(), Error> {
        self.inner.check_open()?;
        let writes = changes.into_iter().map(|(credential, value)| {
            let key = credential.record(party);
            match value {
                Some(value) => Write::Put(key, value),
                None => Write::Delete(key),
            }
        });
        let (inner, writes) = (self.inner.clone(), writes.collect());
        finish(async move { Ok(inner.storage.commit(writes).await?) }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_record_comes_back() {
        let party = DiscoveryKey::from_bytes([7; 32]);
        let all = [
            Credential::Own,
            Credential::Revocation([1; 32]),
            Credential::Member([2; 32]),
            Credential::Word(DiscoveryKey::from_bytes([3; 32])),
        ];
        for credential in all {
            let Key::Record(key) = credential.record(&party) else { panic!("it is a record") };
            let rest = key.strip_prefix(&prefix(&party)[..]).unwrap();
            assert_eq!(Credential::decode(rest), Some(credential));
            assert_eq!(Credential::decode(&[rest, &[0]].concat()), None);
        }
        assert_eq!(Credential::decode(b"4"), None);
        assert_eq!(Credential::decode(b""), None);
    }
}
