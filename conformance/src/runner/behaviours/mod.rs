//! The behaviours, by area.

mod frames;
mod mux;
mod noise;
mod stream;

use super::Behaviour;

/// All behaviours, in the order of the layers.
pub fn all() -> impl Iterator<Item = Behaviour> {
    [frames::BEHAVIOURS, noise::BEHAVIOURS, stream::BEHAVIOURS, mux::BEHAVIOURS].into_iter().flatten().copied()
}
