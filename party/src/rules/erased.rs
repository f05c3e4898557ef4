//! [`Rules`] as a trait object: users write `async fn`, connections hold any rules.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{Decision, Question, Result, Rules};
use crate::{
    feed::Feed,
    key::DiscoveryKey,
    peer::{Introduced, Message, Peer},
};

pub(crate) trait ErasedRules: Send + Sync + 'static {
    fn vet<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>>;
    fn ready<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>>;
    fn handshake<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>>;
    fn introduce_feeds<'a>(
        &'a self,
        peer: &'a Peer,
        feeds: Vec<Introduced>,
    ) -> BoxFuture<'a, Result<Vec<Introduced>>>;
    fn find_feed<'a>(&'a self, peer: &'a Peer, key: &'a DiscoveryKey) -> BoxFuture<'a, Result<Option<Feed>>>;
    fn request<'a>(&'a self, peer: &'a Peer, message: Message) -> BoxFuture<'a, Result<Message>>;
    fn ephemeral<'a>(&'a self, peer: &'a Peer, message: Message) -> BoxFuture<'a, Result<()>>;
    fn decide(&self, question: &Question<'_>) -> Decision;
    fn admit(&self, peer: &Peer) -> Decision;
}

/// Asks for a decision. Rules that panic deny.
pub(crate) fn decide(rules: &dyn ErasedRules, question: &Question<'_>) -> Decision {
    catch_unwind(AssertUnwindSafe(|| rules.decide(question)))
        .unwrap_or_else(|_| Decision::deny("panic", "the rule that was to decide has panicked"))
}

/// Asks whether a peer may be here. Rules that panic deny.
pub(crate) fn admit(rules: &dyn ErasedRules, peer: &Peer) -> Decision {
    catch_unwind(AssertUnwindSafe(|| rules.admit(peer)))
        .unwrap_or_else(|_| Decision::deny("panic", "the rule that was to decide has panicked"))
}

impl<R: Rules> ErasedRules for R {
    fn vet<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>> {
        Rules::vet(self, peer).boxed()
    }

    fn ready<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>> {
        Rules::ready(self, peer).boxed()
    }

    fn handshake<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>> {
        Rules::handshake(self, peer).boxed()
    }

    fn introduce_feeds<'a>(
        &'a self,
        peer: &'a Peer,
        feeds: Vec<Introduced>,
    ) -> BoxFuture<'a, Result<Vec<Introduced>>> {
        Rules::introduce_labelled(self, peer, feeds).boxed()
    }

    fn find_feed<'a>(&'a self, peer: &'a Peer, key: &'a DiscoveryKey) -> BoxFuture<'a, Result<Option<Feed>>> {
        Rules::find_feed(self, peer, key).boxed()
    }

    fn request<'a>(&'a self, peer: &'a Peer, message: Message) -> BoxFuture<'a, Result<Message>> {
        Rules::request(self, peer, message).boxed()
    }

    fn ephemeral<'a>(&'a self, peer: &'a Peer, message: Message) -> BoxFuture<'a, Result<()>> {
        Rules::ephemeral(self, peer, message).boxed()
    }

    fn decide(&self, question: &Question<'_>) -> Decision {
        Rules::decide(self, question)
    }

    fn admit(&self, peer: &Peer) -> Decision {
        Rules::admit(self, peer)
    }
}
