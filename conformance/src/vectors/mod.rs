//! The vectors: scenarios of which each says what to feed in and what to expect, and a runner for them.
//!
//! `conformance/vectors/README.md` describes the files for who reads them without this crate. Here, [`Area::load`] reads one
//! and refuses whatever is not as described; an [area](areas) has [`Kind`]s, each of which knows how one kind of scenario is
//! played; [`check`] plays a scenario and compares what came of it with what it expects; [`flip`] plays it again with single bits
//! of its bytes changed.
//!
//! A kind computes what a scenario should expect from its input alone. So it can't pass by being told, and the same code records
//! the areas of which this implementation is the truth ([`record`]).

pub mod areas;
mod bytes;
mod file;
mod kind;
mod mutation;
pub mod record;
mod run;

pub use bytes::{Bytes, MAX_BYTES};
pub use file::{
    Area, Expect, MAX_FILE, MAX_NESTING, MAX_SCENARIOS, Refusal, Scenario, all, folder, must_ids,
};
pub use kind::{Kind, Outcome};
pub use mutation::{Flips, flip};
pub use run::{check, every_scenario};
