//! [`Rules`] as a trait object: users write `async fn`, connections hold any rules.

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{Result, Rules};
use crate::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    peer::{Message, Peer},
};

pub(crate) trait ErasedRules: Send + Sync + 'static {
    fn ready<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>>;
    fn handshake<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>>;
    fn introduce_feeds<'a>(
        &'a self,
        peer: &'a Peer,
        keys: Vec<FeedKey>,
    ) -> BoxFuture<'a, Result<Vec<FeedKey>>>;
    fn find_feed<'a>(&'a self, peer: &'a Peer, key: &'a DiscoveryKey) -> BoxFuture<'a, Result<Option<Feed>>>;
    fn request<'a>(&'a self, peer: &'a Peer, message: Message) -> BoxFuture<'a, Result<Message>>;
    fn ephemeral<'a>(&'a self, peer: &'a Peer, message: Message) -> BoxFuture<'a, Result<()>>;
}

impl<R: Rules> ErasedRules for R {
    fn ready<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>> {
        Rules::ready(self, peer).boxed()
    }

    fn handshake<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<()>> {
        Rules::handshake(self, peer).boxed()
    }

    fn introduce_feeds<'a>(
        &'a self,
        peer: &'a Peer,
        keys: Vec<FeedKey>,
    ) -> BoxFuture<'a, Result<Vec<FeedKey>>> {
        Rules::introduce_feeds(self, peer, keys).boxed()
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
}
