//! What one has to know of a feed to open it.

use crate::{
    error::ApiMisuse,
    feed::{manifest::Manifest, verifier::Verifier},
    key::{FeedKey, KeyPair},
};

/// Which feed it is, and whether we are its writer or one of its signers.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::memory::MemoryStorage;
/// use party::feed::{Feed, Identity, manifest::Manifest, storage::Slot};
/// use party::key::KeyPair;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let storage = Arc::new(MemoryStorage::new());
/// let mine = Identity::writer(KeyPair::generate());
/// let theirs = Identity::reader(mine.key); // all that a reader has to be told
///
/// let (a, b) = (KeyPair::generate(), KeyPair::generate());
/// let both = Manifest::builder().signers([a.public(), b.public()]).quorum(2).build()?;
/// let ours = Identity::signer(both, a); // needs `b`, too
///
/// for (slot, identity, writable) in [(0, mine, true), (1, theirs, false), (2, ours, false)] {
///     let feed = Feed::create(storage.clone(), Slot(slot), identity).await?;
///     assert_eq!(feed.info().writable, writable);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Identity {
    /// The feed's key.
    pub key: FeedKey,
    /// Its manifest. A reader may leave it out: the first peer that has blocks shows it.
    pub manifest: Option<Manifest>,
    /// What signs the feed, alone or with others, if it is ours to sign.
    pub signer: Option<KeyPair>,
}

impl Identity {
    /// A feed of our own, as hypercore 11 makes it when told nothing else.
    pub fn writer(signer: KeyPair) -> Self {
        let manifest = Manifest::single(signer.public());
        Self { key: manifest.key(), manifest: Some(manifest), signer: Some(signer) }
    }

    /// A feed of our own of the legacy kind, whose key is the signer's public key.
    pub fn legacy_writer(signer: KeyPair) -> Self {
        Self { key: FeedKey::from_bytes(*signer.public().as_bytes()), manifest: None, signer: Some(signer) }
    }

    /// A feed with this manifest, of which we are one signer, be it the only one or one of several. Who may
    /// append alone is said by [`Info::writable`](crate::feed::Info::writable); the others
    /// [draft](crate::feed::Feed::draft).
    pub fn signer(manifest: Manifest, signer: KeyPair) -> Self {
        Self { key: manifest.key(), manifest: Some(manifest), signer: Some(signer) }
    }

    /// A feed with this manifest, which others sign or nobody does.
    pub fn from_manifest(manifest: Manifest) -> Self {
        Self { key: manifest.key(), manifest: Some(manifest), signer: None }
    }

    /// A feed of someone else's.
    //= FEED-2, FEED-3
    pub fn reader(key: FeedKey) -> Self {
        Self { key, manifest: None, signer: None }
    }

    /// Who may sign, as far as it is known here.
    pub(crate) fn verifier(&self) -> Result<Option<Verifier>, ApiMisuse> {
        let manifest = match (&self.manifest, &self.signer) {
            (Some(manifest), _) => manifest.clone(),
            (None, Some(signer)) if signer.public().as_bytes() == self.key.as_bytes() => {
                Manifest::legacy(signer.public())
            }
            (None, Some(signer)) => Manifest::single(signer.public()),
            (None, None) => return Ok(None),
        };
        let verifier = Verifier::new(self.key, manifest).map_err(|_| ApiMisuse::WrongManifest)?;
        match &self.signer {
            Some(signer) if !verifier.is_signer(signer) => Err(ApiMisuse::WrongManifest),
            _ => Ok(Some(verifier)),
        }
    }
}
