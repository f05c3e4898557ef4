//! Feeds deleted.

use super::{
    FeedEvent, Store, finish,
    list::decode,
    open_feeds::Holding,
    record::{self, Origin},
    secrets::Secret,
};
use crate::{
    error::Error,
    feed::storage::{Span, Write},
    key::DiscoveryKey,
};

impl Store {
    /// Deletes a feed: its blocks and tree, its records, its name and, if it had one of its own, its secret.
    /// Returns whether it was here. It is gone altogether or not at all, wherever the process ends.
    ///
    /// Handles that are held fail from then on with [`ApiMisuse::Purged`](crate::error::ApiMisuse::Purged), and
    /// connections stop replicating it; [snapshots](crate::feed::Feed::snapshot) go on as they are. A feed of
    /// others can be added again. One that was written here and is made again under its name has the same key
    /// and begins anew, so for peers who have the old one it has forked.
    ///
    /// # Errors
    /// [`Error::Storage`]; the feed is as it was then.
    pub async fn purge(&self, discovery_key: &DiscoveryKey) -> Result<bool, Error> {
        let opening = self.inner.start_opening().await?;
        let Some(found) = self.inner.storage.read(vec![record::feed(discovery_key)]).await?.pop().flatten()
        else {
            return Ok(false);
        };
        let (feed, discovery_key) = (decode(&found)?, *discovery_key);
        let mut writes = vec![Write::Delete(record::feed(&discovery_key))];
        writes.extend(feed.name.as_ref().map(|name| Write::Delete(record::name(&feed.namespace, name))));
        let secret = (feed.origin == Origin::Seed).then_some(Secret::Feed(discovery_key));
        writes.extend(secret.and_then(|secret| self.inner.secrets.delete(secret)));
        let inner = self.inner.clone();
        // Once it is begun, others get to the store when it is done.
        finish(async move {
            let _opening = opening;
            match inner.open.find(&discovery_key) {
                Holding::Held(held) => held.purge(writes).await?,
                // Comes after the commit that the last handle may have left behind.
                Holding::Leaving | Holding::Closed => {
                    writes.push(Write::Clear(Span::Feed(feed.slot)));
                    inner.storage.commit(writes).await?;
                }
            }
            inner.open.remove(&discovery_key);
            inner.watchers.tell(FeedEvent::Removed(feed.entry()));
            if let Some(secret) = secret
                && let Err(error) = inner.secrets.forget(secret).await
            {
                tracing::warn!(%error, feed = %discovery_key, "the secret of a purged feed is left behind");
            }
            Ok(true)
        })
        .await
    }
}
