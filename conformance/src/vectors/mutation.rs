//! Scenarios with single bits of their bytes changed.

use std::{collections::BTreeSet, panic};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    Bytes, areas,
    file::{Expect, Scenario},
};
use crate::dice::Dice;

/// What became of the flips of one scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flips {
    /// That were refused.
    pub refused: usize,
    /// That were taken for something else.
    pub taken: usize,
}

/// Plays a scenario `count` times, each time with another bit of what came from a peer flipped. What was accepted must not be
/// accepted as the same; what was refused and is bound must bring nothing still,
/// unless the flip makes it one of the inputs `good`.
///
/// # Errors
/// If something else comes of it, or it panics. Says which bit it was.
pub fn flip(
    area: &str,
    scenario: &Scenario,
    seed: u64,
    count: usize,
    good: &BTreeSet<String>,
) -> Result<Flips> {
    let kind = areas::kind(area, &scenario.kind)?;
    let mut flips = Flips::default();
    let Some(pointer) = kind.wire else { return Ok(flips) };
    let before = (kind.play)(&scenario.input)?;
    let wire = scenario.input.pointer(pointer).context("there is no such place in the input")?;
    let wire: Bytes = match (kind.is_text, wire) {
        (true, Value::String(text)) => text.as_bytes().into(),
        (_, wire) => serde_json::from_value(wire.clone())?,
    };
    let bits = wire.len() * 8;
    let mut dice = Dice::new(seed);
    let chosen: BTreeSet<usize> = match bits <= count {
        true => (0..bits).collect(),
        false => (0..count).map(|_| dice.below(bits as u64) as usize).collect(),
    };
    for bit in chosen {
        let mut changed = wire.clone();
        changed.0[bit / 8] ^= 1 << (bit % 8);
        let mut input = scenario.input.clone();
        let changed = match (kind.is_text, String::from_utf8(changed.0.clone())) {
            (true, Ok(text)) => Value::String(text),
            // What is no text can't be handed over as such.
            (true, Err(_)) => continue,
            (false, _) => serde_json::to_value(changed)?,
        };
        *input.pointer_mut(pointer).context("there is no such place")? = changed;
        let played = panic::catch_unwind(|| (kind.play)(&input));
        let at = || format!("seed {seed}, bit {bit} of {pointer}");
        let Ok(played) = played else { bail!("{}: it panics", at()) };
        let after = played.with_context(at)?;
        if before.expect.is_accept() {
            let is_another = kind.is_lax || after != before;
            ensure!(is_another, "{}: accepted as the same: {}", at(), serde_json::to_string(&after.expect)?);
        } else if kind.is_bound && brings_more(&before.expect, &after.expect) {
            ensure!(good.contains(&input.to_string()), "{}: a change makes it good", at());
        }
        match after.expect.is_accept() {
            true => flips.taken += 1,
            false => flips.refused += 1,
        }
    }
    Ok(flips)
}

/// Whether what is accepted has values that did not stand after it was refused.
fn brings_more(refused: &Expect, outcome: &Expect) -> bool {
    match (refused, outcome) {
        (Expect::Refuse { after: Some(Value::Object(stood)), .. }, Expect::Accept(Value::Object(values))) => {
            values.iter().any(|(name, value)| stood.get(name) != Some(value))
        }
        (_, Expect::Accept(_)) => true,
        _ => false,
    }
}
