//! The first Party: where it failed, and what it did well.

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod messages;
mod records;
mod rules;
