//! How members tell each other of memberships and revocations.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    Inner,
    events::{MembersEvent, Refusal},
    state::{Pending, Stage, State},
};
use crate::{
    credentials::{CheckedChain, Inserted, Membership, Revocation, SYNC, SyncMessage, VerifiedRevocation},
    error::{CredentialFlaw, Error, PeerMisbehaved},
    hash::Hash,
    peer::{Message, Peer},
    random,
    rules::{Denied, Result},
    store::credentials::Credential,
};

/// Rounds of comparing before the app's rules are asked, in which most peers learn all that there is.
const FIRST_ROUNDS: usize = 4;
/// Items verified before other tasks get a turn.
const VERIFIED_AT_ONCE: usize = 8;
/// Attempts to tell a peer something that it fails to take, before that waits for the next occasion.
const ATTEMPTS: u32 = 4;

impl Inner {
    /// What a removed peer is told.
    pub(super) fn notice(revocation: &Revocation) -> Message {
        let items = SyncMessage::Items { revocations: vec![revocation.clone()], memberships: Vec::new() };
        Message::new(SYNC, items.encode())
    }

    /// The revocation that ends what the peer has shown.
    pub(super) fn revocation_of(&self, peer: &Peer) -> Option<Revocation> {
        let state = self.state();
        let chain = state.connected(peer)?.chain.as_ref()?;
        Some(state.set.revoked_by(chain)?.revocation().clone())
    }

    /// A peer asks, or tells.
    //= CRED-64, CRED-67, CRED-68, CRED-71, CRED-73
    pub(super) async fn answer_sync(self: &Arc<Self>, peer: &Peer, value: &Bytes) -> Result<Message> {
        self.charge(peer)?;
        let message = match SyncMessage::decode(value, &self.limits) {
            Ok(message) => message,
            Err(error) => {
                self.admitted(peer).await?;
                return Err(self.misbehaved(peer, PeerMisbehaved::Sync(error)).await);
            }
        };
        // Who doesn't let us in may say why.
        if !self.ends_us(&message) {
            self.admitted(peer).await?;
        }
        let answer = match message {
            SyncMessage::Items { revocations, memberships } => {
                if let Err(flaw) = self.learn(revocations, memberships, Some(peer)).await {
                    return Err(self.misbehaved(peer, flaw).await);
                }
                None
            }
            SyncMessage::Have { .. } => {
                return Err(self.misbehaved(peer, PeerMisbehaved::UnexpectedMessage("Have")).await);
            }
            asked => match self.state().set.handle(&asked) {
                Ok(handled) => handled.replies.into_iter().next(),
                Err(flaw) => return Err(flaw.into()),
            },
        };
        Ok(Message::new(SYNC, answer.map(|answer| answer.encode()).unwrap_or_default()))
    }

    /// Whether it is one revocation, and ends our own membership.
    fn ends_us(&self, message: &SyncMessage) -> bool {
        let SyncMessage::Items { revocations, memberships } = message else { return false };
        let ([revocation], []) = (&revocations[..], &memberships[..]) else { return false };
        let Some(own) = self.state().own.clone() else { return false };
        revocation.verify(&self.party).is_ok_and(|revocation| revocation.ends(&own))
    }

    async fn misbehaved(self: &Arc<Self>, peer: &Peer, flaw: PeerMisbehaved) -> Denied {
        let refusal = Refusal::Misbehaved(flaw);
        self.end(peer, refusal.clone());
        self.state().to_dismiss.push((peer.clone(), None));
        self.settle_or_warn().await;
        refusal.into()
    }

    /// Begins to compare with a peer that has just come. One of the two does, so that nothing is told twice.
    //= CRED-65
    pub(super) async fn begin_to_compare(self: &Arc<Self>, peer: &Peer) {
        if self.me.public() > peer.remote_public_key() {
            return;
        }
        let rounds = FIRST_ROUNDS.min(self.limits.max_sync_rounds);
        let compared = self.compare(peer, rounds, false);
        // Together with the exchange, this must leave the rest of `vet` its time.
        let compared = tokio::time::timeout(self.limits.membership_timeout / 2, compared).await;
        if !matches!(compared, Ok(Ok(true))) {
            let mut state = self.state();
            if let Some(connected) = state.connected_mut(peer) {
                connected.pending.compare = true;
            }
            self.talk_to_all(&mut state);
        }
    }

    /// Compares what we know with what the peer does. Returns whether nothing is left to tell.
    //= CRED-66
    async fn compare(
        self: &Arc<Self>,
        peer: &Peer,
        rounds: usize,
        paced: bool,
    ) -> std::result::Result<bool, Error> {
        for round in 0..rounds {
            if paced && round > 0 {
                tokio::time::sleep(self.limits.sync_interval).await;
            }
            //= CRED-39
            let salt = random::bytes();
            let summary = self.state().set.summary(salt);
            let have = match self.ask(peer, &summary).await? {
                None => return Ok(true),
                Some(have @ SyncMessage::Have { salt: theirs, .. }) if theirs == salt => have,
                Some(_) => return Err(self.wrong_answer(peer).await),
            };
            let handled = self.state().set.handle(&have)?;
            let mut has_moved = false;
            for reply in handled.replies {
                let is_want = matches!(reply, SyncMessage::Want { .. });
                match self.ask(peer, &reply).await? {
                    None => has_moved |= !is_want,
                    Some(SyncMessage::Items { revocations, memberships }) if is_want => {
                        match self.learn(revocations, memberships, Some(peer)).await {
                            Ok(new) => has_moved |= new > 0,
                            Err(flaw) => {
                                drop(self.misbehaved(peer, flaw.clone()).await);
                                return Err(flaw.into());
                            }
                        }
                    }
                    Some(_) => return Err(self.wrong_answer(peer).await),
                }
            }
            if !has_moved {
                // We keep different things, and can't help each other.
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn wrong_answer(self: &Arc<Self>, peer: &Peer) -> Error {
        let flaw = PeerMisbehaved::UnexpectedMessage("answer about credentials");
        drop(self.misbehaved(peer, flaw.clone()).await);
        flaw.into()
    }

    async fn ask(
        self: &Arc<Self>,
        peer: &Peer,
        message: &SyncMessage,
    ) -> std::result::Result<Option<SyncMessage>, Error> {
        let answer = peer.request_of_any_kind(SYNC, message.encode()).await?;
        if answer.kind != SYNC {
            return Err(self.wrong_answer(peer).await);
        }
        if answer.value.is_empty() {
            return Ok(None);
        }
        match SyncMessage::decode(&answer.value, &self.limits) {
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                drop(self.misbehaved(peer, PeerMisbehaved::Sync(error)).await);
                Err(error.into())
            }
        }
    }

    /// Verifies what is not known and takes it in. Returns how much of it was new.
    pub(super) async fn learn(
        self: &Arc<Self>,
        revocations: Vec<Revocation>,
        memberships: Vec<Membership>,
        from: Option<&Peer>,
    ) -> std::result::Result<usize, PeerMisbehaved> {
        let (mut chains, mut ends, mut flaw) = (Vec::new(), Vec::new(), None::<CredentialFlaw>);
        let (revocations, memberships) = {
            let state = self.state();
            let revocations = revocations.into_iter().filter(|it| !state.set.knows_revocation(it));
            let memberships = memberships.into_iter().filter(|it| !state.set.knows_member(it));
            (revocations.collect::<Vec<_>>(), memberships.collect::<Vec<_>>())
        };
        for (n, revocation) in revocations.iter().enumerate() {
            if n % VERIFIED_AT_ONCE == VERIFIED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match revocation.verify(&self.party) {
                Ok(verified) => ends.push(verified),
                Err(error) => flaw = Some(flaw.unwrap_or(error)),
            }
            if flaw.is_some() {
                break;
            }
        }
        for (n, membership) in memberships.iter().enumerate() {
            if flaw.is_some() {
                break;
            }
            if n % VERIFIED_AT_ONCE == VERIFIED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match membership.check(&self.party) {
                Ok(chain) => chains.push(chain),
                Err(error) => flaw = Some(error),
            }
        }
        // What came before the flaw holds.
        let new = {
            let mut state = self.state();
            let mut new = 0;
            for chain in chains {
                new += usize::from(self.insert_member(&mut state, chain, from));
            }
            new + self.insert_revocations(&mut state, ends, from)
        };
        self.settle_or_warn().await;
        flaw.map_or(Ok(new), |flaw| Err(flaw.into()))
    }

    /// Returns whether it is new and kept.
    pub(super) fn insert_member(
        self: &Arc<Self>,
        state: &mut State,
        chain: CheckedChain,
        from: Option<&Peer>,
    ) -> bool {
        let (id, bytes) = (*chain.id().as_bytes(), chain.membership().encode());
        let inserted = state.set.insert_member(chain.clone());
        state.set_changed |= inserted != Ok(Inserted::Known);
        if inserted != Ok(Inserted::New) {
            return false;
        }
        state.unsaved.insert(Credential::Member(id), Some(bytes.into()));
        self.tell(MembersEvent::Added(chain.clone()));
        if let Some(revocation) = state.set.revoked_by(&chain) {
            let revocation = Box::new(revocation.clone());
            state.removed.insert(chain.id());
            self.tell(MembersEvent::Removed { chain, revocation });
        }
        self.spread(state, &[id], from);
        true
    }

    /// Returns how many are new and kept.
    pub(super) fn insert_revocations(
        self: &Arc<Self>,
        state: &mut State,
        revocations: Vec<VerifiedRevocation>,
        from: Option<&Peer>,
    ) -> usize {
        let mut new = Vec::new();
        for revocation in revocations {
            let (id, bytes) = (*revocation.id(), revocation.revocation().encode());
            let cut: Vec<_> = revocation.cut_offs().iter().map(|cut_off| cut_off.feed).collect();
            let inserted = state.set.insert(revocation);
            state.set_changed |= inserted != Ok(Inserted::Known);
            if inserted == Ok(Inserted::New) {
                state.unsaved.insert(Credential::Revocation(id), Some(bytes.into()));
                let known = cut.into_iter().filter(|feed| state.words.get(feed).is_some());
                let known: Vec<_> = known.collect();
                state.feeds_to_reevaluate.extend(known);
                new.push(id);
            }
        }
        if !new.is_empty() {
            self.apply_revocations(state);
            self.tell_of_removed(state);
            self.spread(state, &new, from);
        }
        new.len()
    }

    /// Ends what is shown by whom it was taken from. Nothing is decided for them from here on.
    fn apply_revocations(&self, state: &mut State) {
        let mut ended = Vec::new();
        for connected in state.all_connected() {
            if !connected.has_ended()
                && let Some(chain) = &connected.chain
                && let Some(revocation) = state.set.revoked_by(chain)
            {
                ended.push((connected.peer.clone(), revocation.clone()));
            }
        }
        for (peer, revocation) in ended {
            let why = Refusal::Revoked { by: revocation.signer() };
            let was_member = state.connected_mut(&peer).is_some_and(|connected| {
                connected.stage.send_replace(Stage::Ended(why.clone())) == Stage::Member
            });
            // Of the others their own exchange tells.
            if was_member {
                self.tell(MembersEvent::Refused { peer: peer.remote_public_key(), why });
                state.to_dismiss.push((peer, Some(revocation.revocation().clone())));
            }
        }
        if let Some(own) = &state.own
            && !state.own_ended
            && let Some(revocation) = state.set.revoked_by(own)
        {
            self.tell(MembersEvent::OwnRemoved(Box::new(revocation.clone())));
            state.own_ended = true;
        }
    }

    fn tell_of_removed(&self, state: &mut State) {
        let mut removed = BTreeSet::new();
        for chain in state.set.removed() {
            removed.insert(chain.id());
            if !state.removed.contains(&chain.id())
                && let Some(revocation) = state.set.revoked_by(chain)
            {
                let (chain, revocation) = (chain.clone(), Box::new(revocation.clone()));
                self.tell(MembersEvent::Removed { chain, revocation });
            }
        }
        // Without those that have lost their place.
        state.removed = removed;
    }

    /// Has all members told who are connected, but the one from whom it comes.
    fn spread(self: &Arc<Self>, state: &mut State, ids: &[Hash], from: Option<&Peer>) {
        let most = self.limits.max_sync_ids;
        for connected in state.all_connected_mut() {
            if from == Some(&connected.peer) || connected.has_ended() {
                continue;
            }
            let pending = &mut connected.pending;
            if pending.ids.len() + ids.len() > most {
                *pending = Pending { ids: Vec::new(), compare: true };
            } else {
                pending.ids.extend_from_slice(ids);
            }
        }
        self.talk_to_all(state);
    }

    /// Begins to talk to all members for whom something is pending.
    fn talk_to_all(self: &Arc<Self>, state: &mut State) {
        for connected in state.all_connected_mut() {
            if !connected.pending.is_nothing() && !connected.is_talking && !connected.has_ended() {
                connected.is_talking = true;
                tokio::spawn(self.clone().talk(connected.peer.clone()));
            }
        }
    }

    /// Tells a member what is pending for it, until nothing is or it is gone.
    async fn talk(self: Arc<Self>, peer: Peer) {
        let talking = async {
            if self.admitted(&peer).await.is_ok() {
                self.tell_pending(&peer).await;
            }
        };
        tokio::select! {
            () = talking => {}
            () = peer.closed() => {}
        }
    }

    async fn tell_pending(self: &Arc<Self>, peer: &Peer) {
        let mut failures = 0;
        while let Some(pending) = self.take_pending(peer, failures >= ATTEMPTS) {
            let told = match pending {
                Pending { compare: false, ids } => self.push(peer, &ids).await,
                Pending { compare: true, .. } => Ok(false),
            };
            let told = match told {
                Ok(false) => self.compare(peer, self.limits.max_sync_rounds, true).await,
                other => other,
            };
            match told {
                Ok(_) => failures = 0,
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::debug!(%error, "a member does not take what it is told about credentials");
                    failures += 1;
                    if let Some(connected) = self.state().connected_mut(peer) {
                        connected.pending.compare = true;
                    }
                }
            }
            // What comes up meanwhile goes together.
            tokio::time::sleep(self.limits.sync_interval * (1 << failures)).await;
        }
    }

    /// What a member is to be told now. With `None` nobody talks to it any more.
    fn take_pending(&self, peer: &Peer, is_hopeless: bool) -> Option<Pending> {
        let mut state = self.state();
        let connected = state.connected_mut(peer)?;
        if is_hopeless || connected.has_ended() || connected.pending.is_nothing() {
            connected.is_talking = false;
            return None;
        }
        Some(std::mem::take(&mut connected.pending))
    }

    /// Tells of these. Returns whether all fitted in.
    async fn push(self: &Arc<Self>, peer: &Peer, ids: &[Hash]) -> std::result::Result<bool, Error> {
        let (items, count) = {
            let state = self.state();
            let items = state.set.items(ids.iter());
            let count = match &items {
                Some(SyncMessage::Items { revocations, memberships }) => {
                    revocations.len() + memberships.len()
                }
                _ => 0,
            };
            (items, count)
        };
        if let Some(items) = items
            && self.ask(peer, &items).await?.is_some()
        {
            return Err(self.wrong_answer(peer).await);
        }
        Ok(count == ids.len())
    }
}
