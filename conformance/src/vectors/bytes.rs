//! Bytes as a scenario has them: hexadecimal digits, or a list in which long runs of one byte are written as such.

use std::{fmt, ops::Deref};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The most bytes that one value may stand for.
pub const MAX_BYTES: usize = 1 << 24;

/// A run this long is written as one.
const LONG: usize = 128;

/// Bytes of a scenario.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The bytes, if there are exactly `N`.
    ///
    /// # Errors
    /// If there are more or fewer.
    pub fn array<const N: usize>(&self) -> Result<[u8; N]> {
        self.0.as_slice().try_into().with_context(|| format!("{} bytes instead of {N}", self.0.len()))
    }

    /// As the library takes them.
    pub fn shared(&self) -> ::bytes::Bytes {
        ::bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl<T: AsRef<[u8]>> From<T> for Bytes {
    fn from(bytes: T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&digits(&self.0))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Digits(String),
    Parts(Vec<Part>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Part {
    Digits(String),
    Run(Run),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    byte: String,
    times: usize,
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = Vec::new();
        let mut plain = 0;
        let mut at = 0;
        while at < self.0.len() {
            let byte = self.0[at];
            let times = self.0[at..].iter().take_while(|other| **other == byte).count();
            if times >= LONG {
                if at > plain {
                    parts.push(Part::Digits(digits(&self.0[plain..at])));
                }
                parts.push(Part::Run(Run { byte: digits(&[byte]), times }));
                plain = at + times;
            }
            at += times;
        }
        if parts.is_empty() {
            return Written::Digits(digits(&self.0)).serialize(serializer);
        }
        if plain < self.0.len() {
            parts.push(Part::Digits(digits(&self.0[plain..])));
        }
        Written::Parts(parts).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = match Written::deserialize(deserializer)? {
            Written::Digits(text) => vec![Part::Digits(text)],
            Written::Parts(parts) => parts,
        };
        let mut out = Vec::new();
        for part in parts {
            let (byte, times) = match part {
                Part::Digits(text) => (undigits(&text).map_err(D::Error::custom)?, 1),
                Part::Run(run) => (undigits(&run.byte).map_err(D::Error::custom)?, run.times),
            };
            let length = byte.len().checked_mul(times).and_then(|more| more.checked_add(out.len()));
            if length.is_none_or(|length| length > MAX_BYTES) {
                return Err(D::Error::custom(format!("more than {MAX_BYTES} bytes")));
            }
            out.extend(std::iter::repeat_n(byte, times).flatten());
        }
        Ok(Self(out))
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn undigits(text: &str) -> Result<Vec<u8>, String> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("not lower-case hexadecimal digits: {text:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    fn read(value: Value) -> Option<Vec<u8>> {
        from_value::<Bytes>(value).ok().map(|bytes| bytes.0)
    }

    #[test]
    fn runs_of_a_byte_are_written_as_such_and_read_again() {
        for (bytes, written) in [
            (vec![], json!("")),
            (vec![1, 0xab], json!("01ab")),
            (vec![7; 127], json!("07".repeat(127))),
            (vec![7; 128], json!([{ "byte": "07", "times": 128 }])),
            (
                [vec![1], vec![0; 200], vec![2, 2]].concat(),
                json!(["01", { "byte": "00", "times": 200 }, "0202"]),
            ),
        ] {
            assert_eq!(to_value(Bytes(bytes.clone())).unwrap(), written);
            assert_eq!(read(written), Some(bytes));
        }
    }

    #[test]
    fn what_is_not_written_so_is_refused() {
        for wrong in [
            json!("0"),
            json!("0G"),
            json!("AB"),
            json!("é0"),
            json!(7),
            json!([{ "byte": "00", "times": 1, "more": 1 }]),
            json!([{ "byte": "00", "times": u64::MAX }]),
            json!([{ "byte": "00", "times": MAX_BYTES }, "00"]),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
