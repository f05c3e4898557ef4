//! Parties: who is let in, what is said there, and what is told of it.

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod between;
mod live;
mod map;
mod order;
mod talking;
