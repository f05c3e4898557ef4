//! Feeds as apps and replication use them, over memory storage.

use std::sync::Arc;

use bytes::Bytes;
use party::{
    feed::{
        Feed, Identity,
        memory::MemoryStorage,
        proof::{BlockRequest, ProofRequest, UpgradeRequest},
        storage::Slot,
    },
    key::KeyPair,
};

fn blocks(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!("block {n} {}", "x".repeat(n as usize % 50)))).collect()
}

async fn feed(identity: Identity) -> Feed {
    Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await.unwrap()
}

fn writer() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

/// What a reader asks for to grow to the writer's length.
fn upgrade(reader: &Feed, writer: &Feed) -> ProofRequest {
    let start = reader.info().length;
    ProofRequest {
        upgrade: Some(UpgradeRequest { start, length: writer.info().length - start }),
        manifest: reader.with_local(|local| local.needs_manifest()),
        ..ProofRequest::default()
    }
}

fn block(reader: &Feed, index: u64) -> ProofRequest {
    let nodes = reader.with_local(|local| local.missing_nodes(index));
    ProofRequest { block: Some(BlockRequest { index, nodes }), ..ProofRequest::default() }
}

#[tokio::test]
async fn a_reader_follows_a_writer() {
    for identity in [Identity::writer(writer()), Identity::legacy_writer(writer())] {
        let writer = feed(identity.clone()).await;
        let reader = feed(Identity::reader(identity.key)).await;
        for round in 0..5 {
            writer.append_batch(blocks(round * 10..round * 10 + 10)).await.unwrap();
            let proof = writer.prove(upgrade(&reader, &writer), 0).await.unwrap().unwrap();
            let done = reader.ingest(vec![proof]).await.pop().unwrap().unwrap();
            assert_eq!(done.length, Some(writer.info().length));
            let mut proofs = Vec::new();
            for index in round * 10..round * 10 + 10 {
                proofs.push(writer.prove(block(&reader, index), 0).await.unwrap().unwrap());
            }
            for (index, done) in (round * 10..).zip(reader.ingest(proofs).await) {
                assert_eq!(done.unwrap().block, Some(index));
            }
        }
        assert_eq!(reader.info().contiguous_length, 50);
        assert_eq!(reader.info().byte_length, writer.info().byte_length);
        for index in 0..50 {
            assert_eq!(reader.get(index).await.unwrap(), writer.get(index).await.unwrap());
        }
    }
}
