mod behaviours;
mod forks;
mod hostile;
mod messages;
mod model;
mod pair;
mod pauses;
#[cfg(feature = "tokio")]
mod real;
