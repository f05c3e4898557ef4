//! A feed as a file: its bytes, without regard to where blocks begin.

use std::{
    fmt, io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Ahead;
use crate::{
    error::{ApiMisuse, Error},
    feed::Feed,
};

/// Reads the bytes of a feed: an [`AsyncRead`] from [`Feed::byte_reader`].
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// let mut writer = feed.byte_writer(64 << 10)?;
/// writer.write_all(b"as much as you like").await?;
/// writer.shutdown().await?;
///
/// let mut text = String::new();
/// feed.byte_reader().read_to_string(&mut text).await?;
/// assert_eq!(text, "as much as you like");
/// # Ok(())
/// # }
/// ```
pub struct ByteReader {
    /// What was read and not yet handed out.
    block: Bytes,
    state: Reading,
}

enum Reading {
    Idle(Box<Source>),
    Busy(BoxFuture<'static, Next>),
    Done,
}

/// What was read, and where to go on.
type Next = (Box<Source>, Result<Option<Bytes>, Error>);

/// What a reader reads from.
struct Source {
    feed: Feed,
    fork: u64,
    blocks: Range<u64>,
    ahead: Ahead,
    /// Read, in reverse.
    read: Vec<Bytes>,
}

impl Feed {
    /// Reads all bytes that the feed has now, from the first. Blocks that are not stored here are fetched
    /// from peers. If the feed takes another course meanwhile, reading fails with
    /// [`io::ErrorKind::InvalidData`].
    pub fn byte_reader(&self) -> ByteReader {
        let info = self.info();
        self.read_bytes_of(0..info.length, info.fork)
    }

    fn read_bytes_of(&self, blocks: Range<u64>, fork: u64) -> ByteReader {
        let source = Source { feed: self.clone(), fork, blocks, ahead: Ahead::new(), read: vec![] };
        ByteReader { block: Bytes::new(), state: Reading::Idle(Box::new(source)) }
    }

    /// Appends all that is written, in blocks of `block_len` bytes, the last of which may be shorter. What was
    /// written is stored once [`flush`](tokio::io::AsyncWriteExt::flush) or
    /// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) has returned; what then is left of a block is appended as a
    /// shorter one. What was not flushed when the writer is dropped, is lost.
    ///
    /// # Errors
    /// [`ApiMisuse::LimitExceeded`] if no block has that many bytes.
    pub fn byte_writer(&self, block_len: usize) -> Result<ByteWriter, ApiMisuse> {
        if block_len == 0 || block_len > self.max_block() {
            return Err(ApiMisuse::LimitExceeded("max_block"));
        }
        Ok(ByteWriter { feed: self.clone(), block_len, buffer: BytesMut::new(), appending: None })
    }
}

impl Source {
    /// The next block; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.read.is_empty() && !self.blocks.is_empty() {
            let left = usize::try_from(self.blocks.end - self.blocks.start).unwrap_or(usize::MAX);
            let stored = self.feed.stored_run(self.blocks.start, self.ahead.blocks.min(left));
            self.read = if stored.is_empty() {
                vec![self.feed.fetch(self.blocks.start).await?]
            } else {
                let blocks = self.feed.get_many(stored.collect()).await?;
                blocks.into_iter().map_while(|block| block).collect()
            };
            self.blocks.start += self.read.len() as u64;
            self.ahead.read(self.read.len(), self.read.iter().map(Bytes::len).sum());
            self.read.reverse();
        }
        // After it was read: a block of another fork is not handed out.
        if self.feed.info().fork != self.fork {
            return Err(ApiMisuse::ForkChanged.into());
        }
        Ok(self.read.pop())
    }
}

impl AsyncRead for ByteReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.block.is_empty() && buf.remaining() > 0 {
            match std::mem::replace(&mut this.state, Reading::Done) {
                Reading::Done => return Poll::Ready(Ok(())),
                Reading::Idle(mut source) => {
                    this.state = Reading::Busy(Box::pin(async move {
                        let next = source.next().await;
                        (source, next)
                    }));
                }
                Reading::Busy(mut next) => match next.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.state = Reading::Busy(next);
                        return Poll::Pending;
                    }
                    Poll::Ready((source, Ok(Some(block)))) => {
                        this.block = block;
                        this.state = Reading::Idle(source);
                    }
                    Poll::Ready((source, Ok(None))) => {
                        // Cleared under our hands, it is fetched again.
                        if !source.blocks.is_empty() {
                            this.state = Reading::Idle(source);
                        }
                    }
                    Poll::Ready((_, Err(error))) => return Poll::Ready(Err(into_io(error))),
                },
            }
        }
        let len = this.block.len().min(buf.remaining());
        buf.put_slice(&this.block[..len]);
        this.block.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for ByteReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteReader").finish_non_exhaustive()
    }
}

/// Appends bytes to a feed: an [`AsyncWrite`] from [`Feed::byte_writer`].
///
/// ```
/// # use std::sync::Arc;
/// # use party::feed::{Feed, Identity, memory::MemoryStorage, storage::Slot};
/// # use party::key::KeyPair;
/// use tokio::io::AsyncWriteExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let identity = Identity::writer(KeyPair::generate());
/// # let feed = Feed::create(Arc::new(MemoryStorage::new()), Slot(0), identity).await?;
/// let mut writer = feed.byte_writer(4)?; // bytes to a block; a file wants many more
/// writer.write_all(b"hello ").await?;
/// writer.write_all(b"world").await?;
/// writer.shutdown().await?; // or what is left would be lost
///
/// assert_eq!(feed.info().length, 3);
/// assert_eq!(feed.get(1).await?.as_deref(), Some(b"o wo".as_slice()));
/// assert_eq!(feed.get(2).await?.as_deref(), Some(b"rld".as_slice()));
/// # Ok(())
/// # }
/// ```
pub struct ByteWriter {
    feed: Feed,
    block_len: usize,
    /// What was written and not yet appended.
    buffer: BytesMut,
    appending: Option<BoxFuture<'static, Result<(), Error>>>,
}

/// About how many bytes are appended at once.
const BATCH_BYTES: usize = 1 << 20;

impl ByteWriter {
    fn batch_len(&self) -> usize {
        (BATCH_BYTES / self.block_len).max(1) * self.block_len
    }

    /// Waits until what is being appended is stored.
    fn poll_appended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(appending) = &mut self.appending {
            let result = ready!(appending.as_mut().poll(cx));
            self.appending = None;
            result.map_err(into_io)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Begins to append all that is in the buffer.
    fn append(&mut self) {
        let mut written = std::mem::take(&mut self.buffer).freeze();
        let mut blocks = vec![];
        while !written.is_empty() {
            blocks.push(written.split_to(self.block_len.min(written.len())));
        }
        let feed = self.feed.clone();
        self.appending = Some(Box::pin(async move { feed.append_batch(blocks).await.map(drop) }));
    }
}

impl AsyncWrite for ByteWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.buffer.len() >= this.batch_len() {
            ready!(this.poll_appended(cx))?;
            this.append();
        }
        // It makes no progress unless it is polled.
        if let Poll::Ready(result) = this.poll_appended(cx) {
            result?;
        }
        let len = data.len().min(this.batch_len() - this.buffer.len());
        this.buffer.extend_from_slice(&data[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_appended(cx))?;
        if !this.buffer.is_empty() {
            this.append();
            ready!(this.poll_appended(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl fmt::Debug for ByteWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteWriter").field("block_len", &self.block_len).finish_non_exhaustive()
    }
}

fn into_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::ApiMisuse(ApiMisuse::ForkChanged) => io::ErrorKind::InvalidData,
        Error::ApiMisuse(ApiMisuse::NotWritable(_)) => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
