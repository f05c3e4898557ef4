//! Folders for a test's stores, which are gone when it ends, however it ends.
//!
//! All folders of a process stand in one of its own, `party-tests-` and its process id, in the folder for temporary files.
//! That goes with the last of them. What a process leaves behind that was killed, the next process that makes a folder removes.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tempfile::TempDir;

const PREFIX: &str = "party-tests-";

/// The folder of this process, while there is a folder in it.
static CURRENT: Mutex<Weak<Parent>> = Mutex::new(Weak::new());

/// An empty folder that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub struct Folder {
    inner: TempDir,
    _parent: Arc<Parent>,
}

impl Folder {
    /// Makes a folder.
    ///
    /// # Errors
    ///
    /// When the operating system can't.
    pub fn new() -> io::Result<Self> {
        let parent = Parent::current()?;
        Ok(Self { inner: TempDir::new_in(&parent.path)?, _parent: parent })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.path()
    }
}

#[derive(Debug)]
struct Parent {
    path: PathBuf,
}

impl Parent {
    fn current() -> io::Result<Arc<Self>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parent) = current.upgrade() {
            return Ok(parent);
        }
        let all = env::temp_dir();
        // What can't be removed is somebody else's.
        let _ = sweep(&all, |process| Path::new("/proc").join(process).exists());
        let path = all.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path)?;
        let parent = Arc::new(Self { path });
        *current = Arc::downgrade(&parent);
        Ok(parent)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // Under the lock, and not if somebody has made it anew meanwhile.
        let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if current.strong_count() == 0 {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the folders in `all` of processes that are gone.
fn sweep(all: &Path, lives: impl Fn(&str) -> bool) -> io::Result<()> {
    if !Path::new("/proc/self").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if process.is_some_and(|process| process.parse::<u32>().is_ok() && !lives(process)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_and_takes_that_of_the_process_along() {
        let (one, two) = (Folder::new().unwrap(), Folder::new().unwrap());
        let (first, parent) = (one.path().to_owned(), one.path().parent().unwrap().to_owned());
        fs::write(first.join("file"), "content").unwrap();
        drop(one);
        assert!(!first.exists() && two.path().exists());
        drop(two);
        assert!(!parent.exists());
    }

    #[test]
    fn what_a_process_left_that_is_gone_is_removed() {
        let all = tempfile::tempdir().unwrap();
        for name in ["party-tests-1", "party-tests-2", "party-tests-x", "other"] {
            fs::create_dir_all(all.path().join(name).join("deeper")).unwrap();
        }
        sweep(all.path(), |process| process == "2").unwrap();
        let mut left: Vec<_> = fs::read_dir(all.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", "party-tests-2", "party-tests-x"]);
    }
}
