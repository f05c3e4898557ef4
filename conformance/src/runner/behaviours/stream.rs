//! The secret stream: a header, then sealed messages.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use party::{
    hash::{keyed_hash, namespace},
    limits::Limits,
    noise::{HandshakeState, Pattern, SecretStream, Split},
};
use zeroize::Zeroizing;

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, runner},
    wire::{Raw, Wire, fresh},
};

const AREA: &str = "stream";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "header",
        "Each side's first frame after the handshake is its header, with the id of its role.",
        ["STREAM-5"],
        [],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let (mut raw, split) = shaken(s.tcp(dials).await?, dials).await?;
                let header = raw.next_frame().await?.context("no header comes")?;
                ensure!(header.len() == 56, "the header has {} bytes", header.len());
                ensure!(header[..32] == id(&split, dials == Dials::Shim), "the id is another");
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "header-length",
        "A header of another length than 56 bytes ends the connection.",
        ["STREAM-6"],
        [],
        |s| {
            s.prepare().await?;
            for length in [0, 55, 57, 80] {
                let (raw, split) = shaken(s.tcp(Dials::Runner).await?, Dials::Runner).await?;
                let mut header = id(&split, true).to_vec();
                header.resize(length, 7);
                ends_on(raw, &header).await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "header-id",
        "A header with another id than that of the remote's role ends the connection.",
        ["STREAM-7"],
        [],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                for wrong in 0..3 {
                    let (raw, split) = shaken(s.tcp(dials).await?, dials).await?;
                    let mut id = id(&split, (dials == Dials::Runner) != (wrong == 0));
                    id[31] ^= u8::from(wrong == 1);
                    id[0] ^= u8::from(wrong == 2);
                    ends_on(raw, &[&id[..], &[7; 24]].concat()).await?;
                }
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "header-echoed",
        "Its own header, sent back, ends the connection.",
        ["STREAM-7"],
        [],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let (mut raw, _) = shaken(s.tcp(dials).await?, dials).await?;
                let header = raw.next_frame().await?.context("no header comes")?;
                ends_on(raw, &header).await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "no-header",
        "A sealed message in the place of the header ends the connection.",
        ["STREAM-5", "STREAM-6"],
        [],
        |s| {
            s.prepare().await?;
            let (raw, split) = shaken(s.tcp(Dials::Runner).await?, Dials::Runner).await?;
            let mut stream = SecretStream::from_split(split, [7; 24], &Limits::default());
            stream.outgoing().clear();
            stream.seal(&Wire::open_unknown(1))?;
            let mut raw = raw;
            let bytes = stream.outgoing().split();
            raw.write(&bytes).await;
            raw.ends().await?;
        }
    ),
    behaviour!(
        AREA,
        "tampered",
        "A message of which one bit is another ends the connection, and nothing of it has any effect.",
        ["STREAM-12", "STREAM-13"],
        [],
        |s| {
            s.prepare().await?;
            for at in [3, 4, 10, 20, -17, -16, -1] {
                let mut wire = s.connect(Dials::Runner).await?;
                let mut bytes = wire.sealed(&Wire::open_unknown(1))?;
                let at = if at < 0 { bytes.len() as i64 + at } else { at } as usize;
                bytes[at] ^= 0x10;
                wire.raw.write(&bytes).await;
                wire.ends_silently().await?;
            }
        }
    ),
    behaviour!(AREA, "replayed", "A message that comes twice ends the connection.", ["STREAM-12"], [], |s| {
        let mut wire = s.meet(Dials::Runner).await?;
        let bytes = wire.sealed(&Wire::open_unknown(1))?;
        wire.raw.write(&bytes).await;
        wire.rejected(1).await?;
        wire.raw.write(&bytes).await;
        wire.ends_silently().await?;
    }),
    behaviour!(
        AREA,
        "out-of-order",
        "Messages in another order than they were sealed in end the connection, and have no effect.",
        ["STREAM-12", "STREAM-13"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let first = wire.sealed(&Wire::open_unknown(1))?;
            let second = wire.sealed(&Wire::open_unknown(2))?;
            wire.raw.write(&[second, first].concat()).await;
            wire.ends_silently().await?;
        }
    ),
    behaviour!(
        AREA,
        "left-out",
        "A message that is left out ends the connection with the next.",
        ["STREAM-12"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let _left_out = wire.sealed(&Wire::open_unknown(1))?;
            wire.say(&Wire::open_unknown(2)).await?;
            wire.ends_silently().await?;
        }
    ),
    behaviour!(
        AREA,
        "shortened",
        "A sealed message without its last byte, or with one more, ends the connection.",
        ["STREAM-12"],
        [],
        |s| {
            s.prepare().await?;
            for more in [-1_i64, 1] {
                let mut wire = s.connect(Dials::Runner).await?;
                let sealed = wire.sealed(&Wire::open_unknown(1))?;
                let mut body = sealed[3..].to_vec();
                body.resize((body.len() as i64 + more) as usize, 0);
                wire.raw.frame(&body).await;
                wire.ends_silently().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "echoed",
        "Its own message, sent back, ends the connection: each direction has its own key.",
        ["STREAM-9", "NOISE-17"],
        [],
        |s| {
            s.prepare().await?;
            let (mut raw, split) = shaken(s.tcp(Dials::Runner).await?, Dials::Runner).await?;
            let mut stream = SecretStream::from_split(split, [7; 24], &Limits::default());
            stream.seal(&Wire::open_unknown(1))?;
            let bytes = stream.outgoing().split();
            raw.write(&bytes).await;
            raw.next_frame().await?.context("no header comes")?;
            let said = raw.next_frame().await?.context("nothing comes")?;
            ends_on(raw, &said).await?;
        }
    ),
    behaviour!(
        AREA,
        "other-connection",
        "A message that was sealed for another connection ends this one.",
        ["STREAM-9", "STREAM-12"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            let mut other = s.connect(Dials::Runner).await?;
            let bytes = other.sealed(&Wire::open_unknown(1))?;
            wire.barrier().await?;
            wire.raw.write(&bytes).await;
            wire.ends_silently().await?;
        }
    ),
    behaviour!(
        AREA,
        "keep-alive",
        "A keep-alive means nothing to the layer above.",
        ["STREAM-15"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for _ in 0..100 {
                wire.say(&[]).await?;
            }
            wire.barrier().await?;
        }
    ),
    behaviour!(
        AREA,
        "order",
        "A thousand messages are taken in their order.",
        ["STREAM-9", "STREAM-2"],
        [],
        |s| {
            let mut wire = s.meet(Dials::Runner).await?;
            for id in 1..=1000 {
                wire.say(&Wire::open_unknown(id)).await?;
            }
            for id in 1..=1000 {
                let before = wire.rejected(id).await?;
                ensure!(before.is_empty(), "before the reject of {id} there is {before:?}");
            }
        }
    ),
];

/// The handshake is over, and nothing was sent behind it.
async fn shaken(mut raw: Raw, dials: Dials) -> Result<(Raw, Split)> {
    let is_initiator = dials == Dials::Runner;
    let seed = Zeroizing::new(fresh());
    let mut state = HandshakeState::new(Pattern::Xx, is_initiator, &runner(), None, &[], seed)?;
    while !state.is_finished() {
        if state.is_my_turn() {
            let (next, message) = state.write(&[])?;
            raw.frame(&message).await;
            state = next;
        } else {
            let Some(message) = raw.next_frame().await? else { bail!("the shim ends the handshake") };
            state = state.read(&message)?.0;
        }
    }
    Ok((raw, state.split()?))
}

fn id(split: &Split, is_initiator: bool) -> [u8; 32] {
    let role = u8::from(!is_initiator);
    keyed_hash(&split.session.binding, &[&namespace("hyperswarm/secret-stream", role)])
}

/// A frame with this body ends the connection.
async fn ends_on(mut raw: Raw, body: &[u8]) -> Result<()> {
    raw.input = BytesMut::new();
    raw.frame(body).await;
    raw.ends().await.map(drop)
}
