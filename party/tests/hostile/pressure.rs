//! Peers that keep to the letter and wear us out: they promise and don't deliver, take back what they said, refuse, dawdle,
//! and say the same a million times. Whoever does so is left in peace or costs nothing; another peer brings both feeds.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant as RealInstant},
};

use party::{
    connection,
    error::{Error, PeerMisbehaved},
    feed::{
        Feed,
        proof::{BlockRequest, ProofRequest},
    },
    mux::{ChannelId, Event as MuxEvent},
    peer::LinkStatus,
    replication::messages::{Message, NoData, Range, Request, Sync},
};
use tokio::{
    io::AsyncWriteExt as _,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    common::{identity, raw::RawPeer},
    shared::{Reader, Writer, complete, heard, say, serves, victim},
};

/// How long both feeds may take while somebody wears us out: a timeout of a request, and some.
const IN_TIME: Duration = Duration::from_secs(8);

/// Lets an honest peer bring both feeds to a reader, in virtual time.
async fn nobody_else_notices(reader: &Reader) {
    let start = Instant::now();
    let (_wanted, _other) = (reader.attacked.download(..), reader.other.download(..));
    let (_honest, _task) = reader.meet_writer().await;
    complete(&reader.other, 100).await;
    assert!(start.elapsed() < Duration::from_millis(500), "the other feed took {:?}", start.elapsed());
    complete(&reader.attacked, 100).await;
    assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    assert_eq!(reader.attacked.get(7).await.unwrap().unwrap(), "block 7");
}

/// Waits until the reader thinks so of the attacker, its only peer.
async fn thinks(feed: &Feed, so: impl Fn(&LinkStatus) -> bool) {
    let mut changes = feed.subscribe_to_peers();
    while !feed.peers().first().is_some_and(|link| so(&link.status())) {
        changes.changed().await;
    }
}

/// The attacker answers each request as `answer` says, until it is stopped or refused.
fn answering<F>(
    mut peer: RawPeer,
    channel: ChannelId,
    mut answer: impl FnMut(Request) -> F + Send + 'static,
) -> AbortHandle
where
    F: Future<Output = Vec<Message>> + Send,
{
    tokio::spawn(async move {
        while let Some(event) = peer.event().await {
            let MuxEvent::Message { channel: from, message_type, payload } = event else { continue };
            let message = Message::decode(message_type, &payload, true, &Default::default()).unwrap();
            if from != channel {
                continue;
            }
            if let Some(Message::Request(request)) = message {
                for message in answer(request).await {
                    say(&mut peer, channel, message).await;
                }
            }
        }
    })
    .abort_handle()
}

fn sync(length: u64) -> Message {
    Message::Sync(Sync {
        fork: 0,
        length,
        remote_length: 0,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        allow_push: false,
    })
}

#[tokio::test(start_paused = true)]
async fn who_says_to_have_all_and_answers_nothing_delays_the_feed_by_one_timeout() {
    let reader = Reader::new().await;
    let (_wanted, _other) = (reader.attacked.download(..), reader.other.download(..));
    let (mut peer, _, _victim) = reader.attack().await;
    let attacker = tokio::spawn(async move { while peer.event().await.is_some() {} });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let start = tokio::time::Instant::now();
    let (_honest, _task) = reader.meet_writer().await;
    complete(&reader.other, 100).await;
    let other = start.elapsed();
    complete(&reader.attacked, 100).await;
    assert!(other.as_millis() < 500, "the other feed took {other:?}");
    assert!(start.elapsed().as_millis() < 6_000, "{:?}", start.elapsed());
    attacker.abort();
}

//= protocol-spec/07-replication.md#nodata-4
#[tokio::test(start_paused = true)]
async fn who_refuses_for_ever_is_left_in_peace() {
    let reader = Reader::new().await;
    let _wanted = reader.attacked.download(..);
    let (peer, channel, _victim) = reader.attack().await;
    // It says again and again that it has all, and refuses all.
    let attacker = answering(peer, channel, |request| async move {
        let refusal = Message::NoData(NoData { request: request.id, reason: 1 });
        vec![refusal, sync(100), Message::Range(Range { drop: false, start: 0, length: 100 })]
    });
    let start = Instant::now();
    thinks(&reader.attacked, |status| status.counters.refused_by_remote >= 5).await;
    // After 5, 10 and 20 seconds more.
    assert!(
        start.elapsed() >= Duration::from_secs(35),
        "it is asked ever more rarely: {:?}",
        start.elapsed()
    );
    nobody_else_notices(&reader).await;
    attacker.abort();
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_never_arrives_delays_the_feed_by_one_timeout() {
    let reader = Reader::new().await;
    let _wanted = reader.attacked.download(..);
    let (mut peer, channel, _victim) = reader.attack().await;
    // It promises ever more, and answers nothing.
    let attacker = tokio::spawn(async move {
        for length in 101.. {
            say(&mut peer, channel, sync(length)).await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    thinks(&reader.attacked, |status| status.waiting > 0 && status.remote_length > 110).await;
    nobody_else_notices(&reader).await;
    assert_eq!(reader.attacked.info().length, 100, "a promise is no length");
    attacker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_length_that_shrinks_is_not_believed_and_hurts_nobody() {
    let reader = Reader::new().await;
    let (mut peer, channel, _victim) = reader.attack().await;
    let attacker = tokio::spawn(async move {
        for length in (0..100).rev().cycle() {
            say(&mut peer, channel, sync(length)).await;
            sleep(Duration::from_millis(10)).await;
        }
    });
    thinks(&reader.attacked, |status| status.remote_length < 50).await;
    nobody_else_notices(&reader).await;
    // What was proved stays.
    assert_eq!(reader.attacked.info().length, 100);
    attacker.abort();
}

//= protocol-spec/07-replication.md#range-8-want-5-unwant-6-bitfield-7
#[tokio::test(start_paused = true)]
async fn ranges_that_flap_hurt_nobody() {
    let reader = Reader::new().await;
    let _wanted = reader.attacked.download(..);
    let (mut peer, channel, _victim) = reader.attack().await;
    let attacker = tokio::spawn(async move {
        for n in 0_u64.. {
            for (drop, start, length) in
                [(true, 0, 100), (false, n % 100, 1), (false, 0, 100), (true, n << 20, 7)]
            {
                let range = Message::Range(Range { drop, start, length });
                peer.mux.send(channel, range.message_type(), &range.encode()).unwrap();
            }
            if n % 250 == 0 {
                peer.flush().await;
                sleep(Duration::from_millis(10)).await;
            }
        }
    });
    sleep(Duration::from_millis(500)).await;
    nobody_else_notices(&reader).await;
    assert_eq!(reader.attacked.peers().len(), 2, "a flapping peer is a peer");
    attacker.abort();
}

/// Lets an honest reader have both feeds of a writer that somebody is wearing out, in virtual time.
async fn readers_do_not_notice(writer: &Writer) {
    let start = Instant::now();
    let reader = &writer.reader;
    let (_wanted, _other) = (reader.attacked.download(..), reader.other.download(..));
    let (_honest, _task) = writer.meet_reader().await;
    complete(&reader.other, 100).await;
    complete(&reader.attacked, 100).await;
    assert!(start.elapsed() < Duration::from_millis(500), "the feeds took {:?}", start.elapsed());
    assert_eq!(reader.attacked.get(7).await.unwrap().unwrap(), "block 7");
}

//= protocol-spec/07-replication.md#cancel-2
#[tokio::test(start_paused = true)]
async fn a_million_cancels_cost_little_and_nobody_else_notices() {
    /// A million at least, and as many as there is time for until the others are done.
    const CANCELS: u64 = 1_000_000;
    let writer = Writer::new().await;
    let (mut peer, channel, victim) = writer.attack().await;
    let start = RealInstant::now();
    let (sent, are_done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (counting, is_over) = (sent.clone(), are_done.clone());
    let attacker = tokio::spawn(async move {
        for n in (0..20 * CANCELS).take_while(|n| *n < CANCELS || !is_over.load(Ordering::Relaxed)) {
            let cancel = Message::Cancel { request: 1 + n % 1_000 };
            peer.mux.send(channel, cancel.message_type(), &cancel.encode()).unwrap();
            if n % 1_000 == 0 {
                peer.flush().await;
                counting.store(n, Ordering::Relaxed);
            }
        }
        (peer, channel)
    });
    while sent.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    readers_do_not_notice(&writer).await;
    are_done.store(true, Ordering::Relaxed);
    assert!(sent.load(Ordering::Relaxed) < 19 * CANCELS, "they were done after {sent:?} cancels");
    // Who has sent them is served, too.
    let (mut peer, channel) = attacker.await.unwrap();
    say(&mut peer, channel, block_request(7, 1)).await;
    let block = loop {
        if let Message::Data(data) = heard(&mut peer, channel).await {
            break data.proof.block.unwrap();
        }
    };
    assert_eq!(block.value, "block 1");
    // It takes a second or two; a minute is for machines with much else to do.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    drop(peer);
    victim.await.unwrap().unwrap();
}

fn block_request(id: u64, index: u64) -> Message {
    let proof = ProofRequest { block: Some(BlockRequest { index, nodes: 0 }), ..Default::default() };
    Message::Request(Request { id, fork: 0, proof, priority: 0 })
}

//= protocol-spec/07-replication.md#request-1-and-data-3
#[tokio::test(start_paused = true)]
async fn requests_far_past_the_end_are_each_refused_and_nobody_else_notices() {
    let writer = Writer::new().await;
    let (mut peer, channel, victim) = writer.attack().await;
    let refused = Arc::new(AtomicU64::new(0));
    let counting = refused.clone();
    let attacker = tokio::spawn(async move {
        for n in 0..10_000_u64 {
            say(&mut peer, channel, block_request(1 + n, 100 + (n << 38))).await;
            while counting.load(Ordering::Relaxed) <= n {
                match heard(&mut peer, channel).await {
                    Message::NoData(refusal) => {
                        assert_eq!(refusal.request, 1 + n);
                        counting.fetch_add(1, Ordering::Relaxed);
                    }
                    Message::Data(data) => panic!("{data:?}"),
                    _ => {}
                }
            }
        }
        (peer, channel)
    });
    while refused.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    readers_do_not_notice(&writer).await;
    assert!(refused.load(Ordering::Relaxed) < 1_000, "they were done after {refused:?} refusals");
    let (mut peer, channel) = attacker.await.unwrap();
    say(&mut peer, channel, block_request(7, 1)).await;
    loop {
        if let Message::Data(data) = heard(&mut peer, channel).await {
            assert_eq!(data.proof.block.unwrap().value, "block 1");
            break;
        }
    }
    drop(peer);
    victim.await.unwrap().unwrap();
}

//= LIMIT-3
#[tokio::test(start_paused = true)]
async fn a_handshake_of_one_byte_a_second_is_given_up_in_time() {
    let (mut left, right) = connection::memory();
    let (mut victim, _, _) = victim(right).await;
    let start = Instant::now();
    // A message of 200 bytes, as its length says.
    let mut bytes = [200].into_iter().chain(std::iter::repeat(0));
    let error = loop {
        tokio::select! {
            outcome = &mut victim => break outcome.unwrap().unwrap_err(),
            () = sleep(Duration::from_secs(1)) => {
                let _ = left.write_all(&[bytes.next().unwrap()]).await;
            }
        }
    };
    assert!(matches!(error, Error::Timeout), "{error}");
    assert!(start.elapsed() <= party::limits::Limits::default().handshake_timeout + Duration::from_secs(1));
}

//= protocol-spec/04-secret-stream.md#keep-alive-and-end
#[tokio::test(start_paused = true)]
async fn a_frame_of_one_byte_a_second_is_given_up_in_time_and_nobody_else_notices() {
    let reader = Reader::new().await;
    let (mut peer, channel, mut victim) = reader.attack().await;
    // The start of a frame of 10 MB.
    peer.say_raw(&[0x80, 0x96, 0x98]).await;
    let start = Instant::now();
    let attacker = tokio::spawn(async move {
        for byte in (0..=255).cycle() {
            peer.say_raw(&[byte]).await;
            sleep(Duration::from_secs(1)).await;
        }
        drop((peer, channel));
    });
    nobody_else_notices(&reader).await;
    let error = (&mut victim).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::SlowFrame(60..=64))), "{error}");
    let idle = party::limits::Limits::default().idle_timeout;
    assert!((idle..idle + Duration::from_secs(2)).contains(&start.elapsed()), "{:?}", start.elapsed());
    attacker.abort();
}

//= STREAM-19
#[tokio::test(start_paused = true)]
async fn a_large_frame_over_a_slow_link_is_waited_for() {
    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut peer = RawPeer::dial(left, &identity(1)).await;
    // A message of 15 MiB for a channel that there is not, which is passed over, at 8 KiB a second.
    let mut message = vec![0; 15 << 20];
    message[0] = 99;
    peer.stream.seal(&message).unwrap();
    let sealed = peer.stream.outgoing().split();
    let start = Instant::now();
    for piece in sealed.chunks(80 << 10) {
        peer.say_raw(piece).await;
        sleep(Duration::from_secs(10)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(1_900));
    // It wasn't given up meanwhile.
    assert_eq!(serves(&mut peer, &feed).await, "one");
    drop(peer);
    victim.await.unwrap().unwrap();
}
