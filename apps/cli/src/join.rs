//! `party join`.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use party::{limits::Limits, ticket::Ticket};
use zeroize::Zeroizing;

use crate::{
    args::{Join, Mode, Pull},
    invite, members,
    output::Output,
    pull,
};

/// The most that is read from standard input for a ticket, which is shorter.
const MOST: u64 = 16 << 10;

pub(crate) async fn run(arguments: Join, output: Output) -> anyhow::Result<()> {
    let Join { ticket, store, feeds, live } = arguments;
    let ticket = if ticket == "-" { read()? } else { Zeroizing::new(ticket) };
    let ticket = Ticket::parse(&ticket, &Limits::default()).context("cannot read the ticket")?;
    if ticket.is_expired(invite::now()?) {
        bail!("the ticket has expired; ask for a new one");
    }
    if ticket.membership().is_some() {
        members::join(&store, &ticket).await?;
    }
    let Some((first, others)) = ticket.addresses().split_first() else {
        if ticket.membership().is_some() {
            // The store is a member now, and `pull` and `serve` show it.
            return Ok(());
        }
        bail!("the ticket names no address to connect to; `party pull` takes one");
    };
    let mode = Mode { party: Some(*ticket.party()), open: false };
    let pull = Pull { store, connect: first.clone(), mode, feeds, live };
    pull::run_with_others(pull, others, output).await
}

/// A ticket from standard input, with nothing but white space around it.
fn read() -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(MOST).read_to_string(&mut text).context("cannot read the ticket")?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}
