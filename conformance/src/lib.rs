//! The conformance kit: what an implementation of the party wire is checked against.
//!
//! Without the feature `kit` it is the bodies of the fuzz targets alone.

pub mod fuzz;
pub mod scratch;

#[cfg(feature = "kit")]
pub mod any;
#[cfg(feature = "kit")]
pub mod dice;
#[cfg(feature = "kit")]
pub mod measure;
#[cfg(feature = "kit")]
pub mod node;
#[cfg(feature = "kit")]
pub mod peer;
#[cfg(feature = "kit")]
pub mod process;
#[cfg(feature = "kit")]
pub mod runner;
#[cfg(feature = "kit")]
pub mod simulator;
#[cfg(feature = "kit")]
pub mod spec;
#[cfg(feature = "kit")]
mod talk;
#[cfg(feature = "kit")]
pub mod vectors;
