mod behaviours;
mod hostile;
mod model;
mod pair;
