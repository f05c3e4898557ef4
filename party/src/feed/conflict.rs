//! A feed whose signers have contradicted themselves.
//!
//! Blocks are only ever appended within one fork, so of two trees that are signed for one fork the shorter is the
//! beginning of the longer. Where it is not, the signers have signed two feeds under one key: a stolen key, a
//! backup that was written to, or malice. Nobody can tell which of the two is the feed, so a peer that has
//! seen both signatures replicates it no longer; see `protocol-spec/07-replication.md#conflicts`.

use crate::error::PeerMisbehaved;

/// What a proof is that contradicts the tree that we have: forged, or signed by signers who contradict themselves.
pub(crate) const NOT_IN_THE_TREE: &str = "a block or node that is not in the tree";

/// That two different trees were signed for one fork of a feed. From
/// [`Feed::conflict`](crate::feed::Feed::conflict).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use party::store::Store;
///
/// let feed = Store::memory().named_feed("log").await?;
/// match feed.conflict() {
///     Some(conflict) => println!("the first {} blocks differ, on fork {}", conflict.length, conflict.fork),
///     None => println!("its signers have said one thing only, as far as is known here"),
/// }
/// # Ok::<(), party::error::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The fork that both were signed for.
    pub fork: u64,
    /// The trees of so many blocks differ.
    pub length: u64,
}

impl Conflict {
    /// Whether a proof may have failed because the feed's signers have signed another tree, too.
    pub(crate) fn may_explain(error: &PeerMisbehaved) -> bool {
        matches!(error, PeerMisbehaved::InvalidSignature)
            || matches!(error, PeerMisbehaved::InvalidProof(what) if *what == NOT_IN_THE_TREE)
    }
}
