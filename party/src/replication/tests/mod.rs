mod behaviours;
mod forks;
mod hostile;
mod messages;
pub(super) mod model;
mod pair;
mod pauses;
#[cfg(feature = "tokio")]
mod real;
