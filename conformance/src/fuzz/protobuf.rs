//! Protobuf, written and read in the plainest way: what the generated code is compared with.

use arbitrary::Arbitrary;

use super::input::{Few, Short};

/// Groups in groups, and messages in messages, that a reader follows.
const MAX_DEPTH: u32 = 100;

/// A field as a fuzzer makes it up: known or not, of the right type or another.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Field<'a> {
    number: u8,
    content: Content<'a>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Content<'a> {
    Varint(u64),
    /// A small number in more bytes than it needs.
    Padded(u8, u8),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Short<'a>),
    /// As long as a key is.
    Key(u8),
    Fields(Few<Field<'a>, 4>),
    Group(Few<Field<'a>, 2>),
}

impl Field<'_> {
    pub(super) fn encode_all(fields: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for field in fields {
            field.encode(&mut out);
        }
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        // Those that some message has, mostly.
        let number = u64::from(if self.number < 240 { self.number % 4 + 1 } else { self.number });
        match &self.content {
            Content::Varint(value) => put_varint(out, number, *value),
            Content::Padded(value, more) => {
                put_uint(out, number << 3);
                let more = more % 12;
                out.push(value & 0x7f | if more > 0 { 0x80 } else { 0 });
                out.extend((0..more).map(|n| if n + 1 < more { 0x80 } else { 0 }));
            }
            Content::Fixed64(value) => {
                put_uint(out, number << 3 | 1);
                out.extend(value.to_le_bytes());
            }
            Content::Fixed32(value) => {
                put_uint(out, number << 3 | 5);
                out.extend(value.to_le_bytes());
            }
            Content::Bytes(bytes) => put_bytes(out, number, bytes.0),
            Content::Key(fill) => put_bytes(out, number, &[*fill; 32]),
            Content::Fields(fields) => put_bytes(out, number, &Self::encode_all(&fields.0)),
            Content::Group(fields) => {
                put_uint(out, number << 3 | 3);
                out.extend(Self::encode_all(&fields.0));
                put_uint(out, number << 3 | 4);
            }
        }
    }
}

fn put_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_varint(out: &mut Vec<u8>, number: u64, value: u64) {
    put_uint(out, number << 3);
    put_uint(out, value);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_uint(out, number << 3 | 2);
    put_uint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// What stands in a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Varint(u64),
    Bytes(Vec<u8>),
    /// Of a type that no known field has.
    Other,
}

impl Value {
    pub(super) fn varint(&self) -> Option<u64> {
        if let Self::Varint(value) = self { Some(*value) } else { None }
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub(super) fn text(&self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

/// The fields of a message that is `depth` messages deep in another, in their order; `None` if they are not sound.
pub(super) fn fields(mut bytes: &[u8], depth: u32) -> Option<Vec<(u64, Value)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (number, wire_type) = key(&mut bytes)?;
        fields.push((number, value(&mut bytes, number, wire_type, depth)?));
    }
    Some(fields)
}

fn key(bytes: &mut &[u8]) -> Option<(u64, u64)> {
    let key = varint(bytes)?;
    (key <= u32::MAX.into() && key >= 8).then_some((key >> 3, key & 7))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value: u128 = 0;
    for n in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u128::from(first & 0x7f) << (7 * n);
        if first & 0x80 == 0 {
            return value.try_into().ok();
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length.try_into().ok()?)?;
    *bytes = rest;
    Some(taken)
}

fn value(bytes: &mut &[u8], number: u64, wire_type: u64, depth: u32) -> Option<Value> {
    match wire_type {
        0 => varint(bytes).map(Value::Varint),
        1 => take(bytes, 8).map(|_| Value::Other),
        2 => {
            let length = varint(bytes)?;
            Some(Value::Bytes(take(bytes, length)?.to_vec()))
        }
        3 => loop {
            let (inner, wire_type) = key(bytes)?;
            if wire_type == 4 {
                return (inner == number).then_some(Value::Other);
            }
            if depth + 1 >= MAX_DEPTH {
                return None;
            }
            value(bytes, inner, wire_type, depth + 1)?;
        },
        5 => take(bytes, 4).map(|_| Value::Other),
        _ => None,
    }
}
