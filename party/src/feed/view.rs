//! A feed whose blocks are values: text, JSON, or types of the app's.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};

use super::{AsFeed, Feed, codec::Codec};
use crate::error::{ApiMisuse, Error};

/// A feed whose blocks are read and written as values; from [`Feed::view`]. There may be several views of one feed.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::feed::Utf8;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// let lines = feed.view(Utf8);
/// lines.append_batch(&["first".to_owned(), "second".to_owned()]).await?;
/// assert_eq!(lines.get(1).await?.as_deref(), Some("second"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct View<C> {
    feed: Feed,
    codec: C,
}

impl Feed {
    /// The feed with blocks that are values.
    pub fn view<C: Codec>(&self, codec: C) -> View<C> {
        View { feed: self.clone(), codec }
    }
}

impl<C: Codec> View<C> {
    /// Adds a value and gives its index; see [`Feed::append`].
    ///
    /// # Errors
    /// [`ApiMisuse::NotEncodable`]; as [`Feed::append`].
    pub async fn append(&self, item: &C::Item) -> Result<u64, Error> {
        self.feed.append(self.encode(item)?).await
    }

    /// Adds values, all or none, and gives their indexes; see [`Feed::append_batch`].
    ///
    /// # Errors
    /// [`ApiMisuse::NotEncodable`]; as [`Feed::append_batch`].
    pub async fn append_batch(&self, items: &[C::Item]) -> Result<Range<u64>, Error> {
        let blocks = items.iter().map(|item| self.encode(item)).collect::<Result<_, _>>()?;
        self.feed.append_batch(blocks).await
    }

    /// Reads a value that is stored here; see [`Feed::get`].
    ///
    /// # Errors
    /// [`Error::NotDecodable`]; as [`Feed::get`].
    pub async fn get(&self, index: u64) -> Result<Option<C::Item>, Error> {
        let block = self.feed.get(index).await?;
        block.map(|block| self.decode(index, block)).transpose()
    }

    /// Reads a value, and waits for it if it is not stored here; see [`Feed::fetch`].
    ///
    /// # Errors
    /// [`Error::NotDecodable`]; as [`Feed::fetch`].
    pub async fn fetch(&self, index: u64) -> Result<C::Item, Error> {
        self.decode(index, self.feed.fetch(index).await?)
    }

    /// The values that are stored here now, with their indexes; see [`Feed::history`]. One that is not
    /// decodable is an error in its place, after which the others come.
    pub async fn history(
        &self,
        range: impl std::ops::RangeBounds<u64>,
    ) -> impl Stream<Item = Result<(u64, C::Item), Error>> {
        self.feed.history(range).await.map(|entry| {
            let (index, block) = entry?;
            Ok((index, self.decode(index, block)?))
        })
    }

    fn encode(&self, item: &C::Item) -> Result<Bytes, ApiMisuse> {
        self.codec.encode(item).map_err(|why| ApiMisuse::NotEncodable { why })
    }

    fn decode(&self, index: u64, block: Bytes) -> Result<C::Item, Error> {
        self.codec.decode(block).map_err(|why| Error::NotDecodable { index, why })
    }
}

impl<C: Send + Sync> AsFeed for View<C> {
    fn as_feed(&self) -> &Feed {
        &self.feed
    }
}
