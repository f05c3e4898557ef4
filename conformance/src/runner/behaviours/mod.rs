//! The behaviours, by area.

mod admission;
mod asking;
mod credentials;
mod feeds;
mod frames;
mod messages;
mod mux;
mod noise;
mod open;
mod parties;
mod reading;
mod serving;
mod stream;

use super::Behaviour;

/// All behaviours, in the order of the layers.
pub fn all() -> impl Iterator<Item = Behaviour> {
    let areas = [
        frames::BEHAVIOURS,
        noise::BEHAVIOURS,
        stream::BEHAVIOURS,
        mux::BEHAVIOURS,
        admission::BEHAVIOURS,
        parties::BEHAVIOURS,
        messages::BEHAVIOURS,
        asking::BEHAVIOURS,
        feeds::BEHAVIOURS,
        serving::BEHAVIOURS,
        reading::BEHAVIOURS,
        credentials::BEHAVIOURS,
        open::BEHAVIOURS,
    ];
    areas.into_iter().flatten().copied()
}
