//! A party that its founder has members signed into: one lets in a guest, who may read for an hour, and removes it again.
//!
//! ```sh
//! cargo run --example members -p party
//! ```
#![allow(clippy::print_stdout)] // it is what an example is for

use std::{
    future::IntoFuture as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use party::{
    connection::{self, Connection},
    credentials::{Grant, Terms},
    key::{KeyPair, PartyKey},
    limits::Limits,
    members::{Members, MembersEvent},
    party::Party,
    rules::WholeStore,
    store::Store,
    ticket::Ticket,
};

#[tokio::main]
#[allow(clippy::disallowed_methods)] // the time is wanted
async fn main() -> anyhow::Result<()> {
    // Whoever has the party's key finds the others. Who may be with them is for the other half of it to sign.
    let (key, founder) = PartyKey::generate();
    let (ann, bob) = (KeyPair::generate(), KeyPair::generate());
    let (at_ann, at_bob) = (Store::memory(), Store::memory());

    // The founder's machine need not be connected to anything. Ann is a member who may let others in.
    let anns = Members::open(&at_ann, &key, &ann).await?;
    let of_ann = anns.grant_as(&founder, Grant::to(ann.public(), Terms::everything().delegable(1))).await?;
    anns.set_membership(of_ann).await?;

    // She writes Bob a ticket.
    let in_an_hour = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3_600;
    let terms = Terms::everything().read_only().expiring(in_an_hour);
    let of_bob = anns.grant(Grant::to(bob.public(), terms)).await?;
    let text = Ticket::new(key).with_membership(of_bob)?.to_text(&Limits::default())?;
    println!("a ticket of {} characters", text.len());

    let bobs = Members::open(&at_bob, &key, &bob).await?;
    bobs.join(&Ticket::parse(&text, &Limits::default())?).await?;

    // The rules behind it are asked about members only, and what the terms don't allow doesn't happen.
    let here = Party::new(key, anns.rule(WholeStore::new(at_ann.clone())));
    let there = Party::new(key, bobs.rule(WholeStore::new(at_bob.clone())));
    let notes = at_ann.named_feed("notes").await?;
    notes.append("for members").await?;

    let (left, right) = connection::memory();
    let (to_bob, _to_ann) = tokio::try_join!(
        Connection::dial(left, &ann).join(&here).into_future(),
        Connection::accept(right, &bob).join(&there).into_future(),
    )?;
    let copy = at_bob.feed(&notes.key()).await?;
    while copy.get(0).await?.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("Bob reads: {}", String::from_utf8_lossy(&copy.get(0).await?.unwrap_or_default()));
    for peer in here.peers() {
        print!("{}", here.explain(&peer, &notes.key()));
    }

    // It has taken effect when this returns, and Bob is told.
    let mut events = bobs.events();
    anns.remove(&bob.public()).await?;
    assert!(here.peers().is_empty());
    while let Some(event) = events.next().await {
        if let MembersEvent::OwnRemoved(revocation) = event {
            println!("Bob was removed by {}", revocation.signer());
            break;
        }
    }
    to_bob.close().await?;
    Ok(())
}
