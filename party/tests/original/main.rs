//! The first Party: where it failed, and what it did well.

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod messages;
#[cfg(feature = "disk")]
mod records;
mod rules;
