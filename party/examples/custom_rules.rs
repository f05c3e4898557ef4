//! Rules of one's own: a newspaper. Subscribers read everything, guests the newest three articles and no more than a
//! kilobyte of them. Who writes a letter to the editor gets an answer. A subscription ends while the reader is connected.
//!
//!     cargo run --example custom_rules -p party
#![allow(clippy::print_stdout)] // it shows what happens

use std::{
    collections::BTreeMap,
    future::IntoFuture as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use party::{
    connection::{self, Connection},
    error::Error,
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey, PublicKey},
    party::Party,
    peer::{Message, Peer},
    rules::{self, Action, AllowPeers, Decision, Denied, Question, Quota, Rules, WholeStore},
    store::{FeedOptions, Store},
};

/// What the newspaper decides by. The list of subscribers is shared with whoever changes it.
#[derive(Clone)]
struct Newspaper {
    articles: Feed,
    subscribers: AllowPeers,
    /// What each guest has read. It outlives connections.
    guests: Arc<Mutex<BTreeMap<PublicKey, Quota>>>,
}

/// More than so many guests are turned away, so that nobody makes us remember the whole world.
const MAX_GUESTS: usize = 1_000;

impl Rules for Newspaper {
    // What there is for a reader: one feed.
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        peer.introduce_feeds([self.articles.key()]).await?;
        peer.release(&self.articles).await?;
        Ok(())
    }

    // Readers bring feeds of theirs in vain.
    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![self.articles.key()])
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(Some(&self.articles).filter(|feed| feed.discovery_key() == *key).cloned())
    }

    // How much of it: asked when the feed is released, and when we re-evaluate.
    fn decide(&self, question: &Question<'_>) -> Decision {
        if question.feed != self.articles.key() || matches!(question.action, Action::Ask | Action::Accept) {
            return Decision::deny("newspaper", "we write, others read");
        }
        let reader = question.peer.remote_public_key();
        if self.subscribers.contains(&reader) {
            return Decision::allow("subscription", "it is paid for");
        }
        let mut guests = self.guests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !guests.contains_key(&reader) && guests.len() >= MAX_GUESTS {
            return Decision::deny("guest", "too many guests");
        }
        let quota = guests.entry(reader).or_insert_with(|| Quota::of(1_000));
        Decision::allow("guest", "guests read the newest three").newest(3).within(quota)
    }

    // And letters to the editor.
    async fn request(&self, _: &Peer, letter: Message) -> rules::Result<Message> {
        match letter.kind.as_str() {
            "letter" => Ok(Message::new("thanks", letter.value)),
            other => Err(Denied::because(format!("we don't know what {other:?} is"))),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (key, _founder) = PartyKey::generate();
    let articles = Store::memory().create_feed("articles", FeedOptions::default()).await?;
    for n in 1..=10 {
        articles.append(format!("Article {n}")).await?;
    }

    let reader_keys = KeyPair::generate();
    let subscribers = AllowPeers::new([reader_keys.public()]);
    let rules =
        Newspaper { articles: articles.clone(), subscribers: subscribers.clone(), guests: Arc::default() };
    let newspaper = Party::new(key, rules);

    let shelf = Store::memory();
    let copy = shelf.feed(&articles.key()).await?;
    // The reader takes what it is told of, but gets only what it asks for.
    let reader = Party::new(key, WholeStore::new(shelf).sparse());
    let (left, right) = connection::memory();
    let (at_reader, _at_newspaper) = tokio::try_join!(
        Connection::dial(left, &reader_keys).join(&reader).into_future(),
        Connection::accept(right, &KeyPair::generate()).join(&newspaper).into_future(),
    )?;

    println!("A subscriber reads {:?}", copy.fetch(0).await?);
    let editor = reader.peers().pop().ok_or(Error::Closed)?;
    println!("and gets an answer: {:?}", editor.request("letter", "Well written!").await?.kind);

    subscribers.remove(&reader_keys.public());
    let changed = newspaper.reevaluate().await;
    println!("The subscription is over for {} of its feeds:", changed.stopped);
    let reader_there = newspaper.peers().pop().ok_or(Error::Closed)?;
    print!("{}", newspaper.explain(&reader_there, &articles.key()));
    println!("A guest reads {:?}", copy.fetch(9).await?);
    let old = tokio::time::timeout(Duration::from_millis(300), copy.fetch(1)).await;
    println!("and of older ones {}", if old.is_err() { "nothing" } else { "everything" });
    assert!(old.is_err());
    at_reader.close().await
}
