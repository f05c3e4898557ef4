//! What a newcomer gets wrong: each mistake ends with one line that says what is wrong and what to do, and an exit code that is not 0.

mod common;

use std::net::TcpListener;

use common::{Place, Running, fail, party, path, succeed, succeed_text};

/// Whether each of these is in what was said.
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

fn key() -> String {
    succeed_text(&["key", "new"])
}

fn invite(key: &str, rest: &[&str]) -> String {
    succeed_text(&[&["invite", "--party", key], rest].concat())
}

#[test]
fn a_ticket_that_is_none_or_not_whole_or_too_new_or_over_joins_nothing() {
    let (place, key) = (Place::new(), key());
    let store = place.store();
    let ticket = invite(&key, &["--address", "127.0.0.1:1"]);
    let join = |ticket: &str| fail(&["join", ticket, "--store", path(&store)]);

    says(&join(&ticket[..40]), &["incomplete at character 40", "copy the whole"]);
    says(&join("party1_"), &["incomplete", "copy the whole"]);
    let last = if ticket.ends_with('A') { "B" } else { "A" };
    says(&join(&format!("{}{last}", &ticket[..ticket.len() - 1])), &["mistyped", "copy the whole"]);
    for none in ["", "hello", &ticket.to_uppercase(), &ticket[1..], &key] {
        says(&join(none), &["not a ticket", "begin with party1_"]);
    }
    says(
        &join(&ticket.replacen("party1_", "party2_", 1)),
        &["later version", "newer version of this program"],
    );
    let over = invite(&key, &["--address", "127.0.0.1:1", "--expires-in", "0"]);
    says(&join(&over), &["has expired", "ask for a new one"]);
    assert!(!store.exists(), "a store was made for a ticket that is no good");
    // A sound one, but nobody is there.
    says(&join(&ticket), &["cannot connect to 127.0.0.1:1", "start `party serve`"]);
    says(&fail(&["invite", "--party", &key, "--address", "nohost"]), &["nohost", "host:port"]);
}

#[test]
fn a_wrong_key_and_a_wrong_address_say_so() {
    let (alice, bob) = (Place::new(), Place::new());
    alice.feed("create", &["--name", "notes"]);
    let (store, key, store_of_bob) = (alice.store(), key(), bob.store());
    let mut server =
        Running::start(&["serve", "--store", path(&store), "--listen", "127.0.0.1:0", "--party", &key]);
    let address = server.line().strip_prefix("listening ").unwrap().to_owned();
    server.line();
    let pull = |connect: &str, key: &str| {
        fail(&["pull", "--store", path(&store_of_bob), "--connect", connect, "--party", key])
    };
    says(&pull(&address, &self::key()), &["refused", "not in this party", "look at the key"]);
    says(&pull("127.0.0.1", &key), &["cannot connect to 127.0.0.1", "looks like 127.0.0.1:4977"]);

    // The port is taken, and the store is in use.
    let other = Place::new();
    let said = fail(&["serve", "--store", path(&other.store()), "--listen", &address, "--party", &key]);
    says(&said, &["cannot listen on", &address, "give another port"]);
    let said = fail(&["feed", "ls", "--store", path(&store)]);
    says(&said, &["in use by another process", "end that one first"]);
    assert!(server.interrupt());

    // Somebody listens who is no peer.
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = web.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    says(&pull(&address, &key), &["no connection to", "is it `party serve` that listens there?"]);
    answering.join().unwrap();
}

#[test]
fn a_folder_that_is_no_store_is_left_alone() {
    let place = Place::new();
    let file = place.file("notes.txt", b"a note");
    let create = |folder: &str| fail(&["feed", "create", "--store", folder, "--name", "x"]);
    says(&create(path(&file)), &["cannot open", "a store is a folder"]);
    let folder = file.parent().unwrap();
    says(&create(path(folder)), &["has other files", "a folder of its own"]);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    let nowhere = place.path("nowhere");
    says(&fail(&["feed", "ls", "--store", path(&nowhere)]), &["no store in", "feed create"]);
    assert!(!nowhere.exists());
    place.feed("create", &["--name", "x"]);
    let store = place.store();
    says(
        &fail(&["feed", "cat", "--store", path(&store), "--name", "y"]),
        &["no feed named \"y\"", "feed ls"],
    );
}

#[cfg(unix)]
#[test]
fn a_secret_that_others_may_read_is_not_used() {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    let place = Place::new();
    let (founder, store) = (place.path("founder"), place.store());
    let key = succeed_text(&["key", "new", "--secret", path(&founder)]);
    let grant = ["grant", "--founder", path(&founder), "--store", path(&store), "--here"];
    let allow = |file: &std::path::Path, mode| {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    };
    for mode in [0o644, 0o640, 0o604] {
        allow(&founder, mode);
        says(&fail(&grant), &["founder", "others may read it", "chmod 600"]);
    }
    allow(&founder, 0o400);
    succeed(&grant);

    // So it is with who the store is.
    let identity = store.join("identity");
    assert_eq!(fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
    allow(&identity, 0o644);
    let said = fail(&["serve", "--store", path(&store), "--listen", "127.0.0.1:0", "--party", &key]);
    says(&said, &["identity", "others may read it", "chmod 600"]);

    // And a secret is never overwritten.
    says(&fail(&["key", "new", "--secret", path(&founder)]), &["cannot write", "a new file"]);
}

#[test]
fn who_was_removed_is_told_what_to_do_and_does_not_serve() {
    let place = Place::new();
    let (founder, alice, bob) = (place.path("founder"), place.path("alice"), place.path("bob"));
    let key = succeed_text(&["key", "new", "--secret", path(&founder)]);
    succeed(&["grant", "--founder", path(&founder), "--store", path(&alice), "--here"]);
    let bobs = succeed_text(&["key", "public", "--store", path(&bob)]);
    let grant = |store: &[&str]| {
        succeed_text(&[&["grant", "--founder", path(&founder), "--to", &bobs], store].concat())
    };
    succeed(&["join", &grant(&[]), "--store", path(&bob)]);
    let serve = ["serve", "--store", path(&alice), "--listen", "127.0.0.1:0", "--party", &key];
    let pull = |server: &mut Running| {
        let address = server.line().strip_prefix("listening ").unwrap().to_owned();
        party(&["pull", "--store", path(&bob), "--connect", &address, "--party", &key])
    };
    let serve_bob = ["serve", "--store", path(&bob), "--listen", "127.0.0.1:0", "--party", &key];

    // It has met Bob, and removes his membership only: he may join again.
    let mut server = Running::start(&serve);
    assert!(pull(&mut server).status().unwrap().success());
    assert!(server.interrupt());
    let revoke = ["revoke", "--store", path(&alice), "--founder", path(&founder), &bobs];
    succeed(&[&revoke[..], &["--link"]].concat());
    let mut server = Running::start(&serve);
    says(&common::one_line(pull(&mut server).output().unwrap()), &["removed from the party", "a new ticket"]);
    assert!(server.interrupt());
    // What doesn't serve says nothing of listening.
    let output = party(&serve_bob).output().unwrap();
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    says(&common::one_line(output), &["removed from the party", "a new ticket"]);
    succeed(&["join", &grant(&["--depth", "1"]), "--store", path(&bob)]);
    let mut server = Running::start(&serve);
    assert!(pull(&mut server).status().unwrap().success());
    assert!(server.interrupt());

    // And now his key, for good.
    succeed(&revoke);
    let mut server = Running::start(&serve);
    says(
        &common::one_line(pull(&mut server).output().unwrap()),
        &["removed from the party", "another store"],
    );
    assert!(server.interrupt());
    // Whom nobody knows can't be removed.
    let said = fail(&["revoke", "--store", path(&alice), "--founder", path(&founder), &key]);
    says(&said, &[&key, "party members"]);
}
