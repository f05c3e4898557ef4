//! The Noise handshake, from both ends.

use anyhow::{Context as _, Result, bail, ensure};
use party::noise::{HandshakeState, Pattern};
use zeroize::Zeroizing;

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, hex, runner, shim_key},
    wire::{Raw, fresh},
};

const AREA: &str = "noise";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "static-keys",
        "Both ends of a handshake learn the other's static key, whoever dials.",
        ["NOISE-1", "NOISE-2", "PARTY-24"],
        [],
        |s| {
            for dials in BOTH {
                s.meet(dials).await?.barrier().await?;
                s.event(&format!("connected {}", hex(runner().public().as_bytes()))).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "lengths",
        "The messages have 32, 96 and 64 bytes: they carry no payload.",
        ["NOISE-10", "NOISE-11"],
        [],
        |s| {
            s.prepare().await?;
            let mut raw = s.tcp(Dials::Runner).await?;
            let (_, first) = begin(true)?.write(&[])?;
            raw.frame(&first).await;
            ensure!(heard(&mut raw).await?.len() == 96, "the second message is not 96 bytes long");
            let mut raw = s.tcp(Dials::Shim).await?;
            let first = heard(&mut raw).await?;
            ensure!(first.len() == 32, "the first message is not 32 bytes long");
            let (state, _) = begin(false)?.read(&first)?;
            raw.frame(&state.write(&[])?.1).await;
            ensure!(heard(&mut raw).await?.len() == 64, "the third message is not 64 bytes long");
        }
    ),
    behaviour!(AREA, "fresh-keys", "Each handshake has an ephemeral key of its own.", ["NOISE-8"], [], |s| {
        s.prepare().await?;
        let one = heard(&mut s.tcp(Dials::Shim).await?).await?;
        let other = heard(&mut s.tcp(Dials::Shim).await?).await?;
        ensure!(one != other, "the same ephemeral key twice");
    }),
    behaviour!(
        AREA,
        "responder-waits",
        "A responder says nothing before the initiator's message is all there.",
        ["NOISE-1"],
        [],
        |s| {
            s.prepare().await?;
            let mut raw = s.tcp(Dials::Runner).await?;
            raw.write(&[32, 0, 0, 1, 2, 3]).await;
            // What it does on another connection meanwhile shows that it had the time.
            s.connect(Dials::Runner).await?.barrier().await?;
            ensure!(raw.seems_alive() && raw.input.is_empty(), "it says something");
        }
    ),
    behaviour!(
        AREA,
        "small-order",
        "An ephemeral key of small order ends the handshake, without an answer.",
        ["NOISE-5", "NOISE-7", "NOISE-15"],
        [],
        |s| {
            let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
            let other_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
            let of_order_2 = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
            s.prepare().await?;
            for key in [[0; 32], one_and_zeros(1), unhex(order_8)?, unhex(other_8)?, unhex(of_order_2)?] {
                refuses(s.tcp(Dials::Runner).await?, &key).await.with_context(|| hex(&key))?;
            }
        }
    ),
    behaviour!(
        AREA,
        "not-canonical",
        "An ephemeral key that is not canonically encoded ends the handshake, without an answer.",
        ["NOISE-3", "NOISE-15"],
        [],
        |s| {
            s.prepare().await?;
            // 2^255 - 19 + n for some n, which stand for n.
            for first in [0xed, 0xee, 0xf0, 0xff] {
                let mut key = [0xff; 32];
                (key[0], key[31]) = (first, 0x7f);
                refuses(s.tcp(Dials::Runner).await?, &key).await.with_context(|| hex(&key))?;
            }
        }
    ),
    behaviour!(
        AREA,
        "not-on-the-curve",
        "An ephemeral key that is no point of the prime-order subgroup ends the handshake, without an answer.",
        ["NOISE-4", "NOISE-6", "NOISE-15"],
        [],
        |s| {
            s.prepare().await?;
            let mut tried = 0;
            for n in 2..=255 {
                let key = one_and_zeros(n);
                if !party::key::PublicKey::from_bytes(key).is_usable() && tried < 8 {
                    refuses(s.tcp(Dials::Runner).await?, &key).await.with_context(|| hex(&key))?;
                    tried += 1;
                }
            }
            ensure!(tried == 8, "there are not enough such keys");
        }
    ),
    behaviour!(
        AREA,
        "bad-key-of-the-responder",
        "An initiator ends the handshake for an ephemeral key of small order, and sends no third message.",
        ["NOISE-5", "NOISE-15"],
        [],
        |s| {
            s.prepare().await?;
            let mut raw = s.tcp(Dials::Shim).await?;
            let first = heard(&mut raw).await?;
            let (_, mut second) = begin(false)?.read(&first)?.0.write(&[])?;
            second[..32].copy_from_slice(&one_and_zeros(1));
            refuses(raw, &second).await?;
        }
    ),
    behaviour!(
        AREA,
        "tampered-second-message",
        "An initiator ends the handshake for a second message that doesn't verify, and sends no third.",
        ["NOISE-12", "NOISE-15", "NOISE-16"],
        [],
        |s| {
            s.prepare().await?;
            for at in [0, 31, 32, 63, 79, 80, 95] {
                let mut raw = s.tcp(Dials::Shim).await?;
                let first = heard(&mut raw).await?;
                let (_, mut second) = begin(false)?.read(&first)?.0.write(&[])?;
                second[at] ^= 1;
                refuses(raw, &second).await.with_context(|| format!("byte {at}"))?;
            }
        }
    ),
    behaviour!(
        AREA,
        "tampered-third-message",
        "A responder ends the handshake for a third message that doesn't verify.",
        ["NOISE-12", "NOISE-16"],
        [],
        |s| {
            s.prepare().await?;
            for at in [0, 31, 47, 48, 63] {
                let (raw, mut third) = before_third(s.tcp(Dials::Runner).await?).await?;
                third[at] ^= 1;
                refuses(raw, &third).await.with_context(|| format!("byte {at}"))?;
            }
            s.silent("connected").await?;
        }
    ),
    behaviour!(
        AREA,
        "third-message-of-another-handshake",
        "A third message that belongs to another handshake ends this one.",
        ["NOISE-8", "NOISE-12"],
        [],
        |s| {
            s.prepare().await?;
            let (_other, third) = before_third(s.tcp(Dials::Runner).await?).await?;
            let (raw, _) = before_third(s.tcp(Dials::Runner).await?).await?;
            refuses(raw, &third).await?;
        }
    ),
    behaviour!(
        AREA,
        "too-short",
        "A message that is too short ends the handshake, without an answer.",
        ["NOISE-13", "NOISE-15"],
        [],
        |s| {
            s.prepare().await?;
            for length in [0, 1, 31] {
                refuses(s.tcp(Dials::Runner).await?, &vec![9; length]).await?;
            }
            let (raw, third) = before_third(s.tcp(Dials::Runner).await?).await?;
            refuses(raw, &third[..63]).await?;
        }
    ),
    behaviour!(
        AREA,
        "too-long",
        "A handshake message of more than 65535 bytes ends the connection, without an answer.",
        ["NOISE-14", "NOISE-15"],
        [],
        |s| {
            s.prepare().await?;
            let (_, mut first) = begin(true)?.write(&[])?;
            first.resize(65_536, 0);
            refuses(s.tcp(Dials::Runner).await?, &first).await?;
        }
    ),
    behaviour!(
        AREA,
        "own-key",
        "A peer that is dialled by one who echoes its own messages makes no connection.",
        ["NOISE-12"],
        [],
        |s| {
            s.prepare().await?;
            let mut raw = s.tcp(Dials::Shim).await?;
            let first = heard(&mut raw).await?;
            refuses(raw, &first).await?;
            s.silent("connected").await?;
            ensure!(shim_key() != runner().public());
        }
    ),
];

fn begin(is_initiator: bool) -> Result<HandshakeState> {
    let seed = Zeroizing::new(fresh());
    Ok(HandshakeState::new(Pattern::Xx, is_initiator, &runner(), None, &[], seed)?)
}

/// The next frame, which must come.
async fn heard(raw: &mut Raw) -> Result<Vec<u8>> {
    Ok(raw.next_frame().await?.context("the shim ends the connection")?.to_vec())
}

/// The connection ends on a frame with this body, and nothing is said.
async fn refuses(mut raw: Raw, body: &[u8]) -> Result<()> {
    raw.input.clear();
    raw.frame(body).await;
    match raw.ends().await? {
        0 => Ok(()),
        bytes => bail!("{bytes} bytes come in answer"),
    }
}

/// A connection on which the third message is to be sent, and that message.
async fn before_third(mut raw: Raw) -> Result<(Raw, Vec<u8>)> {
    let (state, first) = begin(true)?.write(&[])?;
    raw.frame(&first).await;
    let second = heard(&mut raw).await?;
    let third = state.read(&second)?.0.write(&[])?.1;
    Ok((raw, third))
}

fn one_and_zeros(first: u8) -> [u8; 32] {
    let mut key = [0; 32];
    key[0] = first;
    key
}

fn unhex(text: &str) -> Result<[u8; 32]> {
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
    }
    Ok(key)
}
