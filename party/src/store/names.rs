//! Names, and the key pairs that grow from them.
//!
//! A store has one secret, its primary key. From it, a namespace and a name grows the key pair of a feed, the
//! same in every store with that primary key; so whoever keeps the primary key can have the feeds' keys
//! again. It is derived as corestore 7 does it; see `protocol-spec/10-names.md`.

use std::fmt;

use zeroize::Zeroizing;

use super::{Inner, Store, damaged, record, secrets::Secret};
use crate::{
    error::{ApiMisuse, Error},
    feed::storage::Write,
    hash::{hash, keyed_hash, namespace},
    key::{DiscoveryKey, FeedKey, KeyPair},
    random,
};

/// Where names stand beside each other: the root, or what [`Store::namespace`] leads to.
///
/// ```
/// use party::store::{Namespace, Store};
///
/// let store = Store::memory();
/// assert_eq!(store.current_namespace(), Namespace::default()); // the root
///
/// // The same path leads to the same namespace, in every store.
/// let work = store.namespace("work").current_namespace();
/// assert_eq!(Store::memory().namespace("work").current_namespace(), work);
/// assert_ne!(store.namespace("work").namespace("work").current_namespace(), work);
/// assert_eq!(work.to_string().len(), 64);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace([u8; 32]);

impl Namespace {
    /// Its 32 bytes; all zero for the root.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    //= NAME-3
    pub(super) fn is_root(&self) -> bool {
        *self == Self::default()
    }

    //= NAME-4
    fn child(&self, name: &[u8]) -> Self {
        Self(hash(&[&self.0, name]))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The secret that named feeds grow from.
#[derive(Clone)]
pub(super) struct PrimaryKey(Zeroizing<[u8; 32]>);

impl PrimaryKey {
    pub(super) fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        random::fill(&mut *bytes);
        Self(bytes)
    }

    /// The name as its bytes are: of two that look alike, each has its own.
    //= protocol-spec/10-names.md#key-pairs
    //= NAME-5, NAME-6
    pub(super) fn key_pair(&self, ns: &Namespace, name: &[u8]) -> KeyPair {
        let seed = Zeroizing::new(keyed_hash(&*self.0, &[&namespace("corestore", 0), &ns.0, name]));
        KeyPair::from_seed(&seed)
    }

    /// By which a store knows its primary key, though it is kept elsewhere.
    fn fingerprint(&self) -> [u8; 32] {
        keyed_hash(&*self.0, &[b"party primary key"])
    }
}

impl Store {
    /// The same store, whose names are those of the namespace `name` within this one's. Feeds of the same name
    /// in different namespaces are different feeds. Only names are apart: what is asked for by key is found
    /// through any.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use party::store::Store;
    ///
    /// let store = Store::memory();
    /// let (work, home) = (store.namespace("work"), store.namespace("home"));
    /// let feed = work.named_feed("notes").await?;
    /// assert_ne!(home.named_feed("notes").await?.key(), feed.key());
    /// assert_eq!(home.feed(&feed.key()).await?.key(), feed.key());
    /// # Ok::<(), party::error::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn namespace(&self, name: impl AsRef<[u8]>) -> Self {
        Self { inner: self.inner.clone(), namespace: self.namespace.child(name.as_ref()) }
    }

    /// The namespace that names given to this handle are in.
    pub fn current_namespace(&self) -> Namespace {
        self.namespace
    }

    /// The secret that named feeds grow from, to be kept in a safe place:
    /// [`StoreOptions::primary_key`](super::StoreOptions::primary_key) makes a store with the same feeds of it.
    /// Whoever has it can write to all of them.
    ///
    /// # Errors
    /// [`Error::Storage`] if it is not where it was kept.
    pub async fn primary_key(&self) -> Result<Zeroizing<[u8; 32]>, Error> {
        self.inner.check_open()?;
        Ok(self.inner.primary_key().await?.0.clone())
    }

    /// The key pair that grows from the primary key, the namespace and `name`: the one that signs the feed
    /// [`named`](Self::named_feed) so, or one for another use. Nothing is stored.
    ///
    /// # Errors
    /// [`Error::Storage`] if the primary key is not where it was kept.
    pub async fn create_key_pair(&self, name: impl AsRef<[u8]>) -> Result<KeyPair, Error> {
        self.inner.check_open()?;
        Ok(self.inner.primary_key().await?.key_pair(&self.namespace, name.as_ref()))
    }
}

impl Inner {
    /// The primary key; a new store gets one.
    pub(super) async fn primary_key(&self) -> Result<&PrimaryKey, Error> {
        self.primary_key.get_or_try_init(|| self.read_primary_key(None)).await
    }

    /// Sees to it that the store has a primary key, and that it is the one that was `given`.
    //= NAME-2
    pub(super) async fn establish(&self, given: Option<PrimaryKey>) -> Result<(), Error> {
        let is_known = self.storage.read(vec![record::primary_key_check()]).await?.pop().flatten().is_some();
        if !is_known || given.is_some() {
            self.primary_key.get_or_try_init(|| self.read_primary_key(given)).await?;
        }
        Ok(())
    }

    async fn read_primary_key(&self, given: Option<PrimaryKey>) -> Result<PrimaryKey, Error> {
        let check = self.storage.read(vec![record::primary_key_check()]).await?.pop().flatten();
        let kept = self.secrets.find(&*self.storage, Secret::PrimaryKey).await?.map(PrimaryKey);
        let Some(check) = check else {
            // A new store, or one whose making was cut off after the secret was kept: nothing grew from it.
            let key = given.or(kept).unwrap_or_else(PrimaryKey::generate);
            let fingerprint = bytes::Bytes::copy_from_slice(&key.fingerprint());
            let mut writes = vec![Write::Put(record::primary_key_check(), fingerprint)];
            writes.extend(self.secrets.keep(Secret::PrimaryKey, &key.0).await?);
            self.storage.commit(writes).await?;
            return Ok(key);
        };
        let is_ours = |key: &PrimaryKey| check[..] == key.fingerprint();
        match (given, kept) {
            (Some(given), _) if !is_ours(&given) => Err(ApiMisuse::OtherPrimaryKey.into()),
            (_, Some(kept)) if is_ours(&kept) => Ok(kept),
            (Some(given), _) => {
                // It is put back where it was lost.
                if let Some(write) = self.secrets.keep(Secret::PrimaryKey, &given.0).await? {
                    self.storage.commit(vec![write]).await?;
                }
                Ok(given)
            }
            (None, Some(_)) => Err(damaged("the primary key is another store's").into()),
            (None, None) => Err(damaged("the primary key is missing or malformed").into()),
        }
    }

    /// What signs the feed of this record, if it is ours to write.
    //= NAME-5, NAME-7
    pub(super) async fn signer(&self, record: &record::FeedRecord) -> Result<Option<KeyPair>, Error> {
        let discovery_key = record.key.discovery_key();
        match (&record.name, record.origin) {
            (_, record::Origin::Others) => Ok(None),
            (_, record::Origin::Seed) => Ok(Some(self.seeded(discovery_key).await?)),
            (Some(name), record::Origin::Name) => {
                Ok(Some(self.primary_key().await?.key_pair(&record.namespace, name.as_bytes())))
            }
            (None, record::Origin::Name) => Err(damaged("a feed without the name that it grew from").into()),
        }
    }

    async fn seeded(&self, discovery_key: DiscoveryKey) -> Result<KeyPair, Error> {
        match self.secrets.find(&*self.storage, Secret::Feed(discovery_key)).await? {
            Some(seed) => Ok(KeyPair::from_seed(&seed)),
            None => {
                let what = format!(
                    "the secret of the feed with discovery key {discovery_key} is missing or malformed"
                );
                Err(damaged(&what).into())
            }
        }
    }
}

/// The key of the legacy feed that `pair` signs.
pub(super) fn legacy_key(pair: &KeyPair) -> FeedKey {
    FeedKey::from_bytes(*pair.public().as_bytes())
}
