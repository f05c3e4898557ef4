//! Ready-made rules: everybody writes one feed, and reads those of the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Action, Decision, Denied, Question, Result, Rules};
use crate::{
    feed::Feed,
    key::{DiscoveryKey, FeedKey, PublicKey},
    peer::Peer,
    store::Store,
};

/// Members whose feeds are taken before more are refused.
const DEFAULT_MAX_MEMBERS: usize = 1024;

/// Each member brings one feed, its own, and follows those of the members that it meets. For a chat, a shared log, sensors.
///
/// Who a member is, is its static key. The first feed that it brings is its feed from then on; others are refused, and so is a feed that
/// somebody else has brought before. Nobody passes on what is not its own, so a member gets the feeds of those to whom it
/// connects. Whose is whose is forgotten with this value; [`assign`](Self::assign) it anew after a restart.
///
/// ```
/// use party::{key::PartyKey, party::Party, rules::OneFeedPerMember, store::Store};
///
/// # async fn example(key: PartyKey, store: Store) -> Result<(), party::error::Error> {
/// let mine = store.named_feed("messages").await?;
/// let chat = OneFeedPerMember::new(store, mine);
/// let party = Party::new(key, chat.clone());
/// for (member, feed) in chat.members() {
///     println!("{member} writes {feed}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OneFeedPerMember {
    store: Store,
    mine: Feed,
    max_members: usize,
    theirs: Arc<RwLock<BTreeMap<PublicKey, FeedKey>>>,
}

const NAME: &str = "one feed per member";

impl OneFeedPerMember {
    /// Brings `mine`, and keeps in `store` what the others write.
    pub fn new(store: Store, mine: Feed) -> Self {
        Self { store, mine, max_members: DEFAULT_MAX_MEMBERS, theirs: Arc::default() }
    }

    /// Takes the feeds of `n` members at most. The default is 1024.
    #[must_use]
    pub fn max_members(self, n: usize) -> Self {
        Self { max_members: n, ..self }
    }

    /// Who has brought which feed.
    pub fn members(&self) -> BTreeMap<PublicKey, FeedKey> {
        self.theirs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which feed is the peer's, as if it had brought it. It does so once for each peer and each feed.
    ///
    /// # Errors
    /// If the peer has another feed, the feed is somebody else's, or there are too many members.
    pub fn assign(&self, peer: PublicKey, feed: FeedKey) -> Result<()> {
        let mut theirs = self.theirs.write().unwrap_or_else(PoisonError::into_inner);
        match theirs.get(&peer) {
            Some(known) if *known == feed => return Ok(()),
            Some(_) => return Err(Denied::because("the member has another feed already")),
            None => {}
        }
        if feed == self.mine.key() || theirs.values().any(|known| *known == feed) {
            return Err(Denied::because("the feed is somebody else's"));
        }
        if theirs.len() >= self.max_members {
            return Err(Denied::because("there are too many members"));
        }
        theirs.insert(peer, feed);
        Ok(())
    }

    async fn take(&self, peer: &Peer, keys: Vec<FeedKey>) -> Result<()> {
        let [key] = keys[..] else {
            return if keys.is_empty() { Ok(()) } else { Err(Denied::because("a member has one feed")) };
        };
        self.assign(peer.remote_public_key(), key)?;
        peer.replicate(&self.store.feed(&key).await?).await?;
        Ok(())
    }
}

impl Rules for OneFeedPerMember {
    fn decide(&self, question: &Question<'_>) -> Decision {
        if question.feed == self.mine.key() {
            return match question.action {
                Action::Introduce | Action::Serve => Decision::allow(NAME, "it is ours to give"),
                _ => Decision::deny(NAME, "it is ours alone to write"),
            };
        }
        let theirs = self.theirs.read().unwrap_or_else(PoisonError::into_inner);
        match (theirs.get(&question.peer.remote_public_key()), question.action) {
            (Some(feed), Action::Introduce) if *feed == question.feed => {
                Decision::deny(NAME, "it knows its own feed")
            }
            (Some(feed), _) if *feed == question.feed => Decision::allow(NAME, "it is the member's own feed"),
            _ => Decision::deny(NAME, "it is not the member's feed"),
        }
    }

    async fn handshake(&self, peer: &Peer) -> Result<()> {
        peer.release(&self.mine).await?;
        let theirs = peer.introduce_feeds([self.mine.key()]).await?;
        self.take(peer, theirs).await
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> Result<Vec<FeedKey>> {
        self.take(peer, keys).await?;
        Ok(vec![self.mine.key()])
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> Result<Option<Feed>> {
        Ok(Some(&self.mine).filter(|mine| mine.discovery_key() == *key).cloned())
    }
}
