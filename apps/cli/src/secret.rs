//! Secrets of 32 bytes in files: a line of 64 hexadecimal characters that only its owner can read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use zeroize::Zeroizing;

/// The most that is read of such a file, which is shorter.
const MOST: u64 = 1 << 10;

/// Writes a secret into a new file. To overwrite one would lose what is in it, and a file that is there may
/// be open to others.
pub(crate) fn write(path: &Path, secret: &[u8; 32]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    let line: Zeroizing<String> =
        Zeroizing::new(secret.iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]).collect());
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

/// Reads a secret; `None` if there is no such file.
///
/// # Errors
/// If it can't be read, is no secret, or others can read it, too.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Zeroizing<[u8; 32]>>> {
    match read_private(path) {
        Ok(line) => parse(&line)
            .map(Some)
            .ok_or_else(|| anyhow!("{} is not 64 hexadecimal characters", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn read_private(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // A folder is refused below, as one that can't be read.
        let found = file.metadata()?;
        if found.is_file() && found.permissions().mode() & 0o077 != 0 {
            let why = format!("others may read it; `chmod 600 {}`, if none of them has", path.display());
            return Err(io::Error::other(why));
        }
    }
    let mut line = Zeroizing::new(String::new());
    file.take(MOST).read_to_string(&mut line)?;
    Ok(line)
}

fn parse(line: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = line.trim_end().as_bytes();
    let mut secret = Zeroizing::new([0; 32]);
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks(2)) {
        for digit in pair {
            *byte = *byte << 4 | char::from(*digit).to_digit(16)? as u8;
        }
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_back_and_anything_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(read(&path).unwrap().is_none());
        let secret = std::array::from_fn(|n| (n * 9) as u8);
        write(&path, &secret).unwrap();
        assert_eq!(*read(&path).unwrap().unwrap(), secret);
        assert!(write(&path, &secret).is_err());
        for wrong in ["", "ab", &"zz".repeat(32), &"ab".repeat(33), &"ä".repeat(32)] {
            std::fs::write(&path, wrong).unwrap();
            assert!(read(&path).is_err());
        }
    }
}
