//! A runner for anybody's peer. It drives an implementation through a small program, a *shim*, and is itself the peer at
//! the other end of a TCP connection: sometimes a good one, sometimes one that means harm.
//!
//! `conformance/SHIM.md` specifies what a shim speaks, and `conformance/README.md` says how to use all this. Each
//! [`Behaviour`] names the sentences of `protocol-spec/` that it tests.

mod behaviour;
mod behaviours;
pub mod command_line;
mod engine;
mod expected;
mod feature;
mod feeds;
mod report;
mod scene;
mod shim;
pub(crate) mod speech;
mod wire;

pub use behaviour::Behaviour;
pub use behaviours::all;
pub use engine::{Options, run};
pub use expected::Expected;
pub use feature::Feature;
pub use report::{Outcome, Report, Verdict};
pub use shim::{Answer, Shim, ShimOptions, VERSION};
