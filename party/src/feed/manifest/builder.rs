//! A manifest made step by step, and refused where it contradicts itself.

use bytes::Bytes;

use crate::{
    error::{ApiMisuse, ManifestFlaw},
    feed::{
        manifest::{Manifest, Prologue, Signer, default_namespace},
        tree::MAX_LENGTH,
    },
    hash::Hash,
    key::{FeedKey, PublicKey},
    limits::Limits,
};

/// The longest user data of a manifest that is made here, in bytes. The manifest is sent whole, and stored
/// with the head of the feed.
pub const MAX_USER_DATA: usize = 1 << 16;

/// Makes a [`Manifest`]; begun by [`Manifest::builder`].
///
/// What is left out is as hypercore 11 has it: version 1, or 2 where there are linked feeds or user data; a
/// quorum of more than half of the signers; signers in the default namespace; no patches.
///
/// ```
/// use party::error::{ApiMisuse, ManifestFlaw};
/// use party::feed::manifest::Manifest;
/// use party::key::KeyPair;
///
/// let [a, b] = [1, 2].map(|n| KeyPair::from_seed(&[n; 32]).public());
/// let manifest = Manifest::builder().signer(a).signer(b).allow_patch(true).build()?;
/// assert_eq!(manifest.quorum, 2);
///
/// let flaw = Manifest::builder().signer(a).signer(b).quorum(3).build();
/// let expected = ManifestFlaw::QuorumTooHigh { quorum: 3, signers: 2 };
/// assert_eq!(flaw, Err(ApiMisuse::InvalidManifest(expected)));
/// # Ok::<(), ApiMisuse>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder makes nothing before `build`"]
pub struct ManifestBuilder {
    version: Option<u8>,
    allow_patch: bool,
    quorum: Option<u64>,
    signers: Vec<Signer>,
    prologue: Option<Prologue>,
    linked: Vec<FeedKey>,
    user_data: Option<Bytes>,
}

impl ManifestBuilder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The version: 0, 1 or 2. Version 0 is for peers of hypercore 10; in it a signature holds for every feed
    /// that has the signer in the same namespace.
    pub fn version(mut self, version: u8) -> Self {
        self.version = Some(version);
        self
    }

    /// Adds a signer in the default namespace. Signers are numbered in the order in which they are added.
    pub fn signer(self, public_key: PublicKey) -> Self {
        self.signer_in(default_namespace(), public_key)
    }

    /// Adds a signer in a namespace of its own, so that one key pair signs several feeds of the same signers.
    pub fn signer_in(mut self, namespace: Hash, public_key: PublicKey) -> Self {
        self.signers.push(Signer { namespace, public_key });
        self
    }

    /// Adds signers in the default namespace.
    pub fn signers(self, public_keys: impl IntoIterator<Item = PublicKey>) -> Self {
        public_keys.into_iter().fold(self, Self::signer)
    }

    /// How many signers must sign.
    pub fn quorum(mut self, quorum: u64) -> Self {
        self.quorum = Some(quorum);
        self
    }

    /// Whether a signature over a longer tree counts for a shorter one that it begins with, so that signers
    /// need not agree on a length. Who signs a tree then agrees to each of its beginnings.
    pub fn allow_patch(mut self, allow: bool) -> Self {
        self.allow_patch = allow;
        self
    }

    /// The tree that the feed has, or begins with, without any signature; see [`Prologue::of_blocks`].
    pub fn prologue(mut self, prologue: Prologue) -> Self {
        self.prologue = Some(prologue);
        self
    }

    /// Adds keys of feeds that belong to this one. Makes it a manifest of version 2.
    pub fn linked(mut self, keys: impl IntoIterator<Item = FeedKey>) -> Self {
        self.linked.extend(keys);
        self
    }

    /// Bytes of the application's, up to [`MAX_USER_DATA`]. Makes it a manifest of version 2.
    pub fn user_data(mut self, user_data: impl Into<Bytes>) -> Self {
        self.user_data = Some(user_data.into());
        self
    }

    /// Makes the manifest.
    ///
    /// # Errors
    /// [`ApiMisuse::InvalidManifest`] with the [`ManifestFlaw`], if peers would refuse such a manifest, or if
    /// no block of a feed with it could ever be verified.
    //= FEED-9, FEED-17
    pub fn build(self) -> Result<Manifest, ApiMisuse> {
        match self.flaw() {
            Some(flaw) => Err(ApiMisuse::InvalidManifest(flaw)),
            None => Ok(Manifest {
                version: self.chosen_version(),
                allow_patch: self.allow_patch,
                quorum: self.chosen_quorum(),
                signers: self.signers,
                prologue: self.prologue,
                linked: Some(self.linked).filter(|linked| !linked.is_empty()),
                user_data: self.user_data,
            }),
        }
    }

    fn chosen_version(&self) -> u8 {
        self.version.unwrap_or(if self.linked.is_empty() && self.user_data.is_none() { 1 } else { 2 })
    }

    fn chosen_quorum(&self) -> u64 {
        let signers = self.signers.len() as u64;
        self.quorum.unwrap_or(if signers == 0 { 0 } else { signers / 2 + 1 })
    }

    fn flaw(&self) -> Option<ManifestFlaw> {
        let max = Limits::default().max_signers;
        let (version, quorum) = (self.chosen_version(), self.chosen_quorum());
        let signers = self.signers.len() as u64;
        if version > 2 {
            return Some(ManifestFlaw::UnknownVersion(version));
        }
        if self.signers.is_empty() && self.prologue.is_none() {
            return Some(ManifestFlaw::NobodySigns);
        }
        if self.signers.len() > max || self.linked.len() > max {
            return Some(ManifestFlaw::TooMany { max });
        }
        if quorum > signers {
            return Some(ManifestFlaw::QuorumTooHigh { quorum, signers });
        }
        if quorum == 0 && signers > 0 {
            return Some(ManifestFlaw::QuorumOfNobody);
        }
        let twice = self.signers.iter().enumerate().find(|(n, signer)| {
            self.signers.iter().take(*n).any(|earlier| earlier.public_key == signer.public_key)
        });
        if let Some((_, signer)) = twice {
            return Some(ManifestFlaw::SameSignerTwice(signer.public_key));
        }
        if version < 2 && !self.linked.is_empty() {
            return Some(ManifestFlaw::NeedsVersion { field: "linked feeds", version: 2 });
        }
        if version < 2 && self.user_data.is_some() {
            return Some(ManifestFlaw::NeedsVersion { field: "user data", version: 2 });
        }
        if let Some(len) = self.user_data.as_ref().map(Bytes::len).filter(|len| *len > MAX_USER_DATA) {
            return Some(ManifestFlaw::UserDataTooLong { len, max: MAX_USER_DATA });
        }
        let prologue = self.prologue?;
        if version == 0 {
            return Some(ManifestFlaw::NeedsVersion { field: "a prologue", version: 1 });
        }
        (prologue.length == 0 || prologue.length > MAX_LENGTH)
            .then_some(ManifestFlaw::PrologueLength(prologue.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPair;

    fn key(n: u8) -> PublicKey {
        KeyPair::from_seed(&[n; 32]).public()
    }

    fn flaw(builder: ManifestBuilder) -> ManifestFlaw {
        match builder.build() {
            Err(ApiMisuse::InvalidManifest(flaw)) => flaw,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_is_as_hypercore_has_it() {
        assert_eq!(Manifest::builder().signer(key(1)).build(), Ok(Manifest::single(key(1))));
        for (signers, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            let manifest = Manifest::builder().signers((0..signers).map(key)).build().unwrap();
            assert_eq!((manifest.version, manifest.quorum), (1, quorum));
        }
        assert_eq!(Manifest::builder().signer(key(1)).linked([]).build().unwrap().version, 1);
        assert_eq!(Manifest::builder().signer(key(1)).user_data("").build().unwrap().version, 2);
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let one = || Manifest::builder().signer(key(1));
        let prologue = |length| Prologue { hash: [9; 32], length };
        assert_eq!(flaw(Manifest::builder()), ManifestFlaw::NobodySigns);
        assert_eq!(flaw(one().version(3)), ManifestFlaw::UnknownVersion(3));
        assert_eq!(flaw(one().quorum(2)), ManifestFlaw::QuorumTooHigh { quorum: 2, signers: 1 });
        assert_eq!(flaw(one().quorum(0)), ManifestFlaw::QuorumOfNobody);
        assert_eq!(flaw(one().signer_in([7; 32], key(1))), ManifestFlaw::SameSignerTwice(key(1)));
        assert_eq!(
            flaw(one().version(1).linked([FeedKey::from_bytes([1; 32])])),
            ManifestFlaw::NeedsVersion { field: "linked feeds", version: 2 }
        );
        assert_eq!(
            flaw(one().version(0).user_data("a")),
            ManifestFlaw::NeedsVersion { field: "user data", version: 2 }
        );
        assert_eq!(
            flaw(one().version(0).prologue(prologue(1))),
            ManifestFlaw::NeedsVersion { field: "a prologue", version: 1 }
        );
        assert_eq!(flaw(one().prologue(prologue(0))), ManifestFlaw::PrologueLength(0));
        assert_eq!(
            flaw(one().prologue(prologue(MAX_LENGTH + 1))),
            ManifestFlaw::PrologueLength(MAX_LENGTH + 1)
        );
        let max = Limits::default().max_signers;
        assert_eq!(
            flaw(one().linked((0..=max).map(|_| FeedKey::from_bytes([0; 32])))),
            ManifestFlaw::TooMany { max }
        );
        assert_eq!(
            flaw(one().user_data(vec![0; MAX_USER_DATA + 1])),
            ManifestFlaw::UserDataTooLong { len: MAX_USER_DATA + 1, max: MAX_USER_DATA }
        );
    }
}
