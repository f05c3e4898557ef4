//! Tickets, written and read.

use anyhow::Result;
use party::{
    credentials::Membership,
    key::{KeyPair, PartyKey},
    limits::Limits,
    ticket::{Ticket, TicketError},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::vectors::{Bytes, Kind, Outcome, Refusal, kind::read};

pub(super) const KINDS: &[Kind] =
    &[Kind::new("written", written), Kind::new("read", read_ticket).wire_text("/text").bound()];

/// What a ticket carries.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vectors) struct Carried {
    pub(in crate::vectors) party_key: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vectors) expiry: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vectors) membership: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::vectors) secret: Option<Bytes>,
    pub(in crate::vectors) addresses: Vec<String>,
}

fn written(input: &Value) -> Result<Outcome> {
    let carried: Carried = read(input)?;
    let limits = Limits::default();
    match write(&carried, &limits)? {
        Ok(text) => Outcome::accept(json!({ "text": text })),
        Err(_) => Outcome::refuse(Refusal::Misuse),
    }
}

/// An error inside is what the application is told.
fn write(carried: &Carried, limits: &Limits) -> Result<Result<String, TicketError>> {
    let mut ticket = Ticket::new(PartyKey::from_bytes(carried.party_key.array()?));
    if let Some(bytes) = &carried.membership {
        let membership = Membership::decode(bytes, limits)?;
        let with = match &carried.secret {
            Some(seed) => ticket.with_secret(membership, KeyPair::from_seed(&seed.array()?)),
            None => ticket.with_membership(membership),
        };
        match with {
            Ok(with) => ticket = with,
            Err(error) => return Ok(Err(error)),
        }
    }
    if let Some(expiry) = carried.expiry {
        ticket = ticket.expiring(expiry);
    }
    for address in &carried.addresses {
        match ticket.with_address(address.clone()) {
            Ok(with) => ticket = with,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(ticket.to_text(limits))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
}

fn read_ticket(input: &Value) -> Result<Outcome> {
    let Text { text } = read(input)?;
    let limits = Limits::default();
    let Ok(ticket) = Ticket::parse(&text, &limits) else { return Outcome::refuse(Refusal::Ticket) };
    let carried = Carried {
        party_key: ticket.party().as_bytes().into(),
        expiry: ticket.expires(),
        membership: ticket.membership().map(|membership| Bytes(membership.encode())),
        secret: ticket.secret().map(|pair| Bytes::from(&pair.seed()[..])),
        addresses: ticket.addresses().to_vec(),
    };
    anyhow::ensure!(
        write(&carried, &limits)?.ok().as_ref() == Some(&text),
        "written anew, it is another text"
    );
    Outcome::accept(carried)
}
