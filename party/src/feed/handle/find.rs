//! Byte offsets, found with the help of peers.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Feed;
use crate::{
    error::Error,
    feed::{
        Download,
        seek::{Located, Sought},
    },
};

/// Below a node of so many blocks no hash says where an offset is; either block does.
const PAIR: u64 = 2;

impl Feed {
    /// Finds the block that has the byte at `offset`, counted from the start of the feed, and how many bytes into the
    /// block that is. Where [`seek`](Self::seek) lacks the nodes of the tree that tell, this asks peers for
    /// them, which brings one or two blocks at most; an offset beyond the end is waited for. A wait without end is
    /// the caller's to limit; when this is dropped, nothing more is asked for.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
    /// # use party::key::KeyPair;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), party::error::Error> {
    /// # let identity = Identity::writer(KeyPair::generate());
    /// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
    /// let (found, appended) = tokio::join!(feed.find(7), async {
    ///     feed.append_batch(vec!["hello".into(), "world".into()]).await
    /// });
    /// assert_eq!((found?, appended?), ((1, 2), 0..2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it could not be read; [`ApiMisuse::Purged`](crate::error::ApiMisuse::Purged) if the feed is purged
    /// meanwhile.
    pub async fn find(&self, offset: u64) -> Result<(u64, u64), Error> {
        let mut changes = self.demands().subscribe_to_growth();
        let search = Search::begin(self);
        let mut pair: Option<(Range<u64>, Download)> = None;
        loop {
            self.check_purged()?;
            let length = self.info().length;
            let (blocks, inner) = match self.locate(offset).await? {
                Located::Block { index, offset } => return Ok((index, offset)),
                Located::Within { blocks, offset } => (blocks, offset),
                Located::Beyond => (length..length, 0),
            };
            let is_pair = !blocks.is_empty() && blocks.end - blocks.start <= PAIR;
            if !is_pair {
                search.look_for(offset, blocks.clone(), inner);
                pair = None;
            } else if pair.as_ref().is_none_or(|(other, _)| *other != blocks) {
                search.stop();
                pair = Some((blocks.clone(), self.download(blocks)));
            }
            changes.changed().await;
        }
    }

    /// The offsets that are looked for, for those who ask peers.
    pub fn sought(&self) -> Vec<Sought> {
        self.inner.searches.list().sought.values().cloned().collect()
    }
}

/// All that is looked for in a feed.
#[derive(Default)]
pub(super) struct Searches(Mutex<List>);

#[derive(Default)]
struct List {
    next: u64,
    sought: BTreeMap<u64, Sought>,
}

impl Searches {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One search; it ends when this is dropped.
struct Search<'a> {
    feed: &'a Feed,
    id: u64,
}

impl<'a> Search<'a> {
    fn begin(feed: &'a Feed) -> Self {
        let mut list = feed.inner.searches.list();
        let id = list.next;
        list.next = list.next.wrapping_add(1);
        Self { feed, id }
    }

    /// Has peers asked; `inner` bytes of `blocks` come before the offset.
    fn look_for(&self, bytes: u64, blocks: Range<u64>, inner: u64) {
        let info = self.feed.info();
        let usual = (info.byte_length / info.length.max(1)).max(1);
        let near = blocks.start.saturating_add(inner / usual).min(blocks.end.saturating_sub(1));
        let sought = Sought { id: self.id, bytes, padding: self.feed.padding() as u64, blocks, near };
        let before = self.feed.inner.searches.list().sought.insert(self.id, sought.clone());
        if before != Some(sought) {
            self.feed.stir();
        }
    }

    fn stop(&self) {
        if self.feed.inner.searches.list().sought.remove(&self.id).is_some() {
            self.feed.stir();
        }
    }
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}
