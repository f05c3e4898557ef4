//! Peers that mean harm. They speak real Noise, mux and messages, and then do what no complete peer does.
//!
//! What they get is watched: a stranger that is let in, or somebody who is shown what the rules keep from it, breaks a
//! promise at once.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

mod insider;
mod raw;
mod stranger;
mod traitor;

use std::{sync::Arc, time::Duration};

use party::{admission::membership, feed::proof::Node, session::Session};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use self::raw::Raw;
use super::{network::Stream, plan::Role, world::World};
use crate::dice::Dice;

/// Between two attempts to reach a peer.
const PAUSE: Duration = Duration::from_secs(20);
/// A connection lasts so long at most, in seconds.
const LONGEST: u64 = 300;

/// A malicious peer. Cheap to clone.
#[derive(Clone)]
pub(super) struct Adversary {
    world: Arc<World>,
    peer: usize,
}

impl Adversary {
    pub(super) fn new(world: &Arc<World>, peer: usize) -> Self {
        Self { world: world.clone(), peer }
    }

    /// Begins, and doesn't end.
    pub(super) fn live(self) {
        let mut dice = Dice::apart(self.world.config.seed, "adversary", self.peer as u64);
        for (link, other) in self.world.dials_of(self.peer) {
            let (adversary, mut dice) = (self.clone(), Dice::new(dice.next()));
            tokio::spawn(async move {
                loop {
                    if let Ok(stream) = adversary.world.network.dial(link, adversary.peer, other).await {
                        adversary.meet(stream, true, Dice::new(dice.next())).await;
                    }
                    sleep(PAUSE + Duration::from_millis(dice.below(20_000))).await;
                }
            });
        }
        let mut incoming = self.world.network.listen(self.peer);
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    Some(_) = connections.join_next() => {}
                    Some(stream) = incoming.recv() => {
                        let (adversary, dice) = (self.clone(), Dice::new(dice.next()));
                        connections.spawn(async move { adversary.meet(stream, false, dice).await });
                    }
                    else => return,
                }
            }
        });
    }

    /// Does its worst on one connection, until that ends or it has had enough.
    async fn meet(&self, stream: Stream, dialled: bool, mut dice: Dice) {
        let enough = Duration::from_secs(20 + dice.below(LONGEST - 20));
        let worst = async {
            let key_pair = self.world.directory.key_pair(self.peer);
            let raw = Raw::connect(stream, dialled, key_pair, dice.seed()).await?;
            let other = self.world.directory.peer(&raw.session().remote);
            // Another of them has nothing to protect.
            let Some(victim) = other.filter(|other| self.world.directory.is_honest(*other)) else {
                return Ok(());
            };
            match self.world.plan.peers[self.peer].role {
                Role::Stranger(kind) => self.be_stranger(kind, raw, victim, dice).await,
                Role::Insider(kind) => self.be_insider(kind, raw, victim, dice).await,
                Role::Traitor(kind) => self.be_traitor(kind, raw, dice).await,
                Role::Honest => Ok(()),
            }
        };
        // How it ends is all the same.
        let _: Result<anyhow::Result<()>, _> = timeout(enough, worst).await;
    }

    /// The channel of the party on a connection, and our proof.
    fn membership(&self, session: &Session) -> ([u8; 32], [u8; 32]) {
        let party = self.world.directory.party();
        (membership::channel_id(session, &party), membership::prove(session, &party))
    }
}

/// A node that is nobody's.
fn node(index: u64, dice: &mut Dice) -> Node {
    Node { index, size: dice.below(1_000), hash: dice.seed() }
}
