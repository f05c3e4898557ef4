//! Feeds as apps and replication use them: writing, reading, waiting, and storage that is slow, fails, or
//! is damaged.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex},
};

use crate::common::storage::as_in;
use bytes::Bytes;
use party::{
    error::{ApiMisuse, Error, PeerMisbehaved, StorageError},
    feed::{
        Demand, Feed, Identity, Ingested,
        manifest::Manifest,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        storage::{Completion, Key, Slot, Storage, Write},
        verifier::Verifier,
        verify::{Verification, hash_proofs},
    },
    key::{FeedKey, KeyPair},
    limits::Limits,
};
use tokio::sync::oneshot;

const SLOT: Slot = Slot(0);

fn blocks(range: Range<u64>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!("block {n} {}", "x".repeat(n as usize % 50)))).collect()
}

async fn feed(identity: Identity) -> Feed {
    Feed::create(Arc::new(MemoryStorage::new()), SLOT, identity).await.unwrap()
}

fn writer() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

async fn written(length: u64) -> Feed {
    let feed = feed(Identity::writer(writer())).await;
    feed.append_batch(blocks(0..length)).await.unwrap();
    feed
}

async fn reader_of(writer: &Feed) -> Feed {
    feed(Identity::reader(writer.key())).await
}

fn upgrade(start: u64, length: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest { start, length }),
        manifest: start == 0,
        ..ProofRequest::default()
    }
}

fn block(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() }
}

async fn prove(feed: &Feed, request: ProofRequest) -> Proof {
    feed.prove(request, 0).await.unwrap().expect("the feed has it")
}

async fn ingest(feed: &Feed, proof: Proof) -> Result<Ingested, Error> {
    feed.ingest(vec![proof]).await.pop().unwrap()
}

/// Lets `reader` have all of the writer's tree and these blocks of it.
async fn copy(writer: &Feed, reader: &Feed, range: Range<u64>) {
    let (start, end) = (reader.info().length, writer.info().length);
    if start < end {
        ingest(reader, prove(writer, upgrade(start, end - start)).await).await.unwrap();
    }
    for index in range {
        let nodes = reader.with_local(|local| local.missing_nodes(index));
        ingest(reader, prove(writer, block(index, nodes)).await).await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_follows_a_writer() {
    for identity in [Identity::writer(writer()), Identity::legacy_writer(writer())] {
        let writer = feed(identity.clone()).await;
        let reader = reader_of(&writer).await;
        for round in 0..5 {
            writer.append_batch(blocks(round * 10..round * 10 + 10)).await.unwrap();
            copy(&writer, &reader, round * 10..round * 10 + 10).await;
        }
        assert_eq!(reader.info().contiguous_length, 50);
        assert_eq!(reader.info().byte_length, writer.info().byte_length);
        assert_eq!(reader.manifest(), writer.manifest());
        for index in 0..50 {
            assert_eq!(reader.get(index).await.unwrap(), writer.get(index).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_feed_comes_back_from_its_storage() {
    let storage = Arc::new(MemoryStorage::new());
    let open = |identity| Feed::create(storage.clone(), SLOT, identity);
    let first = open(Identity::writer(writer())).await.unwrap();
    first.append_batch(blocks(0..77)).await.unwrap();
    let again = open(Identity::writer(writer())).await.unwrap();
    assert_eq!(again.info(), first.info());
    assert_eq!(again.append("more").await.unwrap(), 77);
    let read_only = open(Identity::reader(first.key())).await.unwrap();
    assert_eq!(read_only.info().length, 78);
    assert!(!read_only.info().writable);
    assert_eq!(read_only.manifest(), first.manifest());
}

#[tokio::test]
async fn two_feeds_in_one_storage_keep_apart() {
    let storage = Arc::new(MemoryStorage::new());
    let one = Feed::create(storage.clone(), Slot(1), Identity::writer(writer())).await.unwrap();
    let two = Feed::create(storage.clone(), Slot(2), Identity::legacy_writer(writer())).await.unwrap();
    one.append("one").await.unwrap();
    two.append("two").await.unwrap();
    assert_eq!(one.get(0).await.unwrap().unwrap(), "one");
    assert_eq!(two.get(0).await.unwrap().unwrap(), "two");
    let wrong = Feed::create(storage, Slot(1), Identity::legacy_writer(writer())).await;
    assert!(matches!(wrong, Err(Error::Storage(StorageError::Damaged { .. }))));
}

#[tokio::test]
async fn only_the_writer_appends() {
    let writer = written(3).await;
    let reader = reader_of(&writer).await;
    copy(&writer, &reader, 0..3).await;
    for feed in [&reader, &feed(Identity::reader(FeedKey::from_bytes([5; 32]))).await] {
        let refused = feed.append("mine").await;
        assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::NotWritable(_)))));
    }
    let several = Manifest {
        quorum: 2,
        signers: [1, 2].map(|n| Manifest::single(KeyPair::from_seed(&[n; 32]).public()).signers[0]).to_vec(),
        ..Manifest::single(self::writer().public())
    };
    let one_of_both = Identity { key: several.key(), manifest: Some(several), signer: Some(self::writer()) };
    assert!(!feed(one_of_both).await.info().writable);
}

#[tokio::test]
async fn an_identity_must_fit_together() {
    let storage = || Arc::new(MemoryStorage::new());
    let other = FeedKey::from_bytes([5; 32]);
    for identity in [
        Identity { key: other, ..Identity::writer(writer()) },
        Identity { manifest: None, key: other, ..Identity::writer(writer()) },
    ] {
        let refused = Feed::create(storage(), SLOT, identity).await;
        assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::WrongManifest))));
    }
    // The manifest may be left out if the signer tells it.
    let identity = Identity { manifest: None, ..Identity::writer(writer()) };
    assert!(Feed::create(storage(), SLOT, identity).await.unwrap().info().writable);
}

#[tokio::test]
async fn a_batch_is_appended_whole_or_not_at_all() {
    let feed = written(2).await;
    assert_eq!(feed.append_batch(Vec::new()).await.unwrap(), 2..2);
    let max = Limits::default().max_block;
    let too_large = vec![Bytes::from_static(b"fits"), Bytes::from(vec![0; max + 1])];
    let refused = feed.append_batch(too_large).await;
    assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::BlockTooLarge { len, .. })) if len == max + 1));
    assert_eq!(feed.info().length, 2);
    assert_eq!(feed.append_batch(vec![Bytes::new(), "x".into()]).await.unwrap(), 2..4);
    assert_eq!(feed.get(2).await.unwrap(), Some(Bytes::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_from_many_tasks_take_turns() {
    let feed = written(0).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let feed = feed.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for n in 0..20 {
                    mine.push((feed.append(format!("{task} {n}")).await.unwrap(), format!("{task} {n}")));
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort();
    assert_eq!(all.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..160).collect::<Vec<_>>());
    for (index, value) in all {
        assert_eq!(feed.get(index).await.unwrap().unwrap(), value);
    }
    let reader = reader_of(&feed).await;
    copy(&feed, &reader, 0..160).await;
    assert_eq!(reader.info().contiguous_length, 160);
}

#[tokio::test]
async fn proofs_of_one_call_may_rest_on_each_other() {
    let writer = written(13).await;
    let reader = reader_of(&writer).await;
    let mut proofs = vec![prove(&writer, upgrade(0, 13)).await];
    // Root 7 is 3 levels above block 0; block 1 then needs nothing but itself, block 2 one level.
    for (index, nodes) in [(0, 3), (1, 0), (2, 1), (12, 0), (3, 3)] {
        proofs.push(prove(&writer, block(index, nodes)).await);
    }
    let results = reader.ingest(proofs).await;
    assert_eq!(results[0].as_ref().unwrap().length, Some(13));
    assert!(results[0].as_ref().unwrap().manifest);
    let stored: Vec<_> = results[1..].iter().map(|result| result.as_ref().unwrap().block).collect();
    assert_eq!(stored, [Some(0), Some(1), Some(2), Some(12), Some(3)]);
}

#[tokio::test]
async fn one_bad_proof_spoils_no_other() {
    let writer = written(13).await;
    let reader = reader_of(&writer).await;
    let mut bad = prove(&writer, block(5, 3)).await;
    bad.block.iter_mut().for_each(|block| block.value = "forged".into());
    let proofs = vec![
        prove(&writer, upgrade(0, 13)).await,
        bad,
        prove(&writer, block(4, 3)).await,
        prove(&writer, upgrade(0, 13)).await,
    ];
    let results = reader.ingest(proofs).await;
    assert!(matches!(results[1], Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidProof(_)))));
    assert_eq!(results[2].as_ref().unwrap().block, Some(4));
    assert!(results[3].as_ref().unwrap().stale);
    assert!(reader.has(4) && !reader.has(5));
}

//= FEED-61
#[tokio::test]
async fn an_empty_upgrade_is_refused() {
    let writer = written(3).await;
    let reader = reader_of(&writer).await;
    let mut empty = prove(&writer, upgrade(0, 3)).await;
    empty.upgrade.iter_mut().for_each(|upgrade| {
        upgrade.length = 0;
        upgrade.nodes.clear();
    });
    let refused = ingest(&reader, empty).await;
    assert!(matches!(refused, Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidProof("an empty upgrade")))));
}

#[tokio::test]
async fn what_comes_too_late_is_stale_and_no_offence() {
    let writer = written(5).await;
    let reader = reader_of(&writer).await;
    let early = prove(&writer, upgrade(0, 5)).await;
    let with = |index| ProofRequest { block: Some(BlockRequest { index, nodes: 0 }), ..upgrade(0, 5) };
    let (with_known, with_unknown) = (prove(&writer, with(2)).await, prove(&writer, with(4)).await);
    writer.append("more").await.unwrap();
    copy(&writer, &reader, 0..0).await;
    let stale = ingest(&reader, early).await.unwrap();
    assert!(stale.stale && stale.length.is_none());
    // The upgrade has passed; a block in it is still good if its root is one that we know.
    let done = ingest(&reader, with_known).await.unwrap();
    assert_eq!((done.block, done.stale), (Some(2), false));
    let done = ingest(&reader, with_unknown).await.unwrap();
    assert_eq!((done.block, done.stale), (None, true));
    let other_fork = Proof { fork: 3, ..prove(&writer, block(0, 2)).await };
    assert!(ingest(&reader, other_fork).await.unwrap().stale);
    assert!(!reader.has(0));
}

#[tokio::test]
async fn a_proof_that_leads_to_no_known_node_is_stale_only_if_its_upgrade_has_passed() {
    let writer = written(5).await;
    let with = |index, upgraded| ProofRequest { block: Some(BlockRequest { index, nodes: 0 }), ..upgraded };
    let late = prove(&writer, with(4, upgrade(0, 5))).await;
    writer.append("more").await.unwrap();
    let tree = writer.tree_at(6).await.unwrap();
    writer.append("and more").await.unwrap();
    // In time, but without the nodes that lead to the tree.
    let mut loose = prove(&writer, with(2, upgrade(6, 1))).await;
    loose.block.as_mut().unwrap().nodes.clear();

    let verifier = Verifier::new(writer.key(), writer.manifest().unwrap()).unwrap();
    let mut verification =
        Verification::new(writer.key(), Some(verifier), 0, tree, Bytes::new(), HashMap::new());
    let [late, loose] = [late, loose].map(|proof| hash_proofs(vec![proof]).remove(0).unwrap());
    assert!(verification.verify(late).unwrap().is_stale());
    let refused = verification.verify(loose).unwrap_err();
    assert_eq!(refused, PeerMisbehaved::InvalidProof("a node that does not lead to a known one"));
}

#[tokio::test]
async fn bytes_are_read_only_if_it_is_known_where_they_begin() {
    let writer = written(8).await;
    let reader = reader_of(&writer).await;
    ingest(&reader, prove(&writer, upgrade(0, 8)).await).await.unwrap();
    assert!(reader.read_range(5..9).await.unwrap().is_none());
    // For none of them it need not be known.
    let mut none = reader.read_range(5..5).await.unwrap().unwrap();
    assert_eq!(none.next().await.unwrap(), None);
}

//= FEED-62
#[tokio::test]
async fn an_upgrade_with_a_node_too_many_is_refused() {
    let writer = written(3).await;
    let reader = reader_of(&writer).await;
    let mut longer = prove(&writer, upgrade(0, 3)).await;
    longer.upgrade.iter_mut().for_each(|upgrade| upgrade.nodes.push(upgrade.nodes[0]));
    let refused = ingest(&reader, longer).await;
    assert!(matches!(refused, Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidProof(_)))));
}

//= FEED-60
#[tokio::test]
async fn an_upgrade_that_skips_blocks_brings_nothing() {
    let writer = written(5).await;
    let reader = reader_of(&writer).await;
    let skips = prove(&writer, upgrade(2, 3)).await;
    let too_early = ingest(&reader, skips).await.unwrap();
    assert_eq!(too_early, Ingested { unconnected: true, ..Ingested::default() });
    assert_eq!(reader.info().length, 0);
}

//= FEED-2, FEED-3
#[tokio::test]
async fn a_reader_learns_the_manifest_from_whoever_has_it() {
    let writer = written(5).await;
    let reader = reader_of(&writer).await;
    assert!(reader.with_local(|local| local.needs_manifest() && !local.has_manifest()));
    let without = Proof { manifest: None, ..prove(&writer, upgrade(0, 5)).await };
    let refused = ingest(&reader, without.clone()).await;
    assert!(matches!(refused, Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidSignature))));
    let other = Some(Manifest::single(KeyPair::from_seed(&[2; 32]).public()).into());
    let refused = ingest(&reader, Proof { manifest: other, ..without.clone() }).await;
    assert!(matches!(refused, Err(Error::PeerMisbehaved(PeerMisbehaved::WrongManifest))));

    let manifest = prove(&writer, ProofRequest { manifest: true, ..ProofRequest::default() }).await;
    assert!(ingest(&reader, manifest).await.unwrap().manifest);
    assert!(reader.with_local(|local| local.has_manifest() && !local.needs_manifest()));
    assert_eq!(ingest(&reader, without).await.unwrap().length, Some(5));
}

//= FEED-16
#[tokio::test]
async fn nobody_can_pass_a_feed_off_as_a_legacy_one() {
    let writer = written(5).await;
    let reader = reader_of(&writer).await;
    let as_legacy = Manifest::legacy(party::key::PublicKey::from_bytes(*writer.key().as_bytes()));
    let proof = Proof { manifest: Some(as_legacy.into()), ..Proof::default() };
    assert!(!ingest(&reader, proof).await.unwrap().manifest);
    assert!(reader.with_local(|local| local.needs_manifest()));
    copy(&writer, &reader, 0..5).await;
    assert_eq!(reader.manifest(), writer.manifest());
}

#[tokio::test]
async fn a_legacy_feed_has_no_manifest_to_show() {
    let writer = feed(Identity::legacy_writer(writer())).await;
    writer.append("block").await.unwrap();
    let proof = prove(&writer, upgrade(0, 1)).await;
    assert_eq!(proof.manifest, None);
    assert_eq!(proof.upgrade.as_ref().unwrap().signature.len(), 64);
    let reader = reader_of(&writer).await;
    ingest(&reader, proof).await.unwrap();
    assert!(reader.with_local(|local| !local.has_manifest() && !local.needs_manifest()));
}

/// Two nodes that a peer supplies, and that meet in one parent, could have their sizes shifted unnoticed.
//= FEED-65
#[tokio::test]
async fn sizes_that_only_a_peer_vouches_for_are_not_stored() {
    let writer = written(4).await;
    let storage = Arc::new(MemoryStorage::new());
    let reader = Feed::create(storage.clone(), SLOT, Identity::reader(writer.key())).await.unwrap();
    copy(&writer, &reader, 0..0).await;
    writer.append_batch(blocks(4..8)).await.unwrap();
    let mut shifted = prove(&writer, upgrade(4, 2)).await;
    let grown = shifted.upgrade.as_mut().unwrap();
    grown.nodes[0].size += 3;
    grown.additional_nodes[0].size -= 3;
    assert_eq!(ingest(&reader, shifted).await.unwrap().length, Some(8));
    let stored =
        storage.read(vec![Key::Node(SLOT, 9), Key::Node(SLOT, 13), Key::Node(SLOT, 11)]).await.unwrap();
    assert!(stored[0].is_none() && stored[1].is_none() && stored[2].is_some());
    copy(&writer, &reader, 0..8).await;
    let third = reader_of(&reader).await;
    copy(&reader, &third, 0..8).await;
    assert_eq!(third.info().contiguous_length, 8);
}

#[tokio::test]
async fn what_a_feed_does_not_have_it_does_not_prove() {
    let writer = written(8).await;
    let reader = reader_of(&writer).await;
    assert_eq!(reader.prove(upgrade(0, 1), 0).await.unwrap(), None);
    copy(&writer, &reader, 3..4).await;
    for request in [block(2, 0), block((1 << 53) - 1, 0), block(u64::MAX, u64::MAX), block(3, 9)] {
        assert_eq!(reader.prove(request.clone(), 0).await.unwrap(), None, "{request:?}");
    }
    assert_eq!(reader.prove(block(3, 3), 1).await.unwrap(), None);
    assert!(reader.prove(block(3, 3), 0).await.unwrap().is_some());
    for request in [upgrade(0, 9), upgrade(8, 1), upgrade(3, 0), upgrade(u64::MAX, 1), upgrade(1, u64::MAX)] {
        let refused = reader.prove(request, 0).await;
        assert!(matches!(refused, Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidRequest(_)))));
    }
}

#[tokio::test]
async fn what_is_wanted_is_known_until_it_is_not_wanted_any_more() {
    let writer = written(10).await;
    let reader = reader_of(&writer).await;
    copy(&writer, &reader, 0..2).await;
    let mut changes = reader.subscribe();
    let some = reader.download(0..4);
    changes.changed().await;
    let rest = reader.download(8..);
    assert_eq!(reader.demand(), Demand::from_ranges([0..4, 8..u64::MAX]));
    assert_eq!(reader.with_local(|local| reader.demand().next_missing(local, 0, 10)), Some(2));
    drop(rest);
    assert_eq!(reader.demand().ranges(), std::slice::from_ref(&(0..4)));

    let waiting = tokio::spawn(async move { some.done().await.unwrap() });
    copy(&writer, &reader, 2..4).await;
    waiting.await.unwrap();
    assert!(reader.demand().is_empty());
    reader.download(3..3).done().await.unwrap();
    reader.download(1..=3).done().await.unwrap();
}

#[tokio::test]
async fn fetching_waits_for_the_block() {
    let writer = written(3).await;
    let reader = reader_of(&writer).await;
    let fetching = tokio::spawn({
        let reader = reader.clone();
        async move { reader.fetch(4).await }
    });
    while !reader.demand().wants(4) {
        tokio::task::yield_now().await;
    }
    let growing = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait_for_length(5).await }
    });
    copy(&writer, &reader, 0..3).await;
    writer.append_batch(blocks(3..5)).await.unwrap();
    copy(&writer, &reader, 4..5).await;
    assert_eq!(fetching.await.unwrap().unwrap(), blocks(4..5)[0]);
    growing.await.unwrap();
    assert!(reader.demand().is_empty());
    assert!(matches!(reader.fetch(u64::MAX).await, Err(Error::ApiMisuse(_))));

    let live = tokio::spawn({
        let writer = writer.clone();
        async move { writer.fetch(5).await }
    });
    writer.append("appended").await.unwrap();
    assert_eq!(live.await.unwrap().unwrap(), "appended");
}

/// Memory storage whose commits can be held up, and made to fail.
#[derive(Default)]
struct Difficult {
    inner: Arc<MemoryStorage>,
    next: Mutex<Option<Next>>,
}

enum Next {
    Fail,
    Wait(oneshot::Receiver<()>),
}

impl Difficult {
    fn hold(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        *self.next.lock().unwrap() = Some(Next::Wait(held));
        release
    }

    fn fail(&self) {
        *self.next.lock().unwrap() = Some(Next::Fail);
    }
}

impl Storage for Difficult {
    as_in!(inner: read, records, snapshot, close);

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        match self.next.lock().unwrap().take() {
            None => self.inner.commit(writes),
            Some(Next::Fail) => Box::pin(async { Err(StorageError::Database("the disk is full".into())) }),
            Some(Next::Wait(held)) => {
                let inner = self.inner.clone();
                let commit = tokio::spawn(async move {
                    held.await.ok();
                    inner.commit(writes).await
                });
                Box::pin(async move { commit.await.unwrap_or(Err(StorageError::Closed)) })
            }
        }
    }
}

//= FEED-64
#[tokio::test]
async fn a_failed_commit_leaves_the_feed_as_it_was() {
    let storage = Arc::new(Difficult::default());
    let writer = Feed::create(storage.clone(), SLOT, Identity::writer(writer())).await.unwrap();
    writer.append("first").await.unwrap();
    let before = writer.info();
    storage.fail();
    assert!(matches!(writer.append("lost").await, Err(Error::Storage(StorageError::Database(_)))));
    assert_eq!(writer.info(), before);
    assert_eq!(writer.append("second").await.unwrap(), 1);
    assert_eq!(writer.get(1).await.unwrap().unwrap(), "second");

    let storage = Arc::new(Difficult::default());
    let reader = Feed::create(storage.clone(), SLOT, Identity::reader(writer.key())).await.unwrap();
    let proofs = vec![prove(&writer, upgrade(0, 2)).await, prove(&writer, block(0, 1)).await];
    storage.fail();
    for result in reader.ingest(proofs.clone()).await {
        assert!(matches!(result, Err(Error::Storage(StorageError::Database(_)))));
    }
    assert_eq!((reader.info().length, reader.has(0)), (0, false));
    for result in reader.ingest(proofs).await {
        result.unwrap();
    }
    assert!(reader.has(0));
}

#[tokio::test]
async fn nothing_of_an_append_is_seen_before_it_is_stored() {
    let storage = Arc::new(Difficult::default());
    let feed = Feed::create(storage.clone(), SLOT, Identity::writer(writer())).await.unwrap();
    let release = storage.hold();
    let appending = tokio::spawn({
        let feed = feed.clone();
        async move { feed.append("slow").await }
    });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!((feed.info().length, feed.has(0)), (0, false));
    release.send(()).unwrap();
    assert_eq!(appending.await.unwrap().unwrap(), 0);
    assert!(feed.has(0));
}

#[tokio::test]
async fn an_append_that_is_given_up_midway_leaves_memory_and_storage_together() {
    let storage = Arc::new(Difficult::default());
    let feed = Feed::create(storage.clone(), SLOT, Identity::writer(writer())).await.unwrap();
    let release = storage.hold();
    let appending = tokio::spawn({
        let feed = feed.clone();
        async move { feed.append("given up").await }
    });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    appending.abort();
    assert!(appending.await.unwrap_err().is_cancelled());
    let next = tokio::spawn({
        let feed = feed.clone();
        async move { feed.append("next").await }
    });
    release.send(()).unwrap();
    assert_eq!(next.await.unwrap().unwrap(), 1);
    assert_eq!(feed.get(0).await.unwrap().unwrap(), "given up");

    // It is seen even if nobody writes after it.
    let release = storage.hold();
    let appending = tokio::spawn({
        let feed = feed.clone();
        async move { feed.append("given up, too").await }
    });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    appending.abort();
    release.send(()).unwrap();
    feed.wait_for_length(3).await;
    assert_eq!(feed.get(2).await.unwrap().unwrap(), "given up, too");
}

/// Counts the bytes of what is written, and which pages are.
#[derive(Default)]
struct Counting {
    inner: MemoryStorage,
    written: Mutex<(usize, Vec<u64>)>,
}

impl Storage for Counting {
    as_in!(inner: read, records, snapshot, close);

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        let mut written = self.written.lock().unwrap();
        for write in &writes {
            let (Write::Put(key, _) | Write::Delete(key)) = write else { continue };
            if let Write::Put(_, value) = write {
                written.0 += value.len();
            }
            if let Key::Page(_, n) = key {
                written.1.push(*n);
            }
        }
        self.inner.commit(writes)
    }
}

#[tokio::test]
async fn little_is_written_beside_a_block() {
    let storage = Arc::new(Counting::default());
    let writer = Feed::create(storage.clone(), SLOT, Identity::writer(writer())).await.unwrap();
    for n in 0..200 {
        let before = storage.written.lock().unwrap().0;
        writer.append(Bytes::new()).await.unwrap();
        let beside = storage.written.lock().unwrap().0 - before;
        assert!(beside < 600, "{beside} bytes for append {n}");
    }
    assert!(storage.written.lock().unwrap().1.is_empty());

    // In reverse every block but the last to come leaves a gap, and a page of one run tells of it.
    let storage = Arc::new(Counting::default());
    let reader = Feed::create(storage.clone(), SLOT, Identity::reader(writer.key())).await.unwrap();
    copy(&writer, &reader, 0..0).await;
    for index in (0..200).rev() {
        let before = storage.written.lock().unwrap().0;
        copy(&writer, &reader, index..index + 1).await;
        let beside = storage.written.lock().unwrap().0 - before;
        assert!(beside < 1_000, "{beside} bytes for block {index}");
    }
    assert_eq!(reader.info().contiguous_length, 200);
}

/// Memory storage in which one value of the feed has been changed.
struct Damaged {
    inner: Arc<MemoryStorage>,
    damage: Box<Damage>,
}

/// What is read in place of a value.
type Damage = dyn Fn(&Key, Bytes) -> Option<Bytes> + Send + Sync;

impl Storage for Damaged {
    as_in!(inner: records, commit, snapshot, close);

    fn read(&self, keys: Vec<Key>) -> Completion<Vec<Option<Bytes>>> {
        let mut values = self.inner.read(keys.clone());
        let values = match futures_util::FutureExt::now_or_never(&mut values) {
            Some(Ok(values)) => values,
            _ => Vec::new(),
        };
        let damaged =
            keys.iter().zip(values).map(|(key, value)| (self.damage)(key, value?)).collect::<Vec<_>>();
        Box::pin(async { Ok(damaged) })
    }
}

//= STORE-10
#[tokio::test]
async fn damaged_storage_is_noticed_and_never_a_panic() {
    let writer = written(40).await;
    let storage = Arc::new(MemoryStorage::new());
    let reader = Feed::create(storage.clone(), SLOT, Identity::reader(writer.key())).await.unwrap();
    copy(&writer, &reader, 10..20).await;
    let kinds: [fn(&Key) -> bool; 3] = [
        |key| matches!(key, Key::Head(_)),
        |key| matches!(key, Key::Page(..)),
        |key| matches!(key, Key::Node(..)),
    ];
    for (kind, is_kind) in kinds.into_iter().enumerate() {
        for at in 0..400 {
            for change in [None, Some(1), Some(0x80)] {
                let damage = move |key: &Key, value: Bytes| {
                    let mut bytes = value.to_vec();
                    if is_kind(key) {
                        match change {
                            None => bytes.truncate(at % bytes.len()),
                            Some(bits) => {
                                let at = at % bytes.len();
                                bytes[at] ^= bits;
                            }
                        }
                    }
                    Some(bytes.into())
                };
                let storage = Arc::new(Damaged { inner: storage.clone(), damage: Box::new(damage) });
                match Feed::create(storage, SLOT, Identity::reader(writer.key())).await {
                    Err(Error::Storage(StorageError::Damaged { .. })) => {}
                    Err(error) => panic!("{error}"),
                    // Which blocks are stored is not signed; what is can't have changed.
                    Ok(feed) => {
                        assert_eq!(feed.info().length, 40, "kind {kind}, byte {at}, {change:?}");
                        assert_ne!(kind, 2, "roots are signed");
                        feed.with_local(|local| (local.next_missing(0, 40), local.missing_nodes(3)));
                        for index in 0..40 {
                            let _ = feed.get(index).await;
                            let _ = feed.prove(block(index, 0), 0).await;
                        }
                    }
                }
            }
        }
    }
    let missing = |key: &Key, value: Bytes| Some(value).filter(|_| !matches!(key, Key::Block(..)));
    let storage = Arc::new(Damaged { inner: storage, damage: Box::new(missing) });
    let feed = Feed::create(storage, SLOT, Identity::reader(writer.key())).await.unwrap();
    assert!(matches!(feed.get(10).await, Err(Error::Storage(StorageError::Damaged { .. }))));
}
