//! The same over real feeds, of which every answer is proved, and which follow their writer to other forks.

use std::ops::Range;

use proptest::prelude::*;

use super::{
    Scenario,
    net::{Net, Peer},
    scenario,
};
use crate::{
    feed::Feed,
    replication::tests::{
        pair::Engine,
        real::{block, block_on, reader, writer},
    },
};

impl Peer for Feed {
    fn truncate(&mut self, length: u64) {
        let length = length.min(self.info().length);
        block_on(Feed::truncate(self, length)).unwrap();
    }

    fn clear(&mut self, blocks: Range<u64>) {
        block_on(Feed::clear(self, blocks)).unwrap();
    }

    fn has_right(&self, index: u64) -> bool {
        block_on(self.get(index)).unwrap().is_some_and(|value| value == block(index))
    }
}

/// A writer and readers that know nothing yet.
fn feeds(scenario: &Scenario, legacy: bool) -> Vec<Feed> {
    let mut writer = writer(legacy);
    if scenario.length > 0 {
        Engine::append(&mut writer, scenario.length);
    }
    let readers: Vec<_> = scenario.readers.iter().map(|_| reader(&writer)).collect();
    std::iter::once(writer).chain(readers).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn real_feeds_converge(scenario in scenario(2..6, false), legacy in any::<bool>()) {
        let net = scenario.play(Net::new(feeds(&scenario, legacy), scenario.seed));
        prop_assert!(net.errors.is_empty(), "{:?}", net.errors);
        net.check();
    }

    #[test]
    fn real_feeds_that_fork_converge(scenario in scenario(2..6, true)) {
        let net = scenario.play(Net::new(feeds(&scenario, false), scenario.seed));
        prop_assert!(net.errors.is_empty(), "{:?}", net.errors);
        net.check();
    }
}
