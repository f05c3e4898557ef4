//! The conformance kit.

pub mod fuzz;
pub mod vectors;
