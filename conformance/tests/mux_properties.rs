//! The mux under random bytes: the same bodies that are fuzzed.

use conformance::fuzz;
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_remote_gets_typed_errors_and_nothing_beyond_a_bound(data in vec(any::<u8>(), 0..1_500)) {
        fuzz::hostile_remote(&data);
    }

    #[test]
    fn honest_ends_agree_and_lose_nothing(data in vec(any::<u8>(), 0..3_000)) {
        fuzz::honest_ends(&data);
    }
}
