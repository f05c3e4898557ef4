//! What is durable when the process is killed: each block whose index was printed.
//!
//! A few rounds each; `PARTY_KILL_ROUNDS=30` makes it thirty.

mod common;

use std::{io::Write as _, time::Duration};

use common::{Place, Running, path};

fn rounds() -> u32 {
    std::env::var("PARTY_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4)
}

/// Kills a process while it appends lines, and looks at the store. `kept` is what was in the feed before, and is
/// afterwards.
fn kill_and_check(place: &Place, mut running: Running, round: u32, kept: &mut Vec<String>) {
    let before = kept.len();
    let mut input = running.take_input();
    let writer = std::thread::spawn(move || {
        // As much as it takes, in writes of all sizes, so that it always has more to append.
        let mut written = Vec::new();
        for size in (0u32..).map(|n| 1 + (n * 7 + round) % 41) {
            let lines: Vec<String> =
                (0..size).map(|i| format!("round {round} line {}", written.len() as u32 + i)).collect();
            let sent = input.write_all(format!("{}\n", lines.join("\n")).as_bytes());
            written.extend(lines);
            if sent.is_err() {
                return written;
            }
        }
        unreachable!("there is always a next size");
    });
    assert_eq!(running.line(), before.to_string());
    std::thread::sleep(Duration::from_micros(u64::from(round) * 7_900 % 40_000));
    running.kill();
    kept.extend(writer.join().unwrap());
    let printed = running.rest();
    for (n, index) in printed.iter().enumerate() {
        assert_eq!(*index, (before + 1 + n).to_string());
    }

    let info = place.info("--name", "log");
    let length = info["length"].as_u64().unwrap() as usize;
    assert!(length > before + printed.len(), "{length} blocks, but {} were printed", printed.len() + 1);
    assert!(length < kept.len(), "it was not appending any more");
    assert_eq!(info["contiguous_length"], length);
    kept.truncate(length);
    let fresh = place.feed("cat", &["--name", "log", "--from", &before.to_string()]);
    assert!(
        fresh == kept[before..].concat().as_bytes(),
        "the blocks of round {round} are not what was appended"
    );
}

#[test]
fn a_killed_append_loses_no_block_whose_index_was_printed() {
    let place = Place::new();
    place.feed("create", &["--name", "log"]);
    let store = place.store();
    let mut kept = Vec::new();
    for round in 0..rounds() {
        let append = ["feed", "append", "--store", path(&store), "--name", "log", "--lines"];
        kill_and_check(&place, Running::start(&append), round, &mut kept);
    }
    assert!(place.feed("cat", &["--name", "log"]) == kept.concat().as_bytes(), "an early block has changed");
    // The feed goes on where it was.
    let file = place.file("last", b"last");
    assert_eq!(place.feed_text("append", &["--name", "log", path(&file)]), kept.len().to_string());
}

#[test]
fn a_killed_server_loses_no_block_whose_index_was_printed() {
    let place = Place::new();
    place.feed("create", &["--name", "log"]);
    let store = place.store();
    let mut kept = Vec::new();
    for round in 0..rounds() {
        let serve =
            ["serve", "--store", path(&store), "--listen", "127.0.0.1:0", "--open", "--append", "log"];
        let mut running = Running::start(&serve);
        assert!(running.line().starts_with("listening 127.0.0.1:"));
        assert!(running.line().starts_with("public key "));
        kill_and_check(&place, running, round, &mut kept);
    }
}
