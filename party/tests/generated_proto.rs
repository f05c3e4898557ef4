//! The code for the party channel's messages is generated from the spec's `party.proto` and committed, so
//! that users of the library need no protobuf compiler. This test says when the two have drifted apart;
//! `UPDATE=1 cargo test -p party --test generated_proto` writes the code anew.

use std::{fs, path::Path};

#[test]
fn the_committed_messages_are_those_of_the_spec() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spec = root.join("../protocol-spec");
    let committed = root.join("src/admission/proto.rs");

    let out = tempfile::tempdir()?;
    let descriptors = protox::compile([spec.join("party.proto")], [&spec])?;
    prost_build::Config::new().bytes(["."]).out_dir(out.path()).compile_fds(descriptors)?;
    let generated = fs::read_to_string(out.path().join("party.v1.rs"))?;

    if std::env::var_os("UPDATE").is_some() {
        fs::write(&committed, &generated)?;
    }
    assert!(
        fs::read_to_string(&committed).unwrap_or_default() == generated,
        "src/admission/proto.rs is not what party.proto gives; run with UPDATE=1",
    );
    Ok(())
}
