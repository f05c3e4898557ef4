//! Credentials at work: who is in a party because its founder, or somebody whom the founder allowed to, has signed it.
//!
//! [`Members`] knows one party's memberships and revocations and what we are ourselves, and keeps it in a store. Put in front
//! of an app's rules by [`Members::rule`], peers show each other their memberships before anything else, and only members
//! reach the app. What a membership allows is what happens. A revocation takes effect on open connections as soon as it is
//! known, and spreads from member to member. How that looks on a connection is in
//! `protocol-spec/11-credentials.md#on-a-connection`.
//!
//! ```
//! use party::{
//!     connection::{self, Connection},
//!     credentials::{Grant, Terms},
//!     key::{KeyPair, PartyKey},
//!     limits::Limits,
//!     members::Members,
//!     party::Party,
//!     rules::WholeStore,
//!     store::Store,
//! };
//! # use std::future::IntoFuture as _;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (key, founder) = PartyKey::generate();
//! let (ann, bob) = (KeyPair::generate(), KeyPair::generate());
//! let (at_ann, at_bob) = (Store::memory(), Store::memory());
//!
//! // The founder makes both members. Ann may let in others, Bob may only read.
//! let anns = Members::open(&at_ann, &key, &ann).await?;
//! let of_ann = anns.grant_as(&founder, Grant::to(ann.public(), Terms::everything().delegable(1))).await?;
//! anns.set_membership(of_ann).await?;
//! let of_bob = anns.grant_as(&founder, Grant::to(bob.public(), Terms::everything().read_only())).await?;
//! let bobs = Members::open(&at_bob, &key, &bob).await?;
//! bobs.set_membership(of_bob).await?;
//!
//! let here = Party::new(key, anns.rule(WholeStore::new(at_ann)));
//! let there = Party::new(key, bobs.rule(WholeStore::new(at_bob)));
//! let (left, right) = connection::memory();
//! let connections = tokio::try_join!(
//!     Connection::dial(left, &ann).join(&here).into_future(),
//!     Connection::accept(right, &bob).join(&there).into_future(),
//! )?;
//!
//! // Later she, or rather the founder, thinks better of it. It has taken effect when this returns.
//! let mut events = bobs.events();
//! anns.remove_as(&founder, &bob.public()).await?;
//! assert!(here.peers().is_empty() && anns.removed().len() == 1);
//! while bobs.standing().is_good() {
//!     events.next().await; // Bob is told
//! }
//! # Ok(())
//! # }
//! ```

mod deciding;
mod events;
mod exchange;
mod issuing;
mod rule;
mod settling;
mod state;
mod sync;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Notify, broadcast};

use self::state::State;
pub use self::{
    events::{MembersEvent, MembersEvents, Refusal, Standing},
    rule::MembersOnly,
};
use crate::{
    credentials::{CheckedChain, CutOff, Membership, VerifiedRevocation},
    error::{ApiMisuse, CredentialFlaw, Error},
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey, PublicKey},
    limits::Limits,
    rules::{Action, AllowFeeds, Decision, Rules},
    store::Store,
};

/// Events that a slow receiver may fall behind before it loses the oldest.
const EVENT_BACKLOG: usize = 256;

/// Who is in a party by credential, and who we are in it. Cheap to clone: every clone is the same.
///
/// There is one for each party and store. See the [module](self) for an example.
///
/// - **Being a member:** [`set_membership`](Self::set_membership), [`join`](Self::join) with a ticket,
///   [`standing`](Self::standing).
/// - **Making members, and ending that:** [`grant`](Self::grant), [`remove`](Self::remove), [`revoke`](Self::revoke), and
///   their likes for the founder.
/// - **Asking:** [`members`](Self::members), [`removed`](Self::removed), [`decide`](Self::decide), [`events`](Self::events).
/// - **Ruling:** [`rule`](Self::rule).
#[derive(Clone)]
pub struct Members {
    inner: Arc<Inner>,
}

/// What time it is, since 1970 UTC.
type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How [`Members`] are opened.
///
/// ```
/// use party::{key::{KeyPair, PartyKey}, limits::Limits, members::{Members, MembersOptions}, store::Store};
/// use std::time::Duration;
///
/// # async fn example(store: Store, key: PartyKey, me: KeyPair) -> Result<(), party::error::Error> {
/// let limits = Limits { membership_timeout: Duration::from_secs(3), ..Limits::default() };
/// let members = Members::open_with(&store, &key, &me, MembersOptions::default().limits(limits)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MembersOptions {
    limits: Limits,
    clock: Clock,
    blind_may_know: AllowFeeds,
}

pub(crate) struct Inner {
    party: PartyKey,
    discovery_key: DiscoveryKey,
    me: KeyPair,
    store: Store,
    limits: Limits,
    clock: Clock,
    blind_may_know: AllowFeeds,
    state: Mutex<State>,
    /// Locked while what has changed is carried out, so that it is remembered in its order.
    settling: tokio::sync::Mutex<()>,
    /// Wakes who looks after it.
    wake: Arc<Notify>,
    events: broadcast::Sender<MembersEvent>,
}

impl Default for MembersOptions {
    #[allow(clippy::disallowed_methods)] // the time of the machine is what is wanted, unless the app says otherwise
    fn default() -> Self {
        // A clock before 1970 expires nothing.
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { limits: Limits::default(), clock: Arc::new(clock), blind_may_know: AllowFeeds::default() }
    }
}

impl MembersOptions {
    /// Other bounds than the default ones. Those of credentials must be the same for all members of a party.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Another clock than the machine's, by which memberships expire: the time since 1970 UTC. Tests have use for it.
    #[must_use]
    pub fn clock(self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The feeds whose keys members may be told that are blind: feeds whose blocks are encrypted, of which they get the feed's key
    /// to verify them with, and never the key to the blocks. The list is shared and may change. It is empty unless it is
    /// given: whether a feed is encrypted can't be seen from its key.
    #[must_use]
    pub fn blind_may_know(self, feeds: &AllowFeeds) -> Self {
        Self { blind_may_know: feeds.clone(), ..self }
    }
}

impl Members {
    /// What `store` remembers of the party with this key. `me` is who we are on its connections: the key pair that they are
    /// dialled and accepted with.
    ///
    /// A task of its own looks after it, on the runtime on which this is called and whose time must be enabled, until the last
    /// handle is dropped.
    ///
    /// # Errors
    /// [`Error::Storage`]; if what is stored doesn't verify, it names that.
    pub async fn open(store: &Store, party: &PartyKey, me: &KeyPair) -> Result<Self, Error> {
        Self::open_with(store, party, me, MembersOptions::default()).await
    }

    /// As [`open`](Self::open), but says how.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(
        store: &Store,
        party: &PartyKey,
        me: &KeyPair,
        options: MembersOptions,
    ) -> Result<Self, Error> {
        let MembersOptions { limits, clock, blind_may_know } = options;
        let discovery_key = party.discovery_key();
        let records = store.credential_records(&discovery_key).await?;
        let state = State::read(*party, &me.public(), &limits, records)?;
        let inner = Arc::new(Inner {
            party: *party,
            discovery_key,
            me: me.clone(),
            store: store.clone(),
            limits,
            clock,
            blind_may_know,
            state: Mutex::new(state),
            settling: tokio::sync::Mutex::default(),
            wake: Arc::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
        });
        tokio::spawn(settling::look_after(Arc::downgrade(&inner), inner.wake.clone()));
        Ok(Self { inner })
    }

    /// These rules, which are asked about members only, and of which only that takes effect that the members' terms allow,
    /// too. To be handed to [`Party::new`](crate::party::Party::new).
    ///
    /// Peers who show no membership within [`Limits::membership_timeout`], or one that doesn't hold, are refused. So are
    /// peers who don't accept ours: [be a member](Self::set_membership) first.
    pub fn rule<R: Rules>(&self, rules: R) -> MembersOnly<R> {
        MembersOnly::new(self.inner.clone(), rules)
    }

    /// Makes this our membership: it is kept, and shown on each connection from now on. On those that are up it takes the place
    /// of the one that was shown before.
    ///
    /// # Errors
    /// [`ApiMisuse::Credential`] if it doesn't hold, names another key than ours, or has expired;
    /// [`ApiMisuse::MembershipRevoked`]; [`Error::Storage`].
    pub async fn set_membership(&self, membership: Membership) -> Result<(), Error> {
        let inner = &self.inner;
        let verified = membership.verify_for(&inner.party, &inner.me.public(), inner.now());
        let chain = verified.map_err(ApiMisuse::from)?.into_chain();
        let peers = {
            let mut state = inner.state();
            if state.set.is_revoked(&chain) {
                return Err(ApiMisuse::MembershipRevoked.into());
            }
            state.set_own(chain.clone());
            inner.insert_member(&mut state, chain, None);
            // What we may ask for is another matter now.
            let peers = state.members_connected();
            state.peers_to_reevaluate.extend(peers.iter().cloned());
            peers
        };
        inner.settle().await?;
        for peer in peers {
            let inner = inner.clone();
            // One that doesn't take it goes on with the one before, or refuses us.
            tokio::spawn(async move { inner.show(&peer).await });
        }
        Ok(())
    }

    /// Our membership, whatever became of it.
    pub fn membership(&self) -> Option<CheckedChain> {
        self.inner.state().own.clone()
    }

    /// Whether we are a member now.
    pub fn standing(&self) -> Standing {
        let now = self.inner.now();
        let state = self.inner.state();
        match &state.own {
            None => Standing::Stranger,
            Some(own) => match state.set.revoked_by(own) {
                Some(revocation) => Standing::Removed(Box::new(revocation.clone())),
                None if own.terms().is_expired(now) => Standing::Expired,
                None => Standing::Member(own.clone()),
            },
        }
    }

    /// The chains that are known, neither revoked nor expired: ours, those that peers have shown, and those that members
    /// have told of.
    pub fn members(&self) -> Vec<CheckedChain> {
        let now = self.inner.now();
        self.inner.state().set.members(now).cloned().collect()
    }

    /// The chains that are known and were revoked, each with the revocation that ends it; of several the one whose signer
    /// stands nearest to the founder.
    pub fn removed(&self) -> Vec<(CheckedChain, VerifiedRevocation)> {
        let state = self.inner.state();
        let with = |chain: &CheckedChain| Some((chain.clone(), state.set.revoked_by(chain)?.clone()));
        state.set.removed().filter_map(with).collect()
    }

    /// The chain by which this key is a member, or the one by which it was. Of several that are good the shortest, and of
    /// these the latest by its serial number.
    pub fn member(&self, key: &PublicKey) -> Option<CheckedChain> {
        let now = self.inner.now();
        let state = self.inner.state();
        let of_key = state.set.known().filter(|chain| chain.holder() == *key || chain.member() == *key);
        let rank = |chain: &&CheckedChain| {
            let is_over = chain.terms().is_expired(now) || state.set.is_revoked(chain);
            (
                is_over,
                chain.holder() != *key,
                chain.ids().len(),
                std::cmp::Reverse(chain.serial()),
                chain.id(),
            )
        };
        of_key.min_by_key(rank).cloned()
    }

    /// What any of the memberships allows that are known of this key, whether or not it is connected. On a connection the one
    /// counts that it shows there, together with the app's rules: see [`Party::explain`](crate::party::Party::explain).
    pub fn decide(&self, member: &PublicKey, feed: &FeedKey, action: Action) -> Decision {
        let chains: Vec<_> =
            self.inner.state().set.known().filter(|it| it.holder() == *member).cloned().collect();
        let decisions = chains.iter().map(|chain| self.inner.judge(chain, feed, action));
        let none = || Decision::deny(deciding::NAME, "no membership of it is known");
        decisions.reduce(Decision::or).unwrap_or_else(none)
    }

    /// Says whose feed it is: the member on whose word it is taken, and with whose removal a cut-off of it counts. By itself
    /// it is the first with whom it was replicated so that it might bring blocks.
    ///
    /// # Errors
    /// [`ApiMisuse::Credential`] for a chain of another party; [`ApiMisuse::LimitExceeded`] beyond
    /// [`Limits::max_member_feeds`] or [`Limits::max_attributed_feeds`]; [`Error::Storage`].
    pub async fn attribute(&self, feed: &DiscoveryKey, member: &CheckedChain) -> Result<(), Error> {
        if *member.party() != self.inner.party {
            return Err(ApiMisuse::from(CredentialFlaw::OtherParty).into());
        }
        {
            let mut state = self.inner.state();
            state.words.set(*feed, member, &self.inner.limits)?;
            state.unsaved_word(*feed);
            state.feeds_to_reevaluate.insert(*feed);
        }
        self.inner.settle().await
    }

    /// On whose word a feed is taken.
    pub fn attributed_to(&self, feed: &DiscoveryKey) -> Option<CheckedChain> {
        self.inner.state().words.get(feed).map(|chain| (**chain).clone())
    }

    /// Waits until all that is known is kept. What peers have told is before they are answered; whose feeds are whose, and who
    /// has shown what, a little later.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn saved(&self) -> Result<(), Error> {
        self.inner.settle().await
    }

    /// Up to where a feed is good, if the member on whose word it is taken was removed and somebody has said.
    pub fn cut_off(&self, feed: &DiscoveryKey) -> Option<CutOff> {
        self.inner.state().cut_off(feed)
    }

    /// A hash of all that is known. Members with the same have nothing to tell each other.
    pub fn digest(&self) -> [u8; 32] {
        self.inner.state().set.digest()
    }

    /// What happens from now on.
    pub fn events(&self) -> MembersEvents {
        MembersEvents::new(self.inner.events.subscribe())
    }
}

impl Inner {
    /// In seconds since 1970 UTC.
    fn now(&self) -> u64 {
        (self.clock)().as_secs()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: MembersEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("party", &self.inner.discovery_key).finish_non_exhaustive()
    }
}

impl fmt::Debug for MembersOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembersOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}
