//! Node readers of whom the rules allow a part of a feed only: they get that part, wait for the rest, and don't ask for it again
//! and again.
#![cfg(feature = "node")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, ensure};
use common::{hex, in_time, no_complaints};
use conformance::node::{NodeOptions, NodePeer, Release, block};
use party::{
    connection::{Connection, Listener},
    feed::Feed,
    key::KeyPair,
    party::Open,
    rules::{Action, Decision, Policy, Question, Quota, Rules as _, WholeStore},
    store::{FeedOptions, Store},
};

const BLOCKS: u64 = 2_000;
const SIZE: usize = 200;

/// What is decided on serving; everything else is allowed.
#[derive(Clone)]
struct Desk(Arc<Mutex<Decision>>);

impl Policy for Desk {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match question.action {
            Action::Serve => self.0.lock().unwrap().clone(),
            _ => Decision::allow("desk", "nobody minds"),
        }
    }
}

fn some() -> Decision {
    Decision::allow("desk", "some of it")
}

/// A feed of ours, and a Node peer that reads it.
struct Scene {
    desk: Desk,
    open: Open,
    feed: Feed,
    node: NodePeer,
    _connection: Connection,
}

impl Scene {
    /// The reader wants everything, and the desk allows what `decision` says.
    async fn set(options: &NodeOptions, decision: Decision) -> Result<Self> {
        let (store, node) = (Store::memory(), NodePeer::spawn(options)?);
        let feed = store.create_feed("a", FeedOptions::default().compat(true)).await?;
        feed.append_batch((0..BLOCKS).map(|n| block(1, n, SIZE)).collect()).await?;
        let desk = Desk(Arc::new(Mutex::new(decision)));
        let open = Open::new(WholeStore::new(store).guarded_by(desk.clone()));
        node.open("a", &feed.key().to_string()).await?;
        node.want_all("a").await?;
        let listener = Listener::bind(("127.0.0.1", 0), &KeyPair::generate()).await?;
        let port = listener.local_addr()?.port();
        let accept = async {
            let (connecting, _) = listener.accept().await?;
            anyhow::Ok(connecting.open(&open).await?)
        };
        let (connection, ()) = tokio::try_join!(accept, node.dial(port))?;
        Ok(Self { desk, open, feed, node, _connection: connection })
    }

    async fn decide(&self, decision: Decision) {
        *self.desk.0.lock().unwrap() = decision;
        self.open.reevaluate().await;
    }

    async fn reach(&self, blocks: std::ops::Range<u64>) -> Result<()> {
        self.node.reach("a", 0, self.feed.info().length, &[(blocks.start, blocks.end)]).await.map(drop)
    }

    async fn stored(&self) -> Result<Vec<(u64, u64)>> {
        Ok(self.node.state("a").await?.stored)
    }

    fn refused(&self) -> u64 {
        self.feed.peers()[0].traffic().refused_by_us
    }
}

fn readers() -> [NodeOptions; 2] {
    [NodeOptions::store(), NodeOptions::cores(Release::Ten)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reader_gets_the_range_that_it_may_have_and_asks_for_nothing_else() -> Result<()> {
    for options in readers() {
        in_time(async {
            let s = Scene::set(&options, some().blocks(700..900)).await?;
            s.reach(700..900).await?;
            ensure!(s.stored().await? == [(700, 900)]);

            // It waits for what it may not have, and for nothing else.
            let mut waiting = Box::pin(s.node.get("a", 5));
            tokio::select! {
                biased;
                got = &mut waiting => ensure!(false, "it has got {got:?}"),
                got = s.node.get("a", 800) => ensure!(got? == hex(&block(1, 800, SIZE))),
            }
            s.decide(some().blocks(850..1_000)).await;
            s.reach(850..1_000).await?;
            ensure!(s.stored().await? == [(700, 1_000)]);
            ensure!(s.refused() == 0, "{} requests were refused", s.refused());

            s.decide(Decision::allow("desk", "all of it")).await;
            ensure!(waiting.await? == hex(&block(1, 5, SIZE)));
            s.reach(0..BLOCKS).await?;
            ensure!(s.refused() == 0, "{} requests were refused", s.refused());
            no_complaints(&s.node)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reader_follows_the_newest_blocks() -> Result<()> {
    for options in readers() {
        in_time(async {
            let s = Scene::set(&options, some().newest(10)).await?;
            s.reach(BLOCKS - 10..BLOCKS).await?;
            ensure!(s.stored().await? == [(BLOCKS - 10, BLOCKS)]);
            for n in BLOCKS..BLOCKS + 20 {
                s.feed.append(block(1, n, SIZE)).await?;
                s.reach(n..n + 1).await?;
            }
            ensure!(s.stored().await? == [(BLOCKS - 10, BLOCKS + 20)]);
            ensure!(s.refused() == 0, "{} requests were refused", s.refused());
            no_complaints(&s.node)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reader_stops_with_the_quota_and_goes_on_with_it() -> Result<()> {
    for options in readers() {
        in_time(async {
            // Half a block is left in the end.
            let quota = Quota::of(100 * SIZE as u64 + SIZE as u64 / 2);
            let s = Scene::set(&options, some().within(&quota)).await?;
            while quota.left() > SIZE as u64 || s.node.info("a").await?.held < Some(100) {
                tokio::time::sleep(Duration::from_millis(1)).await; // a poll, of what nothing tells
            }
            // Two answers after each other, the second of which comes after whatever the first could cause.
            ensure!(s.node.info("a").await?.held == Some(100));
            let refused = s.refused();
            ensure!(refused <= 1_024, "{refused} requests were refused");

            quota.set_limit(u64::MAX);
            s.open.reevaluate().await;
            s.reach(0..BLOCKS).await?;
            no_complaints(&s.node)
        })
        .await?;
    }
    Ok(())
}
