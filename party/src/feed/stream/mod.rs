//! A feed read or written as a stream: what is stored ([`History`]), what comes ([`Live`]), and its bytes without
//! regard to blocks ([`ByteReader`], [`ByteWriter`]).

mod bytes;
mod history;
mod live;

pub use self::{
    bytes::{ByteReader, ByteWriter},
    history::History,
    live::{Live, LiveEvent},
};

/// The most blocks read ahead of who reads a stream.
const MAX_AHEAD: usize = 64;
/// About how many bytes are read ahead, judged by the blocks before. Only where blocks suddenly become large
/// is it more, for one batch.
const AHEAD_BYTES: usize = 256 << 10;

/// How many blocks to read at once.
#[derive(Debug)]
struct Ahead {
    blocks: usize,
}

impl Ahead {
    fn new() -> Self {
        Self { blocks: 1 }
    }

    /// What was read last; twice as much comes next at most.
    fn read(&mut self, blocks: usize, bytes: usize) {
        let fitting = AHEAD_BYTES.checked_div(bytes / blocks.max(1)).unwrap_or(MAX_AHEAD);
        self.blocks = fitting.min(self.blocks * 2).clamp(1, MAX_AHEAD);
    }
}
