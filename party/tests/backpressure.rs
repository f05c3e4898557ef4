//! A side that can't keep up stops reading: what it keeps stays within a limit.

mod common;

use std::time::Duration;

use common::{Shared, identity, party_key, raw::RawPeer};
use party::{
    admission::{self, Hello, membership},
    connection::Connection,
    encoding::Writer as _,
    limits::Limits,
    mux::Event as MuxEvent,
    party::Party,
};
use tokio::time::timeout;

/// How much a way between two ends holds, in bytes.
const WAY: usize = 1 << 16;
/// How much is read at a time.
const READ: usize = 128 << 10;

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
