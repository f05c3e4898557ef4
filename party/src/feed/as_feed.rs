//! What is built on a feed replicates as one.

use std::sync::Arc;

use super::Feed;

/// Something with a feed underneath: a [`Feed`] itself, or a data structure of yours on top of one. What
/// implements it can be handed to [`Peer::replicate`](crate::peer::Peer::replicate) as it is.
///
/// ```
/// use party::feed::{AsFeed, Feed};
///
/// struct Log {
///     entries: Feed,
/// }
///
/// impl AsFeed for Log {
///     fn as_feed(&self) -> &Feed {
///         &self.entries
///     }
/// }
/// ```
pub trait AsFeed: Send + Sync {
    /// The feed underneath.
    fn as_feed(&self) -> &Feed;
}

impl AsFeed for Feed {
    fn as_feed(&self) -> &Feed {
        self
    }
}

impl<T: AsFeed + ?Sized> AsFeed for &T {
    fn as_feed(&self) -> &Feed {
        (**self).as_feed()
    }
}

impl<T: AsFeed + ?Sized> AsFeed for Arc<T> {
    fn as_feed(&self) -> &Feed {
        (**self).as_feed()
    }
}
