//! What happens to peers in life, ours and Node's together: several feeds at once, parts of feeds, cuts and reconnects,
//! feeds that travel on, feeds that appear late.
#![cfg(feature = "node")]

mod common;

use anyhow::{Result, ensure};
use common::{Dials, Place, connect, hang_up, hex, in_time, no_complaints};
use conformance::{
    node::{Kind, NodeOptions, NodePeer, block, digest_of_blocks},
    peer::Peer,
};
use party::{
    connection::{self, Listener},
    key::KeyPair,
    party::Open,
    rules::WholeStore,
    store::Store,
};

#[tokio::test(flavor = "multi_thread")]
async fn three_feeds_travel_both_ways_on_one_connection() -> Result<()> {
    for dials in [Dials::Node, Dials::Rust] {
        in_time(three_feeds_both_ways(dials)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_and_one_block_are_fetched_without_the_rest() -> Result<()> {
    in_time(async {
        let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
        let ours = rust.create("ours", Kind::Default).await?;
        rust.append("ours", 1, 2_000, 200).await?;
        let theirs = node.create("theirs", Kind::Default).await?;
        node.append("theirs", 2, 2_000, 200).await?;
        node.open("ours", &ours.key).await?;
        rust.open("theirs", &theirs.key).await?;
        connect(&rust, &node, Dials::Rust).await?;

        assert_eq!(rust.download("theirs", 700, 900).await?.held, Some(200));
        assert_eq!(rust.get("theirs", 1_999).await?, block(2, 1_999, 200));
        assert_eq!(rust.info("theirs")?.held, Some(201));

        assert_eq!(node.download("ours", 700, 900).await?.held, Some(200));
        assert_eq!(node.get("ours", 1_999).await?, hex(&block(1, 1_999, 200)));
        assert_eq!(node.info("ours").await?.held, Some(201));
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reader_finds_bytes_of_ours_without_the_blocks() -> Result<()> {
    in_time(async {
        let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
        let ours = rust.create("ours", Kind::Default).await?;
        rust.append("ours", 1, 1_000, 70).await?;
        node.open("ours", &ours.key).await?;
        connect(&rust, &node, Dials::Node).await?;
        for bytes in [0, 69, 70, 33_333, 69_999] {
            assert_eq!(node.seek("ours", bytes).await?, (bytes / 70, bytes % 70), "byte {bytes}");
        }
        assert_eq!(node.info("ours").await?.held, Some(0));
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reader_follows_a_feed_of_ours_that_is_truncated_and_cleared() -> Result<()> {
    in_time(async {
        let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
        let ours = rust.create("ours", Kind::Default).await?;
        rust.append("ours", 1, 100, 50).await?;
        node.open("ours", &ours.key).await?;
        connect(&rust, &node, Dials::Node).await?;
        node.follow("ours", 100).await?;

        let feed = rust.feed("ours")?;
        feed.truncate(70).await?;
        feed.append_batch((0..60).map(|n| block(2, n, 50)).collect()).await?;
        node.follow("ours", 130).await?;
        let theirs = node.info("ours").await?;
        assert_eq!((theirs.fork, theirs.length), (1, 130));
        assert_eq!(node.get("ours", 69).await?, hex(&block(1, 69, 50)));
        assert_eq!(node.get("ours", 70).await?, hex(&block(2, 0, 50)));

        // What we have cleared, the reader keeps, and it goes on with what comes.
        feed.clear(0..125).await?;
        feed.append_batch((0..5).map(|n| block(3, n, 50)).collect()).await?;
        node.follow("ours", 135).await?;
        assert_eq!(node.get("ours", 134).await?, hex(&block(3, 4, 50)));
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_where_it_was_cut() -> Result<()> {
    in_time(async {
        let folder = tempfile::tempdir()?;
        let node = NodePeer::spawn(&NodeOptions::store())?;
        let theirs = node.create("theirs", Kind::Default).await?;
        node.append("theirs", 3, 500, 100).await?;
        let port = node.listen().await?;

        let rust = Peer::new(Store::open(folder.path()).await?);
        rust.open("theirs", &theirs.key).await?;
        rust.dial(port).await?;
        rust.follow("theirs", 500).await?;
        rust.close().await?;
        node.append("theirs", 3, 500, 100).await?;

        let rust = Peer::new(Store::open(folder.path()).await?);
        assert_eq!(rust.open("theirs", &theirs.key).await?.contiguous_length, 500);
        rust.dial(port).await?;
        rust.follow("theirs", 1_000).await?;
        assert_eq!(rust.digest("theirs").await?, digest_of_blocks(3, 1_000, 100));
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_the_other_lacks_does_not_disturb_the_rest() -> Result<()> {
    in_time(async {
        let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
        rust.open("unknown to node", &"1f".repeat(32)).await?;
        node.open("unknown to rust", &"2e".repeat(32)).await?;
        let ours = rust.create("ours", Kind::Default).await?;
        let theirs = node.create("theirs", Kind::Default).await?;
        node.open("ours", &ours.key).await?;
        rust.open("theirs", &theirs.key).await?;
        connect(&rust, &node, Dials::Node).await?;
        rust.append("ours", 4, 10, 10).await?;
        node.append("theirs", 5, 10, 10).await?;
        tokio::try_join!(rust.follow("theirs", 10), node.follow("ours", 10))?;
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_costs_what_was_on_its_way_only() -> Result<()> {
    in_time(async {
        let folder = tempfile::tempdir()?;
        let options = NodeOptions::store().at(folder.path());
        let node = NodePeer::spawn(&options)?;
        let theirs = node.create("theirs", Kind::Default).await?;
        node.append("theirs", 8, 20_000, 100).await?;
        let rust = Place::Memory.peer().await?;
        rust.open("theirs", &theirs.key).await?;
        rust.dial(node.listen().await?).await?;
        rust.download("theirs", 0, 100).await?;
        let follow = tokio::spawn({
            let rust = rust.clone();
            async move { rust.follow("theirs", 20_000).await }
        });
        node.kill().await?;
        // Whether that looks like a cut or like an end depends on what the killed process had not read.
        let _ = rust.hang_up().await;
        ensure!(rust.feed("theirs")?.info().contiguous_length < 20_000, "there was nothing left to cut");

        let node = NodePeer::spawn(&options)?;
        node.open("theirs", &theirs.key).await?;
        rust.dial(node.listen().await?).await?;
        follow.await??;
        assert_eq!(rust.digest("theirs").await?, digest_of_blocks(8, 20_000, 100));
        no_complaints(&node)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_feed_travels_on_through_our_peer() -> Result<()> {
    for kind in [Kind::Default, Kind::Compat, Kind::ManifestZero] {
        in_time(async {
            let writer = NodePeer::spawn(&NodeOptions::store())?;
            let reader = NodePeer::spawn(&NodeOptions::store())?;
            let rust = Place::Disk.peer().await?;
            let theirs = writer.create("a", kind).await?;
            writer.append("a", 9, 1_500, 200).await?;
            rust.open("a", &theirs.key).await?;
            reader.open("a", &theirs.key).await?;
            rust.dial(writer.listen().await?).await?;
            reader.dial(rust.listen().await?).await?;
            tokio::try_join!(rust.follow("a", 1_500), reader.follow("a", 1_500))?;
            assert_eq!(reader.digest("a").await?, digest_of_blocks(9, 1_500, 200));

            writer.append("a", 9, 500, 200).await?;
            tokio::try_join!(rust.follow("a", 2_000), reader.follow("a", 2_000))?;
            assert_eq!(reader.digest("a").await?, digest_of_blocks(9, 2_000, 200));
            no_complaints(&writer)?;
            no_complaints(&reader)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_feed_is_served_by_who_has_only_that() -> Result<()> {
    in_time(async {
        let writer = NodePeer::spawn(&NodeOptions::store())?;
        let reader = NodePeer::spawn(&NodeOptions::store())?;
        let rust = Place::Memory.peer().await?;
        let theirs = writer.create("a", Kind::Default).await?;
        writer.append("a", 11, 2_000, 200).await?;
        rust.open("a", &theirs.key).await?;
        rust.dial(writer.listen().await?).await?;
        assert_eq!(rust.download("a", 1_000, 1_100).await?.held, Some(100));
        rust.hang_up().await?;

        reader.open("a", &theirs.key).await?;
        rust.dial(reader.listen().await?).await?;
        assert_eq!(reader.download("a", 1_000, 1_100).await?.held, Some(100));
        assert_eq!(reader.get("a", 1_050).await?, hex(&block(11, 1_050, 200)));
        no_complaints(&reader)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_node_peers_feed_one_of_ours() -> Result<()> {
    in_time(async {
        let writer = NodePeer::spawn(&NodeOptions::store())?;
        let copy = NodePeer::spawn(&NodeOptions::store())?;
        let rust = Place::Disk.peer().await?;
        let theirs = writer.create("a", Kind::Default).await?;
        writer.append("a", 12, 4_000, 300).await?;
        copy.open("a", &theirs.key).await?;
        copy.dial(writer.listen().await?).await?;
        copy.follow("a", 4_000).await?;

        rust.open("a", &theirs.key).await?;
        rust.dial(writer.listen().await?).await?;
        rust.dial(copy.listen().await?).await?;
        rust.follow("a", 4_000).await?;
        assert_eq!(rust.digest("a").await?, digest_of_blocks(12, 4_000, 300));
        no_complaints(&writer)?;
        no_complaints(&copy)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_peer_opens_our_feed_on_a_connection_that_is_up() -> Result<()> {
    in_time(async {
        let (rust, node) = (Place::Memory.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
        connect(&rust, &node, Dials::Rust).await?;
        let ours = rust.create("ours", Kind::Default).await?;
        rust.append("ours", 13, 300, 50).await?;
        node.open("ours", &ours.key).await?;
        node.follow("ours", 300).await?;
        assert_eq!(node.digest("ours").await?, digest_of_blocks(13, 300, 50));
        hang_up(&rust, &node).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finite_connection_to_node_ends_when_all_is_there() -> Result<()> {
    for dials in [Dials::Node, Dials::Rust] {
        in_time(async {
            let (store, node) = (Store::memory(), NodePeer::spawn(&NodeOptions::store())?);
            let theirs = node.create("theirs", Kind::Default).await?;
            node.append("theirs", 14, 1_000, 100).await?;
            let feed = store.feed(&theirs.key.parse()?).await?;
            let (open, key_pair) = (Open::new(WholeStore::new(store)), KeyPair::generate());
            let connection = match dials {
                Dials::Rust => {
                    let connecting = connection::dial(("127.0.0.1", node.listen().await?), &key_pair).await?;
                    connecting.open(&open).finite().await?
                }
                Dials::Node => {
                    let listener = Listener::bind(("127.0.0.1", 0), &key_pair).await?;
                    let port = listener.local_addr()?.port();
                    let accept = async {
                        let (connecting, _) = listener.accept().await?;
                        anyhow::Ok(connecting.open(&open).finite().await?)
                    };
                    let (connection, ()) = tokio::try_join!(accept, node.dial(port))?;
                    connection
                }
            };
            connection.closed().await?;
            assert_eq!(feed.info().contiguous_length, 1_000);
            assert_eq!(feed.get(999).await?, Some(block(14, 999, 100)));
            node.wait_for("streamClosed", 1).await?;
            no_complaints(&node)
        })
        .await?;
    }
    Ok(())
}

async fn three_feeds_both_ways(dials: Dials) -> Result<()> {
    let (rust, node) = (Place::Disk.peer().await?, NodePeer::spawn(&NodeOptions::store())?);
    for (number, kind) in [Kind::Default, Kind::Compat, Kind::Default].into_iter().enumerate() {
        let (ours, theirs) = (format!("ours {number}"), format!("theirs {number}"));
        let core = rust.create(&ours, kind).await?;
        rust.append(&ours, 10 + number as u32, 2_000, 400).await?;
        node.open(&ours, &core.key).await?;
        let core = node.create(&theirs, kind).await?;
        node.append(&theirs, 20 + number as u32, 2_000, 400).await?;
        rust.open(&theirs, &core.key).await?;
    }
    connect(&rust, &node, dials).await?;
    tokio::try_join!(
        rust.follow("theirs 0", 2_000),
        rust.follow("theirs 1", 2_000),
        rust.follow("theirs 2", 2_000),
        node.follow("ours 0", 2_000),
        node.follow("ours 1", 2_000),
        node.follow("ours 2", 2_000),
    )?;
    for number in 0..3 {
        let (ours, theirs) = (format!("ours {number}"), format!("theirs {number}"));
        assert_eq!(node.digest(&ours).await?, digest_of_blocks(10 + number, 2_000, 400));
        assert_eq!(rust.digest(&theirs).await?, digest_of_blocks(20 + number, 2_000, 400));
    }
    let connected = node.events().iter().filter(|event| event["event"] == "connected").count();
    assert_eq!(connected, 1);
    hang_up(&rust, &node).await
}
