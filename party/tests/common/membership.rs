//! Members by credential, each with a store and an identity of its own.

use std::{future::IntoFuture as _, time::Duration};

use party::{
    connection::{self, Connection},
    credentials::{Grant, Terms},
    feed::Feed,
    key::{KeyPair, PartyKey},
    limits::Limits,
    members::{Members, MembersEvent, MembersEvents, MembersOptions, Refusal},
    party::Party,
    rules::{AllowFeeds, Rules, WholeStore},
    store::Store,
};

/// When all tests begin, in seconds since 1970.
pub const START: u64 = 1_800_000_000;

pub fn founder() -> KeyPair {
    KeyPair::from_seed(&[200; 32])
}

pub fn key() -> PartyKey {
    PartyKey::from_bytes(*founder().public().as_bytes())
}

/// A clock that goes with virtual time.
#[allow(clippy::disallowed_methods)] // virtual time is looked at
pub fn options() -> MembersOptions {
    use std::sync::OnceLock;
    thread_local! {
        static BEGUN: OnceLock<tokio::time::Instant> = const { OnceLock::new() };
    }
    MembersOptions::default().clock(|| {
        let begun = BEGUN.with(|begun| *begun.get_or_init(tokio::time::Instant::now));
        Duration::from_secs(START) + (tokio::time::Instant::now() - begun)
    })
}

/// A member, or who would be one.
pub struct Site {
    pub me: KeyPair,
    pub store: Store,
    pub members: Members,
    pub party: Party,
    pub events: MembersEvents,
}

impl Site {
    /// With this seed as its identity, and no membership.
    pub async fn stranger(n: u8) -> Self {
        Self::with_rules(n, &options(), WholeStore::new).await
    }

    pub async fn with_rules<R: Rules>(
        n: u8,
        options: &MembersOptions,
        rules: impl FnOnce(Store) -> R,
    ) -> Self {
        Self::on(n, Store::memory(), options, rules).await
    }

    pub async fn on<R: Rules>(
        n: u8,
        store: Store,
        options: &MembersOptions,
        rules: impl FnOnce(Store) -> R,
    ) -> Self {
        let me = KeyPair::from_seed(&[n; 32]);
        let members = Members::open_with(&store, &key(), &me, options.clone()).await.unwrap();
        let party = Party::new(key(), members.rule(rules(store.clone())));
        Self { me, events: members.events(), store, members, party }
    }

    /// A member by the founder's word.
    pub async fn member(n: u8, terms: Terms) -> Self {
        let site = Self::stranger(n).await;
        site.found(terms).await;
        site
    }

    /// Makes it a member by the founder's word.
    pub async fn found(&self, terms: Terms) {
        let membership = self.members.grant_as(&founder(), Grant::to(self.me.public(), terms)).await.unwrap();
        self.members.set_membership(membership).await.unwrap();
    }

    pub async fn feed(&self, name: &str, blocks: u64) -> Feed {
        let feed = self.store.named_feed(name).await.unwrap();
        append(&feed, blocks).await;
        feed
    }

    /// The copy of somebody else's feed.
    pub async fn copy(&self, feed: &Feed) -> Feed {
        self.store.feed(&feed.key()).await.unwrap()
    }

    /// Waits until a peer is refused, and gives why.
    pub async fn refuses(&mut self) -> Refusal {
        loop {
            if let MembersEvent::Refused { why, .. } = self.events.next().await.unwrap() {
                return why;
            }
        }
    }

    /// Waits until a peer is let in.
    pub async fn admits(&mut self) {
        while !matches!(self.events.next().await.unwrap(), MembersEvent::Admitted { .. }) {}
    }
}

pub async fn append(feed: &Feed, blocks: u64) {
    let from = feed.info().length;
    let blocks = (from..from + blocks).map(|n| format!("block {n}").into_bytes().into());
    feed.append_batch(blocks.collect()).await.unwrap();
}

/// A connection over which both may be members.
pub async fn meet(dialler: &Site, listener: &Site) -> (Connection, Connection) {
    dial(&dialler.me, &dialler.party, &listener.me, &listener.party).await
}

pub async fn dial(
    dialler: &KeyPair,
    dialling: &Party,
    listener: &KeyPair,
    listening: &Party,
) -> (Connection, Connection) {
    let (left, right) = connection::memory();
    tokio::try_join!(
        Connection::dial(left, dialler).join(dialling).into_future(),
        Connection::accept(right, listener).join(listening).into_future(),
    )
    .unwrap()
}

/// All that can happen within a minute, of virtual time, has happened.
pub async fn settle() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// Which blocks of a feed are here.
pub async fn blocks(feed: &Feed, among: u64) -> Vec<u64> {
    let mut here = Vec::new();
    for n in 0..among {
        if feed.get(n).await.unwrap().is_some() {
            here.push(n);
        }
    }
    here
}

pub fn with_limits(change: impl FnOnce(&mut Limits)) -> MembersOptions {
    let mut limits = Limits::default();
    change(&mut limits);
    options().limits(limits)
}

pub fn blind_may_know(feeds: &AllowFeeds) -> MembersOptions {
    options().blind_may_know(feeds)
}
