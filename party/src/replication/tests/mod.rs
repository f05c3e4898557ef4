mod behaviours;
mod hostile;
mod model;
mod pair;
#[cfg(feature = "tokio")]
mod real;
