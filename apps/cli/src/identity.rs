//! Who this store is to its peers: a static key pair that stays the same, in a file beside the feeds.

use std::{fs, path::Path};

use anyhow::Context as _;
use party::key::KeyPair;

use crate::secret;

const FILE: &str = "identity";

/// The identity of the store in `folder`; made on the first use. The store must be open, so that no other
/// process makes one at the same time.
pub(crate) fn of_store(folder: &Path) -> anyhow::Result<KeyPair> {
    let path = folder.join(FILE);
    if let Some(seed) = secret::read(&path)? {
        return Ok(KeyPair::from_seed(&seed));
    }
    let fresh = KeyPair::generate();
    // Under another name first: a process that is killed here must not leave half an identity.
    let draft = folder.join("identity.new");
    let _ = fs::remove_file(&draft);
    secret::write(&draft, &fresh.seed())
        .and_then(|()| fs::rename(&draft, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays() {
        let folder = tempfile::tempdir().unwrap();
        let first = of_store(folder.path()).unwrap();
        assert_eq!(of_store(folder.path()).unwrap().public(), first.public());
        assert_ne!(of_store(tempfile::tempdir().unwrap().path()).unwrap().public(), first.public());
    }
}
