mod backoff;
mod behaviours;
mod extensions;
#[cfg(feature = "tokio")]
mod forks;
mod hostile;
mod messages;
pub(super) mod model;
mod pair;
mod pauses;
#[cfg(feature = "tokio")]
mod push;
#[cfg(feature = "tokio")]
mod real;
mod roles;
#[cfg(feature = "tokio")]
mod seeks;
mod swarm;
