//! How values are written: as blocks, and as what apps say to each other.

use std::{fmt, marker::PhantomData};

use bytes::Bytes;

/// How values are blocks, or what apps say to each other.
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
pub struct Json<T>(PhantomData<fn() -> T>);

#[cfg(feature = "json")]
impl<T> Json<T> {
    /// JSON of `T`.
    pub const fn new() -> Self {
        Self(PhantomData)
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

/// Blocks that are protobuf, of a type that `prost` has generated or derived.
///
/// ```
/// use party::feed::{Codec as _, Protobuf};
///
/// let codec = Protobuf::<String>::new(); // google.protobuf.StringValue
/// let block = codec.encode(&"schön".to_owned())?;
/// assert_eq!(block, "\x0a\x06schön");
/// assert_eq!(codec.decode(block)?, "schön");
/// assert!(codec.decode("\x0a\x07schön".into()).is_err());
/// # Ok::<(), String>(())
/// ```
pub struct Protobuf<T>(PhantomData<fn() -> T>);

impl<T> Protobuf<T> {
    /// The protobuf of `T`.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Protobuf<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Protobuf<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Protobuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protobuf")
    }
}

impl<T: prost::Message + Default> Codec for Protobuf<T> {
    type Item = T;

    fn encode(&self, item: &T) -> Result<Bytes, String> {
        Ok(item.encode_to_vec().into())
    }

    fn decode(&self, block: Bytes) -> Result<T, String> {
        T::decode(block).map_err(|error| error.to_string())
    }
}
