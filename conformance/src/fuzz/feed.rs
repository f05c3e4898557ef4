//! A feed against peers that ask for anything and prove anything.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use party::{
    encoding::{MAX_SAFE_INTEGER, Reader},
    error::Error,
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, Proof, ProofRequest, UpgradeRequest},
        seek::Located,
        storage::Slot,
    },
    key::KeyPair,
    limits::Limits,
    replication::messages::{Data, Message},
};
use tokio::runtime::Runtime;

/// Blocks that the reader has a signed tree of, and blocks of the whole feed.
const KNOWN: u64 = 6;
const ALL: u64 = 13;
/// Blocks that the same feed keeps on a higher fork, that fork, and blocks that it has there.
const KEPT: u64 = 3;
const FORK: u64 = 1;
const FORKED: u64 = 7;

struct Scene {
    runtime: Runtime,
    /// What brings a new reader to where it stands: the tree, and one block.
    beginning: Vec<Proof>,
    writer: Feed,
    /// The same feed, after it was truncated and something else appended.
    forked: Feed,
}

/// The input is a list of messages, each behind its length. A request is put to a feed; if it is answered, it
/// was one that can be. Data is taken in by a reader, all of its own fork in one call; afterwards it has nothing
/// that is not the writer's. Data of a higher fork begins a reorg, and then goes on with it.
pub fn feed(data: &[u8]) {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    let Scene { runtime, beginning, writer, forked } = SCENE.get_or_init(Scene::new);
    runtime.block_on(async {
        let reader = new_feed(Identity::reader(writer.key())).await;
        for result in reader.ingest(beginning.clone()).await {
            result.expect("the beginning is honest");
        }
        let mut proofs = Vec::new();
        let mut input = Reader::new(data);
        while let Ok(payload) = input.buffer() {
            let Some((message_type, payload)) = payload.split_first() else { continue };
            let payload = Bytes::copy_from_slice(payload);
            match Message::decode((*message_type).into(), &payload, true, &Limits::default()) {
                Ok(Some(Message::Data(data))) => proofs.push(data.proof),
                Ok(Some(Message::Request(request))) => {
                    ask(writer, request.proof.clone(), request.fork).await;
                    ask(forked, request.proof.clone(), request.fork).await;
                    ask(&reader, request.proof, request.fork).await;
                }
                _ => {}
            }
        }
        let (higher, own) = proofs.into_iter().partition(|proof| proof.fork > 0);
        reader.ingest(own).await;
        compare(&reader, writer).await;
        for offset in [0, 1, 17, 40, u64::MAX] {
            search(&reader, writer, offset).await;
        }
        follow(&reader, higher).await;
        compare(&reader, if reader.info().fork == 0 { writer } else { forked }).await;
    });
}

/// Where the reader knows the byte, it is where the writer has it.
async fn search(reader: &Feed, writer: &Feed, offset: u64) {
    let (Ok(found), Ok(Some(known))) = (writer.locate(offset).await, reader.seek(offset).await) else {
        return;
    };
    match found {
        Located::Block { index, offset } => assert_eq!((index, offset), known),
        // The reader's tree may be shorter, and end here.
        other => panic!("the writer does not know its own byte {offset}: {other:?}"),
    }
}

async fn follow(reader: &Feed, proofs: Vec<Proof>) {
    let mut reorg = None;
    for proof in proofs {
        match &mut reorg {
            None => reorg = reader.reorg(proof).await.ok().flatten(),
            Some(reorg) => {
                let before = reorg.want().cloned();
                match reorg.handle_proof(proof).await {
                    Ok(true) => assert_ne!(reorg.want().cloned(), before),
                    Ok(false) | Err(Error::PeerMisbehaved(_)) => assert_eq!(reorg.want().cloned(), before),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    let Some(reorg) = reorg.filter(|reorg| reorg.want().is_none()) else { return };
    assert_eq!((reorg.fork(), reorg.length()), (FORK, FORKED));
    let common = reorg.commit().await.expect("memory does not fail").expect("nothing else changed it");
    assert!(common <= KEPT, "{common} blocks are not the same");
    assert_eq!((reader.info().fork, reader.info().length), (FORK, FORKED));
}

async fn ask(feed: &Feed, request: ProofRequest, fork: u64) {
    match feed.prove(request, fork).await {
        Ok(Some(proof)) => {
            // Whatever is answered can be sent.
            let message = Message::Data(Data { request: 1, proof });
            let payload = message.encode();
            let decoded = Message::decode(message.message_type(), &payload, true, &Limits::default());
            assert_eq!(decoded, Ok(Some(message)));
        }
        Ok(None) | Err(Error::PeerMisbehaved(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn compare(reader: &Feed, writer: &Feed) {
    let (length, fork) = (reader.info().length, reader.info().fork);
    let is_signed = if fork == 0 { length == KNOWN || length == ALL } else { length == FORKED };
    assert!(is_signed, "a tree of {length} blocks on fork {fork} was never signed");
    for index in 0..ALL {
        if let Some(block) = reader.get(index).await.expect("memory does not fail") {
            assert_eq!(Some(block), writer.get(index).await.expect("memory does not fail"));
        }
        // What it has it can prove, to whoever has the tree.
        if reader.has(index) {
            let proof = reader.prove(block(index, 0), fork).await;
            assert!(matches!(proof, Ok(Some(_))), "block {index}: {proof:?}");
        }
    }
    assert!(!reader.has(ALL) && !reader.has(MAX_SAFE_INTEGER) && !reader.has(u64::MAX));
}

impl Scene {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (beginning, writer, forked) = runtime.block_on(async {
            let writer = new_feed(Identity::writer(KeyPair::from_seed(&[1; 32]))).await;
            let forked = new_feed(Identity::writer(KeyPair::from_seed(&[1; 32]))).await;
            let blocks = |from: u64, to: u64| (from..to).map(|n| vec![n as u8; n as usize].into()).collect();
            forked.append_batch(blocks(0, KEPT)).await.expect("appends");
            forked.truncate_to_fork(KEPT, FORK).await.expect("truncates");
            forked.append_batch(blocks(KEPT + 1, FORKED + 1)).await.expect("appends");
            writer.append_batch(blocks(0, KNOWN)).await.expect("appends");
            let upgrade = Some(UpgradeRequest { start: 0, length: KNOWN });
            let tree = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
            let mut beginning = Vec::new();
            for request in [tree, block(2, 2)] {
                beginning.extend(writer.prove(request, 0).await.expect("proves"));
            }
            writer.append_batch(blocks(KNOWN, ALL)).await.expect("appends");
            (beginning, writer, forked)
        });
        Self { runtime, beginning, writer, forked }
    }
}

async fn new_feed(identity: Identity) -> Feed {
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.expect("a feed")
}

fn block(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() }
}
