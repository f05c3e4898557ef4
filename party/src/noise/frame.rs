//! Frames: a length of three bytes, little-endian, then as many bytes.

use bytes::{Buf as _, BufMut as _, BytesMut};

/// Bytes of the length in front of a frame.
pub(super) const PREFIX: usize = 3;

/// The longest frame that the length can announce.
pub(super) const MAX_FRAME: usize = (1 << 24) - 1;

/// The length that the frame at the front of `input` announces, if all of the length is there.
//= STREAM-2
pub(super) fn announced(input: &[u8]) -> Option<usize> {
    let [low, middle, high] = *input.first_chunk::<PREFIX>()?;
    Some(u32::from_le_bytes([low, middle, high, 0]) as usize)
}

/// Takes the frame at the front of `input`, if all of its `length` bytes are there. Until then nothing is
/// taken and, so that a length costs no more than what has come, nothing reserved.
//= STREAM-3
pub(super) fn take(input: &mut BytesMut, length: usize) -> Option<BytesMut> {
    //= protocol-spec/04-secret-stream.md#frames
    if input.len() < PREFIX + length {
        return None;
    }
    input.advance(PREFIX);
    Some(input.split_to(length))
}

/// Appends the length of a frame. `length` is at most [`MAX_FRAME`].
//= STREAM-1
pub(super) fn put_length(out: &mut BytesMut, length: usize) {
    debug_assert!(length <= MAX_FRAME);
    out.put_uint_le(length as u64, PREFIX);
}
