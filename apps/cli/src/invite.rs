//! `party invite`.
#![allow(clippy::disallowed_methods)] // the time is wanted

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use party::{limits::Limits, ticket::Ticket};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use serde::Serialize;

use crate::{
    args::Invite,
    output::{Output, Show},
};

#[derive(Serialize)]
struct Invitation {
    #[serde(skip)]
    drawn: Option<String>,
    ticket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

impl Show for Invitation {
    fn text(&self) -> String {
        match &self.drawn {
            Some(drawn) => format!("{drawn}\n{}", self.ticket),
            None => self.ticket.clone(),
        }
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
    show(&ticket, arguments.qr, output)
}

/// Prints a ticket.
pub(crate) fn show(ticket: &Ticket, with_qr: bool, output: Output) -> anyhow::Result<()> {
    let text = ticket.to_text(&Limits::default())?;
    let drawn = if with_qr { Some(draw(&text)?) } else { None };
    output.show(&Invitation { drawn, ticket: text, expires: ticket.expires() })
}

/// A QR code, two of its modules in a character, one above the other. Light ones are printed: so it is right on a dark
/// terminal, and readers take it the other way round, too.
fn draw(text: &str) -> anyhow::Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).context("too long for a QR code")?;
    Ok(code.render::<Dense1x2>().build())
}

/// In seconds since 1970 UTC.
pub(crate) fn now() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(since.as_secs())
}
