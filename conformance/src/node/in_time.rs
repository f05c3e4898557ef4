use std::time::Duration;

use anyhow::{Context as _, Result};

/// Gives a test with peers in other processes two and a half minutes.
///
/// # Errors
///
/// What the test says, or that it isn't done in time.
pub async fn in_time(test: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(Duration::from_secs(150), test).await.context("not done in time")?
}
