//! Who this store is to its peers: a static key pair that stays the same, in a file beside the feeds.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use party::key::KeyPair;

const FILE: &str = "identity";

/// The identity of the store in `folder`; made on the first use. The store must be open, so that no other
/// process makes one at the same time.
pub(crate) fn of_store(folder: &Path) -> anyhow::Result<KeyPair> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(line) => seed(&line)
            .map(|seed| KeyPair::from_seed(&seed))
            .ok_or_else(|| anyhow!("{} is no identity: 64 hexadecimal characters are", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fresh = KeyPair::generate();
            // Under another name first: a process that is killed here must not leave half an identity.
            let draft = folder.join("identity.new");
            let _ = fs::remove_file(&draft);
            write_secret(&draft, &fresh)
                .and_then(|()| fs::rename(&draft, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(fresh)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the seed of a pair, a line of hexadecimal, into a file that only its owner can read. The file must be
/// new: to overwrite one would lose the secret in it, and a file that is there may be open to others.
pub(crate) fn write_secret(path: &Path, pair: &KeyPair) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    let line: String = pair.seed().iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]).collect();
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

fn seed(line: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = line.trim_end().chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |n, digit| n << 4 | *digit as u8)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = of_store(folder.path()).unwrap();
        assert_eq!(of_store(folder.path()).unwrap().public(), first.public());
        assert_ne!(of_store(tempfile::tempdir().unwrap().path()).unwrap().public(), first.public());

        for wrong in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            fs::write(folder.path().join(FILE), wrong).unwrap();
            assert!(of_store(folder.path()).is_err());
        }
    }
}
