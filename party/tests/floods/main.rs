//! Floods of what a peer may say: requests, introductions, ephemeral messages, party channels, feeds; by a member, and by
//! somebody who is none. Quotas answer, memory stays flat, and another member is served meanwhile. The time is virtual.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;

mod members;
mod scene;
mod strangers;
