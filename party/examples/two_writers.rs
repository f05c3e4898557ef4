//! Alice and Bob are in one party. Each writes a feed of their own and reads the other's.
//!
//!     cargo run --example two_writers -p party
#![allow(clippy::print_stdout)] // it is what it is for

use std::future::IntoFuture as _;

use party::{
    connection::{self, Connection},
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair, PartyKey},
    party::Party,
    peer::Peer,
    rules::{self, Rules},
    store::{FeedOptions, Store},
};

/// A chat: everybody shows their own feed, and follows those of the others.
struct Chat {
    store: Store,
    mine: Feed,
}

impl Chat {
    async fn follow(&self, peer: &Peer, keys: Vec<FeedKey>) -> rules::Result<()> {
        for key in keys {
            peer.replicate(&self.store.feed(&key).await?).await?;
        }
        Ok(())
    }
}

impl Rules for Chat {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        let theirs = peer.introduce_feeds([self.mine.key()]).await?;
        peer.replicate(&self.mine).await?;
        self.follow(peer, theirs).await
    }

    async fn introduce_feeds(&self, peer: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        self.follow(peer, keys).await?;
        Ok(vec![self.mine.key()])
    }

    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None) // what a peer may have was released above, and nothing else is to be had
    }
}

#[tokio::main]
async fn main() -> Result<(), party::error::Error> {
    // Whoever knows this key is in the party.
    let (party, _founder) = PartyKey::generate();

    let (alice_store, bob_store) = (Store::memory(), Store::memory());
    let alice = alice_store.create_feed("messages", FeedOptions::default()).await?;
    let bob = bob_store.create_feed("messages", FeedOptions::default()).await?;
    alice.append("Hello, Bob!").await?;
    bob.append("Hi, Alice.").await?;

    // What each has of the other, as it arrives.
    let (from_bob, from_alice) = (alice_store.feed(&bob.key()).await?, bob_store.feed(&alice.key()).await?);
    let reader = tokio::spawn(async move {
        let text = |block: bytes::Bytes| String::from_utf8_lossy(&block).into_owned();
        println!("bob has from alice: {}", text(from_alice.fetch(0).await?));
        println!("alice has from bob: {}", text(from_bob.fetch(0).await?));
        println!("bob has from alice: {}", text(from_alice.fetch(1).await?));
        Ok::<_, party::error::Error>(())
    });

    // In real life this is a TCP stream, `connection::dial` and `connection::Listener`.
    let (left, right) = connection::memory();
    let (alice_party, bob_party) = (
        Party::new(party, Chat { store: alice_store, mine: alice.clone() }),
        Party::new(party, Chat { store: bob_store, mine: bob }),
    );
    let (left, right) = tokio::try_join!(
        Connection::dial(left, &KeyPair::generate()).join(&alice_party).into_future(),
        Connection::accept(right, &KeyPair::generate()).join(&bob_party).into_future(),
    )?;

    alice.append("How are you?").await?;
    reader.await.expect("the reader doesn't panic")?;
    left.close().await?;
    right.closed().await
}
