//! A message on its way out, in pieces.
//!
//! A large block is not copied into its message, as it is copied once more behind the other messages that
//! travel with it: the pieces go there one after the other.

use bytes::Bytes;

/// The bytes of a message, without its type.
///
/// ```
/// use party::replication::messages::{Message, Range};
///
/// let payload = Message::Range(Range { drop: false, start: 0, length: 300 }).payload_for(true);
/// assert_eq!(payload.parts().concat(), [0, 0, 0xfd, 0x2c, 0x01]);
/// assert_eq!(payload.len(), 5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    front: Bytes,
    /// Empty, like what follows, where all is in one piece.
    block: Bytes,
    back: Bytes,
}

impl Payload {
    /// A block between what comes before it and what comes after it.
    pub(super) fn around(block: Bytes, front: Bytes, back: Bytes) -> Self {
        Self { front, block, back }
    }

    /// The pieces, to be sent one after the other. Some may be empty.
    pub fn parts(&self) -> [&[u8]; 3] {
        [&self.front, &self.block, &self.back]
    }

    /// How many bytes they have together.
    pub fn len(&self) -> usize {
        self.parts().iter().fold(0, |len, part| len.saturating_add(part.len()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All in one piece, which takes a copy if it is not.
    pub fn into_bytes(self) -> Bytes {
        if self.block.is_empty() && self.back.is_empty() { self.front } else { self.parts().concat().into() }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { front: bytes, block: Bytes::new(), back: Bytes::new() }
    }
}
