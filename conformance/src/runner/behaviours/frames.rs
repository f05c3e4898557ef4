//! Frames: a length, then bytes.

use anyhow::ensure;

use crate::runner::{
    behaviour::{Behaviour, behaviour},
    scene::{BOTH, Dials},
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
                s.shim.reset().await?;
            }
        }
    ),
];
