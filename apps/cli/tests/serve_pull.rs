//! `party serve` and `party pull`, two processes and TCP between them.

mod common;

use std::net::TcpListener;

use common::{Place, Running, fail, noise, party, path, sha256, succeed, succeed_text};

/// A serving process, and what it said of itself.
struct Server {
    running: Running,
    address: String,
    public_key: String,
}

impl Server {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let store = place.store();
        let serve = ["serve", "--store", path(&store), "--listen", "127.0.0.1:0"];
        let mut running = Running::start(&[&serve, arguments].concat());
        let address = running.line().strip_prefix("listening ").unwrap().to_owned();
        let public_key = running.line().strip_prefix("public key ").unwrap().to_owned();
        Self { running, address, public_key }
    }
}

fn pull<'a>(store: &'a str, address: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["pull", "--store", store, "--connect", address], rest].concat()
}

/// A store with a feed of many small blocks and one of a file in chunks. Gives the keys and contents.
fn filled() -> (Place, [(String, Vec<u8>); 2]) {
    let place = Place::new();
    let lines: String = (0..700).map(|n| format!("line {n}\n")).collect();
    let file = noise(7, 2_500_000);
    let small = place.feed_text("create", &["--name", "small"]);
    let large = place.feed_text("create", &["--name", "large"]);
    place.feed("append", &["--name", "small", "--lines", path(&place.file("lines", lines.as_bytes()))]);
    place.feed("append", &["--name", "large", "--chunk", "65536", path(&place.file("file", &file))]);
    (place, [(small, lines.replace('\n', "").into_bytes()), (large, file)])
}

fn has_all(place: &Place, feeds: &[(String, Vec<u8>)]) {
    for (key, content) in feeds {
        assert_eq!(sha256(&place.feed("cat", &["--key", key])), sha256(content));
        let info = place.info("--key", key);
        assert_eq!(info["contiguous_length"], info["length"]);
    }
}

#[test]
fn a_member_gets_every_feed_of_the_store() {
    let key = succeed_text(&["key", "new"]);
    let (alice, feeds) = filled();
    let mut server = Server::start(&alice, &["--party", &key]);
    let bob = Place::new();
    let store = bob.store();

    let said = succeed_text(&pull(path(&store), &server.address, &["--party", &key]));
    for (key, _) in &feeds {
        assert!(said.lines().any(|line| line.starts_with(key.as_str())), "{said}");
    }
    has_all(&bob, &feeds);
    // Everything is there already: the second time ends as well.
    succeed(&pull(path(&store), &server.address, &["--party", &key]));

    assert!(server.running.interrupt());
    has_all(&alice, &feeds);
}

#[test]
fn only_the_feeds_that_are_named_are_fetched() {
    let key = succeed_text(&["key", "new"]);
    let (alice, feeds) = filled();
    let server = Server::start(&alice, &["--party", &key]);
    let bob = Place::new();
    let store = bob.store();
    let said =
        succeed(&pull(path(&store), &server.address, &["--party", &key, "--feed", &feeds[0].0, "--json"]));
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((&said["key"], &said["length"]), (&feeds[0].0.clone().into(), &700.into()));
    has_all(&bob, &feeds[..1]);
    let list: serde_json::Value = serde_json::from_slice(&bob.feed("ls", &["--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn the_server_takes_the_feeds_of_a_member_too() {
    let key = succeed_text(&["key", "new"]);
    let (alice, feeds) = filled();
    let bob = Place::new();
    let mut server = Server::start(&bob, &["--party", &key]);
    let store = alice.store();
    succeed(&pull(path(&store), &server.address, &["--party", &key]));
    assert!(server.running.interrupt());
    has_all(&bob, &feeds);
}

#[test]
fn lines_appended_while_serving_arrive_at_who_follows() {
    let key = succeed_text(&["key", "new"]);
    let alice = Place::new();
    let feed = alice.feed_text("create", &["--name", "log"]);
    let mut server = Server::start(&alice, &["--party", &key, "--append", "log"]);
    server.running.write(b"before\n");
    assert_eq!(server.running.line(), "0");

    let bob = Place::new();
    let store = bob.store();
    let mut follower = Running::start(&pull(path(&store), &server.address, &["--party", &key, "--live"]));
    assert!(follower.line().starts_with(&format!("{feed}  1 blocks")));
    for n in 1..=3 {
        server.running.write(format!("line {n}\n").as_bytes());
        assert_eq!(server.running.line(), n.to_string());
        assert!(follower.line().starts_with(&format!("{feed}  {} blocks", n + 1)));
    }
    assert!(follower.interrupt(), "{}", follower.complaints());
    assert!(server.running.interrupt());
    assert_eq!(bob.feed("cat", &["--key", &feed]), b"beforeline 1line 2line 3");
}

#[test]
fn a_peer_keeps_its_public_key() {
    let place = Place::new();
    place.feed("create", &["--name", "notes"]);
    let mut first = Server::start(&place, &["--open"]);
    assert!(first.running.interrupt());
    let second = Server::start(&place, &["--open"]);
    assert_eq!(first.public_key, second.public_key);
    assert_eq!(first.public_key.len(), 64);
}

#[test]
fn who_is_not_in_the_party_gets_nothing() {
    let (alice, _) = filled();
    let server = Server::start(&alice, &["--party", &succeed_text(&["key", "new"])]);
    let bob = Place::new();
    let store = bob.store();
    let said = fail(&pull(path(&store), &server.address, &["--party", &succeed_text(&["key", "new"])]));
    assert!(said.contains("refused"), "{said}");
    assert_eq!(bob.feed_text("ls", &["--json"]), "[]");
}

#[test]
fn without_a_party_a_feed_is_fetched_by_its_key() {
    let (alice, feeds) = filled();
    let mut server = Server::start(&alice, &["--open"]);
    let bob = Place::new();
    let store = bob.store();
    let open = |rest: &[&str]| {
        let arguments: Vec<String> =
            pull(path(&store), &server.address, rest).iter().map(|s| (*s).to_owned()).collect();
        party(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };

    assert!(common::one_line(open(&["--open"])).contains("--feed"));
    assert!(open(&["--open", "--feed", &feeds[0].0, "--feed", &feeds[1].0]).status.success());
    has_all(&bob, &feeds);
    // Now it is known what to fetch.
    assert!(open(&["--open"]).status.success());

    let unknown = "ab".repeat(32);
    let said = common::one_line(open(&["--open", "--feed", &unknown]));
    assert!(said.contains(&unknown), "{said}");
    assert!(server.running.interrupt());
}

#[test]
fn a_pull_goes_on_where_a_killed_one_has_stopped() {
    let key = succeed_text(&["key", "new"]);
    let (alice, feeds) = filled();
    let server = Server::start(&alice, &["--party", &key]);
    let bob = Place::new();
    let store = bob.store();
    for round in 0..4 {
        let mut puller = Running::start(&pull(path(&store), &server.address, &["--party", &key]));
        std::thread::sleep(std::time::Duration::from_millis(15 * round));
        puller.kill();
    }
    succeed(&pull(path(&store), &server.address, &["--party", &key]));
    has_all(&bob, &feeds);
}

#[test]
fn who_follows_is_told_when_the_server_goes() {
    let key = succeed_text(&["key", "new"]);
    let (alice, feeds) = filled();
    let mut server = Server::start(&alice, &["--party", &key]);
    let bob = Place::new();
    let store = bob.store();
    let mut follower = Running::start(&pull(path(&store), &server.address, &["--party", &key, "--live"]));
    follower.line();
    follower.line();
    assert!(server.running.interrupt());
    assert!(!follower.ends());
    assert!(follower.complaints().contains("closed"));
    has_all(&bob, &feeds);
}

#[test]
fn what_can_not_be_reached_is_said_in_one_line() {
    let place = Place::new();
    let store = place.store();
    let key = succeed_text(&["key", "new"]);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let said = fail(&pull(path(&store), &closed, &["--party", &key]));
    assert!(said.contains(&closed), "{said}");

    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let said = fail(&["serve", "--store", path(&store), "--listen", &taken, "--party", &key]);
    assert!(said.contains(&taken), "{said}");
    let said =
        fail(&["serve", "--store", path(&store), "--listen", "127.0.0.1:0", "--open", "--append", "none"]);
    assert!(said.contains("none"), "{said}");
}

#[test]
fn a_guest_joins_by_a_ticket_where_somebody_answers() {
    let key = succeed_text(&["key", "new"]);
    let (alice, feeds) = filled();
    let server = Server::start(&alice, &["--party", &key]);
    // Nobody listens any more at the first address.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let invite = ["invite", "--party", &key, "--address", &gone, "--address", &server.address];
    let ticket = succeed_text(&[&invite[..], &["--expires-in", "3600"]].concat());
    assert!(ticket.starts_with("party1_") && !ticket.contains(&key));

    let bob = Place::new();
    let store = bob.store();
    succeed(&["join", &ticket, "--store", path(&store)]);
    has_all(&bob, &feeds);

    let said = fail(&["join", &ticket[..ticket.len() - 1], "--store", path(&store)]);
    assert!(said.contains("mistyped") && !said.contains(&ticket[7..20]), "{said}");
    let expired = succeed_text(&[&invite[..], &["--expires-in", "0"]].concat());
    assert!(fail(&["join", &expired, "--store", path(&store)]).contains("expired"));
    assert!(fail(&["invite", "--party", &key, "--address", "nowhere"]).contains("nowhere"));
}
