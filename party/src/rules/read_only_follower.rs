//! Ready-made policy: take, and give nothing.

use super::{Action, Decision, Policy, Question};

/// Gets what others have, and neither tells of feeds nor serves any. For a phone on a small contract, a backup, an archive.
///
/// ```
/// use party::rules::{ReadOnlyFollower, Rules, WholeStore};
/// # use party::store::Store;
///
/// # fn example(store: Store) -> impl Rules {
/// WholeStore::new(store).max_feeds(100).guarded_by(ReadOnlyFollower)
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyFollower;

const NAME: &str = "read-only follower";

impl Policy for ReadOnlyFollower {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match question.action {
            Action::Introduce => Decision::deny(NAME, "no feeds are brought"),
            Action::Serve => Decision::deny(NAME, "nothing is served"),
            Action::Ask | Action::Accept => Decision::allow(NAME, "what others have is followed"),
        }
    }
}
