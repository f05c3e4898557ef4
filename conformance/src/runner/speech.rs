//! The messages of the party channel, by hand: those of `protocol-spec/party.proto`, and what looks like them.

use anyhow::{Result, bail, ensure};

pub(crate) const REQUEST: u64 = 0;
pub(crate) const RESPONSE: u64 = 1;
pub(crate) const ERROR: u64 = 2;
pub(crate) const EPHEMERAL: u64 = 3;
pub(crate) const FINISH: u64 = 4;

pub(crate) const REFUSED: u64 = 1;
pub(crate) const TIMEOUT: u64 = 2;
pub(crate) const BUSY: u64 = 3;
pub(crate) const UNSUPPORTED: u64 = 4;

/// A number as protobuf writes it.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value % 0x80) as u8 | 0x80);
        value /= 0x80;
    }
    out.push(value as u8);
    out
}

/// A field that is a number.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field that is bytes, written even if there are none.
pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

pub(crate) fn hello(version: u64, features: u64, proof: &[u8]) -> Vec<u8> {
    let features = if features == 0 { Vec::new() } else { number(2, features) };
    [number(1, version), features, bytes(3, proof)].concat()
}

/// A `Custom`.
pub(crate) fn custom(kind: &str, value: &[u8]) -> Vec<u8> {
    [bytes(1, kind.as_bytes()), bytes(2, value)].concat()
}

/// An `IntroduceFeeds`.
pub(crate) fn introduction(keys: &[[u8; 32]], labels: &[&str]) -> Vec<u8> {
    let keys = keys.iter().flat_map(|key| bytes(1, key));
    keys.chain(labels.iter().flat_map(|label| bytes(2, label.as_bytes()))).collect()
}

/// A `Request` or `Response` with this body: field 2 is an introduction, 3 a custom value.
pub(crate) fn transaction(id: u64, field: u64, body: &[u8]) -> Vec<u8> {
    [number(1, id), bytes(field, body)].concat()
}

pub(crate) fn asks(id: u64, kind: &str, value: &[u8]) -> Vec<u8> {
    transaction(id, 3, &custom(kind, value))
}

pub(crate) fn introduces(id: u64, keys: &[[u8; 32]], labels: &[&str]) -> Vec<u8> {
    transaction(id, 2, &introduction(keys, labels))
}

pub(crate) fn failure(id: u64, code: u64) -> Vec<u8> {
    [number(1, id), number(2, code)].concat()
}

pub(crate) fn ephemeral(kind: &str, value: &[u8]) -> Vec<u8> {
    bytes(1, &custom(kind, value))
}

/// One field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Number(u64, u64),
    Bytes(u64, Vec<u8>),
}

/// The fields of a message that holds numbers and bytes only, as all of ours do.
pub(crate) fn fields(mut message: &[u8]) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        let value = read_varint(&mut message)?;
        fields.push(match tag & 7 {
            0 => Field::Number(tag >> 3, value),
            2 => {
                let length = usize::try_from(value)?;
                ensure!(length <= message.len(), "a field beyond the end");
                let (bytes, rest) = message.split_at(length);
                message = rest;
                Field::Bytes(tag >> 3, bytes.to_vec())
            }
            other => bail!("a field of the wire type {other}"),
        });
    }
    Ok(fields)
}

/// The number in a field, 0 if it isn't there.
pub(crate) fn number_of(fields: &[Field], field: u64) -> u64 {
    let mut numbers = fields.iter().filter_map(|one| match one {
        Field::Number(n, value) if *n == field => Some(*value),
        _ => None,
    });
    numbers.next_back().unwrap_or(0)
}

/// All that a field holds which is bytes.
pub(crate) fn all_bytes(fields: &[Field], field: u64) -> Vec<Vec<u8>> {
    let all = fields.iter().filter_map(|one| match one {
        Field::Bytes(n, value) if *n == field => Some(value.clone()),
        _ => None,
    });
    all.collect()
}

/// The bytes in a field.
pub(crate) fn bytes_of(fields: &[Field], field: u64) -> Option<Vec<u8>> {
    all_bytes(fields, field).pop()
}

fn read_varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = message.split_first() else { bail!("a number beyond the end") };
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number that doesn't end")
}
