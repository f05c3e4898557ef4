//! How one kind of scenario is played.

use std::{fmt, future::Future};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::file::{Expect, Refusal};

/// One kind of scenario of an area.
#[derive(Clone, Copy)]
pub struct Kind {
    /// As scenarios name it.
    pub name: &'static str,
    /// Where the input has what comes from a peer, as a JSON pointer: the bytes whose bits are flipped. Not of kinds whose
    /// input is all the application's.
    pub wire: Option<&'static str>,
    /// Whether that is text, and no digits that stand for bytes.
    pub is_text: bool,
    /// Whether a change of these bytes can't make good what was refused: they are signed, sealed or bound otherwise.
    pub is_bound: bool,
    /// Whether a part of these bytes may be for nobody and is passed over, so that a change of it changes nothing.
    pub is_lax: bool,
    /// What comes of an input. An error is a fault of the implementation or of the scenario.
    pub play: fn(&Value) -> Result<Outcome>,
    /// Leaves of an expectation what is to be compared.
    pub compared: fn(Expect) -> Expect,
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// As a scenario expects it.
    pub expect: Expect,
    /// What else tells this outcome from others: what is stored, how it is written anew. It is not recorded.
    pub seen: Value,
}

impl Kind {
    /// A kind whose input is all the application's.
    pub(super) const fn new(name: &'static str, play: fn(&Value) -> Result<Outcome>) -> Self {
        Self {
            name,
            wire: None,
            is_text: false,
            is_bound: false,
            is_lax: false,
            play,
            compared: |expect| expect,
        }
    }

    /// What of the input comes from a peer.
    pub(super) const fn wire(self, pointer: &'static str) -> Self {
        Self { wire: Some(pointer), ..self }
    }

    /// What of the input is text that comes from somebody.
    pub(super) const fn wire_text(self, pointer: &'static str) -> Self {
        Self { wire: Some(pointer), is_text: true, ..self }
    }

    /// See [`is_bound`](Self::is_bound).
    pub(super) const fn bound(self) -> Self {
        Self { is_bound: true, ..self }
    }

    /// See [`is_lax`](Self::is_lax).
    pub(super) const fn lax(self) -> Self {
        Self { is_lax: true, ..self }
    }

    /// See [`compared`](Self::compared).
    pub(super) const fn comparing(self, compared: fn(Expect) -> Expect) -> Self {
        Self { compared, ..self }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl Outcome {
    /// It is taken, with these values.
    pub(super) fn accept(values: impl Serialize) -> Result<Self> {
        Ok(Self { expect: Expect::Accept(serde_json::to_value(values)?), seen: Value::Null })
    }

    /// It is refused.
    pub(super) fn refuse(how: Refusal) -> Result<Self> {
        Ok(Self { expect: Expect::Refuse { how, after: None }, seen: Value::Null })
    }

    /// It is refused, and this stands nevertheless.
    pub(super) fn refuse_after(how: Refusal, after: impl Serialize) -> Result<Self> {
        let after = Some(serde_json::to_value(after)?);
        Ok(Self { expect: Expect::Refuse { how, after }, seen: Value::Null })
    }

    /// With what else there is to be seen of it.
    pub(super) fn seen(self, seen: impl Serialize) -> Result<Self> {
        Ok(Self { seen: serde_json::to_value(seen)?, ..self })
    }
}

/// The input of a scenario. Types of inputs deny unknown fields.
pub(super) fn read<T: DeserializeOwned>(input: &Value) -> Result<T> {
    T::deserialize(input).context("the input")
}

/// Plays what waits.
pub(super) fn block_on<T>(play: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(play)
}
