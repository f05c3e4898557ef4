//! What the rules allow with a feed on a connection, in all the parties together that have released it.

use std::ops::Range;

use crate::{
    feed::{Feed, changes::Following},
    key::FeedKey,
    peer::{Peer, Replicate},
    rules::{Action, Decision, Extent, Quota, Released},
};

/// A member has released the feed.
pub(super) struct Release {
    /// The member's party hears what changes.
    _following: Following,
    how: Replicate,
    grants: Grants,
}

/// What the rules of one member allow with it.
struct Grants {
    serve: Decision,
    ask: Decision,
    accept: Decision,
}

impl Grants {
    fn ask(peer: &Peer, feed: &Feed) -> Self {
        let (key, info) = (feed.key(), feed.info());
        let release = Released { writable: info.writable, fork: info.fork };
        let decide = |action| peer.decide_on_release(&key, action, release);
        Self { serve: decide(Action::Serve), ask: decide(Action::Ask), accept: decide(Action::Accept) }
    }
}

impl Release {
    pub(super) fn new(peer: &Peer, feed: &Feed, how: Replicate, following: Following) -> Self {
        Self { _following: following, how, grants: Grants::ask(peer, feed) }
    }

    /// It is released again, in one way more.
    pub(super) fn widen(&mut self, how: Replicate) {
        self.how.download |= how.download;
        self.how.upload |= how.upload;
        self.how.follow_forks |= how.follow_forks;
        self.how.allow_push |= how.allow_push;
        self.how.push |= how.push;
    }

    /// Asks the rules again.
    pub(super) fn reevaluate(&mut self, peer: &Peer, feed: &Feed) {
        self.grants = Grants::ask(peer, feed);
    }

    /// What was decided on serving it.
    pub(super) fn serve(&self) -> &Decision {
        &self.grants.serve
    }

    /// Tells the log what is denied.
    pub(super) fn log(&self, peer: &Peer, feed: &FeedKey) {
        let Grants { serve, ask, accept } = &self.grants;
        for (action, decision) in [(Action::Serve, serve), (Action::Ask, ask), (Action::Accept, accept)] {
            if !decision.is_allowed() {
                log_refusal(peer, feed, action, decision);
            }
        }
    }
}

/// Tells the log of a refusal.
pub(super) fn log_refusal(peer: &Peer, feed: &FeedKey, action: Action, decision: &Decision) {
    tracing::info!(
        peer = %peer.remote_public_key(),
        feed = %feed.discovery_key(),
        %action,
        rule = decision.rule(),
        reason = decision.reason(),
        "refused by the rules"
    );
}

/// What all of them allow together.
#[derive(Clone, PartialEq)]
pub(super) struct Allowed {
    /// In which ways it is replicated.
    pub(super) how: Replicate,
    pub(super) serve: Scope,
    /// What may be asked for and accepted.
    pub(super) take: Scope,
    /// What may be accepted, asked for or not.
    pub(super) accept: Scope,
}

impl Default for Allowed {
    fn default() -> Self {
        let how = Replicate { upload: false, follow_forks: false, ..Replicate::sparsely() };
        Self { how, serve: Scope::default(), take: Scope::default(), accept: Scope::default() }
    }
}

impl Allowed {
    pub(super) fn of<'a>(releases: impl Iterator<Item = &'a Release>, metered: bool) -> Self {
        let mut all = Self::default();
        for Release { how, grants, .. } in releases {
            let holds =
                |decision: &Decision| decision.is_allowed() && !(metered && decision.extent().unmetered);
            let (serve, ask, accept) = (holds(&grants.serve), holds(&grants.ask), holds(&grants.accept));
            if serve && how.upload {
                all.serve.add(grants.serve.clone());
                all.how.upload = true;
                all.how.push |= how.push;
            }
            if accept {
                all.accept.add(grants.accept.clone());
                all.how.allow_push |= how.allow_push;
            }
            if ask && accept {
                all.take.add(grants.ask.clone().and(grants.accept.clone()));
                all.how.download |= how.download;
                // Which forks are allowed is known of the one that is here only.
                all.how.follow_forks |= how.follow_forks
                    && grants.ask.extent().max_fork.is_none()
                    && grants.accept.extent().max_fork.is_none();
            }
        }
        all
    }

    /// Whether something may have been allowed before that isn't any more.
    pub(super) fn may_be_less_than(&self, before: &Self) -> bool {
        let pairs =
            [(&self.serve, &before.serve), (&self.take, &before.take), (&self.accept, &before.accept)];
        pairs.iter().any(|(now, before)| now != before && !now.everything && !before.is_nothing())
    }

    /// Whether there is nothing that a channel would be for.
    pub(super) fn is_nothing(&self) -> bool {
        self.serve.is_nothing() && self.take.is_nothing() && self.accept.is_nothing()
    }
}

/// Which blocks are allowed: those of any of these decisions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scope {
    decisions: Vec<Decision>,
    /// Whether one of them allows everything, so that the others don't matter.
    everything: bool,
}

impl Scope {
    fn add(&mut self, decision: Decision) {
        self.everything |=
            *decision.extent() == Extent { unmetered: decision.extent().unmetered, ..Extent::default() };
        self.decisions.push(decision);
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.decisions.is_empty()
    }

    pub(super) fn is_everything(&self) -> bool {
        self.everything
    }

    /// The blocks, of a feed of this length, for which quotas have something left.
    pub(super) fn ranges(&self, length: u64) -> Vec<Range<u64>> {
        let affordable = self.decisions.iter().map(Decision::extent).filter(|extent| extent.is_affordable());
        affordable.map(|extent| extent.range(length)).collect()
    }

    /// Those for which no quota is needed.
    pub(super) fn free_ranges(&self, length: u64) -> Vec<Range<u64>> {
        let free = self.decisions.iter().map(Decision::extent).filter(|extent| extent.quotas.is_empty());
        free.map(|extent| extent.range(length)).collect()
    }

    /// Whether a block may be had, as far as can be told before its size is known.
    pub(super) fn permits(&self, index: u64, length: u64) -> bool {
        self.everything || self.covering(index, length).any(Extent::is_affordable)
    }

    /// Takes a block's bytes from the quotas. Returns which these are, `None` if the block is not allowed.
    pub(super) fn charge(&self, index: u64, length: u64, bytes: u64) -> Option<Vec<Quota>> {
        if self.everything {
            return Some(Vec::new());
        }
        self.covering(index, length).find(|extent| extent.charge(bytes)).map(|extent| extent.quotas.clone())
    }

    /// For the log: what was decided, if it isn't a plain yes.
    pub(super) fn first(&self) -> Option<&Decision> {
        self.decisions.first()
    }

    fn covering(&self, index: u64, length: u64) -> impl Iterator<Item = &Extent> {
        self.decisions
            .iter()
            .map(Decision::extent)
            .filter(move |extent| extent.range(length).contains(&index))
    }
}
