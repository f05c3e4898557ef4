//! What the replication of a feed has to know of our side of it, at once and from memory.

#[doc(no_inline)]
pub use super::demand::Demand;

use crate::feed::{proof::Proof, reorg::PendingReorg};

/// A view of a feed as it stands here. [`State`](crate::feed) is one; tests write their own.
///
/// ```
/// use party::feed::{Demand, Local, State};
///
/// // A feed of which nothing is known yet.
/// let state = State::default();
/// assert!(state.needs_manifest() && !state.has(0));
/// assert_eq!((state.length(), state.contiguous_length()), (0, 0));
/// assert_eq!(Demand::everything().next_missing(&state, 0, 10), Some(0));
/// ```
pub trait Local {
    /// The fork; it grows with every truncation.
    fn fork(&self) -> u64;
    /// How many blocks the signed tree has, stored here or not.
    fn length(&self) -> u64;
    /// How many blocks are stored here without a gap from the first.
    fn contiguous_length(&self) -> u64;
    /// Whether block `index` is stored here.
    fn has(&self, index: u64) -> bool;
    /// Whether we have a manifest to show: never for a legacy feed.
    fn has_manifest(&self) -> bool;
    /// Whether we need the manifest before we can verify anything.
    fn needs_manifest(&self) -> bool;
    /// For a request of block `index`: how many levels above it the first tree node stands that is stored
    /// here. 0 for a block beyond [`length`](Self::length), whose place in the tree isn't known.
    fn missing_nodes(&self, index: u64) -> u64;
    /// The first block in `from..to` that is not stored here.
    fn next_missing(&self, from: u64, to: u64) -> Option<u64>;
    /// The bitfield of `start..start + length` as `bitfield` messages carry it: for each page that has
    /// anything, the index of its first bit, a multiple of 32, and its words.
    fn words(&self, start: u64, length: u64) -> Vec<(u64, Vec<u32>)>;
    /// How often blocks have been deleted here, cleared or cut off, since the feed was opened: who has looked for what
    /// is missing looks again when it has changed.
    fn deletions(&self) -> u64 {
        0
    }
    /// The reorg to `fork` that has begun here, while it needs proofs.
    fn reorg(&self, _fork: u64) -> Option<&PendingReorg> {
        None
    }
    /// Whether the feed is not to be replicated, as its signers have contradicted themselves.
    fn has_conflict(&self) -> bool {
        false
    }
    /// The signed tree that contradicts ours, if it is at hand: an upgrade from 0.
    fn contradiction(&self) -> Option<&Proof> {
        None
    }
}
