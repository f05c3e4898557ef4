//! The parties that a store remembers: a record each, and the key among the secrets.
//!
//! A key is kept before the record that counts on it, and forgotten after it.

use super::{Store, damaged, finish, record, secrets::Secret};
use crate::{
    encoding::{Reader, Writer},
    error::{ApiMisuse, DecodeError, Error, StorageError},
    feed::storage::Write,
    key::{DiscoveryKey, PartyKey},
};

/// The layout of a record; a later one gets the next number.
const VERSION: u64 = 1;

/// The longest name of a party or of its rules, in bytes.
pub(crate) const MAX_NAME: usize = 1024;

/// A party of which a store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartyRecord {
    pub(crate) discovery_key: DiscoveryKey,
    /// What it is called here; no two are called the same.
    pub(crate) name: String,
    /// The name of its rules.
    pub(crate) rules: String,
}

impl PartyRecord {
    fn encode(&self) -> bytes::Bytes {
        let mut out = Vec::new();
        out.put_uint(VERSION);
        out.put_string(&self.name);
        out.put_string(&self.rules);
        out.into()
    }

    fn decode(discovery_key: DiscoveryKey, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.uint()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "party record version", value: version });
        }
        let (name, rules) = (reader.string()?.to_owned(), reader.string()?.to_owned());
        Ok(Self { discovery_key, name, rules })
    }
}

impl Store {
    /// All parties, in the order of their discovery keys.
    pub(crate) async fn party_records(&self) -> Result<Vec<PartyRecord>, Error> {
        self.inner.check_open()?;
        let found = self.inner.storage.records(record::PARTIES.to_vec()).await?;
        let records = found.into_iter().map(|(key, value)| {
            let discovery_key = key.strip_prefix(record::PARTIES).and_then(|key| key.try_into().ok());
            let discovery_key = DiscoveryKey::from_bytes(discovery_key.ok_or_else(broken)?);
            PartyRecord::decode(discovery_key, &value).map_err(|_| broken())
        });
        Ok(records.collect::<Result<_, StorageError>>()?)
    }

    /// The key of a party of which there is a record.
    pub(crate) async fn party_key(&self, discovery_key: &DiscoveryKey) -> Result<PartyKey, Error> {
        self.inner.check_open()?;
        let secret = Secret::Party(*discovery_key);
        let found = self.inner.secrets.find(&*self.inner.storage, secret).await?;
        let key = found.map(|key| PartyKey::from_bytes(*key));
        // Another key than the one that was kept would be another party.
        //= STORE-12
        let key = key.filter(|key| key.discovery_key() == *discovery_key);
        Ok(key.ok_or_else(|| damaged("the key of a party"))?)
    }

    /// Remembers a party.
    pub(crate) async fn add_party(&self, key: &PartyKey, name: &str, rules: &str) -> Result<(), Error> {
        let opening = self.inner.start_opening().await?;
        let record = PartyRecord {
            discovery_key: key.discovery_key(),
            name: name.to_owned(),
            rules: rules.to_owned(),
        };
        for known in self.party_records().await? {
            if known.name == record.name {
                return Err(ApiMisuse::NameTaken(record.name).into());
            }
            if known.discovery_key == record.discovery_key {
                return Err(ApiMisuse::PartyExists(record.discovery_key).into());
            }
        }
        let (inner, seed) = (self.inner.clone(), zeroize::Zeroizing::new(*key.as_bytes()));
        finish(async move {
            let _opening = opening;
            let secret = inner.secrets.keep(Secret::Party(record.discovery_key), &seed).await?;
            let mut writes = vec![Write::Put(record::party(&record.discovery_key), record.encode())];
            writes.extend(secret);
            Ok(inner.storage.commit(writes).await?)
        })
        .await
    }

    /// Forgets a party and its key. Returns whether it was here.
    pub(crate) async fn remove_party(&self, discovery_key: &DiscoveryKey) -> Result<bool, Error> {
        let opening = self.inner.start_opening().await?;
        let (key, secret) = (record::party(discovery_key), Secret::Party(*discovery_key));
        if self.inner.storage.read(vec![key.clone()]).await?.pop().flatten().is_none() {
            return Ok(false);
        }
        let credentials = self.credential_records(discovery_key).await?;
        let party = *discovery_key;
        let inner = self.inner.clone();
        finish(async move {
            let _opening = opening;
            let mut writes = vec![Write::Delete(key)];
            writes.extend(credentials.iter().map(|(credential, _)| Write::Delete(credential.record(&party))));
            writes.extend(inner.secrets.delete(secret));
            inner.storage.commit(writes).await?;
            if let Err(error) = inner.secrets.forget(secret).await {
                tracing::warn!(%error, "the key of a party that was removed is left behind");
            }
            Ok(true)
        })
        .await
    }
}

fn broken() -> StorageError {
    damaged("the record of a party")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_later_version_is_refused() {
        let discovery_key = DiscoveryKey::from_bytes([1; 32]);
        let record = PartyRecord { discovery_key, name: "Küche".into(), rules: "chat".into() };
        let bytes = record.encode();
        assert_eq!(PartyRecord::decode(discovery_key, &bytes), Ok(record));
        for end in 0..bytes.len() {
            assert!(PartyRecord::decode(discovery_key, &bytes[..end]).is_err());
        }
        assert!(PartyRecord::decode(discovery_key, &[2, 0, 0]).is_err());
    }
}
