//! `party join`.

use anyhow::{Context as _, bail};
use party::{limits::Limits, ticket::Ticket};

use crate::{
    args::{Join, Mode, Pull},
    invite,
    output::Output,
    pull,
};

pub(crate) async fn run(arguments: Join, output: Output) -> anyhow::Result<()> {
    let Join { ticket, store, feeds, live } = arguments;
    let ticket = Ticket::parse(&ticket, &Limits::default()).context("no such ticket")?;
    if ticket.is_expired(invite::now()?) {
        bail!("the ticket has expired");
    }
    let Some((first, others)) = ticket.addresses().split_first() else {
        bail!("the ticket names no address to connect to; `party pull` takes one");
    };
    let mode = Mode { party: Some(*ticket.party()), open: false };
    let pull = Pull { store, connect: first.clone(), mode, feeds, live };
    pull::run_with_others(pull, others, output).await
}
