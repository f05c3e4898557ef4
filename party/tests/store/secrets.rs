//! Secrets that a store keeps in one place.

use std::{fs, path::Path};

/// No file below `folder` has this secret in it, but `file`.
pub(crate) fn assert_only_in(file: &Path, folder: &Path, secret: &[u8; 32]) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path != file {
                let bytes = fs::read(&path).unwrap();
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{path:?}");
            }
        }
    }
}
