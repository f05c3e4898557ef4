//! The loader of vectors refuses what is not as described; and changed scenarios are never taken for the same.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use conformance::{
    dice::Dice,
    vectors::{self, Area, Flips},
};
use serde_json::{Value, json};

/// A scenario that could be.
fn scenario() -> Value {
    json!({
        "name": "a key",
        "kind": "diffie_hellman",
        "about": "A key.",
        "must": ["NOISE-2"],
        "source": "party",
        "input": { "seed": "11".repeat(32), "public_key": "01".to_owned() + &"00".repeat(31) },
        "expect": { "refuse": "handshake" },
    })
}

fn parse(scenarios: &[Value]) -> Result<Area> {
    let file = json!({ "area": "noise", "about": "Keys.", "scenarios": scenarios });
    Area::parse(&file.to_string(), &vectors::must_ids()?)
}

/// Plays the one scenario that is changed so.
fn played(change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut changed = scenario();
    change(&mut changed);
    vectors::check("noise", &parse(&[changed])?.scenarios[0])
}

#[test]
fn a_scenario_as_described_is_read_and_played() -> Result<()> {
    played(|_| {})
}

#[test]
fn unknown_kinds_fields_and_sentences_are_refused() {
    type Change = fn(&mut Value);
    let wrong: [(&str, Change); 12] = [
        ("kind", |it| it["kind"] = json!("unknown")),
        ("sentence", |it| it["must"] = json!(["NOISE-2", "NOISE-999"])),
        ("no sentence", |it| it["must"] = json!([])),
        ("a sentence twice", |it| it["must"] = json!(["NOISE-2", "NOISE-2"])),
        ("field", |it| it["more"] = json!(1)),
        ("field of the input", |it| it["input"]["more"] = json!(1)),
        ("field of the expectation", |it| it["expect"]["more"] = json!(1)),
        ("refusal", |it| it["expect"] = json!({ "refuse": "unknown" })),
        ("both ends", |it| it["expect"] = json!({ "refuse": "handshake", "accept": {} })),
        ("no end", |it| it["expect"] = json!({ "after": {} })),
        ("no name", |it| it["name"] = json!("")),
        ("bytes", |it| it["input"]["seed"] = json!("1")),
    ];
    for (what, change) in wrong {
        assert!(played(change).is_err(), "{what}");
    }
}

#[test]
fn another_outcome_than_the_expected_one_is_a_failure() {
    let wrong: [fn(&mut Value); 3] = [
        |it| it["expect"] = json!({ "accept": { "shared": "00" } }),
        |it| it["expect"] = json!({ "refuse": "decode" }),
        |it| it["expect"]["after"] = json!({ "sent": [] }),
    ];
    for change in wrong {
        let failure = played(change).unwrap_err().to_string();
        assert!(failure.contains("expected"), "{failure}");
    }
}

#[test]
fn two_scenarios_of_one_name_or_one_input_are_refused() -> Result<()> {
    let mut other = scenario();
    other["name"] = json!("another key");
    ensure!(parse(&[scenario(), other.clone()]).is_err(), "one input");
    other["input"]["seed"] = json!("12".repeat(32));
    parse(&[scenario(), other.clone()])?;
    other["name"] = scenario()["name"].clone();
    ensure!(parse(&[scenario(), other]).is_err(), "one name");
    Ok(())
}

#[test]
fn what_is_too_large_is_refused() -> Result<()> {
    let many = vec![scenario(); vectors::MAX_SCENARIOS + 1];
    ensure!(parse(&many).is_err_and(|error| error.to_string().contains("more than")), "too many");
    let mut deep = scenario();
    deep["input"] = (0..=vectors::MAX_NESTING).fold(json!(0), |inner, _| json!([inner]));
    ensure!(parse(&[deep]).is_err(), "too deep");
    Ok(())
}

/// With `PARTY_RECORD_VECTORS` they are written anew.
#[test]
fn what_we_record_is_the_same_to_the_byte() -> Result<()> {
    let is_recording = std::env::var_os("PARTY_RECORD_VECTORS").is_some();
    for area in vectors::record::all() {
        let area = area?;
        let path = vectors::folder().join(format!("{}.json", area.area));
        let text = vectors::record::text(&area)?;
        if is_recording {
            std::fs::write(&path, &text)?;
        }
        let stands = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(stands == text, "{} is another: see conformance/vectors/README.md", path.display());
    }
    Ok(())
}

/// How many bits of each scenario are flipped.
const FLIPS: usize = 24;

#[test]
#[allow(clippy::print_stdout, reason = "whoever asks for it gets the counts")]
fn a_scenario_with_a_bit_flipped_is_never_accepted_as_the_same() -> Result<()> {
    let seed = match std::env::var("PARTY_VECTOR_SEED") {
        Ok(seed) => seed.parse().context("PARTY_VECTOR_SEED")?,
        Err(_) => 1,
    };
    let areas = vectors::all()?;
    let good: BTreeSet<String> = areas
        .iter()
        .flat_map(|area| &area.scenarios)
        .filter(|scenario| scenario.expect.is_accept())
        .map(|scenario| scenario.input.to_string())
        .collect();
    let flipped = vectors::every_scenario(
        &areas,
        |_, _| true,
        |area, scenario| {
            let seed = Dice::apart(seed, &scenario.full_name(area), 0).next();
            vectors::flip(area, scenario, seed, FLIPS, &good)
        },
    );
    let (mut sum, mut scenarios) = (Flips::default(), 0);
    let mut failures = Vec::new();
    for (name, flips) in flipped {
        match flips {
            Ok(flips) => {
                sum.refused += flips.refused;
                sum.taken += flips.taken;
                scenarios += usize::from(flips != Flips::default());
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    println!("seed {seed}: {scenarios} scenarios, {sum:?}");
    ensure!(scenarios > 1_000 && sum.refused > 1_000 && sum.taken > 100, "{scenarios} scenarios, {sum:?}");
    Ok(())
}
