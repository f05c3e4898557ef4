//! How fast blocks are sent, where the app has set a limit: for a feed, or for the whole connection.
//!
//! A job that serves reserves what it may use from both, and gives back what it has not used. So the jobs of
//! several feeds together keep to the limit of the connection.

use tokio::time::Instant;

use super::{
    Engine,
    jobs::{SERVE_BYTES, Served},
};
use crate::{connection::bucket, key::DiscoveryKey};

impl Engine {
    /// Sets the limit of the connection, in bytes a second.
    pub(in crate::connection) fn limit_upload(&mut self, bytes_per_second: Option<u64>, now: Instant) {
        bucket::set_rate(&mut self.upload, bytes_per_second, now.into_std());
        while let Some((key, _)) = self.throttled.pop_first() {
            self.to_serve.push(key);
        }
    }

    /// How many bytes a feed may serve now. If none, it waits, and `None` is returned.
    pub(super) fn reserve_upload(&mut self, key: DiscoveryKey, now: Instant) -> Option<usize> {
        let now = now.into_std();
        let link = self.feeds.get_mut(&key)?;
        let ours = bucket::budget_of(&mut self.upload, now);
        match (link.upload_budget(now), ours) {
            (Ok(feed), Ok(connection)) => {
                let budget = feed.min(connection).min(SERVE_BYTES);
                link.bucket().into_iter().chain(&mut self.upload).for_each(|bucket| bucket.spend(budget));
                self.throttled.remove(&key);
                Some(budget)
            }
            (Err(ready), Ok(_)) | (Ok(_), Err(ready)) => {
                self.throttled.insert(key, ready);
                None
            }
            (Err(feed), Err(connection)) => {
                self.throttled.insert(key, feed.max(connection));
                None
            }
        }
    }

    /// A job that had reserved something is done.
    pub(super) fn settle_upload(&mut self, served: &Served) {
        let link = self.feeds.get_mut(&served.job.feed).and_then(|link| link.bucket());
        for bucket in link.into_iter().chain(&mut self.upload) {
            bucket.refund(served.budget);
            bucket.spend(served.bytes);
        }
    }

    /// Those whose time has come get their turn.
    pub(super) fn end_throttling(&mut self, now: std::time::Instant) {
        for (key, _) in self.throttled.extract_if(.., |_, ready| *ready <= now) {
            self.to_serve.push(key);
        }
    }
}
