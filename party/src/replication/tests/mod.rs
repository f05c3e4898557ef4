mod behaviours;
mod forks;
mod hostile;
mod messages;
pub(super) mod model;
mod pair;
#[cfg(feature = "tokio")]
mod real;
