//! What a membership allows with a feed.

use std::sync::Arc;

use super::{
    Inner,
    state::{Stage, State},
};
use crate::{
    credentials::{CheckedChain, CutOff, Extent},
    key::{DiscoveryKey, FeedKey},
    peer::Peer,
    rules::{Action, Decision, Question, Released},
};

pub(super) const NAME: &str = "members";

impl Inner {
    /// Whether the peer may be here at all. Who has shown nothing yet may, to show it.
    pub(super) fn admit(&self, peer: &Peer) -> Decision {
        let state = self.state();
        let Some(connected) = state.connected(peer) else {
            return Decision::allow(NAME, "it may show its membership");
        };
        match &*connected.stage.borrow() {
            Stage::Vetting | Stage::Shown => Decision::allow(NAME, "it may show its membership"),
            Stage::Member => Decision::allow(NAME, "it has shown its membership"),
            Stage::Ended(refusal) => Decision::deny(NAME, refusal.to_string()),
        }
    }

    /// What the membership that the peer has shown says.
    pub(super) fn decide_for_peer(&self, question: &Question<'_>) -> Decision {
        let now = self.now();
        let mut state = self.state();
        let Some(connected) = state.connected(question.peer) else {
            return Decision::deny(NAME, "it has shown no membership");
        };
        match &*connected.stage.borrow() {
            Stage::Member => {}
            Stage::Vetting | Stage::Shown => {
                return Decision::deny(NAME, "it is still showing its membership");
            }
            Stage::Ended(refusal) => return Decision::deny(NAME, refusal.to_string()),
        }
        let Some(chain) = connected.chain.clone() else {
            return Decision::deny(NAME, "it has shown no membership");
        };
        let discovery_key = question.discovery_key();
        let decision = self.judge_in(
            &state,
            &chain,
            (&question.feed, &discovery_key),
            question.action,
            now,
            question.release,
        );
        let decision = match (&state.own, question.action) {
            // To ask for what others can't give us by our own terms is in vain.
            (Some(own), Action::Ask) if decision.is_allowed() => decision.and(reading(own, &discovery_key)),
            _ => decision,
        };
        match question.release {
            Some(Released { writable: false, .. })
                if question.action == Action::Accept
                    && decision.is_allowed()
                    && state.words.get(&discovery_key).is_none_or(|word| is_renewed(word, &chain)) =>
            {
                self.take_word(&mut state, discovery_key, &chain, decision)
            }
            _ => decision,
        }
    }

    /// What this chain allows now.
    pub(super) fn judge(&self, chain: &CheckedChain, feed: &FeedKey, action: Action) -> Decision {
        let now = self.now();
        self.judge_in(&self.state(), chain, (feed, &feed.discovery_key()), action, now, None)
    }

    /// The first who may bring a feed is the one on whose word it is taken.
    //= LIMIT-23
    fn take_word(
        &self,
        state: &mut State,
        feed: DiscoveryKey,
        chain: &Arc<CheckedChain>,
        decision: Decision,
    ) -> Decision {
        if state.words.set(feed, chain, &self.limits).is_err() {
            return Decision::deny(NAME, "it brings more feeds than are remembered as a member's");
        }
        state.unsaved_word(feed);
        self.wake.notify_one();
        decision
    }

    //= CRED-53, CRED-54, CRED-55, CRED-56, CRED-57
    fn judge_in(
        &self,
        state: &State,
        chain: &CheckedChain,
        (feed, discovery_key): (&FeedKey, &DiscoveryKey),
        action: Action,
        now: u64,
        release: Option<Released>,
    ) -> Decision {
        let deny = |why: &'static str| Decision::deny(NAME, why);
        if let Some(revocation) = state.set.revoked_by(chain) {
            return Decision::deny(NAME, format!("its membership was revoked by {}", revocation.signer()));
        }
        let terms = chain.terms();
        if terms.is_expired(now) {
            return deny("its membership has expired");
        }
        if !terms.covers_feed(discovery_key) {
            return deny("its membership is not about this feed");
        }
        match action {
            Action::Introduce | Action::Serve if !terms.may_read => {
                return deny("its membership does not let it read");
            }
            Action::Ask | Action::Accept if !terms.may_bring => {
                return deny("its membership does not let it bring anything");
            }
            Action::Introduce if terms.is_blind && !self.blind_may_know.contains(feed) => {
                return deny(
                    "its membership is blind, and this feed is not among those that the blind may know",
                );
            }
            _ => {}
        }
        let allowed = Decision::allow(NAME, "its membership allows it");
        let allowed = match action {
            // A key is told or not.
            Action::Introduce => allowed,
            _ => within(allowed, &terms.extent),
        };
        match state.cut_off(discovery_key) {
            Some(cut_off) if action != Action::Introduce => {
                //= protocol-spec/11-credentials.md#cut-offs
                if release.is_some_and(|release| release.fork > cut_off.fork) {
                    return deny(
                        "what is here of it is on a later fork than the cut-off of its removed writer",
                    );
                }
                let writer = "its writer was removed, and what comes before the cut-off stays good";
                let before = Decision::allow(NAME, writer);
                allowed.and(before.blocks(0..cut_off.length).up_to_fork(cut_off.fork))
            }
            _ => allowed,
        }
    }
}

/// Whether it is the same member's, by another chain.
fn is_renewed(word: &CheckedChain, chain: &CheckedChain) -> bool {
    word.holder() == chain.holder() && word.id() != chain.id()
}

/// What our own membership lets us read.
fn reading(own: &CheckedChain, feed: &DiscoveryKey) -> Decision {
    let terms = own.terms();
    if !terms.covers_feed(feed) {
        return Decision::deny(NAME, "our membership is not about this feed");
    }
    if !terms.may_read {
        return Decision::deny(NAME, "our membership does not let us read");
    }
    within(Decision::allow(NAME, "its membership allows it"), &terms.extent)
}

fn within(allowed: Decision, extent: &Extent) -> Decision {
    match extent {
        Extent::Whole => allowed,
        Extent::Range(range) => allowed.blocks(range.clone()),
        Extent::Newest(n) => allowed.newest(*n),
    }
}

impl State {
    /// Up to where a feed is good, if the member on whose word it is taken was removed.
    //= CRED-31
    pub(super) fn cut_off(&self, feed: &DiscoveryKey) -> Option<CutOff> {
        self.set.cut_off(feed, self.words.get(feed)?)
    }
}
