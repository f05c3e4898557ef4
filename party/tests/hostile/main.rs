//! Peers that do what no peer does. Each ends in a typed error, or in nothing at all; none costs memory.
#![allow(clippy::disallowed_methods)] // the time is virtual where it is looked at

#[path = "../common/mod.rs"]
mod common;

mod channels;
mod pressure;
mod proofs;
mod shared;
mod stream;
