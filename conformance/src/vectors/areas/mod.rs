//! The areas, and how each kind of scenario in them is played.

mod channels;
pub(super) mod credentials;
mod encryption;
mod feeds;
mod fields;
mod manifests;
mod messages;
mod names;
mod noise;
pub(super) mod party;
mod proofs;
mod replication;
mod secret_stream;
pub(super) mod tickets;
mod world;

use anyhow::{Context as _, Result};

use super::Kind;

const AREAS: [(&str, &[Kind]); 13] = [
    ("noise", noise::KINDS),
    ("secret_stream", secret_stream::KINDS),
    ("channels", channels::KINDS),
    ("messages", messages::KINDS),
    ("manifests", manifests::KINDS),
    ("feeds", feeds::KINDS),
    ("proofs", proofs::KINDS),
    ("replication", replication::KINDS),
    ("encryption", encryption::KINDS),
    ("names", names::KINDS),
    ("party", party::KINDS),
    ("credentials", credentials::KINDS),
    ("tickets", tickets::KINDS),
];

/// The areas, in the order of the layers. Each has a file.
pub const NAMES: [&str; AREAS.len()] = {
    let mut names = [""; AREAS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = AREAS[at].0;
        at += 1;
    }
    names
};

/// The kinds of scenarios of an area.
///
/// # Errors
/// If there is no such area.
pub fn kinds(area: &str) -> Result<&'static [Kind]> {
    let found = AREAS.iter().find(|(name, _)| *name == area);
    Ok(found.with_context(|| format!("there is no area {area}"))?.1)
}

/// A kind by its name.
///
/// # Errors
/// If there is no such area, or it has no such kind.
pub fn kind(area: &str, name: &str) -> Result<&'static Kind> {
    let found = kinds(area)?.iter().find(|kind| kind.name == name);
    found.with_context(|| format!("{area} has no kind {name}"))
}
