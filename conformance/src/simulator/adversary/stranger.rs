//! Those who don't know the party's key, and want to be let in all the same.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use anyhow::Result;
use party::{
    admission::{self, Hello},
    mux::Event,
    replication,
};
use tokio::time::sleep;

use super::{Adversary, Raw};
use crate::{
    dice::Dice,
    simulator::{checker::Invariant, plan::Stranger},
};

impl Adversary {
    pub(super) async fn be_stranger(
        &self,
        kind: Stranger,
        mut raw: Raw,
        victim: usize,
        mut dice: Dice,
    ) -> Result<()> {
        match kind {
            Stranger::Noise => loop {
                let mut bytes = vec![0; 1 + dice.below(2_000) as usize];
                dice.fill(&mut bytes);
                raw.write(&bytes).await?;
                sleep(Duration::from_millis(dice.below(3_000))).await;
            },
            Stranger::Garbage => loop {
                let mut bytes = vec![0; dice.below(300) as usize];
                dice.fill(&mut bytes);
                // Now and then something that looks like an open, or a batch.
                if let [first, second, ..] = &mut bytes[..]
                    && dice.percent(60)
                {
                    (*first, *second) = (0, dice.below(4) as u8);
                }
                raw.seal(&bytes).await?;
                sleep(Duration::from_millis(dice.below(2_000))).await;
            },
            Stranger::Echo => loop {
                let message = raw.message().await?;
                raw.seal(&message).await?;
            },
            Stranger::Mirror => self.mirror(raw, victim, dice).await,
            Stranger::Silent => loop {
                sleep(Duration::from_secs(60)).await;
            },
        }
    }

    /// Opens what it can't know, and answers offers with what they have brought.
    async fn mirror(&self, mut raw: Raw, victim: usize, mut dice: Dice) -> Result<()> {
        if raw.session().is_initiator {
            let hello = Hello::new(dice.seed()).encode();
            raw.mux.open(admission::PROTOCOL, Some(&dice.seed()), &hello)?;
            // It has heard the keys of feeds somewhere. Without the party's they are of no use.
            let feed = self.world.directory.feed(victim);
            let shown = replication::handshake(raw.session(), &feed);
            let id = feed.discovery_key();
            raw.mux.open(replication::PROTOCOL, Some(id.as_bytes()), &shown)?;
        }
        loop {
            match raw.event().await? {
                Event::Incoming { incoming, handshake, .. } => {
                    raw.mux.accept(incoming, &handshake)?;
                }
                Event::Opened { .. } => self.broken(victim, "opens a channel to the stranger"),
                Event::Message { .. } => self.broken(victim, "sends a message to the stranger"),
                Event::Closed { .. } => {}
            }
        }
    }

    pub(super) fn broken(&self, victim: usize, what: &str) {
        let what = format!("peer {victim} {what} peer {}", self.peer);
        self.world.checker.fail(Invariant::Admission, what);
    }
}
