//! Input cut into blocks, read on a thread of its own so that waiting for it never keeps a connection waiting.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use party::limits::Limits;
use tokio::sync::mpsc;

/// How input becomes blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// All of it is one block.
    Whole,
    /// Blocks of so many bytes; the last may be shorter.
    Chunks(usize),
    /// A block for each line, without its line feed.
    Lines,
}

/// Batches of blocks, each of what could be read without waiting.
#[derive(Debug)]
pub(crate) struct Blocks {
    batches: mpsc::Receiver<anyhow::Result<Vec<Bytes>>>,
    /// Bytes of the input, where that is known before it is read.
    pub(crate) size: Option<u64>,
}

/// A batch takes what is buffered, so this bounds it; a single block may be larger.
const BUFFER: usize = 1 << 20;

impl Blocks {
    /// The blocks of a file, or of standard input for none and for `-`.
    pub(crate) fn open(path: Option<&Path>, cut: Cut) -> anyhow::Result<Self> {
        match path {
            Some(path) if path != Path::new("-") => {
                let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                let metadata = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
                Ok(Self::spawn(file, cut, metadata.is_file().then_some(metadata.len())))
            }
            _ => Ok(Self::spawn(io::stdin(), cut, None)),
        }
    }

    fn spawn(input: impl Read + Send + 'static, cut: Cut, size: Option<u64>) -> Self {
        // One batch waits while the one before is being appended.
        let (sender, batches) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut input = BufReader::with_capacity(BUFFER, input);
            loop {
                let batch = match read_batch(&mut input, cut, Limits::default().max_block) {
                    Ok(batch) if batch.is_empty() => return,
                    batch => batch.context("cannot read the input"),
                };
                let last = batch.is_err() || matches!(cut, Cut::Whole);
                if sender.blocking_send(batch).is_err() || last {
                    return;
                }
            }
        });
        Self { batches, size }
    }

    /// The next batch, which has at least one block; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// If the input can't be read, or has a block that is too long.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Vec<Bytes>>> {
        self.batches.recv().await.transpose()
    }
}

/// Reads one block, however long that takes, and then those that are complete in the buffer. Empty at the end.
fn read_batch(input: &mut BufReader<impl Read>, cut: Cut, max_block: usize) -> anyhow::Result<Vec<Bytes>> {
    let mut batch = Vec::new();
    loop {
        let Some(block) = read_block(input, cut, max_block)? else { return Ok(batch) };
        batch.push(block);
        let more = match cut {
            Cut::Whole => false,
            Cut::Chunks(size) => input.buffer().len() >= size,
            Cut::Lines => input.buffer().contains(&b'\n'),
        };
        if !more {
            return Ok(batch);
        }
    }
}

fn read_block(input: &mut impl BufRead, cut: Cut, max_block: usize) -> anyhow::Result<Option<Bytes>> {
    let mut block = Vec::new();
    match cut {
        Cut::Whole => {
            input.take(max_block as u64 + 1).read_to_end(&mut block)?;
            if block.len() > max_block {
                return Err(anyhow!(
                    "it is longer than a block of {max_block} bytes; use --chunk or --lines"
                ));
            }
        }
        Cut::Chunks(size) => {
            input.take(size as u64).read_to_end(&mut block)?;
            if block.is_empty() {
                return Ok(None);
            }
        }
        Cut::Lines => {
            // One byte more than a block, for the line feed.
            input.take(max_block as u64 + 1).read_until(b'\n', &mut block)?;
            if block.is_empty() {
                return Ok(None);
            }
            if block.last() == Some(&b'\n') {
                block.pop();
            }
            if block.len() > max_block {
                return Err(anyhow!("a line is longer than a block of {max_block} bytes; use --chunk"));
            }
        }
    }
    Ok(Some(block.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(input: &[u8], cut: Cut) -> Vec<Vec<Bytes>> {
        let mut input = BufReader::with_capacity(BUFFER, input);
        std::iter::from_fn(|| Some(read_batch(&mut input, cut, 8).unwrap()).filter(|batch| !batch.is_empty()))
            .collect()
    }

    #[test]
    fn lines_lose_their_end_and_empty_ones_are_blocks() {
        assert_eq!(cut(b"one\n\ntwo", Cut::Lines), [vec!["one", ""], vec!["two"]]);
        assert_eq!(cut(b"", Cut::Lines), Vec::<Vec<Bytes>>::new());
    }

    #[test]
    fn chunks_have_their_size_but_for_the_last() {
        assert_eq!(cut(b"abcdefgh", Cut::Chunks(3)), [vec!["abc", "def"], vec!["gh"]]);
    }

    #[test]
    fn a_line_that_is_no_block_is_an_error() {
        let mut input = BufReader::new(&b"12345678\n123456789\n"[..]);
        assert_eq!(read_block(&mut input, Cut::Lines, 8).unwrap().unwrap(), "12345678");
        assert!(read_block(&mut input, Cut::Lines, 8).is_err());
        let mut input = BufReader::new(&b"123456789"[..]);
        assert!(read_block(&mut input, Cut::Whole, 8).is_err());
    }
}
