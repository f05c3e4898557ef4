//! Which block to ask the remote for next.
//!
//! Blocks that somebody waits for come first. The [orders](Order) of downloads take turns after them, so that a download
//! of everything doesn't hold up one of the newest.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    ranges::Ranges,
    rarity::{MAX_RUNS, Plan},
    remote::Remote,
    swarm::Claimed,
    window::Window,
};
use crate::feed::{
    Order, RangeSet,
    local::{Demand, Local},
};

/// Ranges to be looked through again, beyond which they are joined.
const MAX_TODO: usize = 1024;
/// How soon, at the soonest, to look again for what other channels have claimed.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What is wanted, and what of it may have to be asked for.
#[derive(Debug)]
pub(super) struct Picking {
    pub(super) demand: Demand,
    /// Of each class, blocks that may have to be asked for. What is wanted and not in here is asked for, or stored, or
    /// the remote doesn't have it.
    todo: [Ranges; Class::ALL.len()],
    /// Taken out of what is to be done of [`Order::Rarest`].
    plan: Plan,
    /// Blocks that were left to another channel that has asked for them.
    passed: Ranges,
    /// How many claims had ended without a block when they were passed over.
    released: u64,
    /// The order whose turn it is.
    turn: usize,
}

/// What is picked from in the same way.
#[derive(Clone, Copy, Debug)]
enum Class {
    Urgent,
    Ordered(Order),
}

impl Class {
    const ALL: [Self; 1 + Order::ALL.len()] = [
        Self::Urgent,
        Self::Ordered(Order::Linear),
        Self::Ordered(Order::Newest),
        Self::Ordered(Order::Rarest),
    ];

    fn number(self) -> usize {
        match self {
            Self::Urgent => 0,
            Self::Ordered(order) => 1 + order as usize,
        }
    }

    fn wanted(self, demand: &Demand) -> &RangeSet {
        match self {
            Self::Urgent => demand.urgent(),
            Self::Ordered(order) => demand.of(order),
        }
    }
}

/// How both sides stand, and what is under way.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) local: &'a dyn Local,
    pub(super) remote: &'a Remote,
    pub(super) window: &'a Window,
}

impl Default for Picking {
    fn default() -> Self {
        let mut picking = Self {
            demand: Demand::everything(),
            todo: Default::default(),
            plan: Plan::default(),
            passed: Ranges::default(),
            released: 0,
            turn: 0,
        };
        picking.reconsider(0..u64::MAX);
        picking
    }
}

impl Picking {
    /// The blocks of `range` are to be looked at again.
    pub(super) fn reconsider(&mut self, range: Range<u64>) {
        for (class, todo) in Class::ALL.into_iter().zip(&mut self.todo) {
            if !class.wanted(&self.demand).is_empty() {
                put(todo, range.clone());
            }
        }
    }

    /// Sets what is wanted. Returns whether that is a change.
    pub(super) fn set_demand(&mut self, demand: Demand) -> bool {
        if self.demand == demand {
            return false;
        }
        for (class, todo) in Class::ALL.into_iter().zip(&mut self.todo) {
            let wanted = class.wanted(&demand);
            if wanted.is_empty() {
                *todo = Ranges::default();
            }
            for range in wanted.difference(class.wanted(&self.demand)) {
                put(todo, range);
            }
        }
        self.demand = demand;
        true
    }

    /// These blocks are asked of somebody else now.
    pub(super) fn pass(&mut self, blocks: impl IntoIterator<Item = u64>) {
        for index in blocks {
            put(&mut self.passed, index..index.saturating_add(1));
        }
    }

    /// Takes up again what was passed over, if so many claims as `released` have ended without a block by now and that are
    /// more than before, or if it is time to. Returns whether it did.
    pub(super) fn look_again(&mut self, released: u64, is_due: bool) -> bool {
        let look = std::mem::replace(&mut self.released, released) != released || is_due;
        if look {
            for range in self.passed.take() {
                self.reconsider(range);
            }
        }
        look
    }

    /// When what was passed over may be asked for by us.
    pub(super) fn next_overdue(&self, window: &Window, now: Instant) -> Option<Instant> {
        if self.passed.len() == 0 {
            return None;
        }
        // Only for what this remote has: what nobody else has may be overdue for ever.
        let overdue = window.next_overdue(|index| self.passed.around(index).is_some());
        overdue.map(|overdue| overdue.max(now + LOOK_AGAIN))
    }

    /// Whether one of the blocks below `end` is to be asked for.
    pub(super) fn is_open(&self, end: u64, view: View<'_>) -> bool {
        Class::ALL.into_iter().zip(&self.todo).any(|(class, todo)| {
            let wanted = class.wanted(&self.demand);
            let planned = self.plan.runs().map(|run| run.start..run.end.min(end));
            let planned = planned.filter(|_| matches!(class, Class::Ordered(Order::Rarest)));
            let mut open = todo.within(0..end).chain(self.passed.within(0..end)).chain(planned);
            !wanted.is_empty() && open.any(|range| view.candidate(wanted, range).is_some())
        })
    }

    /// Claims the block to ask for next, of those below `end`.
    pub(super) fn next(&mut self, end: u64, view: View<'_>, now: Instant) -> Option<u64> {
        self.each_class(|picking, class| {
            while let Some(index) = picking.take(class, 0..end, view) {
                if view.window.claim(index, now) == Claimed::Ours {
                    return Some(index);
                }
                picking.pass([index]);
            }
            None
        })
    }

    /// As [`next`](Self::next), of blocks that come with the growth of the feed: `range` is what it brings.
    pub(super) fn next_beyond(&mut self, range: Range<u64>, view: View<'_>, now: Instant) -> Option<u64> {
        let index = self.each_class(|picking, class| match class {
            Class::Ordered(Order::Newest) => picking.highest(class, range.clone(), view),
            _ => picking.lowest(class, range.clone(), view),
        })?;
        if view.window.claim(index, now) == Claimed::Ours {
            return Some(index);
        }
        self.pass([index]);
        None
    }

    /// The first block that `pick` finds: of the urgent ones or the order whose turn it is.
    fn each_class(&mut self, mut pick: impl FnMut(&mut Self, Class) -> Option<u64>) -> Option<u64> {
        let mut pick = |picking: &mut Self, class: Class| {
            if class.wanted(&picking.demand).is_empty() { None } else { pick(picking, class) }
        };
        if let Some(index) = pick(self, Class::Urgent) {
            return Some(index);
        }
        let first = self.turn;
        for n in first..first + Order::ALL.len() {
            let order = Order::ALL[n % Order::ALL.len()];
            if let Some(index) = pick(self, Class::Ordered(order)) {
                self.turn = (n + 1) % Order::ALL.len();
                return Some(index);
            }
        }
        None
    }

    fn take(&mut self, class: Class, within: Range<u64>, view: View<'_>) -> Option<u64> {
        match class {
            Class::Urgent | Class::Ordered(Order::Linear) => self.lowest(class, within, view),
            Class::Ordered(Order::Newest) => self.highest(class, within, view),
            Class::Ordered(Order::Rarest) => self.rarest(within.end, view),
        }
    }

    /// Takes out the lowest block to ask for.
    fn lowest(&mut self, class: Class, within: Range<u64>, view: View<'_>) -> Option<u64> {
        let todo = &mut self.todo[class.number()];
        let wanted = class.wanted(&self.demand);
        loop {
            let range = todo.within(within.clone()).next()?;
            match view.candidate(wanted, range.clone()) {
                Some(index) => {
                    todo.remove(range.start..index + 1);
                    return Some(index);
                }
                None => todo.remove(range),
            }
        }
    }

    /// Takes out the highest block to ask for.
    fn highest(&mut self, class: Class, within: Range<u64>, view: View<'_>) -> Option<u64> {
        let todo = &mut self.todo[class.number()];
        let wanted = class.wanted(&self.demand);
        // Steps that grow: most often the next block below is it, and a gap of 2^40 blocks takes 40 steps.
        let mut step = 1_u64;
        loop {
            let range = todo.last_within(within.clone())?;
            let part = range.end.saturating_sub(step).max(range.start)..range.end;
            let Some(mut index) = view.candidate(wanted, part.clone()) else {
                todo.remove(part);
                step = step.saturating_mul(2);
                continue;
            };
            // There is none from here on.
            let mut end = part.end;
            while index + 1 < end {
                let middle = index + 1 + (end - index - 1) / 2;
                match view.candidate(wanted, middle..end) {
                    Some(higher) => index = higher,
                    None => end = middle,
                }
            }
            todo.remove(index..part.end);
            return Some(index);
        }
    }

    /// Takes out a block that the fewest others have.
    fn rarest(&mut self, end: u64, view: View<'_>) -> Option<u64> {
        let wanted = Class::Ordered(Order::Rarest).wanted(&self.demand);
        let todo = &mut self.todo[Class::Ordered(Order::Rarest).number()];
        loop {
            if let Some(index) = self
                .plan
                .next(view.window.claims(), |run| view.candidate(wanted, run.start..run.end.min(end)))
            {
                return Some(index);
            }
            self.plan.take().for_each(|run| put(todo, run));
            let runs = take_runs(todo, wanted, end, view);
            if runs.is_empty() {
                return None;
            }
            self.plan = Plan::new(runs, view.window.claims());
        }
    }
}

/// Takes the lowest runs to ask for out of `todo`, below `end`. Blocks in a run may have come already.
fn take_runs(todo: &mut Ranges, wanted: &RangeSet, end: u64, view: View<'_>) -> Vec<Range<u64>> {
    let mut runs = Vec::new();
    while runs.len() < MAX_RUNS {
        let Some(range) = todo.within(0..end).next() else { break };
        let Some(start) = view.candidate(wanted, range.clone()) else {
            todo.remove(range);
            continue;
        };
        let wanted = wanted.within(start..range.end).next().map_or(start + 1, |wanted| wanted.end);
        let end = wanted.min(view.remote.have.next_gap(start));
        todo.remove(range.start..end);
        runs.push(start..end);
    }
    runs
}

fn put(todo: &mut Ranges, range: Range<u64>) {
    todo.insert(range);
    if todo.len() > MAX_TODO {
        todo.collapse();
    }
}

impl View<'_> {
    /// The lowest block in `range` that is wanted, not stored, not on the way, and that the remote has and can
    /// prove.
    fn candidate(&self, wanted: &RangeSet, range: Range<u64>) -> Option<u64> {
        let Self { local, remote, window } = *self;
        let mut from = range.start;
        while from < range.end {
            let index = wanted.next_missing(local, from, range.end)?;
            from = remote.have.next(index).filter(|index| *index < range.end)?;
            if from != index {
                continue;
            }
            let end = unprovable_until(index, local, remote);
            if end > index {
                from = end;
            } else if window.block(index) {
                from = index + 1;
            } else {
                return Some(index);
            }
        }
        None
    }
}

/// The end of the blocks, from `index` on, that the remote can't prove to us; 0 if it can. A remote that is
/// shorter than we are has other roots: the node that the proof leads to must stand below one of them.
fn unprovable_until(index: u64, local: &dyn Local, remote: &Remote) -> u64 {
    if remote.sync.length >= local.length() {
        return 0;
    }
    let size = 1_u64.checked_shl(local.missing_nodes(index) as u32).unwrap_or(u64::MAX);
    let end = (index / size).saturating_add(1).saturating_mul(size);
    if end <= remote.sync.length { 0 } else { end }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any time will do to begin with
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        limits::Limits,
        replication::{Pace, Swarm, tests::model::Model, window::Asked},
    };

    /// A channel's end, as far as picking needs it.
    struct End {
        picking: Picking,
        local: Model,
        remote: Remote,
        window: Window,
        now: Instant,
    }

    impl End {
        fn new(swarm: &Arc<Swarm>, local: Model, has: impl IntoIterator<Item = Range<u64>>) -> Self {
            let (limits, mut remote) = (Limits::default(), Remote::default());
            let window = Window::new(swarm, &Arc::new(Pace::new(&limits)));
            window.claims().share(&remote.have);
            remote.sync.length = local.length;
            has.into_iter().for_each(|range| remote.have.insert(range, &limits).unwrap());
            let picking = Picking::default();
            Self { picking, local, remote, window, now: Instant::now() }
        }

        fn next(&mut self) -> Option<u64> {
            let view = View { local: &self.local, remote: &self.remote, window: &self.window };
            let index = self.picking.next(self.local.length, view, self.now)?;
            self.window.ask(Asked { block: Some(index), ..Asked::default() }, self.now);
            Some(index)
        }

        fn all(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.next()).collect()
        }
    }

    #[test]
    fn the_newest_is_found_across_a_gap_of_two_to_the_40() {
        let has = [3..5, 1 << 39..(1 << 39) + 2];
        let mut end = End::new(&Arc::default(), Model::sparse(1 << 40, [4]), has);
        end.picking.set_demand(Demand::nothing().with(Order::Newest, [0..u64::MAX]));
        assert_eq!(end.all(), [(1 << 39) + 1, 1 << 39, 3]);
    }

    #[test]
    fn more_urgent_blocks_than_ranges_are_kept_of_are_asked_for_once() {
        let mut end = End::new(&Arc::default(), Model::sparse(1 << 20, []), [0..1 << 20]);
        let urgent: Vec<u64> = (0..10_000).map(|n| n * 100).collect();
        let mut demand = Demand::from_ranges([0..50]);
        for index in urgent.iter().rev() {
            demand = demand.with_urgent([*index..*index + 1]);
            end.picking.set_demand(demand.clone());
        }
        let asked = end.all();
        assert_eq!(asked[..10_000], urgent);
        assert!(asked[10_000..].iter().copied().eq(1..50));
    }

    #[test]
    fn downloads_of_several_orders_take_turns() {
        let mut end = End::new(&Arc::default(), Model::sparse(100, []), [0..100]);
        end.picking.set_demand(Demand::everything().with(Order::Newest, [0..u64::MAX]).with_urgent([50..51]));
        let first: Vec<u64> = end.all().into_iter().take(7).collect();
        assert_eq!(first, [50, 0, 99, 1, 98, 2, 97]);
    }

    #[test]
    fn what_the_fewest_have_is_asked_for_first() {
        let swarm = Arc::default();
        let [one, other] = [0..60, 20..80].map(|has| End::new(&swarm, Model::sparse(100, []), [has]));
        let mut end = End::new(&swarm, Model::sparse(100, [85]), [0..90]);
        end.picking.set_demand(Demand::nothing().with(Order::Rarest, [0..u64::MAX]));
        let first: Vec<u64> = (0..10).filter_map(|_| end.next()).collect();
        assert!(first.iter().copied().eq((80..85).chain(86..90).chain([0])));
        // Who had 20 to 80 goes away.
        drop(other);
        let rest = end.all();
        assert!(rest.iter().copied().eq((60..80).chain(1..60)), "{rest:?}");
        drop(one);
    }

    fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
        let range = (0..200_u64, prop_oneof![1..40_u64, Just(u64::MAX)]);
        prop::collection::vec(range.prop_map(|(start, length)| start..start.saturating_add(length)), 0..5)
    }

    proptest! {
        #[test]
        fn of_any_demand_each_block_that_can_be_had_is_picked_once(
            orders in prop::array::uniform3(ranges()),
            urgent in ranges(),
            before in ranges(),
            has in ranges(),
            others in prop::collection::vec(ranges(), 0..4),
            stored in prop::collection::btree_set(0..200_u64, 0..40),
            picks in 0..50_usize,
        ) {
            let swarm = Arc::default();
            let mut end = End::new(&swarm, Model::sparse(200, stored.iter().copied()), has.clone());
            end.picking.set_demand(Demand::nothing().with(Order::Rarest, before));
            let mut found: Vec<u64> = (0..picks).filter_map(|_| end.next()).collect();
            let model = Model::sparse(200, []);
            let others: Vec<_> = others.into_iter().map(|has| End::new(&swarm, model.clone(), has)).collect();
            let demand = Order::ALL.into_iter().zip(orders).fold(Demand::nothing(), |demand, (order, ranges)| {
                demand.with(order, ranges)
            });
            let demand = demand.with_urgent(urgent);
            end.picking.set_demand(demand.clone());
            let early: BTreeSet<u64> = found.iter().copied().collect();
            let view = View { local: &end.local, remote: &end.remote, window: &end.window };
            let is_open = end.picking.is_open(200, view);
            let rest = end.all();
            prop_assert_eq!(is_open, !rest.is_empty());
            found.extend(&rest);
            let picked: BTreeSet<u64> = found.iter().copied().collect();
            prop_assert_eq!(picked.len(), found.len());
            let can_be_had = |index: &u64| {
                let has = has.iter().any(|range| range.contains(index));
                has && demand.wants(*index) && !stored.contains(index)
            };
            let expected: BTreeSet<u64> = (0..200).filter(can_be_had).chain(early).collect();
            prop_assert_eq!(picked, expected);
            drop(others);
        }
    }
}
