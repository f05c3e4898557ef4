//! compact-encoding, the byte layout under every message of the Hypercore stack.
//!
//! Integers are little-endian and take 1, 3, 5 or 9 bytes; buffers and strings are prefixed with their
//! length. A [`Reader`] checks every length against the bytes that are really there before anything is
//! allocated, so decoding costs no more than the message that came. The layout is that of the npm package
//! `compact-encoding`; see `protocol-spec/02-encoding.md`.

use crate::error::DecodeError;

/// The largest integer that a Node peer decodes, 2^53 - 1. A larger one is a decode error there, so it is
/// one here, and is never sent.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Reads compact-encoded values from the front of a byte slice.
///
/// ```
/// use party::encoding::{Reader, Writer};
///
/// let mut out = Vec::new();
/// out.put_uint(300);
/// out.put_buffer(b"block");
///
/// let mut reader = Reader::new(&out);
/// assert_eq!(reader.uint()?, 300);
/// assert_eq!(reader.buffer()?, b"block");
/// assert!(reader.is_empty());
/// # Ok::<(), party::error::DecodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether every byte has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read yet.
    pub fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`] if fewer are left; nothing is read then.
    //= ENC-5
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`] if fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::UnexpectedEnd)?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`] at the end.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A fixed 8-byte little-endian integer.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], or [`DecodeError::IntegerTooLarge`] above [`MAX_SAFE_INTEGER`].
    pub fn uint64(&mut self) -> Result<u64, DecodeError> {
        safe(u64::from_le_bytes(self.array()?))
    }

    /// A variable-length integer: one byte up to 0xfc, or a tag byte and 2, 4 or 8 bytes. As in Node, the
    /// shortest form is not required.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], or [`DecodeError::IntegerTooLarge`] above [`MAX_SAFE_INTEGER`].
    //= ENC-4
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        match self.u8()? {
            0xfd => Ok(u16::from_le_bytes(self.array()?).into()),
            0xfe => Ok(u32::from_le_bytes(self.array()?).into()),
            0xff => safe(u64::from_le_bytes(self.array()?)),
            small => Ok(small.into()),
        }
    }

    /// A length-prefixed buffer, as a slice of the input.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`] if the length says more than is there.
    pub fn buffer(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.uint()?;
        self.bytes(usize::try_from(n).map_err(|_| DecodeError::UnexpectedEnd)?)
    }

    /// A buffer that may be absent, which is written as length 0.
    ///
    /// # Errors
    /// As [`buffer`](Self::buffer).
    pub fn optional_buffer(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let buffer = self.buffer()?;
        Ok((!buffer.is_empty()).then_some(buffer))
    }

    /// A length-prefixed UTF-8 string.
    ///
    /// # Errors
    /// As [`buffer`](Self::buffer), or [`DecodeError::NotUtf8`].
    //= ENC-7
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.buffer()?).map_err(|_| DecodeError::NotUtf8)
    }

    /// The count in front of a list whose items take at least `item_size` bytes each. A count that can't
    /// fit into the rest of the message, or one above `max`, is refused before anything is allocated.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], or [`DecodeError::TooMany`] above `max`.
    //= ENC-6, ENC-10
    pub fn count(&mut self, item_size: usize, max: usize) -> Result<usize, DecodeError> {
        let n = usize::try_from(self.uint()?).map_err(|_| DecodeError::UnexpectedEnd)?;
        if n > max {
            return Err(DecodeError::TooMany { max });
        }
        if n.saturating_mul(item_size) > self.rest.len() {
            return Err(DecodeError::UnexpectedEnd);
        }
        Ok(n)
    }
}

//= ENC-3
fn safe(n: u64) -> Result<u64, DecodeError> {
    if n > MAX_SAFE_INTEGER { Err(DecodeError::IntegerTooLarge) } else { Ok(n) }
}

/// Appends compact-encoded values; implemented for `Vec<u8>` and `bytes::BytesMut`.
pub trait Writer {
    /// Raw bytes, with no length in front.
    fn put_bytes(&mut self, bytes: &[u8]);

    /// A variable-length integer. The caller sees to it that it is at most [`MAX_SAFE_INTEGER`]; a Node
    /// peer refuses what is larger.
    //= ENC-1, ENC-2
    fn put_uint(&mut self, n: u64) {
        debug_assert!(n <= MAX_SAFE_INTEGER, "{n} is more than a Node peer decodes");
        if n <= 0xfc {
            self.put_bytes(&[n as u8]);
        } else if n <= 0xffff {
            self.put_bytes(&[0xfd]);
            self.put_bytes(&(n as u16).to_le_bytes());
        } else if n <= 0xffff_ffff {
            self.put_bytes(&[0xfe]);
            self.put_bytes(&(n as u32).to_le_bytes());
        } else {
            self.put_bytes(&[0xff]);
            self.put_bytes(&n.to_le_bytes());
        }
    }

    /// A fixed 8-byte little-endian integer.
    fn put_uint64(&mut self, n: u64) {
        self.put_bytes(&n.to_le_bytes());
    }

    /// A length-prefixed buffer.
    fn put_buffer(&mut self, bytes: &[u8]) {
        self.put_uint(bytes.len() as u64);
        self.put_bytes(bytes);
    }

    /// A length-prefixed buffer, or a single zero for `None`.
    fn put_optional_buffer(&mut self, bytes: Option<&[u8]>) {
        self.put_buffer(bytes.unwrap_or_default());
    }

    /// A length-prefixed string.
    fn put_string(&mut self, s: &str) {
        self.put_buffer(s.as_bytes());
    }
}

impl Writer for Vec<u8> {
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Writer for bytes::BytesMut {
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// How many bytes [`Writer::put_uint`] writes for `n`.
pub const fn uint_len(n: u64) -> usize {
    match n {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= ENC-1
    #[test]
    fn integers_take_the_shortest_form_and_come_back() {
        for n in [0, 1, 0xfc, 0xfd, 0xff, 0xffff, 0x1_0000, 0xffff_ffff, 1 << 32, MAX_SAFE_INTEGER] {
            let mut out = Vec::new();
            out.put_uint(n);
            assert_eq!(out.len(), uint_len(n));
            assert_eq!(Reader::new(&out).uint(), Ok(n));
            assert_eq!(Reader::new(&out[..out.len() - 1]).uint(), Err(DecodeError::UnexpectedEnd));
        }
    }

    //= ENC-3
    #[test]
    fn integers_above_two_to_the_53_are_refused() {
        let mut bytes = vec![0xff];
        bytes.extend_from_slice(&(MAX_SAFE_INTEGER + 1).to_le_bytes());
        assert_eq!(Reader::new(&bytes).uint(), Err(DecodeError::IntegerTooLarge));
        assert_eq!(Reader::new(&bytes[1..]).uint64(), Err(DecodeError::IntegerTooLarge));
    }

    //= ENC-5, ENC-6, ENC-10
    #[test]
    fn a_length_beyond_the_end_allocates_nothing() {
        let mut bytes = vec![0xff];
        bytes.extend_from_slice(&MAX_SAFE_INTEGER.to_le_bytes());
        assert_eq!(Reader::new(&bytes).buffer(), Err(DecodeError::UnexpectedEnd));
        assert_eq!(Reader::new(&bytes).count(33, usize::MAX), Err(DecodeError::UnexpectedEnd));
        assert_eq!(Reader::new(&[5, 0, 0]).count(1, 4), Err(DecodeError::TooMany { max: 4 }));
    }

    //= ENC-7
    #[test]
    fn a_string_must_be_utf8() {
        assert_eq!(Reader::new(&[1, 0xff]).string(), Err(DecodeError::NotUtf8));
        assert_eq!(Reader::new(&[2, b'h', b'i']).string(), Ok("hi"));
    }
}
