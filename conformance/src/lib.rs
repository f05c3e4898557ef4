//! The conformance kit: what an implementation of the party wire is checked against.

pub mod any;
pub mod dice;
pub mod fuzz;
pub mod measure;
pub mod node;
pub mod peer;
pub mod process;
pub mod runner;
pub mod scratch;
pub mod simulator;
pub mod spec;
mod talk;
pub mod vectors;
