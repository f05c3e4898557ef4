//! Frames: a length, then bytes.

use std::time::Duration;

use anyhow::ensure;

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials, runner},
    wire::{Raw, Wire},
};

const AREA: &str = "frames";

pub(super) const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        AREA,
        "empty",
        "A frame of no bytes after the handshake ends the connection.",
        ["STREAM-11"],
        [],
        |s| {
            for dials in BOTH {
                let mut wire = s.meet(dials).await?;
                wire.barrier().await?;
                wire.raw.frame(&[]).await;
                wire.ends().await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "short",
        "A frame too short to be sealed ends the connection.",
        ["STREAM-11"],
        [],
        |s| {
            s.prepare().await?;
            for length in [1, 2, 15, 16] {
                let mut wire = s.connect(Dials::Runner).await?;
                wire.raw.frame(&vec![7; length]).await;
                wire.ends().await?;
            }
        }
    ),
    behaviour!(
        AREA,
        "byte-by-byte",
        "A connection that comes byte by byte, the handshake included, is as good as any.",
        ["STREAM-1", "STREAM-2", "NOISE-11"],
        [],
        |s| {
            for dials in BOTH {
                s.prepare().await?;
                let mut raw = s.tcp(dials).await?;
                raw.piece = 1;
                let mut wire = raw.shake_hands(dials == Dials::Runner, &runner()).await?;
                wire.barrier().await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(AREA, "split", "Frames that are split anywhere are put together.", ["STREAM-2"], [], |s| {
        let mut wire = s.meet(Dials::Runner).await?;
        for piece in [2, 3, 4, 5, 7, 19, 20, 21, 41] {
            wire.raw.piece = piece;
            for _ in 0..5 {
                wire.barrier().await?;
            }
        }
    }),
    behaviour!(AREA, "joined", "A hundred frames in one write are all taken.", ["STREAM-2"], [], |s| {
        let mut wire = s.meet(Dials::Runner).await?;
        let mut bytes = Vec::new();
        for id in 1..=100 {
            bytes.extend_from_slice(&wire.sealed(&Wire::open_unknown(id))?);
        }
        wire.raw.write(&bytes).await;
        for id in 1..=100 {
            wire.rejected(id).await?;
        }
    }),
    behaviour!(
        AREA,
        "handshake-and-more",
        "What comes right behind the last message of the handshake, in the same write, is taken.",
        ["STREAM-2", "STREAM-8"],
        [],
        |s| {
            s.prepare().await?;
            let mut wire = s.tcp(Dials::Runner).await?.shake_hands(true, &runner()).await?;
            // Message 3 and the header are still to be written.
            wire.say(&Wire::open_unknown(1)).await?;
            wire.rejected(1).await?;
        }
    ),
    behaviour!(AREA, "longest", "A frame of 2^24 - 1 bytes is taken.", ["STREAM-4", "MUX-35"], [], |s| {
        let mut wire = s.meet(Dials::Runner).await?;
        let mut message = vec![0; (1 << 24) - 1 - 17];
        message[0] = 99;
        wire.say(&message).await?;
        wire.barrier().await?;
    }),
    behaviour!(
        AREA,
        "announced-only",
        "Lengths of 16 MiB that are only announced, on 40 connections, take no memory.",
        ["STREAM-3"],
        [],
        |s| {
            s.prepare().await?;
            let mut wires = Vec::new();
            for _ in 0..40 {
                let mut wire = s.connect(Dials::Runner).await?;
                wire.barrier().await?;
                wires.push(wire);
            }
            let before = s.shim.memory();
            for wire in &mut wires {
                wire.raw.write(&[0xff, 0xff, 0xff, 1, 2, 3]).await;
            }
            s.tell("ping").await?;
            let mut another = s.connect(Dials::Runner).await?;
            another.barrier().await?;
            if let (Some(before), Some(after)) = (before, s.shim.memory()) {
                ensure!(after < before + (160 << 20), "it takes {} MiB more", (after - before) >> 20);
            }
        }
    ),
    behaviour!(
        AREA,
        "cut-in-the-handshake",
        "A connection that ends in the handshake harms no other.",
        ["STREAM-21"],
        [],
        |s| {
            s.prepare().await?;
            for bytes in [&[][..], &[32], &[32, 0, 0], &[32, 0, 0, 1, 2, 3]] {
                let mut raw = s.tcp(Dials::Runner).await?;
                raw.write(bytes).await;
                drop(raw);
            }
            s.connect(Dials::Runner).await?.barrier().await?;
        }
    ),
    behaviour!(
        AREA,
        "cut-in-a-frame",
        "A connection that ends in the middle of a frame has ended, and harms no other.",
        ["STREAM-21"],
        [],
        |s| {
            for dials in BOTH {
                let mut wire = s.meet(dials).await?;
                wire.barrier().await?;
                let mut bytes = wire.sealed(&Wire::open_unknown(2))?;
                bytes.truncate(bytes.len() / 2);
                wire.raw.write(&bytes).await;
                drop(wire);
                s.event("ended").await?;
                s.connect(Dials::Runner).await?.barrier().await?;
                s.again().await?;
            }
        }
    ),
    behaviour!(AREA, "hang-up", "A shim that is told to ends its connections.", ["STREAM-21"], [], |s| {
        for dials in BOTH {
            let mut wire = s.meet(dials).await?;
            wire.barrier().await?;
            s.tell("hangup").await?;
            wire.ends().await?;
            drop(wire);
            s.event("ended").await?;
            s.again().await?;
        }
    }),
    behaviour!(
        AREA,
        "trickle",
        "A frame of which a byte comes now and then doesn't hold a connection for ever.",
        ["STREAM-18"],
        [Patience],
        |s| {
            s.tell("patience idle 400").await?;
            let mut wire = s.meet(Dials::Runner).await?;
            wire.barrier().await?;
            wire.raw.write(&[0xff, 0xff, 0]).await;
            let mut alive = true;
            for _ in 0..40 {
                alive = alive && tick(&mut wire.raw, &[1]).await;
            }
            ensure!(!alive, "the connection is still there");
        }
    ),
    behaviour!(
        AREA,
        "signs-of-life",
        "A side that has nothing to say sends keep-alives, and whoever does is not given up.",
        ["STREAM-15", "STREAM-16", "STREAM-17"],
        [Patience],
        |s| {
            s.tell("patience idle 900").await?;
            let mut wire = s.meet(Dials::Runner).await?;
            for _ in 0..20 {
                let keep_alive = wire.sealed(&[])?;
                ensure!(tick(&mut wire.raw, &keep_alive).await, "it is given up");
            }
            wire.barrier().await?;
            ensure!(wire.stream.keep_alives() > 0, "it sends no keep-alive");
        }
    ),
];

/// A tenth of a second later: these bytes are sent, and the connection is looked at.
async fn tick(raw: &mut Raw, bytes: &[u8]) -> bool {
    // It is the shim's clock that has to go on here.
    tokio::time::sleep(Duration::from_millis(100)).await;
    raw.write(bytes).await;
    raw.seems_alive()
}
