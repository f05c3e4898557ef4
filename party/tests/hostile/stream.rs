//! What is wrong below the channels: frames, the handshake, opens.

use party::{
    connection,
    encoding::{MAX_SAFE_INTEGER, Writer as _},
    error::{DecodeError, Error, PeerMisbehaved},
    key::KeyPair,
};

use crate::{
    common::{identity, raw::RawPeer},
    shared::{attack, serves, victim},
};

/// A Protomux open with this id, written by hand.
fn open(id: u64, protocol: &str) -> Vec<u8> {
    let mut message = vec![0, 1];
    message.push(0xff);
    message.extend_from_slice(&id.to_le_bytes());
    message.put_string(protocol);
    message.put_optional_buffer(None);
    message
}

#[tokio::test(start_paused = true)]
async fn an_open_with_a_huge_id_ends_the_connection() {
    for id in [1 << 31, 1 << 40, MAX_SAFE_INTEGER] {
        let error = attack(&open(id, "x")).await.unwrap_err();
        assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::InvalidOpen)), "{error}");
    }
    let error = attack(&open(u64::MAX, "x")).await.unwrap_err();
    assert!(matches!(error, Error::Decode(DecodeError::IntegerTooLarge)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_a_length_beyond_its_end_ends_the_connection() {
    let error = attack(&[0, 0, 1, 200, 0, 0]).await.unwrap_err();
    assert!(matches!(error, Error::Decode(DecodeError::UnexpectedEnd)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_reject_of_an_unknown_channel_ends_the_connection() {
    let error = attack(&[0, 2, 77]).await.unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnknownReject)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_header_that_is_none_ends_the_connection() {
    // The raw peer's own header is already on its way; so this one speaks Noise only.
    use bytes::BytesMut;
    use party::{
        limits::Limits,
        noise::{Handshake, HandshakeConfig, Progress},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    for header in [vec![5, 0, 0, 1, 2, 3, 4, 5], [&[56, 0, 0][..], &[9; 56]].concat()] {
        let (mut left, right) = connection::memory();
        let (victim, _, _) = victim(right).await;
        let config = HandshakeConfig::xx(true, KeyPair::from_seed(&[1; 32]), [7; 32]);
        let mut handshake = Handshake::new(config, &Limits::default()).unwrap();
        let mut input = BytesMut::new();
        let last = loop {
            if let Some(bytes) = handshake.poll_transmit() {
                left.write_all(&bytes).await.unwrap();
            }
            left.read_buf(&mut input).await.unwrap();
            match handshake.handle_input(&mut input).unwrap() {
                Progress::Pending(next) => handshake = next,
                Progress::Established(mut stream) => break stream.outgoing().split(),
            }
        };
        // All but the header, which is the last frame of 3 + 56 bytes.
        left.write_all(&last[..last.len() - 59]).await.unwrap();
        left.write_all(&header).await.unwrap();
        let error = victim.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::WrongStreamHeader)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_comes_is_given_up_in_time() {
    let (left, right) = connection::memory();
    let (victim, _, _) = victim(right).await;
    let mut attacker = RawPeer::dial(left, &identity(1)).await;
    attacker.say_raw(&[0xff, 0xff, 0xff, 1, 2, 3]).await;
    let error = victim.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_goes_on_is_given_up_in_time() {
    let (left, right) = connection::memory();
    let (victim, _, _) = victim(right).await;
    let error = victim.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout), "{error}");
    drop(left);
}

#[tokio::test(start_paused = true)]
async fn opens_of_unknown_protocols_without_end_are_each_rejected() {
    let (left, right) = connection::memory();
    let (victim, feed, _) = victim(right).await;
    let mut attacker = RawPeer::dial(left, &identity(1)).await;
    // 200,000 opens, a thousand at a time, always with the same thousand ids: each is free after its reject.
    for _ in 0..200 {
        for id in 1..=1000 {
            let mut message = vec![0, 1];
            message.put_uint(id);
            message.put_string("unknown/1");
            message.put_optional_buffer(Some(&id.to_le_bytes()));
            attacker.stream.seal(&message).unwrap();
        }
        attacker.flush().await;
        let mut rejected = 0;
        while rejected < 1000 {
            let message = attacker.hear().await.expect("the connection lives");
            rejected += count_rejects(&message);
        }
    }
    assert_eq!(serves(&mut attacker, &feed).await, "one");
    drop(attacker);
    victim.await.unwrap().unwrap();
}

fn count_rejects(message: &[u8]) -> usize {
    use party::encoding::Reader;
    let mut reader = Reader::new(message);
    match (reader.uint().unwrap(), reader.uint().unwrap()) {
        (0, 2) => 1,
        (0, 0) => {
            let mut rejects = 0;
            let mut channel = reader.uint().unwrap();
            while !reader.is_empty() {
                match reader.buffer().unwrap() {
                    [] => channel = reader.uint().unwrap(),
                    [2, ..] if channel == 0 => rejects += 1,
                    other => panic!("{other:?}"),
                }
            }
            rejects
        }
        other => panic!("{other:?}"),
    }
}
