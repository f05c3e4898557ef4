//! The behaviours, by area.

mod frames;

use super::Behaviour;

/// All behaviours, in the order of the layers.
pub fn all() -> impl Iterator<Item = Behaviour> {
    [frames::BEHAVIOURS].into_iter().flatten().copied()
}
