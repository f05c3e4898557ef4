mod backoff;
mod behaviours;
mod extensions;
mod hostile;
mod messages;
mod model;
mod pair;
mod push;
#[cfg(feature = "tokio")]
mod real;
mod roles;
#[cfg(feature = "tokio")]
mod seeks;
