//! The vectors that are recorded from Node's packages, recorded anew.

#![cfg(feature = "node")]

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use conformance::{node::scripts_directory, vectors};

#[test]
fn what_node_does_is_recorded_the_same_to_the_byte() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = Command::new("node")
        .arg(scripts_directory().join("record/all.js"))
        .env("PARTY_VECTORS", folder.path())
        .output()
        .context("starting node")?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut compared = 0;
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        let stands = fs::read(vectors::folder().join(entry.file_name()))?;
        ensure!(fs::read(entry.path())? == stands, "{} is another", entry.file_name().to_string_lossy());
        compared += 1;
    }
    ensure!(compared == vectors::areas::NAMES.len() - vectors::record::all().len(), "{compared} files");
    Ok(())
}
