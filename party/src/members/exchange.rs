//! How two peers show each other their memberships.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Inner,
    events::{MembersEvent, Refusal},
    state::Stage,
};
use crate::{
    credentials::{CheckedChain, Membership, Revocation, SHOW},
    error::Error,
    peer::{Admission, Message, Peer},
    rules::{Denied, Result},
};

impl Inner {
    /// Shows our membership and waits until the peer has shown its own. It is a member then.
    //= CRED-44, CRED-48
    pub(super) async fn exchange(self: &Arc<Self>, peer: &Peer) -> Result<()> {
        if peer.admission() == Admission::Open {
            return Err(Refusal::OpenMode.into());
        }
        let mut stage = self.state().connect(peer, &self.limits, (self.clock)());
        let both = async {
            let theirs = async {
                let stage = stage.wait_for(|stage| *stage != Stage::Vetting).await;
                match stage.as_deref() {
                    Ok(Stage::Ended(refusal)) => Err(refusal.clone()),
                    Ok(_) => Ok(()),
                    // Another has come on the same connection.
                    Err(_) => Err(Refusal::TooSlow),
                }
            };
            tokio::try_join!(self.show(peer), theirs).map(drop)
        };
        let shown = tokio::time::timeout(self.limits.membership_timeout, both).await;
        match shown.unwrap_or(Err(Refusal::TooSlow)).and_then(|()| self.let_in(peer)) {
            Ok(chain) => {
                let (peer, chain) = (peer.remote_public_key(), CheckedChain::clone(&chain));
                self.tell(MembersEvent::Admitted { peer, chain });
                Ok(())
            }
            Err(refusal) => {
                self.end(peer, refusal.clone());
                //= protocol-spec/11-credentials.md#removal
                if let Refusal::Revoked { .. } = refusal
                    && let Some(revocation) = self.revocation_of(peer)
                {
                    peer.tell(Self::notice(&revocation)).await;
                }
                Err(refusal.into())
            }
        }
    }

    /// Shows our membership, or that we have none, and waits for the answer.
    pub(super) async fn show(&self, peer: &Peer) -> std::result::Result<(), Refusal> {
        let own = self.state().own.as_ref().map(|own| own.membership().encode());
        match peer.request_of_any_kind(SHOW, own.unwrap_or_default()).await {
            Ok(answer) if answer.kind == SHOW && answer.value.is_empty() => Ok(()),
            Err(Error::Timeout) => Err(Refusal::TooSlow),
            _ => Err(Refusal::RefusesUs),
        }
    }

    /// The peer shows a membership: at the beginning, or another one later.
    //= CRED-50, CRED-51
    pub(super) async fn answer_show(self: &Arc<Self>, peer: &Peer, value: &Bytes) -> Result<Message> {
        self.charge(peer)?;
        // Signatures are verified while nobody waits.
        let taken = match self.verify(peer, value) {
            Ok(chain) => self.take_shown(peer, chain),
            Err(refusal) => Err((refusal, None)),
        };
        // What follows from it keeps nobody waiting: somebody else may be slow to go.
        self.wake.notify_one();
        match taken {
            Ok(()) => Ok(Message::new(SHOW, Bytes::new())),
            Err((refusal, revocation)) => {
                //= protocol-spec/11-credentials.md#removal
                if let Some(revocation) = revocation {
                    // Before the answer, upon which it may close the channel.
                    peer.tell(Self::notice(&revocation)).await;
                }
                self.refuse_shown(peer, &refusal);
                Err(refusal.into())
            }
        }
    }

    //= CRED-45
    fn verify(&self, peer: &Peer, value: &Bytes) -> std::result::Result<CheckedChain, Refusal> {
        if value.is_empty() {
            return Err(Refusal::NoMembership);
        }
        let membership = Membership::decode(value, &self.limits).map_err(Refusal::Malformed)?;
        let verified = membership.verify_for(&self.party, &peer.remote_public_key(), self.now())?;
        Ok(verified.into_chain())
    }

    /// What it has shown holds, unless it was revoked.
    //= CRED-52
    fn take_shown(
        self: &Arc<Self>,
        peer: &Peer,
        chain: CheckedChain,
    ) -> std::result::Result<(), (Refusal, Option<Box<Revocation>>)> {
        let mut state = self.state();
        if let Some(revocation) = state.set.revoked_by(&chain) {
            let refusal = Refusal::Revoked { by: revocation.signer() };
            return Err((refusal, Some(Box::new(revocation.revocation().clone()))));
        }
        let Some(connected) = state.connected_mut(peer) else { return Err((Refusal::TooSlow, None)) };
        let stage = connected.stage.borrow().clone();
        if let Stage::Ended(refusal) = stage {
            return Err((refusal, None));
        }
        connected.chain = Some(Arc::new(chain.clone()));
        if stage == Stage::Vetting {
            connected.stage.send_replace(Stage::Shown);
        } else {
            // It may allow more than the one before, or less.
            state.peers_to_reevaluate.push(peer.clone());
        }
        self.insert_member(&mut state, chain, Some(peer));
        Ok(())
    }

    /// Ends the exchange, unless it has shown another one before, which is as good as it was.
    fn refuse_shown(&self, peer: &Peer, refusal: &Refusal) {
        if let Some(connected) = self.state().connected_mut(peer)
            && *connected.stage.borrow() == Stage::Vetting
        {
            connected.stage.send_replace(Stage::Ended(refusal.clone()));
        }
    }

    /// Both have shown what they are.
    fn let_in(&self, peer: &Peer) -> std::result::Result<Arc<CheckedChain>, Refusal> {
        let mut state = self.state();
        let Some(connected) = state.connected_mut(peer) else { return Err(Refusal::TooSlow) };
        if let Stage::Ended(refusal) = &*connected.stage.borrow() {
            return Err(refusal.clone());
        }
        let Some(chain) = connected.chain.clone() else { return Err(Refusal::NoMembership) };
        connected.stage.send_replace(Stage::Member);
        Ok(chain)
    }

    /// Nothing is for this peer, or comes from it, from now on.
    pub(super) fn end(&self, peer: &Peer, refusal: Refusal) {
        let mut state = self.state();
        if let Some(connected) = state.connected_mut(peer) {
            connected.stage.send_replace(Stage::Ended(refusal.clone()));
        }
        drop(state);
        self.tell(MembersEvent::Refused { peer: peer.remote_public_key(), why: refusal });
    }

    pub(super) fn refused_by_rules(&self, peer: &Peer) {
        self.end(peer, Refusal::Rules);
    }

    pub(super) fn is_member(&self, peer: &Peer) -> bool {
        self.state().connected(peer).is_some_and(|connected| *connected.stage.borrow() == Stage::Member)
    }

    /// Waits until it is known whether the peer is a member.
    pub(super) async fn admitted(&self, peer: &Peer) -> Result<()> {
        let stage = self.state().connected(peer).map(|connected| connected.stage.subscribe());
        let Some(mut stage) = stage else { return Err(Refusal::NoMembership.into()) };
        match stage.wait_for(|stage| matches!(stage, Stage::Member | Stage::Ended(_))).await.as_deref() {
            Ok(Stage::Member) => Ok(()),
            Ok(Stage::Ended(refusal)) => Err(refusal.clone().into()),
            _ => Err(Refusal::NoMembership.into()),
        }
    }

    /// Counts a request about credentials.
    pub(super) fn charge(&self, peer: &Peer) -> Result<()> {
        let now = (self.clock)();
        let mut state = self.state();
        let Some(connected) = state.connected_mut(peer) else { return Err(Refusal::NoMembership.into()) };
        if connected.bucket.take(&self.limits, now) {
            Ok(())
        } else {
            Err(Denied::because("it asks too much about credentials"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture as _;

    use super::*;
    use crate::{
        connection::{self, Connection},
        credentials::{Grant, Terms},
        key::{KeyPair, PartyKey, verifications},
        limits::Limits,
        members::Members,
        party::{Event, Party},
        rules::WholeStore,
        store::Store,
    };

    /// What the founder, an admin and a moderator have made of somebody, who is `n`.
    async fn member_by_three_links(n: u8) -> (KeyPair, Party) {
        let [founder, admin, moderator, me] = [1, 2, 3, n].map(|seed| KeyPair::from_seed(&[seed; 32]));
        let (store, limits) = (Store::memory(), Limits::default());
        let key = PartyKey::from_bytes(*founder.public().as_bytes());
        let grant = |to: &KeyPair, depth| Grant::to(to.public(), Terms::everything().delegable(depth));
        let chain = Membership::found(&founder, grant(&admin, 2), &limits).unwrap();
        let chain = chain.extend(&key, &admin, grant(&moderator, 1), &limits).unwrap();
        let chain = chain.extend(&key, &moderator, grant(&me, 0), &limits).unwrap();
        let members = Members::open(&store, &key, &me).await.unwrap();
        members.set_membership(chain).await.unwrap();
        (me, Party::new(key, members.rule(WholeStore::new(store))))
    }

    #[test]
    fn to_admit_who_shows_three_links_takes_at_most_five_verifications() {
        // All on this thread, whose verifications are counted.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (left, ours) = member_by_three_links(4).await;
            let (right, theirs) = member_by_three_links(5).await;
            let (before, ends) = (verifications(), connection::memory());
            let mut events = [ours.events(), theirs.events()];
            let _connections = tokio::try_join!(
                Connection::dial(ends.0, &left).join(&ours).into_future(),
                Connection::accept(ends.1, &right).join(&theirs).into_future(),
            )
            .unwrap();
            for events in &mut events {
                while !matches!(events.next().await, Some(Event::HandshakeDone(_))) {}
            }
            // Each of the two has admitted the other.
            assert_eq!(verifications() - before, 2 * 3);
        });
    }
}
