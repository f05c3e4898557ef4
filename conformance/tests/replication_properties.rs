//! The feed channel under random bytes: the same bodies that are fuzzed.

use conformance::fuzz;
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_decodes_as_a_feed_message_comes_back(data in vec(any::<u8>(), 0..200)) {
        fuzz::feed_message(&data);
    }

    #[test]
    fn any_remote_of_a_feed_gets_typed_errors_and_nothing_beyond_a_bound(data in vec(any::<u8>(), 0..2_500)) {
        fuzz::feed_channel(&data);
    }
}
