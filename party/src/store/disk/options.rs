//! What can be chosen about a storage on disk.

/// What a commit that has completed survives.
///
/// | | the process is killed | the machine loses power |
/// |---|---|---|
/// | [`Process`](Self::Process) | every commit is there | the last ones may be missing, or their blocks be named as damaged |
/// | [`Power`](Self::Power) | every commit is there | every commit is there |
///
/// Under both, a commit is there as a whole or not at all, and nothing is ever read as something else than
/// what was written.
///
/// ```
/// use party::store::{Store, StoreOptions, disk::Durability};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("ledger");
/// assert_eq!(Durability::default(), Durability::Process);
///
/// let options = StoreOptions::default().durability(Durability::Power);
/// let store = Store::open_with(&dir, options).await?;
/// store.named_feed("payments").await?.append("paid").await?; // on the disk when this returns
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// The operating system has it. It survives every end of the process, but a power loss, or a crash of
    /// the system, may take the last commits along, about half a minute of them.
    #[default]
    Process,
    /// The disk has it, if it tells the truth: first the blocks are synced, then the journal that names
    /// them. Commits that wait share a sync, so that many writers at once cost little more than one.
    Power,
}

/// How a storage on disk is opened.
///
/// ```
/// use party::store::disk::{DiskOptions, Durability};
///
/// let options = DiskOptions::default().durability(Durability::Power);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DiskOptions {
    pub(super) durability: Durability,
    pub(super) reserve: u64,
}

/// The room that is kept free, unless the options say otherwise.
const RESERVE_BYTES: u64 = 16 << 20;

impl Default for DiskOptions {
    fn default() -> Self {
        Self { durability: Durability::default(), reserve: RESERVE_BYTES }
    }
}

impl DiskOptions {
    /// Sets what a completed commit survives. It may be another at each opening.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets how many bytes of the disk are kept free, 16 MiB if not set. The database needs room to tidy up,
    /// and so do deletions; a commit that would leave less is refused as the disk being full, and one that
    /// deletes blocks only if it would leave less than a quarter.
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }
}
