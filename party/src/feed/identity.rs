//! What one has to know of a feed to open it.

use crate::{
    error::ApiMisuse,
    feed::{manifest::Manifest, verifier::Verifier},
    key::{FeedKey, KeyPair},
};

/// Which feed it is, and whether we are its writer.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The feed's key.
    pub key: FeedKey,
    /// Its manifest. A reader may leave it out: the first peer that has blocks shows it.
    pub manifest: Option<Manifest>,
    /// What signs the feed, if it is ours to append to.
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

    /// A feed of someone else's.
    pub fn reader(key: FeedKey) -> Self {
        Self { key, manifest: None, signer: None }
    }

    /// Who may sign, as far as it is known here.
    pub(super) fn verifier(&self) -> Result<Option<Verifier>, ApiMisuse> {
        let manifest = match (&self.manifest, &self.signer) {
            (Some(manifest), _) => manifest.clone(),
            (None, Some(signer)) if signer.public().as_bytes() == self.key.as_bytes() => {
                Manifest::legacy(signer.public())
            }
            (None, Some(signer)) => Manifest::single(signer.public()),
            (None, None) => return Ok(None),
        };
        Verifier::new(self.key, manifest).map(Some).map_err(|_| ApiMisuse::WrongManifest)
    }
}
