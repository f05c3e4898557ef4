//! The shim of our own library: it speaks the line protocol of `conformance/SHIM.md` on standard input and output.
//!
//!     cargo run -p conformance --bin conformance -- --shim target/debug/party_shim

#![allow(clippy::print_stdout, clippy::print_stderr)] // it speaks on standard output

mod connections;
mod feeds;
mod rules;
mod world;

use std::{fmt, str::FromStr};

use party::{
    error::{ApiMisuse, Error},
    key::ParseKeyError,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use world::World;

/// What this shim can do.
const FEATURES: &str = "party open write read labels legacy clear truncate withdraw live exclude decoys finite patience credentials tickets";

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut world = World::new();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["hello", "1"] => say(format_args!("ok 1 party-{} {FEATURES}", env!("CARGO_PKG_VERSION"))),
            ["hello", version] => say(format_args!("error usage version {version} is not known")),
            ["reset"] => {
                world = World::new();
                say(format_args!("ok"));
            }
            ["quit"] => {
                say(format_args!("ok"));
                break;
            }
            _ => match world.obey(&words).await {
                Ok(Some(words)) if words.is_empty() => say(format_args!("ok")),
                Ok(Some(words)) => say(format_args!("ok {words}")),
                Ok(None) => say(format_args!("unsupported")),
                Err(wrong) => say(format_args!("error {} {}", wrong.class, wrong.text)),
            },
        }
    }
    Ok(())
}

/// One line.
fn say(line: fmt::Arguments<'_>) {
    println!("{line}");
}

/// Something that has happened.
fn tell(event: impl fmt::Display) {
    say(format_args!("event {event}"));
}

/// Why a command wasn't carried out.
struct Wrong {
    class: &'static str,
    text: String,
}

impl Wrong {
    fn usage(text: impl Into<String>) -> Self {
        Self { class: "usage", text: text.into() }
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self { class: class(&error), text: error.to_string() }
    }
}

impl From<ApiMisuse> for Wrong {
    fn from(error: ApiMisuse) -> Self {
        Error::from(error).into()
    }
}

impl From<ParseKeyError> for Wrong {
    fn from(error: ParseKeyError) -> Self {
        Self::usage(error.to_string())
    }
}

/// The class of an error, for `error` lines and events.
fn class(error: &Error) -> &'static str {
    match error {
        Error::PeerMisbehaved(party::error::PeerMisbehaved::Truncated) => "truncated",
        Error::PeerMisbehaved(_) | Error::Decode(_) => "misbehaved",
        Error::Refused => "refused",
        Error::Timeout => "timeout",
        Error::ApiMisuse(_) => "usage",
        Error::Storage(_) => "storage",
        Error::Io(_) | Error::Closed => "closed",
        _ => "other",
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(word: &str) -> Result<Vec<u8>, Wrong> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = word.as_bytes().chunks(2);
    match word {
        "-" => Ok(Vec::new()),
        _ => pairs
            .map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?))
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| Wrong::usage(format!("no bytes in hex: {word}"))),
    }
}

fn seed(word: &str) -> Result<[u8; 32], Wrong> {
    unhex(word)?.try_into().map_err(|_| Wrong::usage(format!("not 32 bytes: {word}")))
}

fn text(word: &str) -> Result<String, Wrong> {
    String::from_utf8(unhex(word)?).map_err(|_| Wrong::usage(format!("no UTF-8: {word}")))
}

fn number<T: FromStr>(word: &str) -> Result<T, Wrong> {
    word.parse().map_err(|_| Wrong::usage(format!("no number: {word}")))
}
