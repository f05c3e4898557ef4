//! The committed fuzz corpus, replayed on stable.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use conformance::fuzz::TARGETS;

fn fuzz_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"))
}

fn names(dir: &str) -> Result<BTreeSet<String>> {
    let dir = fuzz_dir().join(dir);
    fs::read_dir(&dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| {
            let path = entry?.path();
            Ok(path.file_stem().context("a file without a name")?.to_string_lossy().into_owned())
        })
        .collect()
}

#[test]
fn every_target_survives_its_corpus() -> Result<()> {
    for (name, body) in TARGETS {
        let dir = fuzz_dir().join("corpus").join(name);
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)
            .with_context(|| format!("reading {}", dir.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.sort();
        ensure!(!files.is_empty(), "no corpus for {name}");
        for file in files {
            let data = fs::read(&file)?;
            // The name of the file is shown if the body panics.
            let result = std::panic::catch_unwind(|| body(&data));
            ensure!(result.is_ok(), "{name} fails on {}", file.display());
        }
    }
    Ok(())
}

#[test]
fn every_target_is_run_by_the_fuzzer_too() -> Result<()> {
    let bodies: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    ensure!(bodies == names("fuzz_targets")?, "fuzz_targets/ and conformance::fuzz::TARGETS differ");
    ensure!(bodies == names("corpus")?, "corpus/ and conformance::fuzz::TARGETS differ");
    Ok(())
}
