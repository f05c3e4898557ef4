//! A side that can't keep up stops reading: what it keeps stays within a limit, and all comes when it can go on.

use std::{
    future::IntoFuture as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{
    Shared, identity,
    one_feed::{self, One},
    party_key,
    raw::RawPeer,
    storage::as_in,
};
use party::{
    admission::{self, Hello, membership},
    connection::Connection,
    encoding::Writer as _,
    feed::{
        memory::MemoryStorage,
        storage::{Completion, Storage, Write},
    },
    limits::Limits,
    mux::Event as MuxEvent,
    party::Party,
    peer::Replicate,
    store::Store,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::watch,
    time::{sleep, timeout},
};

/// A storage that takes nothing while its gate is shut.
struct Gated {
    memory: MemoryStorage,
    is_open: watch::Sender<bool>,
}

impl Storage for Gated {
    as_in!(memory: read, records, snapshot, close);

    fn commit(&self, writes: Vec<Write>) -> Completion<()> {
        let (mut gate, commit) = (self.is_open.subscribe(), self.memory.commit(writes));
        Box::pin(async move {
            let _ = gate.wait_for(|is_open| *is_open).await;
            commit.await
        })
    }
}

/// Carries bytes both ways, and counts those that `to` has taken.
async fn carry(from: DuplexStream, to: DuplexStream, taken: Arc<AtomicUsize>) {
    let ((mut from_read, mut from_write), (mut to_read, mut to_write)) =
        (tokio::io::split(from), tokio::io::split(to));
    let there = async {
        let mut bytes = vec![0; 1 << 12];
        while let Ok(n @ 1..) = from_read.read(&mut bytes).await {
            if to_write.write_all(&bytes[..n]).await.is_err() {
                return;
            }
            taken.fetch_add(n, Ordering::Relaxed);
        }
    };
    let back = tokio::io::copy(&mut to_read, &mut from_write);
    let _ = tokio::join!(there, back);
}

/// How much a way between two ends holds, in bytes.
const WAY: usize = 1 << 16;
/// How much is read at a time.
const READ: usize = 128 << 10;

//= LIMIT-6
#[tokio::test(start_paused = true)]
async fn who_can_not_store_what_comes_reads_no_more_than_so_much() {
    const BLOCKS: u64 = 60;
    const BLOCK: usize = 100_000;
    let limits = Limits { max_unverified_bytes: 200_000, ..Limits::default() };
    let written = one_feed::written(0).await;
    written.append_batch((0..BLOCKS).map(|n| vec![n as u8; BLOCK].into()).collect()).await.unwrap();
    let storage = Arc::new(Gated { memory: MemoryStorage::new(), is_open: watch::Sender::new(true) });
    let read = Store::with_storage(storage.clone()).feed(&written.key()).await.unwrap();
    let [writer, reader] =
        [&written, &read].map(|feed| Party::new(party_key(1), One(feed.clone(), Replicate::sparsely())));

    let (writers_end, from) = tokio::io::duplex(WAY);
    let (to, readers_end) = tokio::io::duplex(WAY);
    let taken = Arc::new(AtomicUsize::new(0));
    tokio::spawn(carry(from, to, taken.clone()));
    let _connections = tokio::try_join!(
        Connection::dial(readers_end, &identity(1)).join(&reader).limits(limits.clone()).into_future(),
        Connection::accept(writers_end, &identity(2)).join(&writer).into_future(),
    )
    .unwrap();
    assert_eq!(read.fetch(0).await.unwrap().len(), BLOCK);

    storage.is_open.send_replace(false);
    let before = taken.load(Ordering::Relaxed);
    let rest = read.download(0..BLOCKS);
    sleep(Duration::from_secs(20)).await; // virtual: all that can be read was read
    let came = taken.load(Ordering::Relaxed) - before;
    // One more block may be half-way, and what lies in the way and in the buffers.
    let most = limits.max_unverified_bytes + 2 * BLOCK + WAY + READ;
    assert!(came > limits.max_unverified_bytes / 2, "it has asked for more: {came} bytes");
    assert!(came < most, "{came} bytes were read, of at most {most}");
    storage.is_open.send_replace(true);
    timeout(Duration::from_secs(60), rest.done()).await.expect("it goes on").unwrap();
    assert_eq!(read.info().contiguous_length, BLOCKS);
}

/// A request of the kind `kind` with a value of so many bytes, as protobuf.
fn request(id: u64, bytes: usize) -> Vec<u8> {
    let mut custom = b"\x0a\x04echo\x12".to_vec();
    varint(&mut custom, bytes);
    custom.extend(std::iter::repeat_n(7, bytes));
    let mut request = vec![0x08];
    varint(&mut request, id as usize);
    request.push(0x1a);
    varint(&mut request, custom.len());
    request.put_bytes(&custom);
    request
}

fn varint(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

//= LIMIT-5
#[tokio::test(start_paused = true)]
async fn who_takes_no_answers_is_not_read_any_further() {
    const REQUEST: usize = 100_000;
    const REQUESTS: u64 = 200;
    // Its own serving may bring so much: four jobs of a mebibyte and a block.
    let limits = Limits { max_unsent_bytes: 100_000, max_block: 100_000, ..Limits::default() };
    let most = limits.max_unsent_bytes + 4 * ((1 << 20) + limits.max_block);
    let party = Party::new(party_key(1), Shared::default());
    let (left, right) = tokio::io::duplex(WAY);
    let accepting = tokio::spawn({
        let party = party.clone();
        async move { Connection::accept(right, &identity(2)).join(&party).limits(limits).await.unwrap() }
    });
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    let _connection = accepting.await.unwrap();
    let id = membership::channel_id(peer.session(), &party_key(1));
    let hello = Hello::new(membership::prove(peer.session(), &party_key(1))).encode();
    let channel = peer.mux.open(admission::PROTOCOL, Some(&id), &hello).unwrap();
    peer.flush().await;
    assert!(matches!(peer.event().await, Some(MuxEvent::Opened { .. })));

    // It reads nothing, and asks for an echo again and again, until that isn't taken any more.
    let mut asked = 0;
    while asked < REQUESTS {
        asked += 1;
        peer.mux.send(channel, 0, &request(asked, REQUEST)).unwrap();
        if timeout(Duration::from_secs(5), peer.flush()).await.is_err() {
            break;
        }
    }
    // And what lies in the way in both directions, in the buffers, and the one that it was at.
    let bound = (most + 2 * WAY + READ) / REQUEST + 3;
    assert!(asked as usize <= bound, "{asked} requests were read, of at most {bound}");
    assert!(asked > 10, "{asked} requests were read");
}
