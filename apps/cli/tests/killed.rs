//! What is durable when the process is killed: each block whose index was printed.
//!
//! A few rounds each; `PARTY_KILL_ROUNDS=30` makes it thirty.

mod common;

use std::time::Duration;

use common::{Place, Running, path};

fn rounds() -> u32 {
    std::env::var("PARTY_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4)
}

/// Kills a process that appends lines at some moment while it does, and looks at the store.
fn kill_and_check(place: &Place, mut running: Running, round: u32, written: &mut Vec<String>) {
    let before = written.len();
    // A write at a time, so that batches of all sizes are underway when the end comes.
    let mut lines = 0;
    let count = 40 + 97 * (round % 7);
    while lines < count {
        let n = 1 + (lines * 7 + round) % 23;
        let batch: Vec<String> = (0..n).map(|i| format!("round {round} line {}", lines + i)).collect();
        lines += n;
        running.write(format!("{}\n", batch.join("\n")).as_bytes());
        written.extend(batch);
    }
    // It has work to do now. The first index has been printed; the rest is cut anywhere.
    assert_eq!(running.line(), before.to_string());
    std::thread::sleep(Duration::from_micros(u64::from(round) * 1_700 % 40_000));
    running.kill();
    let printed = running.rest();
    for (n, index) in printed.iter().enumerate() {
        assert_eq!(*index, (before + 1 + n).to_string());
    }

    let info = place.info("--name", "log");
    let length = info["length"].as_u64().unwrap() as usize;
    assert!(length >= before + 1 + printed.len(), "{length} blocks, but more were printed");
    assert_eq!(info["contiguous_length"], length);
    written.truncate(length);
    assert_eq!(place.feed("cat", &["--name", "log"]), written.concat().as_bytes());
}

#[test]
fn a_killed_append_loses_no_block_whose_index_was_printed() {
    let place = Place::new();
    place.feed("create", &["--name", "log"]);
    let store = place.store();
    let mut written = Vec::new();
    for round in 0..rounds() {
        let append = ["feed", "append", "--store", path(&store), "--name", "log", "--lines"];
        kill_and_check(&place, Running::start(&append), round, &mut written);
    }
    // The feed goes on where it was.
    let file = place.file("last", b"last");
    assert_eq!(place.feed_text("append", &["--name", "log", path(&file)]), written.len().to_string());
}

#[test]
fn a_killed_server_loses_no_block_whose_index_was_printed() {
    let place = Place::new();
    place.feed("create", &["--name", "log"]);
    let store = place.store();
    let mut written = Vec::new();
    for round in 0..rounds() {
        let serve =
            ["serve", "--store", path(&store), "--listen", "127.0.0.1:0", "--open", "--append", "log"];
        let mut running = Running::start(&serve);
        assert!(running.line().starts_with("listening 127.0.0.1:"));
        assert!(running.line().starts_with("public key "));
        kill_and_check(&place, running, round, &mut written);
    }
}
