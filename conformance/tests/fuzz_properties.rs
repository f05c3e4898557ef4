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

    #[test]
    fn a_proof_holds_if_it_is_in_the_tree(data in vec(any::<u8>(), 0..600)) {
        fuzz::verifier(&data);
    }

    #[test]
    fn feed_messages_are_written_as_by_hand(data in vec(any::<u8>(), 0..300)) {
        fuzz::encoder(&data);
    }

    #[test]
    fn honest_proofs_are_held_against_nobody(data in vec(any::<u8>(), 0..1_000)) {
        fuzz::proofs(&data);
    }
}
