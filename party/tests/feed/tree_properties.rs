//! Seeks, byte ranges and reorgs between feeds, by random requests, and by peers that lie.

use std::collections::BTreeSet;

use crate::peer::{Peer, SLOT};
use bytes::Bytes;
use party::{
    encoding::MAX_SAFE_INTEGER,
    error::Error,
    feed::{
        Encryption, Feed, Identity, Ingested,
        manifest::{Manifest, Prologue},
        proof::{BlockRequest, Node, Proof, ProofRequest, SeekRequest, UpgradeRequest},
        seek::Located,
    },
    key::KeyPair,
};
use proptest::{prelude::*, sample::Index};

impl Peer {
    async fn writer(blocks: &[Bytes]) -> Self {
        let writer = Self::new(Identity::writer(KeyPair::from_seed(&[1; 32]))).await;
        writer.append(blocks).await;
        writer
    }

    /// A writer, and a reader that has the tree of its first blocks, and those of them that are named.
    async fn pair(blocks: &[Bytes], known: usize, stored: &BTreeSet<u64>) -> (Self, Self) {
        let (first, rest) = blocks.split_at(known.min(blocks.len()));
        let writer = Self::writer(first).await;
        let reader = Self::reader_of(&writer, stored).await;
        writer.append(rest).await;
        (writer, reader)
    }

    async fn reader_of(writer: &Peer, stored: &BTreeSet<u64>) -> Self {
        let reader = Self::new(Identity::reader(writer.feed.key())).await;
        if writer.length() > 0 {
            reader.ask(writer, upgrade(0, writer.length())).await;
        }
        for block in stored.iter().filter(|block| **block < reader.length()) {
            reader.fetch(writer, *block).await;
        }
        reader
    }

    async fn append(&self, blocks: &[Bytes]) {
        self.feed.append_batch(blocks.to_vec()).await.unwrap();
    }

    fn fork(&self) -> u64 {
        self.feed.info().fork
    }

    async fn prove(&self, request: ProofRequest) -> Option<Proof> {
        self.feed.prove(request, self.fork()).await.unwrap()
    }

    async fn ask(&self, other: &Peer, request: ProofRequest) -> Ingested {
        let request = ProofRequest { manifest: true, ..request };
        let proof = other.prove(request.clone()).await.unwrap_or_else(|| panic!("no answer to {request:?}"));
        self.ingest(proof).await.unwrap_or_else(|error| panic!("{error} after {request:?}"))
    }

    async fn fetch(&self, other: &Peer, index: u64) {
        let nodes = self.feed.with_local(|local| local.missing_nodes(index));
        self.ask(other, ProofRequest { block: Some(BlockRequest { index, nodes }), ..none() }).await;
        assert!(self.feed.has(index));
    }

    /// What is stored is a part of what the writer has, and is whole.
    async fn check_against(&self, writer: &Peer) {
        for index in 0..2 * writer.length().max(self.length()) + 8 {
            let Some(node) = self.node(index).await else { continue };
            assert_eq!(Some(node), writer.node(index).await, "node {index}");
        }
        for index in 0..self.length() + 4 {
            if let Some(block) = self.feed.get(index).await.unwrap() {
                assert_eq!(Some(block), writer.feed.get(index).await.unwrap(), "block {index}");
            }
        }
        self.check_missing_nodes().await;
        let audit = self.feed.audit().await.unwrap();
        assert!(audit.is_clean(), "{audit:?}");
    }

    /// Every block that the other has can be had from it.
    async fn catch_up(&self, other: &Peer) {
        if self.length() < other.length() {
            self.ask(other, upgrade(self.length(), other.length() - self.length())).await;
        }
        for index in 0..self.length() {
            if other.feed.has(index) && !self.feed.has(index) {
                self.fetch(other, index).await;
            }
        }
    }

    /// Follows the other to its fork. At each step it asks for the block that `pick` picks.
    async fn reorg(&self, other: &Peer, mut pick: impl FnMut(u64) -> u64) -> Option<u64> {
        let proof = other.prove(ProofRequest { manifest: true, ..upgrade(0, other.length()) }).await?;
        let mut reorg = self.feed.reorg(proof).await.unwrap()?;
        let mut steps = 0;
        while let Some(want) = reorg.want().cloned() {
            let blocks = want.blocks();
            assert!(!blocks.is_empty() && blocks.end <= self.length() && blocks.end <= other.length());
            let request = want.request(blocks.start + pick(blocks.end - blocks.start));
            let proof = other.feed.prove(request, reorg.fork()).await.unwrap()?;
            assert!(reorg.handle_proof(proof).await.unwrap(), "of no use: {want:?}");
            steps += 1;
            assert!(steps <= 64, "more steps than the tree has levels");
        }
        assert!(self.fork() < reorg.fork(), "changed before the commit");
        reorg.commit().await.unwrap()
    }
}

fn none() -> ProofRequest {
    ProofRequest::default()
}

fn upgrade(start: u64, length: u64) -> ProofRequest {
    ProofRequest { upgrade: Some(UpgradeRequest { start, length }), ..none() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn blocks(most: usize) -> impl Strategy<Value = Vec<Bytes>> {
    let block = prop_oneof![1 => Just(0usize), 4 => 1usize..40]
        .prop_flat_map(|length| prop::collection::vec(0u8..3, length).prop_map(Bytes::from));
    prop::collection::vec(block, 1..=most)
}

fn some_of(most: u64) -> impl Strategy<Value = BTreeSet<u64>> {
    prop::collection::btree_set(0..most, 0..8)
}

/// What a peer may ask for, with numbers that fit the feed more often than not.
#[derive(Clone, Debug)]
struct Ask {
    target: Option<(bool, Index, bool)>,
    seek: Option<(Index, u64)>,
    upgrade: Option<Index>,
}

fn ask() -> impl Strategy<Value = Ask> {
    let padding = prop_oneof![6 => Just(0u64), 1 => 1u64..4, 1 => any::<u64>()];
    (
        any::<Option<(bool, Index, bool)>>(),
        prop::option::weighted(0.8, (any::<Index>(), padding)),
        any::<Option<Index>>(),
    )
        .prop_map(|(target, seek, upgrade)| Ask { target, seek, upgrade })
}

impl Ask {
    fn request(&self, reader: &Peer, writer: &Peer) -> ProofRequest {
        let (start, end) = (reader.length(), writer.length());
        let mut request = ProofRequest { manifest: start == 0, ..none() };
        if let Some(upgrade) = self.upgrade.filter(|_| start < end || start == 0) {
            let length = 1 + upgrade.index((end - start) as usize) as u64;
            request.upgrade = Some(UpgradeRequest { start, length });
        }
        let known = request.upgrade.map_or(start, |upgrade| start + upgrade.length);
        if let Some((is_hash, index, all)) = self.target.filter(|_| known > 0) {
            let index = index.index(known as usize) as u64;
            // Sometimes all the way up to the root.
            let nodes = match index < start {
                true if all => {
                    let mut roots = Vec::new();
                    flat_tree::full_roots(2 * start, &mut roots);
                    let within = |root: &&u64| {
                        flat_tree::left_span(**root) <= 2 * index
                            && 2 * index <= flat_tree::right_span(**root)
                    };
                    flat_tree::depth(*roots.iter().find(within).unwrap())
                }
                true => reader.feed.with_local(|local| local.missing_nodes(index)),
                false => 0,
            };
            match is_hash {
                true => request.hash = Some(BlockRequest { index: 2 * index, nodes }),
                false => request.block = Some(BlockRequest { index, nodes }),
            }
        }
        request.seek = self.seek.map(|(bytes, padding)| {
            let bytes = bytes.index(writer.feed.info().byte_length as usize + 4) as u64;
            SeekRequest { bytes, padding }
        });
        request
    }
}

/// Whether the seek of a request is to bytes that the answer leads to. One with padding is not judged.
fn is_answerable(request: &ProofRequest, known: u64, blocks: &[Bytes]) -> bool {
    let Some(SeekRequest { bytes, padding: 0 }) = request.seek else { return false };
    let leaf = |block: BlockRequest| BlockRequest { index: 2 * block.index, ..block };
    match request.block.map(leaf).or(request.hash) {
        None => request.upgrade.is_some(),
        Some(target) if target.index >= 2 * known => false,
        Some(BlockRequest { index, nodes }) => {
            let root = (0..nodes).fold(index, |index, _| flat_tree::parent(index));
            let offset =
                |block: u64| blocks.iter().take(block as usize).map(|block| block.len() as u64).sum();
            let start: u64 = offset(flat_tree::left_span(root) / 2);
            let end = offset(flat_tree::right_span(root) / 2 + 1);
            bytes == start || (start..end).contains(&bytes)
        }
    }
}

proptest! {
    #[test]
    fn requests_of_every_combination_are_proved_and_taken_in(
        blocks in blocks(40),
        known in any::<Index>(),
        stored in some_of(40),
        asks in prop::collection::vec(ask(), 1..8),
    ) {
        run(async {
            let (writer, reader) = Peer::pair(&blocks, known.index(blocks.len() + 1), &stored).await;
            for ask in asks {
                let request = ask.request(&reader, &writer);
                let answer = writer.feed.prove(request.clone(), 0).await;
                match answer {
                    Ok(Some(proof)) => {
                        assert_eq!(proof.block.is_some(), request.block.is_some());
                        assert_eq!(proof.hash.is_some(), request.hash.is_some());
                        assert_eq!(proof.upgrade.is_some(), request.upgrade.is_some());
                        let taken = reader.ingest(proof).await;
                        assert!(taken.is_ok(), "{taken:?} after {request:?}");
                        if let Some(block) = request.block {
                            assert!(reader.feed.has(block.index));
                        }
                    }
                    // Bytes that are not below the node that the asker knows, or a seek by itself.
                    Ok(None) | Err(Error::PeerMisbehaved(_)) if request.seek.is_some() => {
                        assert!(!is_answerable(&request, reader.length(), &blocks), "no answer to {request:?}");
                    }
                    Ok(None) if request == none() => {}
                    other => panic!("{other:?} to {request:?}"),
                }
                reader.check_against(&writer).await;
            }
        });
    }

    #[test]
    fn a_reader_finds_any_byte_by_seeks_and_one_block(
        blocks in blocks(60),
        stored in some_of(60),
        offset in any::<Index>(),
        picks in prop::collection::vec(any::<Index>(), 8),
    ) {
        run(async {
            let (writer, reader) = Peer::pair(&blocks, blocks.len(), &stored).await;
            let bytes = offset.index(reader.feed.info().byte_length as usize + 1) as u64;
            let mut picks = picks.iter();
            let mut fetched = 0;
            let found = loop {
                let (range, pick) = match reader.feed.locate(bytes).await.unwrap() {
                    Located::Block { index, offset } => break (index, offset),
                    Located::Within { blocks, .. } => (blocks, picks.next().expect("found it by now")),
                    Located::Beyond => panic!("the feed is long enough"),
                };
                let blocks = range.end - range.start;
                assert!(blocks >= 2);
                let index = range.start + pick.index(blocks as usize) as u64;
                if blocks == 2 {
                    reader.fetch(&writer, index).await;
                    fetched += 1;
                } else {
                    let hash = Some(BlockRequest { index: 2 * index, nodes: blocks.ilog2().into() });
                    let seek = Some(SeekRequest { bytes, padding: 0 });
                    reader.ask(&writer, ProofRequest { hash, seek, ..none() }).await;
                }
            };
            assert!(fetched <= 1);
            assert_eq!(Some(found), writer.feed.seek(bytes).await.unwrap());
            let before: usize = blocks.iter().take(found.0 as usize).map(Bytes::len).sum();
            assert_eq!(before as u64 + found.1, bytes);
            assert_eq!(reader.feed.byte_offset(found.0).await.unwrap(), Some(before as u64));
            reader.check_against(&writer).await;
        });
    }

    //= FEED-57, FEED-63
    #[test]
    fn nothing_false_is_taken_from_a_changed_proof(
        blocks in blocks(24),
        known in any::<Index>(),
        stored in some_of(24),
        ask in ask(),
        changes in prop::collection::vec((0usize..5, any::<Index>(), 0u8..6, any::<Index>()), 1..3),
    ) {
        run(async {
            let (writer, reader) = Peer::pair(&blocks, known.index(blocks.len() + 1), &stored).await;
            let request = ask.request(&reader, &writer);
            let Ok(Some(mut proof)) = writer.feed.prove(request, 0).await else { return };
            for change in changes {
                falsify(&mut proof, change);
            }
            let _ = reader.ingest(proof).await;
            reader.check_against(&writer).await;
            // It can still come to have everything.
            reader.catch_up(&writer).await;
            reader.check_against(&writer).await;
        });
    }

    #[test]
    fn a_byte_range_is_what_the_blocks_have_there(
        blocks in blocks(30),
        from in any::<Index>(),
        length in any::<Index>(),
    ) {
        run(async {
            let writer = Peer::writer(&blocks).await;
            let all: Vec<u8> = blocks.iter().flatten().copied().collect();
            let start = from.index(all.len() + 3);
            let end = start + length.index(all.len() + 3);
            let mut reader = writer.feed.read_range(start as u64..end as u64).await.unwrap().unwrap();
            // What it was made on stays.
            writer.feed.truncate(0).await.unwrap();
            writer.append(&[Bytes::from_static(b"another")]).await;
            let mut read = Vec::new();
            while let Some(piece) = reader.next().await.unwrap() {
                assert!(!piece.is_empty());
                read.extend_from_slice(&piece);
            }
            assert_eq!(reader.remaining(), 0);
            assert_eq!(read, all.get(start..end.min(all.len())).unwrap_or_default());
        });
    }

    #[test]
    fn byte_offsets_add_up_the_blocks(blocks in blocks(40), stored in some_of(40)) {
        run(async {
            let (writer, reader) = Peer::pair(&blocks, blocks.len(), &stored).await;
            let mut offset = 0;
            for index in 0..=writer.length() {
                assert_eq!(writer.feed.byte_offset(index).await.unwrap(), Some(offset));
                let known = reader.feed.byte_offset(index).await.unwrap();
                assert!(known.is_none_or(|known| known == offset));
                assert!(known.is_some() || !reader.feed.has(index) && index < reader.length());
                offset += blocks.get(index as usize).map_or(0, |block| block.len() as u64);
            }
            for index in [writer.length() + 1, MAX_SAFE_INTEGER, u64::MAX] {
                assert_eq!(writer.feed.byte_offset(index).await.unwrap(), None);
                assert_eq!(writer.feed.locate(offset.saturating_add(index)).await.unwrap(), Located::Beyond);
            }
        });
    }

    //= FEED-79
    #[test]
    fn a_reorg_keeps_what_both_trees_begin_with(
        old in blocks(40),
        known in any::<Index>(),
        stored in some_of(40),
        whole in any::<bool>(),
        cuts in prop::collection::vec((any::<Index>(), blocks(24)), 1..3),
        picks in prop::collection::vec(any::<Index>(), 64),
        through in any::<bool>(),
    ) {
        run(async {
            let stored = if whole { (0..old.len() as u64).collect() } else { stored };
            let (writer, reader) = Peer::pair(&old, known.index(old.len() + 1), &stored).await;
            let known = reader.length();
            let mut new = old.clone();
            for (cut, blocks) in cuts {
                let length = cut.index(new.len() + 1);
                writer.feed.truncate(length as u64).await.unwrap();
                writer.append(&blocks).await;
                new.truncate(length);
                new.extend(blocks);
            }
            // Either the writer itself proves it, or a reader that has not got every block.
            let other = Peer::new(Identity::reader(writer.feed.key())).await;
            let mut picks = picks.iter();
            let mut pick = |blocks: u64| picks.next().map_or(0, |pick| pick.index(blocks as usize) as u64);
            let source = if through {
                assert_eq!(other.reorg(&writer, &mut pick).await, Some(0));
                for index in (0..other.length()).step_by(2) {
                    other.fetch(&writer, index).await;
                }
                other.check_against(&writer).await;
                &other
            } else {
                &writer
            };
            let common = reader.reorg(source, |blocks| if through { 0 } else { pick(blocks) }).await;
            let Some(common) = common else {
                assert!(through, "the writer proves all");
                return;
            };
            let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count() as u64;
            assert!(common <= same.min(known), "{common} of {same}");
            if whole {
                assert_eq!(common, same.min(known));
            }
            assert_eq!((reader.length(), reader.fork()), (writer.length(), writer.fork()));
            assert_eq!(reader.feed.info().byte_length, writer.feed.info().byte_length);
            for index in 0..reader.length() {
                assert_eq!(reader.feed.has(index), index < common && stored.contains(&index), "block {index}");
            }
            reader.check_against(&writer).await;
            let again = Feed::create(reader.storage.clone(), SLOT, Identity::reader(reader.feed.key())).await;
            assert_eq!(again.unwrap().info(), reader.feed.info());
            reader.catch_up(&writer).await;
            reader.check_against(&writer).await;
            writer.append(&old).await;
            reader.catch_up(&writer).await;
            assert_eq!(reader.feed.info().contiguous_length, writer.length());
        });
    }
}

/// Changes one thing in one of a proof's lists of nodes.
fn falsify(proof: &mut Proof, (list, node, change, other): (usize, Index, u8, Index)) {
    let mut lists: Vec<&mut Vec<Node>> = Vec::new();
    let Proof { block, hash, seek, upgrade, .. } = proof;
    lists.extend(block.iter_mut().map(|block| &mut block.nodes));
    lists.extend(hash.iter_mut().map(|hash| &mut hash.nodes));
    lists.extend(seek.iter_mut().map(|seek| &mut seek.nodes));
    for upgrade in upgrade.iter_mut() {
        lists.push(&mut upgrade.nodes);
        lists.push(&mut upgrade.additional_nodes);
    }
    let mut lists: Vec<_> = lists.into_iter().filter(|list| !list.is_empty()).collect();
    if lists.is_empty() {
        return;
    }
    let list = list % lists.len();
    let list = &mut lists[list];
    let at = node.index(list.len());
    match change {
        0 => list[at].size ^= 1 << other.index(8),
        1 => list[at].hash[other.index(32)] ^= 1,
        2 => list[at].index = other.index(64) as u64,
        3 => drop(list.remove(at)),
        4 => {
            let beside = other.index(list.len());
            list.swap(at, beside);
        }
        // Bytes from one node to another: the sum of the two is what it was.
        _ => {
            let beside = (at + 1) % list.len();
            let moved = list[at].size / 2;
            list[at].size -= moved;
            list[beside].size += moved;
        }
    }
}

fn letters(n: u8) -> Vec<Bytes> {
    (0..n).map(|n| Bytes::from(vec![n; 3])).collect()
}

//= FEED-65
#[test]
fn a_pair_of_nodes_whose_sizes_a_peer_has_shifted_is_not_stored() {
    run(async {
        let (writer, reader) = Peer::pair(&letters(8), 8, &BTreeSet::new()).await;
        let hash = Some(BlockRequest { index: 14, nodes: 3 });
        let seek = Some(SeekRequest { bytes: 4, padding: 0 });
        let mut proof = writer.prove(ProofRequest { hash, seek, ..none() }).await.unwrap();
        let nodes = &mut proof.seek.as_mut().unwrap().nodes;
        assert_eq!(nodes.iter().map(|node| node.index).collect::<Vec<_>>(), [2, 0, 5]);
        nodes[0].size += 1;
        nodes[1].size -= 1;
        reader.ingest(proof).await.unwrap();
        // The parent's size is bound by the hash that it was computed to.
        assert_eq!(reader.feed.locate(4).await.unwrap(), Located::Within { blocks: 0..2, offset: 4 });
        reader.check_against(&writer).await;
    });
}

//= FEED-77
#[test]
fn ties_and_lower_forks_never_replace_a_tree() {
    run(async {
        let (writer, reader) = Peer::pair(&letters(6), 6, &BTreeSet::from([2, 5])).await;
        let old = writer.prove(upgrade(0, 6)).await.unwrap();
        assert!(reader.feed.reorg(old.clone()).await.unwrap().is_none(), "a tie");

        writer.feed.truncate(3).await.unwrap();
        writer.append(&letters(2)).await;
        assert_eq!(reader.reorg(&writer, |_| 0).await, Some(3));
        assert!(reader.feed.reorg(old.clone()).await.unwrap().is_none(), "a lower fork");
        let raised = Proof { fork: 9, ..old };
        assert!(matches!(reader.feed.reorg(raised).await, Err(Error::PeerMisbehaved(_))), "not signed");
        assert!(reader.feed.reorg(Proof { fork: 9, ..Proof::default() }).await.unwrap().is_none());
        assert_eq!((reader.fork(), reader.length()), (1, 5));
        reader.check_against(&writer).await;
    });
}

//= FEED-41
#[test]
fn an_unsigned_prologue_is_no_fork() {
    run(async {
        let pair = KeyPair::from_seed(&[1; 32]);
        let prologue = Prologue::of_blocks(&letters(3)).unwrap();
        let manifest = Manifest::builder().signer(pair.public()).prologue(prologue).build().unwrap();
        let writer = Peer::new(Identity::signer(manifest, pair)).await;
        writer.append(&letters(3)).await;
        let first = writer.prove(ProofRequest { manifest: true, ..upgrade(0, 3) }).await.unwrap();
        writer.append(&letters(4)).await;
        let reader = Peer::reader_of(&writer, &BTreeSet::from([2, 4])).await;
        let newcomer = Peer::new(Identity::reader(writer.feed.key())).await;
        for peer in [&reader, &newcomer] {
            let forged = Proof { fork: 5, ..first.clone() };
            assert!(matches!(peer.feed.reorg(forged).await, Err(Error::PeerMisbehaved(_))));
        }
        // The writer itself may go back there.
        writer.feed.truncate(3).await.unwrap();
        assert_eq!(reader.reorg(&writer, |_| 0).await, Some(3));
        assert_eq!((reader.length(), reader.fork(), reader.feed.has(4)), (3, 1, false));
        reader.check_against(&writer).await;
    });
}

//= FEED-51
#[test]
fn the_bytes_of_an_encrypted_feed_are_counted_as_they_are_read() {
    run(async {
        let blocks = letters(9);
        let locked = Peer::writer(&[]).await;
        let feed = locked.feed.with_encryption(Encryption::generate());
        feed.append_batch(blocks.clone()).await.unwrap();
        let all: Vec<u8> = blocks.iter().flatten().copied().collect();
        for at in 0..=all.len() as u64 {
            assert_eq!(feed.seek(at).await.unwrap(), Some((at / 3, at % 3)));
        }
        assert_eq!(feed.locate(28).await.unwrap(), Located::Beyond);
        assert_eq!(feed.byte_offset(5).await.unwrap(), Some(15));
        let mut reader = feed.read_range(4..25).await.unwrap().unwrap();
        let mut read = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, all[4..25]);
        // Without the key they are counted as they are stored.
        assert_eq!(locked.feed.byte_offset(5).await.unwrap(), Some(55));
    });
}

//= FEED-80
#[test]
fn a_reorg_of_a_tree_that_has_been_replaced_meanwhile_does_nothing() {
    run(async {
        let (writer, reader) = Peer::pair(&letters(6), 6, &BTreeSet::from([0, 5])).await;
        writer.feed.truncate(0).await.unwrap();
        writer.append(&[Bytes::from_static(b"one")]).await;
        let first = reader.feed.reorg(writer.prove(upgrade(0, 1)).await.unwrap()).await.unwrap().unwrap();
        writer.feed.truncate(0).await.unwrap();
        writer.append(&[Bytes::from_static(b"two")]).await;
        assert_eq!(reader.reorg(&writer, |_| 0).await, Some(0));
        assert_eq!(first.want(), None);
        assert_eq!(first.commit().await.unwrap(), None);
        assert_eq!(reader.fork(), 2);
        reader.check_against(&writer).await;
    });
}

//= FEED-78
#[test]
fn an_answer_that_is_not_of_the_new_tree_is_refused_by_a_reorg() {
    run(async {
        let (writer, reader) = Peer::pair(&letters(16), 16, &BTreeSet::new()).await;
        writer.feed.truncate(11).await.unwrap();
        writer.append(&letters(5)).await;
        let proof = writer.prove(upgrade(0, 16)).await.unwrap();
        let mut reorg = reader.feed.reorg(proof).await.unwrap().unwrap();
        let want = reorg.want().unwrap().clone();
        assert_eq!(want.blocks(), 0..16);
        let honest = writer.prove(want.request(12)).await.unwrap();
        let mut forged = honest.clone();
        forged.hash.as_mut().unwrap().nodes[1].hash[0] ^= 1;
        assert!(matches!(reorg.handle_proof(forged).await, Err(Error::PeerMisbehaved(_))));
        // The reader's own tree is another fork's.
        let other = Proof { fork: 0, ..honest.clone() };
        assert!(!reorg.handle_proof(other).await.unwrap());
        assert_eq!(reorg.want(), Some(&want));
        assert!(reorg.handle_proof(honest.clone()).await.unwrap());
        assert_ne!(reorg.want(), Some(&want));
        assert!(!reorg.handle_proof(honest).await.unwrap(), "nothing new");
    });
}

//= ENC-12, FEED-71
#[test]
fn no_number_of_a_peer_is_too_large() {
    const FAR: [u64; 5] = [1 << 40, 1 << 52, MAX_SAFE_INTEGER, 1 << 63, u64::MAX];
    run(async {
        let (writer, reader) = Peer::pair(&letters(13), 6, &BTreeSet::from([2])).await;
        writer.feed.truncate(9).await.unwrap();
        for far in FAR {
            for near in [0, 1, 5, far] {
                let seek = Some(SeekRequest { bytes: near, padding: far });
                let far_seek = Some(SeekRequest { bytes: far, padding: near });
                let indexed = Some(BlockRequest { index: near, nodes: far });
                let upgrade = Some(UpgradeRequest { start: near, length: far });
                let short = Some(UpgradeRequest { start: 0, length: 9 });
                for request in [
                    ProofRequest { seek, ..none() },
                    ProofRequest { seek, hash: indexed, ..none() },
                    ProofRequest { seek, block: indexed, ..none() },
                    ProofRequest { seek, upgrade, ..none() },
                    ProofRequest { seek, upgrade: short, ..none() },
                    ProofRequest { seek: far_seek, upgrade: short, ..none() },
                    ProofRequest {
                        seek: far_seek,
                        hash: Some(BlockRequest { index: near, nodes: 1 }),
                        ..none()
                    },
                ] {
                    let answer = writer.feed.prove(request, 1).await;
                    assert!(matches!(answer, Ok(_) | Err(Error::PeerMisbehaved(_))), "{answer:?}");
                }
            }
            let proof = writer.prove(upgrade(0, 9)).await.unwrap();
            let mut reorg = reader.feed.reorg(proof.clone()).await.unwrap().unwrap();
            let want = reorg.want().unwrap().clone();
            for nodes in [want.request(0), want.request(5)] {
                let mut proof = writer.prove(nodes).await.unwrap();
                let hash = proof.hash.as_mut().unwrap();
                hash.nodes[1] = Node { index: far, size: far, hash: [0; 32] };
                assert!(reorg.handle_proof(proof.clone()).await.is_err());
                proof.hash.as_mut().unwrap().index = far;
                proof.hash.as_mut().unwrap().nodes[0].index = far;
                assert!(reorg.handle_proof(proof).await.is_err());
            }
            let mut far_away = proof;
            far_away.upgrade.as_mut().unwrap().length = far;
            assert!(reader.feed.reorg(far_away).await.is_err());
        }
    });
}
