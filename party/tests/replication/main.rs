//! What goes over the channel of a feed.

#[path = "../common/mod.rs"]
mod common;

mod api;
mod backpressure;
mod forks;
mod lingering;
mod links;
mod partial_service;
mod wire;
