//! Feeds made, added, opened and found.

use std::sync::Arc;

use super::{
    FeedEvent, FeedOptions, Inner, Namespace, Opening, Store, damaged, finish,
    list::decode,
    names::legacy_key,
    open_feeds::Holding,
    record::{self, FeedRecord, Origin},
    secrets::Secret,
};
use crate::{
    error::{ApiMisuse, Error},
    feed::{
        Feed, Identity,
        manifest::Manifest,
        state::Head,
        storage::{Key, Slot, Write},
    },
    key::{DiscoveryKey, FeedKey, KeyPair},
};

/// The longest name of a feed, in bytes.
const MAX_NAME: usize = 1024;

impl Store {
    /// Makes a feed that is written here. Its key pair grows from the store's primary key, the
    /// [namespace](Self::namespace) and the name, as in a corestore, unless the options say otherwise; one that
    /// doesn't is kept before the feed is, so that no end of the process leaves a feed that can't be signed.
    ///
    /// # Errors
    /// [`ApiMisuse::NameTaken`]; [`ApiMisuse::LimitExceeded`] for a name longer than 1,024 bytes;
    /// [`ApiMisuse::FeedExists`] if the feed that comes of it is here already; [`Error::Storage`].
    pub async fn create_feed(&self, name: &str, options: FeedOptions) -> Result<Feed, Error> {
        check_name(name)?;
        let opening = self.inner.start_opening().await?;
        let encryption = options.encryption.clone();
        let new = self.inner.new_feed(&self.namespace, name, options).await?;
        self.inner.check_new(&new.record).await?;
        let feed = self.inner.create(new, encryption.is_some(), opening).await?;
        Ok(match encryption {
            Some(encryption) => feed.with_encryption(encryption),
            None => feed,
        })
    }

    /// Adds a feed of any kind under a name: one that several sign, a static one, or one whose key pair comes
    /// from elsewhere. The key pair, if there is one, is kept among the store's secrets.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use party::{feed::{Identity, manifest::Manifest}, key::KeyPair, store::Store};
    ///
    /// let (ours, theirs) = (KeyPair::generate(), KeyPair::generate());
    /// let both = Manifest::builder().signers([ours.public(), theirs.public()]).quorum(2).build()?;
    /// let store = Store::memory();
    /// let minutes = store.add_feed("minutes", Identity::signer(both, ours)).await?;
    /// assert!(!minutes.info().writable); // not alone
    /// # Ok::<(), party::error::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::WrongManifest`] if the parts of `identity` don't belong together; as
    /// [`create_feed`](Self::create_feed).
    pub async fn add_feed(&self, name: &str, identity: Identity) -> Result<Feed, Error> {
        check_name(name)?;
        identity.verifier()?;
        let opening = self.inner.start_opening().await?;
        let Identity { key, manifest, signer: pair } = identity;
        let origin = if pair.is_some() { Origin::Seed } else { Origin::Others };
        let (namespace, name) = (self.namespace, Some(name.to_owned()));
        let record = FeedRecord { slot: Slot(0), key, origin, namespace, name, manifest };
        self.inner.check_new(&record).await?;
        self.inner.create(NewFeed { record, pair }, false, opening).await
    }

    /// The feed that is called `name` here, made if there is none: what `get({ name })` of a corestore gives,
    /// with the same key for the same primary key, namespace and name. If the feed is here but was only read so
    /// far, it gets the name, and is written here from now on. A copy doesn't tell whether the feed is encrypted:
    /// if it is, append by a handle [with the key](Feed::with_encryption) only.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use party::store::Store;
    ///
    /// let store = Store::memory();
    /// store.named_feed("log").await?.append("first").await?;
    /// assert_eq!(store.named_feed("log").await?.info().length, 1);
    /// # Ok::<(), party::error::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse::LimitExceeded`] for a name longer than 1,024 bytes; [`ApiMisuse::FeedExists`] if the feed is
    /// here under another name; [`Error::Storage`].
    pub async fn named_feed(&self, name: &str) -> Result<Feed, Error> {
        check_name(name)?;
        if let Some(feed) = self.feed_by_name(name).await? {
            return Ok(feed);
        }
        let opening = self.inner.start_opening().await?;
        // Somebody else may have been faster.
        if let Some(discovery_key) = self.inner.named(&self.namespace, name).await?
            && let Some(feed) = self.inner.find(&discovery_key).await?
        {
            return Ok(feed);
        }
        let new = self.inner.new_feed(&self.namespace, name, FeedOptions::default()).await?;
        let discovery_key = new.record.key.discovery_key();
        match self.inner.storage.read(vec![record::feed(&discovery_key)]).await?.pop().flatten() {
            None => self.inner.create(new, false, opening).await,
            Some(known) => self.inner.adopt(new, decode(&known)?, opening).await,
        }
    }

    /// The feed that was made here under `name`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn feed_by_name(&self, name: &str) -> Result<Option<Feed>, Error> {
        self.inner.check_open()?;
        match self.inner.named(&self.namespace, name).await? {
            Some(discovery_key) => self.feed_by_discovery_key(&discovery_key).await,
            None => Ok(None),
        }
    }

    /// The feed with this key. One that is not here yet is added, empty, to be read from others.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn feed(&self, key: &FeedKey) -> Result<Feed, Error> {
        let discovery_key = key.discovery_key();
        if let Some(feed) = self.feed_by_discovery_key(&discovery_key).await? {
            return Ok(feed);
        }
        let opening = self.inner.start_opening().await?;
        // Somebody else may have been faster.
        if let Some(feed) = self.inner.find(&discovery_key).await? {
            return Ok(feed);
        }
        let record = FeedRecord {
            slot: Slot(0),
            key: *key,
            origin: Origin::Others,
            namespace: Namespace::default(),
            name: None,
            manifest: None,
        };
        let (record, _opening) = self.inner.add(record, None, false, opening).await?;
        self.inner.open(record, None).await
    }

    /// The feed with this discovery key, if it is here.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn feed_by_discovery_key(&self, discovery_key: &DiscoveryKey) -> Result<Option<Feed>, Error> {
        self.inner.check_open()?;
        if let Some(feed) = self.inner.open.held(discovery_key) {
            return Ok(Some(feed));
        }
        let _opening = self.inner.start_opening().await?;
        self.inner.find(discovery_key).await
    }
}

fn check_name(name: &str) -> Result<(), ApiMisuse> {
    match name.len() > MAX_NAME {
        true => Err(ApiMisuse::LimitExceeded("the length of a feed's name")),
        false => Ok(()),
    }
}

/// A feed to be made.
struct NewFeed {
    record: FeedRecord,
    pair: Option<KeyPair>,
}

impl Inner {
    /// Works out which feed `name` and `options` stand for.
    async fn new_feed(
        &self,
        namespace: &Namespace,
        name: &str,
        options: FeedOptions,
    ) -> Result<NewFeed, Error> {
        let FeedOptions { compat, seed, .. } = options;
        let (pair, origin) = match seed {
            Some(seed) => (KeyPair::from_seed(&seed), Origin::Seed),
            None => (self.primary_key().await?.key_pair(namespace, name.as_bytes()), Origin::Name),
        };
        let manifest = (!compat).then(|| Manifest::single(pair.public()));
        let key = manifest.as_ref().map_or_else(|| legacy_key(&pair), Manifest::key);
        let name = Some(name.to_owned());
        let record = FeedRecord { slot: Slot(0), key, origin, namespace: *namespace, name, manifest };
        Ok(NewFeed { record, pair: Some(pair) })
    }

    /// Sees to it that neither the name nor the feed is here. With `opening` held.
    //= NAME-8
    async fn check_new(&self, record: &FeedRecord) -> Result<(), Error> {
        let discovery_key = record.key.discovery_key();
        let name = record.name.as_deref().unwrap_or_default();
        let keys = vec![record::name(&record.namespace, name), record::feed(&discovery_key)];
        match self.storage.read(keys).await?.as_slice() {
            [None, None] => Ok(()),
            [Some(_), _] => Err(ApiMisuse::NameTaken(name.to_owned()).into()),
            _ => Err(ApiMisuse::FeedExists(discovery_key).into()),
        }
    }

    /// Stores a new feed and opens it.
    async fn create(
        self: &Arc<Self>,
        new: NewFeed,
        is_encrypted: bool,
        opening: Opening,
    ) -> Result<Feed, Error> {
        let NewFeed { record, pair } = new;
        let secret = match (record.origin, &pair) {
            (Origin::Seed, Some(pair)) => {
                self.secrets.keep(Secret::Feed(record.key.discovery_key()), &pair.seed()).await?
            }
            _ => None,
        };
        let (record, _opening) = self.add(record, secret, is_encrypted, opening).await?;
        self.open(record, pair).await
    }

    /// Gives the feed of `known` the name and the key pair of `new`.
    async fn adopt(
        self: &Arc<Self>,
        new: NewFeed,
        known: FeedRecord,
        opening: Opening,
    ) -> Result<Feed, Error> {
        let NewFeed { record, pair } = new;
        let discovery_key = record.key.discovery_key();
        if known.name.is_some() {
            return Err(ApiMisuse::FeedExists(discovery_key).into());
        }
        let record = FeedRecord { slot: known.slot, ..record };
        let mut writes = vec![Write::Put(record::feed(&discovery_key), record.encode())];
        writes.extend(name_write(&record));
        let inner = self.clone();
        finish(async move {
            let _opening = opening;
            inner.storage.commit(writes).await?;
            match inner.open.held(&discovery_key) {
                Some(feed) => {
                    let identity = Identity { key: record.key, manifest: record.manifest, signer: pair };
                    feed.adopt(identity).await?;
                    Ok(feed)
                }
                None => inner.open(record, pair).await,
            }
        })
        .await
    }

    /// Which feed is called `name`.
    pub(super) async fn named(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<DiscoveryKey>, Error> {
        let found = self.storage.read(vec![record::name(namespace, name)]).await?.pop().flatten();
        Ok(found.map(|found| record::decode_discovery_key(&found)).transpose()?)
    }

    /// The feed, held or stored. With `opening` held.
    pub(super) async fn find(&self, discovery_key: &DiscoveryKey) -> Result<Option<Feed>, Error> {
        if let Some(feed) = self.open.held(discovery_key) {
            return Ok(Some(feed));
        }
        let Some(found) = self.storage.read(vec![record::feed(discovery_key)]).await?.pop().flatten() else {
            return Ok(None);
        };
        let record = decode(&found)?;
        if record.key.discovery_key() != *discovery_key {
            return Err(damaged("the record of a feed has the key of another").into());
        }
        let signer = self.signer(&record).await?;
        self.open(record, signer).await.map(Some)
    }

    /// Gives `record` a slot and stores it, along with `secret`. A feed that is encrypted is known as such before
    /// it can be appended to.
    async fn add(
        self: &Arc<Self>,
        mut record: FeedRecord,
        secret: Option<Write>,
        is_encrypted: bool,
        opening: Opening,
    ) -> Result<(FeedRecord, Opening), Error> {
        let next = self.storage.read(vec![record::next_slot()]).await?.pop().flatten();
        if let Some(next) = next {
            record.slot = record::decode_slot(&next).map_err(|_| damaged("the next slot"))?;
        }
        let after = Slot(record.slot.0.saturating_add(1));
        let discovery_key = record.key.discovery_key();
        let mut writes = vec![
            Write::Put(record::feed(&discovery_key), record.encode()),
            Write::Put(record::next_slot(), record::encode_slot(after)),
        ];
        writes.extend(name_write(&record));
        if is_encrypted {
            writes.push(Write::Put(Key::Head(record.slot), Head::new_encrypted().encode()));
        }
        writes.extend(secret);
        let inner = self.clone();
        // If the caller goes away, the commit still ends, is announced, and keeps others from the same slot
        // until then.
        finish(async move {
            inner.storage.commit(writes).await?;
            inner.watchers.tell(FeedEvent::Added(record.entry()));
            Ok((record, opening))
        })
        .await
    }

    /// Opens a stored feed that nobody holds. With `opening` held.
    async fn open(&self, record: FeedRecord, signer: Option<KeyPair>) -> Result<Feed, Error> {
        let FeedRecord { slot, key, manifest, .. } = record;
        if let Holding::Leaving = self.open.find(&key.discovery_key()) {
            // A handle that was dropped in the middle of an append has left its commit in the queue. It is
            // waited for, as the new handle must see it.
            self.storage.commit(vec![]).await?;
        }
        let identity = Identity { key, manifest, signer };
        let feed = match Feed::create_in(self.open.clone(), self.storage.clone(), slot, identity).await {
            // Looked at before it was stored.
            Err(Error::ApiMisuse(ApiMisuse::WrongManifest)) => {
                Err(damaged("a feed's key, manifest and key pair don't belong together").into())
            }
            opened => opened,
        }?;
        self.open.add(&feed);
        Ok(feed)
    }
}

fn name_write(record: &FeedRecord) -> Option<Write> {
    let name = record.name.as_ref()?;
    let discovery_key = bytes::Bytes::copy_from_slice(record.key.discovery_key().as_bytes());
    Some(Write::Put(record::name(&record.namespace, name), discovery_key))
}
