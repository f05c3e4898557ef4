//! Memory that is used again: what is asked of the allocator in pieces as large as blocks is asked of the kernel as often
//! as not, page by page.

use std::collections::VecDeque;

use bytes::BytesMut;

/// How many of the oldest pieces are looked at for one that nobody holds any more.
const LOOKS: usize = 4;

/// Pieces of memory that were handed out, to be handed out again once nobody holds what was in them.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// What is left of each when its content was taken off, and how much memory that stands for; the oldest first.
    lent: VecDeque<(BytesMut, usize)>,
    bytes: usize,
    max_bytes: usize,
}

impl Buffers {
    /// Remembers pieces of `max_bytes` together. That is how much it keeps from the allocator at most.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { lent: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// `len` zeros, to be written over. Their memory comes back through [`lend`](Self::lend).
    pub(crate) fn zeroed(&mut self, len: usize) -> BytesMut {
        for _ in 0..self.lent.len().min(LOOKS) {
            let Some((mut piece, size)) = self.lent.pop_front() else { break };
            // Much more than is needed would be kept by who keeps little.
            if size / 2 <= len && piece.try_reclaim(len) {
                self.bytes = self.bytes.saturating_sub(size);
                piece.resize(len, 0);
                return piece;
            }
            self.lent.push_back((piece, size));
        }
        BytesMut::zeroed(len)
    }

    /// Takes the content off `piece`, to be handed out, and remembers where it is.
    pub(crate) fn lend(&mut self, mut piece: BytesMut) -> BytesMut {
        let content = piece.split();
        let size = content.len();
        self.bytes = self.bytes.saturating_add(size);
        self.lent.push_back((piece, size));
        while self.bytes > self.max_bytes
            && let Some((_, size)) = self.lent.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(size);
        }
        content
    }

    /// Gives back what nobody holds, and forgets the rest.
    pub(crate) fn clear(&mut self) {
        self.lent.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_used_again_when_nobody_holds_it() {
        let mut buffers = Buffers::new(1000);
        let mut piece = buffers.zeroed(100);
        piece.fill(7);
        let first = buffers.lend(piece).freeze();
        let at = first.as_ptr();

        let piece = buffers.zeroed(100);
        assert_ne!(piece.as_ptr(), at, "somebody holds it");
        let second = buffers.lend(piece);
        let part = first.slice(10..11);
        drop(first);
        drop(second);
        let third = buffers.zeroed(100);
        assert_ne!(third.as_ptr(), at, "somebody holds a part of it");
        drop((part, third));

        let piece = buffers.zeroed(60);
        assert_eq!(piece.as_ptr(), at);
        assert_eq!(&piece[..], [0; 60], "nothing of what was there before shows");
    }

    #[test]
    fn a_small_piece_does_not_keep_a_large_one() {
        let mut buffers = Buffers::new(1000);
        let piece = buffers.zeroed(100);
        drop(buffers.lend(piece));
        assert_eq!(buffers.zeroed(49).capacity(), 49);
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let mut buffers = Buffers::new(1000);
        for _ in 0..100 {
            let piece = BytesMut::zeroed(300);
            drop(buffers.lend(piece));
            assert!(buffers.bytes <= 1000 && buffers.bytes == 300 * buffers.lent.len());
        }
        drop(buffers.lend(BytesMut::zeroed(1001)));
        assert_eq!(buffers.bytes, 0);
        buffers.clear();
        assert!(buffers.lent.is_empty());
    }
}
