//! Two peers that replicate one feed.

use bytes::Bytes;
use party::{
    connection::Connection,
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    party::Party,
    peer::{Peer, Replicate},
    rules::{self, Rules},
    store::{FeedOptions, Store},
};

use super::{meet, party_key};

/// Releases one feed, to be replicated in this way.
pub struct One(pub Feed, pub Replicate);

impl Rules for One {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        peer.replicate_as(&self.0, self.1).await?;
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(Some(&self.0).filter(|feed| feed.discovery_key() == *key).cloned())
    }
}

pub fn block(index: u64) -> Bytes {
    format!("block {index:6}").into()
}

pub async fn written(blocks: u64) -> Feed {
    let feed = Store::memory().create_feed("written", FeedOptions::default()).await.unwrap();
    feed.append_batch((0..blocks).map(block).collect()).await.unwrap();
    feed
}

pub async fn reader_of(writer: &Feed) -> Feed {
    Store::memory().feed(&writer.key()).await.unwrap()
}

pub fn party_of(feed: &Feed, how: Replicate) -> Party {
    Party::new(party_key(1), One(feed.clone(), how))
}

/// A connection over which `reader` gets what it asks for.
pub async fn sparsely(writer: &Feed, reader: &Feed) -> (Connection, Connection) {
    let how = Replicate::sparsely();
    meet(&party_of(reader, how), &party_of(writer, how)).await
}
