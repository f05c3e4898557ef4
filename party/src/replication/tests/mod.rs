mod behaviours;
mod forks;
mod hostile;
mod messages;
mod model;
mod pair;
#[cfg(feature = "tokio")]
mod real;
