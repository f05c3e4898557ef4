//! Who replicates a feed and how far they are, pauses, upload limits, cuts, and the end.
#![allow(clippy::disallowed_methods)] // the time is virtual where it is looked at

use std::{future::IntoFuture as _, time::Duration};

use crate::common::random::Random;
use crate::common::{
    identity, meet,
    one_feed::{One, block, party_of, reader_of, sparsely, written},
    party_key,
};
use futures_util::FutureExt as _;
use party::{
    connection::{self, Connection},
    feed::Feed,
    party::Party,
    peer::{Link, LinkState, LinkStatus, Replicate},
    rules::WholeStore,
    store::{FeedOptions, Store},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, sleep},
};

/// The only peer that a feed is replicated with.
fn only(feed: &Feed) -> Link {
    let peers = feed.peers();
    assert_eq!(peers.len(), 1, "{peers:?}");
    peers[0].clone()
}

/// Waits until what is known of the only peer is so.
async fn until(feed: &Feed, so: impl Fn(&LinkStatus) -> bool) -> Link {
    let mut changes = feed.subscribe_to_peers();
    loop {
        if let [link] = &feed.peers()[..]
            && so(&link.status())
        {
            return link.clone();
        }
        changes.changed().await;
    }
}

fn stored(feed: &Feed) -> u64 {
    (0..feed.info().length).filter(|index| feed.has(*index)).count() as u64
}

#[tokio::test]
async fn an_app_sees_who_replicates_a_feed_and_how_far_they_are() {
    let writer = written(100).await;
    let size = block(0).len() as u64;
    let reader = reader_of(&writer).await;
    assert!(writer.peers().is_empty());
    let how = Replicate::fully();
    let (dialling, listening) = meet(&party_of(&reader, how), &party_of(&writer, how)).await;

    let link = until(&reader, |status| status.in_sync && status.counters.blocks_received == 100).await;
    let status = link.status();
    assert_eq!(status.state, LinkState::Open);
    assert_eq!((status.remote_length, status.remote_fork, status.remote_contiguous_length), (100, 0, 100));
    assert!(status.remote_uploads && status.remote_downloads && !status.is_updating && !status.is_suspended);
    assert_eq!((status.waiting, status.counters.bytes_received), (0, 100 * size));
    assert!(status.round_trip.is_some());
    assert_eq!(link.remote_public_key(), dialling.remote_public_key());
    assert!(link.has(99).await.unwrap() && !link.has(100).await.unwrap());
    assert_eq!(link.feed().key(), reader.key());

    let link = until(&writer, |status| status.remote_in_sync).await;
    assert_eq!(link.status().remote_contiguous_length, 100);
    let peer = link.peers()[0].clone();
    assert_eq!(peer.feeds().len(), 1);
    assert_eq!(peer.feed(&writer).unwrap().remote_public_key(), listening.remote_public_key());
    for traffic in [link.traffic(), peer.traffic(), writer.traffic()] {
        assert_eq!((traffic.blocks_sent, traffic.bytes_sent), (100, 100 * size));
        assert_eq!(traffic.blocks_received + traffic.refused_by_us, 0);
    }
    assert_eq!(reader.traffic().blocks_received, 100);

    dialling.close().await.unwrap();
    listening.closed().await.unwrap();
    assert!(reader.peers().is_empty() && writer.peers().is_empty());
    assert_eq!(link.status().state, LinkState::Ended);
    assert!(peer.feeds().is_empty() && peer.feed(&writer).is_none() && !peer.suspend(&writer));
    assert!(link.has(0).await.is_err());
    assert_eq!(writer.traffic().blocks_sent, 100);
}

#[tokio::test]
async fn totals_go_on_over_one_connection_after_the_other() {
    let writer = written(60).await;
    let reader = reader_of(&writer).await;
    for n in 0..3 {
        let _connection = sparsely(&writer, &reader).await;
        reader.download(n * 20..(n + 1) * 20).done().await.unwrap();
        let link = until(&reader, |status| status.in_sync && status.counters.blocks_received == 20).await;
        assert_eq!(link.traffic().blocks_received, 20);
    }
    assert_eq!(reader.traffic().blocks_received, 60);
    assert_eq!(writer.traffic().blocks_sent, 60);
}

#[tokio::test]
async fn a_peer_with_whom_we_share_two_parties_is_one_link() {
    let writer = written(10).await;
    let reader = reader_of(&writer).await;
    let party = |n, feed: &Feed| Party::new(party_key(n), One(feed.clone(), Replicate::sparsely()));
    let (ours, theirs) = ([1, 2].map(|n| party(n, &reader)), [1, 2].map(|n| party(n, &writer)));
    let (left, right) = connection::memory();
    let (one, other) = (identity(1), identity(2));
    let _connection = tokio::try_join!(
        Connection::dial(left, &one).join(&ours[0]).join(&ours[1]).into_future(),
        Connection::accept(right, &other).join(&theirs[0]).join(&theirs[1]).into_future(),
    )
    .unwrap();
    reader.download(..10).done().await.unwrap();
    let link = until(&reader, |status| status.in_sync && status.counters.blocks_received == 10).await;
    while link.peers().len() < 2 {
        tokio::task::yield_now().await;
    }
    for party in &ours {
        let peers = party.peers();
        assert!(link.peers().contains(&peers[0]));
        assert_eq!(peers[0].feeds().len(), 1);
    }
}

#[tokio::test]
async fn a_feed_that_a_peer_refuses_is_down() {
    let feed = written(1).await;
    let _connection = sparsely(&written(1).await, &feed).await;
    let link = until(&feed, |status| !status.is_updating).await;
    assert_eq!(link.status().state, LinkState::Down);
    assert!(link.has(0).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_ends_when_a_feed_is_suspended() {
    let writer = written(20_000).await;
    let reader = reader_of(&writer).await;
    let _connection = sparsely(&writer, &reader).await;
    let all = reader.download(..20_000);
    let mut progress = all.progress();
    while progress.blocks < 100 {
        progress = all.progressed(progress).await.unwrap();
    }
    reader.suspend_replication();
    sleep(Duration::from_secs(60)).await;
    let status = only(&reader).status();
    assert_eq!(status.waiting, 0);
    assert_eq!(status.counters.blocks_received, all.progress().blocks);
    assert!((100..10_000).contains(&all.progress().blocks), "{:?}", all.progress());
    reader.resume_replication();
    all.done().await.unwrap();
    assert_eq!((writer.traffic().blocks_sent, reader.traffic().blocks_received), (20_000, 20_000));
}

/// What can be suspended and resumed.
enum Pause {
    Link,
    Peer,
    Feed,
    Connection,
}

async fn set_suspended(pause: &Pause, suspended: bool, feed: &Feed, connection: &Connection) {
    match (pause, suspended) {
        (Pause::Link, true) => only(feed).suspend(),
        (Pause::Link, false) => only(feed).resume(),
        (Pause::Peer, true) => assert!(only(feed).peers()[0].suspend(feed)),
        (Pause::Peer, false) => assert!(only(feed).peers()[0].resume(feed)),
        (Pause::Feed, true) => feed.suspend_replication(),
        (Pause::Feed, false) => feed.resume_replication(),
        (Pause::Connection, true) => connection.suspend().await.unwrap(),
        (Pause::Connection, false) => connection.resume().await.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspended_reader_asks_for_nothing_and_goes_on_where_it_was() {
    for pause in [Pause::Link, Pause::Peer, Pause::Feed, Pause::Connection] {
        let writer = written(500).await;
        let reader = reader_of(&writer).await;
        let (connection, _other) = sparsely(&writer, &reader).await;
        reader.download(..100).done().await.unwrap();

        set_suspended(&pause, true, &reader, &connection).await;
        until(&reader, |status| status.is_suspended).await;
        let all = reader.download(..);
        writer.append("one more").await.unwrap();
        let link = until(&reader, |status| status.remote_length == 501).await; // it still hears
        sleep(Duration::from_secs(60)).await;
        assert_eq!((stored(&reader), reader.info().length), (100, 500));
        assert_eq!(link.status().state, LinkState::Open);
        assert!(!link.status().in_sync);

        set_suspended(&pause, false, &reader, &connection).await;
        reader.download(0..501).done().await.unwrap();
        drop(all);
        assert_eq!(writer.traffic().blocks_sent, 501);
        assert_eq!((reader.traffic().blocks_received, reader.traffic().refused_by_remote), (501, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_suspended_writers_readers_wait() {
    for pause in [Pause::Link, Pause::Peer, Pause::Feed, Pause::Connection] {
        let writer = written(500).await;
        let reader = reader_of(&writer).await;
        let (_other, connection) = sparsely(&writer, &reader).await;
        reader.download(..100).done().await.unwrap();

        set_suspended(&pause, true, &writer, &connection).await;
        until(&writer, |status| status.is_suspended).await;
        let all = reader.download(..500);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(stored(&reader), 100);
        assert!(only(&reader).status().waiting > 0);

        set_suspended(&pause, false, &writer, &connection).await;
        all.done().await.unwrap();
        assert_eq!((reader.traffic().blocks_received, reader.traffic().refused_by_remote), (500, 0));
        assert_eq!(writer.traffic().refused_by_us, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_finite_connection_does_not_end_while_it_is_suspended() {
    let (here, there) = (Store::memory(), Store::memory());
    let feed = here.create_feed("a", FeedOptions::default()).await.unwrap();
    feed.append("a block").await.unwrap();
    let copy = there.feed(&feed.key()).await.unwrap();
    copy.suspend_replication(); // holds for peers that come later, too
    let (ours, theirs) = finite(&here, &there).await;
    until(&copy, |status| status.is_suspended && status.remote_length == 1).await;
    sleep(Duration::from_secs(20)).await;
    assert!(ours.closed().now_or_never().is_none() && theirs.closed().now_or_never().is_none());
    copy.resume_replication();
    ours.closed().await.unwrap();
    theirs.closed().await.unwrap();
    assert!(copy.has(0));
}

/// A finite connection of two stores.
async fn finite(here: &Store, there: &Store) -> (Connection, Connection) {
    let (left, right) = connection::memory();
    let party = |store: &Store| Party::new(party_key(1), WholeStore::new(store.clone()).max_feeds(4096));
    let (ours, theirs) = (identity(1), identity(2));
    tokio::try_join!(
        Connection::dial(left, &ours).join(&party(here)).finite().into_future(),
        Connection::accept(right, &theirs).join(&party(there)).finite().into_future(),
    )
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_sent_no_faster_than_its_limit() {
    let writer = written(1000).await;
    let bytes = writer.info().byte_length;
    let (slow, fast) = (reader_of(&writer).await, reader_of(&writer).await);
    let limited = Replicate::sparsely().upload_at_most(1000);
    let serving = party_of(&writer, limited);
    let _slow = meet(&party_of(&slow, Replicate::sparsely()), &serving).await;
    let start = Instant::now();
    slow.download(0..1000).done().await.unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let least = bytes as f64 / 1000.0 - 0.25;
    assert!((least - 0.1..least + 1.0).contains(&seconds), "{seconds} s for {bytes} bytes");

    // Each peer has a limit of its own, and it can be taken back.
    let _fast = meet(&party_of(&fast, Replicate::sparsely()), &serving).await;
    let start = Instant::now();
    let all = fast.download(0..1000);
    sleep(Duration::from_secs(2)).await;
    assert!((100..400).contains(&stored(&fast)), "{}", stored(&fast));
    writer.peers().iter().for_each(|link| link.limit_upload(None));
    all.done().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn all_feeds_of_a_connection_are_sent_no_faster_than_its_limit() {
    let (here, there) = (Store::memory(), Store::memory());
    let mut bytes = 0;
    for name in ["a", "b", "c"] {
        let feed = here.create_feed(name, FeedOptions::default()).await.unwrap();
        feed.append_batch((0..200).map(block).collect()).await.unwrap();
        bytes += feed.info().byte_length;
    }
    let (left, right) = connection::memory();
    let party = |store: &Store| Party::new(party_key(1), WholeStore::new(store.clone()));
    let (ours, theirs) = (identity(1), identity(2));
    let (here, there) = (party(&here), party(&there));
    let start = Instant::now();
    let (sending, receiving) = tokio::try_join!(
        Connection::dial(left, &ours).join(&here).finite().upload_at_most(100).into_future(),
        Connection::accept(right, &theirs).join(&there).finite().into_future(),
    )
    .unwrap();
    sleep(Duration::from_secs(10)).await;
    let sent = here.peers()[0].traffic().bytes_sent;
    assert!((900..1200).contains(&sent), "{sent} bytes in 10 seconds");
    sending.limit_upload(Some(1000)).await.unwrap();
    sending.closed().await.unwrap();
    receiving.closed().await.unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let least = 10.0 + (bytes - sent) as f64 / 1000.0;
    assert!((least - 0.5..least + 1.0).contains(&seconds), "{seconds} s, {least} expected");
}

#[tokio::test]
async fn a_peer_that_is_only_downloaded_from_gets_nothing() {
    let writer = written(10).await;
    let reader = reader_of(&writer).await;
    let closed = Replicate::sparsely().without_upload();
    let _connection = meet(&party_of(&reader, Replicate::sparsely()), &party_of(&writer, closed)).await;
    let link = until(&reader, |status| status.remote_length == 10).await;
    assert!(!link.status().remote_uploads);
    assert!(reader.fetch(0).now_or_never().is_none());
    assert_eq!(writer.traffic().blocks_sent, 0);
}

/// Carries bytes both ways until so many have gone by, and then cuts.
async fn carry(left: DuplexStream, right: DuplexStream, mut bytes: usize) {
    let ((mut from_left, mut to_left), (mut from_right, mut to_right)) =
        (tokio::io::split(left), tokio::io::split(right));
    let (mut a, mut b) = (vec![0; 4096], vec![0; 4096]);
    while bytes > 0 {
        let (read, to, buffer) = tokio::select! {
            read = from_left.read(&mut a) => (read, &mut to_right, &a),
            read = from_right.read(&mut b) => (read, &mut to_left, &b),
        };
        let Ok(read @ 1..) = read else { return };
        let read = read.min(bytes);
        bytes -= read;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn resuming_after_a_cut_sends_no_verified_block_again() {
    let count = 20_000;
    let writer = written(count).await;
    let reader = reader_of(&writer).await;
    let how = Replicate::fully();
    let (ours, theirs) = (party_of(&reader, how), party_of(&writer, how));
    let mut random = Random(7);
    let (mut cuts, mut lost) = (0, 0);
    while stored(&reader) < count {
        let (before, received, sent) =
            (stored(&reader), reader.traffic().blocks_received, writer.traffic().blocks_sent);
        let (left, near) = connection::memory();
        let (far, right) = connection::memory();
        let cut = tokio::spawn(carry(near, far, 2_000 + random.below(100_000) as usize));
        let (keys, others) = (identity(1), identity(2));
        let connected = tokio::try_join!(
            Connection::dial(left, &keys).join(&ours).into_future(),
            Connection::accept(right, &others).join(&theirs).into_future(),
        );
        if let Ok((dialled, accepted)) = connected {
            let all = reader.download(0..count);
            tokio::select! {
                _ = dialled.closed() => {}
                done = all.done() => done.unwrap(),
            }
            let _ = tokio::join!(dialled.close(), accepted.close());
        }
        cut.abort();
        // What was under way is committed, though nobody waits for it.
        while writer.peers().len() + reader.peers().len() > 0 {
            tokio::task::yield_now().await;
        }
        reader.clear(0..0).await.unwrap();
        let fresh = stored(&reader) - before;
        assert!(reader.traffic().blocks_received - received <= fresh);
        lost += (writer.traffic().blocks_sent - sent) - fresh;
        cuts += 1;
    }
    assert!(cuts > 20, "{cuts} cuts");
    // What was on its way when a cut came, and nothing else.
    assert!(lost < cuts * 600, "{lost} blocks lost by {cuts} cuts");
    for index in (0..count).step_by(97) {
        assert_eq!(reader.get(index).await.unwrap().unwrap(), block(index));
    }
}

#[tokio::test]
async fn a_finite_replication_of_two_thousand_feeds_ends_by_itself() {
    let (here, there) = (Store::memory(), Store::memory());
    let mut keys = Vec::new();
    for n in 0..2_000_u64 {
        let feed = here.create_feed(&format!("feed {n}"), FeedOptions::default()).await.unwrap();
        if n % 4 > 0 {
            feed.append_batch((0..n % 4).map(block).collect()).await.unwrap();
        }
        keys.push((feed.key(), n % 4));
    }
    let (ours, theirs) = finite(&here, &there).await;
    ours.closed().await.unwrap();
    theirs.closed().await.unwrap();
    for (key, length) in keys {
        let copy = there.feed(&key).await.unwrap();
        assert_eq!(copy.info().contiguous_length, length);
    }
}
