//! The conformance kit: what an implementation of the party wire is checked against.

pub mod node;
//! The conformance kit.

pub mod fuzz;
pub mod vectors;
pub mod peer;
pub mod process;
