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

struct Scene {
    runtime: Runtime,
    /// What brings a new reader to where it stands: the tree, and one block.
    beginning: Vec<Proof>,
    writer: Feed,
}

/// The input is a list of messages, each behind its length. A request is put to a feed; if it is answered, it
/// was one that can be. Data is taken in by a reader, all in one call; afterwards it has nothing that
/// is not the writer's.
pub fn feed(data: &[u8]) {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    let Scene { runtime, beginning, writer } = SCENE.get_or_init(Scene::new);
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
                    ask(&reader, request.proof, request.fork).await;
                }
                _ => {}
            }
        }
        reader.ingest(proofs).await;
        compare(&reader, writer).await;
    });
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
    let length = reader.info().length;
    assert!(length == KNOWN || length == ALL, "a tree of {length} blocks was never signed");
    for index in 0..ALL {
        if let Some(block) = reader.get(index).await.expect("memory does not fail") {
            assert_eq!(Some(block), writer.get(index).await.expect("memory does not fail"));
        }
        // What it has it can prove, to whoever has the tree.
        if reader.has(index) {
            let proof = reader.prove(block(index, 0), 0).await;
            assert!(matches!(proof, Ok(Some(_))), "block {index}: {proof:?}");
        }
    }
    assert!(!reader.has(ALL) && !reader.has(MAX_SAFE_INTEGER) && !reader.has(u64::MAX));
}

impl Scene {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (beginning, writer) = runtime.block_on(async {
            let writer = new_feed(Identity::writer(KeyPair::from_seed(&[1; 32]))).await;
            let blocks = |from: u64, to: u64| (from..to).map(|n| vec![n as u8; n as usize].into()).collect();
            writer.append_batch(blocks(0, KNOWN)).await.expect("appends");
            let upgrade = Some(UpgradeRequest { start: 0, length: KNOWN });
            let tree = ProofRequest { upgrade, manifest: true, ..ProofRequest::default() };
            let mut beginning = Vec::new();
            for request in [tree, block(2, 2)] {
                beginning.extend(writer.prove(request, 0).await.expect("proves"));
            }
            writer.append_batch(blocks(KNOWN, ALL)).await.expect("appends");
            (beginning, writer)
        });
        Self { runtime, beginning, writer }
    }
}

async fn new_feed(identity: Identity) -> Feed {
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.expect("a feed")
}

fn block(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() }
}
