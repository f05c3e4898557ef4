//! What follows from a change: who has to go goes, what is not allowed any more stops, and it is remembered.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{
    Inner,
    events::{MembersEvent, Refusal},
    state::Stage,
};
use crate::{
    error::{CredentialFlaw, Error},
    party::Hub,
    store::credentials::Credential,
};

/// How often the clock is looked at, at least: it may be set, and the machine may sleep.
const LOOK: Duration = Duration::from_secs(60);

/// Ends what expires, and carries out what was changed where nobody could wait for it.
pub(super) async fn look_after(inner: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let Some(until) = inner.upgrade().map(|inner| inner.until_next_expiry()) else { return };
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep(until) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.expire();
        inner.settle_or_warn().await;
    }
}

impl Inner {
    fn until_next_expiry(&self) -> Duration {
        let now = (self.clock)();
        let state = self.state();
        let connected = state.all_connected().filter(|connected| !connected.has_ended());
        let chains = connected.filter_map(|connected| connected.chain.as_deref());
        let own = state.own.iter().filter(|_| !state.own_ended);
        let expiries = chains.chain(own).filter_map(|chain| chain.terms().expires);
        let next = expiries.map(|at| Duration::from_secs(at).saturating_sub(now)).min();
        next.map_or(LOOK, |next| next.min(LOOK))
    }

    //= CRED-58
    fn expire(&self) {
        let now = self.now();
        let mut state = self.state();
        let mut expired = Vec::new();
        for connected in state.all_connected() {
            if *connected.stage.borrow() == Stage::Member
                && let Some(terms) = connected.chain.as_deref().map(|chain| chain.terms())
                && let Some(at) = terms.expires.filter(|_| terms.is_expired(now))
            {
                let why = Refusal::Flaw(CredentialFlaw::Expired(at));
                connected.stage.send_replace(Stage::Ended(why.clone()));
                self.tell(MembersEvent::Refused { peer: connected.peer.remote_public_key(), why });
                expired.push((connected.peer.clone(), None));
            }
        }
        state.to_dismiss.extend(expired);
        if !state.own_ended && state.own.as_ref().is_some_and(|own| own.terms().is_expired(now)) {
            state.own_ended = true;
            self.tell(MembersEvent::OwnExpired);
        }
    }

    /// Carries out what has changed. It goes on if the caller stops waiting.
    ///
    /// # Errors
    /// [`Error::Storage`]; everything else has taken effect then.
    pub(super) async fn settle(self: &Arc<Self>) -> Result<(), Error> {
        let inner = self.clone();
        tokio::spawn(async move { inner.settle_now().await }).await.unwrap_or(Err(Error::Closed))
    }

    /// As [`settle`](Self::settle), where there is nobody to hand the error to.
    pub(super) async fn settle_or_warn(self: &Arc<Self>) {
        if let Err(error) = self.settle().await {
            tracing::warn!(%error, "what is known of the members is not saved");
            if let Error::Storage(error) = error {
                self.tell(MembersEvent::NotSaved(error));
            }
        }
    }

    //= CRED-60, CRED-61
    async fn settle_now(&self) -> Result<(), Error> {
        let _settling = self.settling.lock().await;
        let ((), saved) = tokio::join!(self.carry_out(), self.save());
        saved
    }

    async fn carry_out(&self) {
        let (to_dismiss, feeds, peers, hubs) = {
            let mut state = self.state();
            let mut hubs: Vec<Arc<Hub>> = Vec::new();
            for hub in state.all_connected().filter_map(|connected| connected.peer.hub()) {
                if !hubs.iter().any(|known| Arc::ptr_eq(known, &hub)) {
                    hubs.push(hub);
                }
            }
            (
                std::mem::take(&mut state.to_dismiss),
                std::mem::take(&mut state.feeds_to_reevaluate),
                std::mem::take(&mut state.peers_to_reevaluate),
                hubs,
            )
        };
        //= protocol-spec/11-credentials.md#removal
        let dismissals = join_all(to_dismiss.iter().map(|(peer, revocation)| async move {
            if let Some(revocation) = revocation {
                peer.tell(Self::notice(revocation)).await;
            }
            peer.dismiss().await;
        }));
        let feeds = &feeds;
        let feeds = join_all(hubs.iter().map(|hub| async move {
            for feed in feeds {
                hub.reevaluate(None, Some(*feed)).await;
            }
        }));
        let peers = join_all(peers.iter().map(|peer| async move {
            if let Some(hub) = peer.hub() {
                hub.reevaluate(Some(peer.remote_public_key()), None).await;
            }
        }));
        tokio::join!(dismissals, feeds, peers);
    }

    async fn save(&self) -> Result<(), Error> {
        let changes = {
            let mut state = self.state();
            let mut changes = std::mem::take(&mut state.unsaved);
            if std::mem::take(&mut state.set_changed) {
                // What has lost its place.
                let is_kept = |credential: &Credential| match credential {
                    Credential::Revocation(id) => state.set.revocation(id).is_some(),
                    Credential::Member(id) => state.set.has_member(id),
                    Credential::Own | Credential::Word(_) => true,
                };
                changes.retain(|credential, value| value.is_none() || is_kept(credential));
                let lost = state.saved.iter().filter(|credential| !is_kept(credential));
                changes.extend(lost.map(|credential| (*credential, None)));
            }
            changes
        };
        if changes.is_empty() {
            return Ok(());
        }
        let all = changes.iter().map(|(credential, value)| (*credential, value.clone())).collect();
        let written = self.store.change_credentials(&self.discovery_key, all).await;
        let mut state = self.state();
        match written {
            Ok(()) => {
                for (credential, value) in changes {
                    match (credential, value) {
                        (Credential::Own | Credential::Word(_), _) => {}
                        (credential, Some(_)) => drop(state.saved.insert(credential)),
                        (credential, None) => drop(state.saved.remove(&credential)),
                    }
                }
                Ok(())
            }
            Err(error) => {
                // With the next change, unless that is about the same.
                state.set_changed = true;
                for (credential, value) in changes {
                    if value.is_some() {
                        state.unsaved.entry(credential).or_insert(value);
                    }
                }
                Err(error)
            }
        }
    }
}
