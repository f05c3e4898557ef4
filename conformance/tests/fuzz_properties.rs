//! Random bytes through bodies that are fuzzed, too.

use conformance::fuzz;
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn only_who_knows_the_party_is_believed(data in vec(any::<u8>(), 0..40)) {
        fuzz::admission_proof(&data);
    }

    #[test]
    fn every_question_in_a_party_has_one_outcome(data in vec(any::<u8>(), 0..1_500)) {
        fuzz::admitted_pair(&data);
    }

    #[test]
    fn any_remote_in_a_party_gets_typed_errors_and_nothing_beyond_a_bound(data in vec(any::<u8>(), 0..1_500)) {
        fuzz::admitted_by_hostile(&data);
    }

    #[test]
    fn party_messages_are_what_the_plain_reader_and_writer_say(data in vec(any::<u8>(), 0..300)) {
        fuzz::party_messages(&data);
    }
}
