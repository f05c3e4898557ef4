//! Parties: who is let in, what is said there, and what is told of it.

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod between;
mod live;
#[cfg(feature = "disk")]
mod map;
mod order;
mod talking;
