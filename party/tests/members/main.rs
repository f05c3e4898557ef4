//! Members by credential, and the invitations that make them.

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod convergence;
mod forgeries;
mod founded;
mod meetings;
mod messages;
mod removal;
mod terms;
mod ticket;
