//! Rules: what they decide, what they may do, and what is made of what they say.

#[path = "../common/mod.rs"]
mod common;

mod bounds;
mod contract;
mod live;
mod logged;
mod ready_made;
mod revocation;
