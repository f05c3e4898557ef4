//! What is wanted of a feed, and how: what replication goes by when it asks peers for blocks.
//!
//! [`Demand`] is a value: what all who want something of a feed want together, at one moment. It can be had
//! for nothing however many wait: [`RangeSet`] shares what has not changed. Who wants what, and until when, is kept by
//! the feed's handle.

#[cfg(feature = "tokio")]
mod coverage;
#[cfg(feature = "tokio")]
mod download;
mod range_set;
#[cfg(feature = "tokio")]
mod wanted;
#[cfg(feature = "tokio")]
mod word;

use std::ops::Range;

pub use self::range_set::RangeSet;
#[cfg(feature = "tokio")]
pub use self::{
    download::{Download, DownloadOptions, Progress},
    wanted::Changes,
};
#[cfg(feature = "tokio")]
pub(crate) use self::{
    wanted::{Demands, Stored},
    word::{Listener, Teller},
};
use super::local::Local;

/// In which order the blocks of a download are asked for. Blocks that somebody [waits](Demand::urgent) for
/// come before all others; downloads of different orders take turns.
///
/// ```
/// use party::feed::{Demand, Order};
///
/// let demand = Demand::nothing().with(Order::Newest, [0..u64::MAX]);
/// assert!(demand.wants(7));
/// assert!(demand.of(Order::Newest).contains(7) && demand.of(Order::Linear).is_empty());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// The lowest index first: what is read from the start can be read soonest.
    #[default]
    Linear,
    /// The highest index first.
    Newest,
    /// First what the fewest peers have, so that it does not go away with one of them.
    Rarest,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Linear, Self::Newest, Self::Rarest];
}

/// Which blocks of a feed are wanted here, and how. Cheap to clone.
///
/// ```
/// use party::feed::{Demand, Order};
///
/// let demand = Demand::from_ranges([0..4, 2..6, 10..u64::MAX]);
/// assert_eq!(demand.ranges(), [0..6, 10..u64::MAX]);
/// assert!(demand.wants(5) && !demand.wants(6));
/// assert!(demand.wants(1 << 40)); // all that will come
///
/// let demand = demand.with(Order::Rarest, [6..8]).with_urgent([7..8, 3..4]);
/// assert_eq!(demand.ranges(), [0..8, 10..u64::MAX]);
/// assert!(demand.urgent().iter().eq([3..4, 7..8]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    urgent: RangeSet,
    /// By [`Order`]. An end of `u64::MAX` stands for "and all that will come".
    orders: [RangeSet; Order::ALL.len()],
}

impl Demand {
    /// Nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Everything, now and later, in [linear](Order::Linear) order.
    pub fn everything() -> Self {
        Self::from_ranges(std::iter::once(0..u64::MAX))
    }

    /// The union of `ranges`, in [linear](Order::Linear) order.
    pub fn from_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        Self::nothing().with(Order::Linear, ranges)
    }

    /// This and `ranges`, in that order.
    #[must_use]
    pub fn with(mut self, order: Order, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        self.orders[order as usize].extend(ranges);
        self
    }

    /// This and `ranges`, for which somebody waits.
    #[must_use]
    pub fn with_urgent(mut self, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        self.urgent.extend(ranges);
        self
    }

    /// What of this is in any of `ranges`.
    #[must_use]
    pub fn within(&self, ranges: &[Range<u64>]) -> Self {
        // One set of the ranges, so that none of what overlaps is gone through twice.
        let ranges: RangeSet = ranges.iter().cloned().collect();
        let cut = |set: &RangeSet| ranges.iter().flat_map(|range| set.within(range)).collect();
        Self { urgent: cut(&self.urgent), orders: self.orders.each_ref().map(cut) }
    }

    /// Blocks that somebody waits for, one by one. They come before all others.
    pub fn urgent(&self) -> &RangeSet {
        &self.urgent
    }

    /// Blocks that are to be downloaded in this order. The same block may be wanted in several, and be urgent,
    /// too.
    pub fn of(&self, order: Order) -> &RangeSet {
        &self.orders[order as usize]
    }

    /// All ranges together, sorted and apart from each other. This goes through all of them.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut union = RangeSet::default();
        self.sets().for_each(|set| union.extend(set.iter()));
        union.iter().collect()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.sets().all(RangeSet::is_empty)
    }

    /// Whether block `index` is wanted.
    pub fn wants(&self, index: u64) -> bool {
        self.sets().any(|set| set.contains(index))
    }

    /// The first block in `from..to` that is wanted and not stored in `local`.
    pub fn next_missing(&self, local: &dyn Local, from: u64, to: u64) -> Option<u64> {
        self.sets().fold(None, |found, set| set.next_missing(local, from, found.unwrap_or(to)).or(found))
    }

    /// What is wanted here and was not wanted `before`, or not as urgently, or in another order: ranges that may overlap. Costs
    /// little more than what has changed.
    pub fn added_since(&self, before: &Self) -> Vec<Range<u64>> {
        self.sets().zip(before.sets()).flat_map(|(now, before)| now.difference(before)).collect()
    }

    fn sets(&self) -> impl Iterator<Item = &RangeSet> {
        std::iter::once(&self.urgent).chain(&self.orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_demands_merge() {
        let demand = Demand::from_ranges([5..7, 0..2, 2..3, 9..9, 6..8]);
        assert_eq!(demand.ranges(), [0..3, 5..8]);
        assert!(demand.wants(2) && !demand.wants(3) && demand.wants(7) && !demand.wants(8));
        assert!(Demand::everything().wants(u64::MAX - 1));
        assert!(Demand::nothing().is_empty());
    }

    #[test]
    fn a_demand_within_ranges_is_what_is_in_both() {
        let demand = Demand::from_ranges([0..10, 20..u64::MAX]).with_urgent([5..6, 15..16]);
        let cut = demand.within(&[8..25, 4..6, 9..12]);
        assert_eq!(cut.ranges(), [4..6, 8..10, 15..16, 20..25]);
        assert!(cut.urgent().iter().eq([5..6, 15..16]));
        assert!(demand.within(&[]).is_empty());
        assert_eq!(demand.within(&[0..u64::MAX]), demand);
    }

    #[test]
    fn what_becomes_urgent_is_new() {
        let before = Demand::from_ranges([0..10, 20..30]);
        let now = before.clone().with_urgent([4..5]).with(Order::Newest, [25..40]);
        assert_eq!(now.added_since(&before), [4..5, 25..40]);
        assert_eq!(before.added_since(&now), []);
        assert_ne!(now, before);
    }
}
