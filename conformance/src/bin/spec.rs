//! Checks `protocol-spec/` and prints how much of it is enforced and tested. See `conformance::spec`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it says is what it is for")]

use std::{path::Path, process::ExitCode};

use conformance::spec::Spec;

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let spec = Spec::read(&root)?;
    let faults = spec.check();
    for fault in &faults {
        eprintln!("{fault}");
    }
    print!("{}", spec.coverage());
    println!("{} exceptions, {} faults", spec.exceptions.len(), faults.len());
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
