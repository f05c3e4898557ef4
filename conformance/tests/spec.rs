//! The specification holds together, and what it demands is enforced and tested. What the table says is in `conformance::spec`.

use std::path::Path;

use conformance::spec::Spec;

#[test]
#[allow(clippy::print_stdout, reason = "whoever asks for it gets the table")]
fn every_must_has_an_id_code_and_a_test_or_a_reason_why_not() {
    let spec = Spec::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    let faults = spec.check();
    println!("{}", spec.coverage());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
