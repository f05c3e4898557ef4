//! Feeds read and written as streams, and through codecs.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use party::{
    error::{ApiMisuse, Error},
    feed::{
        Codec as _, Feed, Identity, Json, LiveEvent, Utf8,
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    key::KeyPair,
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn feed() -> Feed {
    let identity = Identity::writer(KeyPair::from_seed(&[1; 32]));
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap()
}

fn block(n: u64) -> Bytes {
    Bytes::from(format!("block {n}"))
}

/// A reader of `writer` that has some of its blocks.
async fn reader_with(writer: &Feed, indexes: impl IntoIterator<Item = u64>) -> Feed {
    let identity = Identity::reader(writer.key());
    let reader = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap();
    let upgrade = Some(UpgradeRequest { start: 0, length: writer.info().length });
    give(writer, &reader, ProofRequest { upgrade, manifest: true, ..ProofRequest::default() }).await;
    for index in indexes {
        give_block(writer, &reader, index).await;
    }
    reader
}

async fn give_block(writer: &Feed, reader: &Feed, index: u64) {
    let nodes = reader.with_local(|local| local.missing_nodes(index));
    let block = Some(BlockRequest { index, nodes });
    give(writer, reader, ProofRequest { block, ..ProofRequest::default() }).await;
}

async fn give(writer: &Feed, reader: &Feed, request: ProofRequest) {
    let proof = writer.prove(request, 0).await.unwrap().unwrap();
    reader.ingest(vec![proof]).await.pop().unwrap().unwrap();
}

#[tokio::test]
async fn a_history_is_of_the_moment_it_began_and_leaves_out_what_is_not_stored() {
    let feed = feed().await;
    feed.append_batch((0..300).map(block).collect()).await.unwrap();
    feed.clear(10..290).await.unwrap();
    let mut history = feed.history(..).await;
    let first = history.next().await.unwrap().unwrap();
    assert_eq!(first, (0, block(0)));
    feed.truncate(0).await.unwrap();
    feed.append("another course").await.unwrap();
    let rest: Vec<(u64, Bytes)> = history.try_collect().await.unwrap();
    let expected: Vec<_> = (1..10).chain(290..300).map(|n| (n, block(n))).collect();
    assert_eq!(rest, expected);

    let range: Vec<(u64, Bytes)> = feed.history(5..=u64::MAX).await.try_collect().await.unwrap();
    assert!(range.is_empty());
}

#[tokio::test]
async fn who_follows_a_feed_gets_each_block_and_hears_of_each_truncation() {
    let feed = feed().await;
    feed.append_batch((0..5).map(block).collect()).await.unwrap();
    let mut live = feed.live(3);
    let mut next = async || live.next().await.unwrap().unwrap();
    assert_eq!(next().await, LiveEvent::Block { index: 3, block: block(3) });
    assert_eq!(next().await, LiveEvent::Block { index: 4, block: block(4) });
    let (event, _) = tokio::join!(next(), async {
        tokio::task::yield_now().await;
        feed.append("more").await.unwrap()
    });
    assert_eq!(event, LiveEvent::Block { index: 5, block: "more".into() });

    // Beyond what was read: nothing to tell.
    feed.append_batch(vec!["x".into(), "y".into()]).await.unwrap();
    feed.truncate(7).await.unwrap();
    assert_eq!(next().await, LiveEvent::Block { index: 6, block: "x".into() });
    // Two at once: the shorter one counts.
    feed.truncate(2).await.unwrap();
    feed.append_batch((0..3).map(block).collect()).await.unwrap();
    feed.truncate(4).await.unwrap();
    assert_eq!(next().await, LiveEvent::Truncated { length: 2 });
    assert_eq!(next().await, LiveEvent::Block { index: 2, block: block(0) });

    // A truncation while it waits wakes it.
    assert_eq!(next().await, LiveEvent::Block { index: 3, block: block(1) });
    let (event, _) = tokio::join!(next(), async {
        tokio::task::yield_now().await;
        feed.truncate(0).await.unwrap()
    });
    assert_eq!(event, LiveEvent::Truncated { length: 0 });
}

#[tokio::test]
async fn bytes_that_are_not_here_are_waited_for() {
    let writer = feed().await;
    writer.append_batch((0..40).map(block).collect()).await.unwrap();
    let reader = reader_with(&writer, [0, 1, 2, 30]).await;
    let reading = tokio::spawn({
        let mut bytes = reader.byte_reader();
        async move {
            let mut text = String::new();
            bytes.read_to_string(&mut text).await.map(|_| text)
        }
    });
    for index in (3..40).rev() {
        give_block(&writer, &reader, index).await;
        tokio::task::yield_now().await;
    }
    let expected: String = (0..40).map(|n| format!("block {n}")).collect();
    assert_eq!(reading.await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn a_reader_of_bytes_does_not_mix_two_courses_of_a_feed() {
    let feed = feed().await;
    feed.append_batch((0..10).map(block).collect()).await.unwrap();
    let mut bytes = feed.byte_reader();
    let mut start = [0; 3];
    bytes.read_exact(&mut start).await.unwrap();
    feed.truncate(5).await.unwrap();
    feed.append_batch((0..10).map(block).collect()).await.unwrap();
    let failed = bytes.read_to_end(&mut vec![]).await.unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn every_block_of_a_writer_of_bytes_is_full_but_the_last() {
    // More than is appended at once; of a length that doesn't divide that, and longer than that.
    for block_len in [1_000, 1_500_000] {
        let feed = feed().await;
        let mut bytes = feed.byte_writer(block_len).unwrap();
        bytes.write_all(&vec![7; 5_000_100]).await.unwrap();
        bytes.shutdown().await.unwrap();
        let blocks: Vec<(u64, Bytes)> = feed.history(..).await.try_collect().await.unwrap();
        let (last, full) = blocks.split_last().unwrap();
        assert!(full.iter().all(|(_, block)| block.len() == block_len));
        assert_eq!((full.len(), last.1.len()), (5_000_100 / block_len, 5_000_100 % block_len));
    }
}

#[tokio::test]
async fn a_writer_of_bytes_says_what_went_wrong() {
    let writer = feed().await;
    assert!(writer.byte_writer(0).is_err());
    assert!(writer.byte_writer(usize::MAX).is_err());
    let reader = reader_with_nothing(&writer).await;
    let mut bytes = reader.byte_writer(10).unwrap();
    bytes.write_all(b"not mine").await.unwrap();
    assert_eq!(bytes.flush().await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

async fn reader_with_nothing(writer: &Feed) -> Feed {
    let identity = Identity::reader(writer.key());
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_as_bytes_is_read_as_the_same(
        pieces in prop::collection::vec((0usize..5_000, any::<bool>()), 0..20),
        block_len in prop_oneof![1usize..100, 1_000usize..3_000_000],
        read_len in 1usize..10_000,
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let feed = feed().await;
            let mut writer = feed.byte_writer(block_len).unwrap();
            let mut expected = vec![];
            for (n, (len, flush)) in pieces.into_iter().enumerate() {
                let piece: Vec<u8> = (0..len).map(|i| (i * 7 + n) as u8).collect();
                writer.write_all(&piece).await.unwrap();
                expected.extend(piece);
                if flush {
                    writer.flush().await.unwrap();
                    assert_eq!(feed.info().byte_length, expected.len() as u64);
                }
            }
            writer.shutdown().await.unwrap();
            let mut reader = feed.byte_reader();
            let mut found = vec![];
            loop {
                let mut piece = vec![0; read_len];
                match reader.read(&mut piece).await.unwrap() {
                    0 => break,
                    len => found.extend_from_slice(&piece[..len]),
                }
            }
            assert_eq!(found, expected);
            let history: Vec<(u64, Bytes)> = feed.history(..).await.try_collect().await.unwrap();
            assert!(history.iter().all(|(_, block)| (1..=block_len).contains(&block.len())));
        });
    }
}

#[tokio::test]
async fn a_block_that_is_no_value_is_an_error_and_not_more() {
    let feed = feed().await;
    let lines = feed.view(Utf8);
    lines.append(&"Grüße".to_owned()).await.unwrap();
    feed.append(vec![0xff, 0xfe]).await.unwrap();
    lines.append(&"after".to_owned()).await.unwrap();
    assert!(matches!(lines.get(1).await, Err(Error::NotDecodable { index: 1, .. })));
    let found: Vec<_> = lines.history(..).await.collect().await;
    assert_eq!(found.len(), 3);
    assert_eq!(found[2].as_ref().unwrap(), &(2, "after".to_owned()));

    let numbers = feed.view(Json::<std::collections::BTreeMap<String, f64>>::new());
    let refused = numbers.append(&[("a".into(), 1.5)].into()).await;
    assert_eq!(refused.unwrap(), 3);
    assert!(matches!(numbers.fetch(0).await, Err(Error::NotDecodable { index: 0, .. })));
    assert_eq!(numbers.fetch(3).await.unwrap()["a"], 1.5);
    let keys = feed.view(Json::<std::collections::BTreeMap<Vec<u8>, u8>>::new());
    let refused = keys.append_batch(&[[(vec![1], 1)].into()]).await.unwrap_err();
    assert!(matches!(refused, Error::ApiMisuse(ApiMisuse::NotEncodable { .. })));
    assert!(Json::<serde_json::Value>::new().decode(Bytes::from_static(b"{")).is_err());
    assert_eq!(feed.info().length, 4);
}
