//! A feed whose blocks are values: text, JSON, or types of the app's.

use std::{fmt, ops::Range};

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};

use super::{AsFeed, Feed};
use crate::error::{ApiMisuse, Error};

/// How values are blocks.
///
/// ```
/// use bytes::Bytes;
/// use party::feed::Codec;
///
/// /// Numbers, as text.
/// struct Numbers;
///
/// impl Codec for Numbers {
///     type Item = u64;
///
///     fn encode(&self, item: &u64) -> Result<Bytes, String> {
///         Ok(item.to_string().into())
///     }
///
///     fn decode(&self, block: Bytes) -> Result<u64, String> {
///         let text = std::str::from_utf8(&block).map_err(|error| error.to_string())?;
///         text.parse().map_err(|_| format!("{text:?} is no number"))
///     }
/// }
/// ```
pub trait Codec: Send + Sync {
    /// The values.
    type Item;

    /// The block for a value.
    ///
    /// # Errors
    /// Why it has none, for people.
    fn encode(&self, item: &Self::Item) -> Result<Bytes, String>;

    /// The value of a block, which may come from somebody else and be anything.
    ///
    /// # Errors
    /// Why it has none, for people.
    fn decode(&self, block: Bytes) -> Result<Self::Item, String>;
}

/// Blocks as they are.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::feed::{Binary, Utf8};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// feed.view(Utf8).append(&"schön".to_owned()).await?;
/// assert_eq!(feed.view(Binary).get(0).await?, feed.get(0).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Binary;

impl Codec for Binary {
    type Item = Bytes;

    fn encode(&self, item: &Bytes) -> Result<Bytes, String> {
        Ok(item.clone())
    }

    fn decode(&self, block: Bytes) -> Result<Bytes, String> {
        Ok(block)
    }
}

/// Blocks that are text.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::{error::Error, feed::Utf8};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// let lines = feed.view(Utf8);
/// assert_eq!(lines.append(&"schön".to_owned()).await?, 0);
/// assert_eq!(lines.get(0).await?.as_deref(), Some("schön"));
///
/// feed.append([0xff].to_vec()).await?; // no text
/// assert!(matches!(lines.get(1).await, Err(Error::NotDecodable { index: 1, .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Codec for Utf8 {
    type Item = String;

    fn encode(&self, item: &String) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(item.as_bytes()))
    }

    fn decode(&self, block: Bytes) -> Result<String, String> {
        String::from_utf8(block.into()).map_err(|error| error.to_string())
    }
}

/// Blocks that are JSON: of any kind as `Json<serde_json::Value>`, or of a type of yours.
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use party::feed::Json;
///
/// #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
/// struct Message {
///     from: String,
///     text: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), party::error::Error> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// let chat = feed.view(Json::<Message>::new());
/// let hello = Message { from: "alice".into(), text: "Hello!".into() };
/// chat.append(&hello).await?;
/// assert_eq!(chat.get(0).await?, Some(hello));
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "json")]
pub struct Json<T>(std::marker::PhantomData<fn() -> T>);

#[cfg(feature = "json")]
impl<T> Json<T> {
    /// JSON of `T`.
    pub fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

#[cfg(feature = "json")]
impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "json")]
impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

#[cfg(feature = "json")]
impl<T> fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec for Json<T> {
    type Item = T;

    fn encode(&self, item: &T) -> Result<Bytes, String> {
        serde_json::to_vec(item).map(Bytes::from).map_err(|error| error.to_string())
    }

    fn decode(&self, block: Bytes) -> Result<T, String> {
        serde_json::from_slice(&block).map_err(|error| error.to_string())
    }
}

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
