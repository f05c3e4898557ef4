//! The worked examples of `protocol-spec/`, made anew.
//!
//! Each stands on its page in a fence ```` ```hex NAME ````: bytes in hexadecimal, what they are behind them. The tests know
//! the same names, and what stands there must be what this library makes, to the letter; what is in hexadecimal and in no
//! such fence is found. `UPDATE=1 cargo test -p party --test spec_examples` writes the fences anew.

mod credentials;
mod feeds;
mod party_channel;
mod replication;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use party::{key::PublicKey, session::Session};

/// Bytes, and what they are.
type Line = (Vec<u8>, &'static str);

/// A name, and what is made for it.
type Example = (&'static str, Vec<Line>);

/// Bytes in a line, at most.
const WIDTH: usize = 32;
/// A run of so many digits is no example by chance.
const LONG: usize = 20;

fn line(bytes: impl AsRef<[u8]>, what: &'static str) -> Line {
    (bytes.as_ref().to_vec(), what)
}

/// The session of the examples: a binding of the bytes 00 to 3f, and two static keys that don't matter.
fn session(is_initiator: bool) -> Session {
    Session {
        binding: std::array::from_fn(|n| n as u8),
        is_initiator,
        local: PublicKey::from_bytes([1; 32]),
        remote: PublicKey::from_bytes([2; 32]),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn render(lines: &[Line]) -> String {
    let width = lines.iter().map(|(bytes, _)| bytes.len().min(WIDTH) * 2).max().unwrap_or(0);
    let mut text = String::new();
    for (bytes, what) in lines {
        let mut what = *what;
        for part in bytes.chunks(WIDTH) {
            text += format!("{:width$}  {what}", hex(part)).trim_end();
            text.push('\n');
            what = "";
        }
    }
    text
}

/// The page with what is made in its fences, the names of these, and what is in hexadecimal elsewhere.
fn rewrite(page: &str, made: &BTreeMap<&str, String>) -> (String, Vec<String>, Vec<String>) {
    let (mut text, mut names, mut strays) = (String::new(), Vec::new(), Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        text += line;
        text.push('\n');
        let Some(name) = line.trim().strip_prefix("```hex") else {
            let long = |word: &&str| word.len() >= LONG && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            strays
                .extend(line.split(|c: char| !c.is_ascii_alphanumeric()).find(long).map(|_| line.to_owned()));
            continue;
        };
        let name = name.trim().to_owned();
        let before: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match made.get(name.as_str()) {
            Some(made) => text += made,
            None => before.iter().for_each(|line| text += &format!("{line}\n")),
        }
        text += "```\n";
        names.push(name);
    }
    (text, names, strays)
}

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec");
    let mut pages: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|kind| kind == "md"));
    pages.sort();
    pages
}

//= ENC-1, OVER-3, PARTY-1, PARTY-5, PARTY-53, PARTY-59, CRED-2, CRED-23, CRED-38, TICKET-1, TICKET-2
#[test]
fn every_example_of_the_specification_is_what_is_made() {
    let all = [
        wire::examples(),
        feeds::examples(),
        replication::examples(),
        party_channel::examples(),
        credentials::examples(),
    ];
    let mut made = BTreeMap::new();
    for (name, lines) in all.into_iter().flatten() {
        assert!(made.insert(name, render(&lines)).is_none(), "two examples are called {name}");
    }
    let (mut seen, mut faults) = (BTreeSet::new(), Vec::new());
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
        let (text, names, strays) = rewrite(&page, &made);
        let shown = path.file_name().unwrap().to_string_lossy().into_owned();
        faults.extend(strays.into_iter().map(|line| format!("{shown}: nobody makes this: {line}")));
        for name in names {
            if !made.contains_key(name.as_str()) {
                faults.push(format!("{shown}: nobody makes the example `{name}`"));
            }
            if !seen.insert(name.clone()) {
                faults.push(format!("{shown}: the example `{name}` is there twice"));
            }
        }
        if text != page {
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, text).unwrap();
                continue;
            }
            let different = page.lines().zip(text.lines()).find(|(before, after)| before != after);
            faults.push(format!("{shown}: an example is another one: {different:?}"));
        }
    }
    let unseen = made.keys().filter(|name| !seen.contains(**name));
    faults.extend(unseen.map(|name| format!("the example `{name}` stands on no page")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_example_that_nobody_makes_or_that_differs_is_found() {
    let made = BTreeMap::from([("a", render(&[line([1, 2], "two bytes")]))]);
    let page = "```hex a\n0102  two bytes\n```\n";
    assert_eq!(rewrite(page, &made), (page.to_owned(), vec!["a".to_owned()], vec![]));
    let (text, ..) = rewrite("```hex a\n0103  two bytes\n```\n", &made);
    assert_eq!(text, page);
    let (text, names, _) = rewrite("```hex b\n0103\n```\n", &made);
    assert_eq!((text.as_str(), &names[..]), ("```hex b\n0103\n```\n", &["b".to_owned()][..]));
    let stray = "    key  0001020304050607080910111213\n";
    assert_eq!(rewrite(stray, &made).2, [stray.trim_end()]);
}
