//! `party invite`.
#![allow(clippy::disallowed_methods)] // the time is wanted

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use party::{limits::Limits, ticket::Ticket};
use serde::Serialize;

use crate::{
    args::Invite,
    output::{Output, Show},
};

#[derive(Serialize)]
struct Invitation {
    ticket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

impl Show for Invitation {
    fn text(&self) -> String {
        self.ticket.clone()
    }
}

pub(crate) fn run(arguments: Invite, output: Output) -> anyhow::Result<()> {
    let mut ticket = Ticket::new(arguments.party);
    for address in arguments.addresses {
        ticket = ticket.with_address(&address).with_context(|| address)?;
    }
    if let Some(seconds) = arguments.expires_in {
        ticket = ticket.expiring(now()?.saturating_add(seconds.into()));
    }
    let text = ticket.to_text(&Limits::default())?;
    output.show(&Invitation { ticket: text, expires: ticket.expires() })
}

/// In seconds since 1970 UTC.
pub(crate) fn now() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(since.as_secs())
}
