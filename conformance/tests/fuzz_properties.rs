//! Random bytes through bodies that are fuzzed, too.

use conformance::fuzz;
use proptest::{collection::vec, prelude::*, test_runner::RngSeed};

/// The same inputs each time; the fuzzer looks for new ones.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(2_000))]

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

    #[test]
    fn a_reader_has_what_the_writer_has_and_nothing_else(data in vec(any::<u8>(), 0..1_500)) {
        fuzz::replication(&data);
    }

    #[test]
    fn any_values_in_a_store_are_read_or_named(data in vec(any::<u8>(), 0..200)) {
        fuzz::store_values(&data);
    }
}

proptest! {
    // Each of them opens a store on disk, or two.
    #![proptest_config(config(100))]

    #[test]
    fn a_damaged_file_of_a_store_is_named_and_nothing_is_lost(data in vec(any::<u8>(), 0..100)) {
        fuzz::store_files(&data);
    }
}
