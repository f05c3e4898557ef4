//! A feed, and the storage under it to look into.

use std::sync::Arc;

use bytes::Bytes;
use party::{
    error::Error,
    feed::{
        Feed, Identity, Ingested,
        memory::MemoryStorage,
        proof::Proof,
        storage::{Key, Slot, Storage as _},
    },
};

pub(crate) const SLOT: Slot = Slot(0);

pub(crate) struct Peer {
    pub(crate) feed: Feed,
    pub(crate) storage: Arc<MemoryStorage>,
}

impl Peer {
    pub(crate) async fn new(identity: Identity) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        Self { feed: Feed::create(storage.clone(), SLOT, identity).await.unwrap(), storage }
    }

    pub(crate) fn length(&self) -> u64 {
        self.feed.info().length
    }

    pub(crate) async fn node(&self, index: u64) -> Option<Bytes> {
        self.storage.read(vec![Key::Node(SLOT, index)]).await.unwrap().pop().unwrap()
    }

    pub(crate) async fn ingest(&self, proof: Proof) -> Result<Ingested, Error> {
        self.feed.ingest(vec![proof]).await.pop().unwrap()
    }

    /// Every node that the feed takes for stored when it asks for a block is stored.
    pub(crate) async fn check_missing_nodes(&self) {
        for block in 0..self.length() {
            let levels = self.feed.with_local(|local| local.missing_nodes(block));
            let index = (0..levels).fold(2 * block, |index, _| flat_tree::parent(index));
            assert!(self.node(index).await.is_some(), "block {block}: node {index} is not stored");
        }
    }
}
