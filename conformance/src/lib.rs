//! The conformance kit.

pub mod fuzz;
