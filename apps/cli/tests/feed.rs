//! `party feed`.

mod common;

use common::{Place, fail, feed_input, noise, one_line, path, sha256};

#[test]
fn a_file_in_chunks_comes_back_byte_for_byte() {
    let place = Place::new();
    let content = noise(1, 3 * 65_536 + 777);
    let file = place.file("content", &content);
    let key = place.feed_text("create", &["--name", "files"]);
    assert_eq!(key.len(), 64);

    let indexes = place.feed_text("append", &["--name", "files", "--chunk", "65536", path(&file)]);
    assert_eq!(indexes, "0\n1\n2\n3");

    let info = place.info("--name", "files");
    assert_eq!(info["key"], *key);
    assert_eq!(info["length"], 4);
    assert_eq!(info["contiguous_length"], 4);
    assert_eq!(info["byte_length"], content.len());
    assert_eq!(info["fork"], 0);
    assert_eq!(info["writable"], true);
    assert_eq!(info["discovery_key"].as_str().unwrap().len(), 64);

    assert_eq!(sha256(&place.feed("cat", &["--name", "files"])), sha256(&content));
    assert_eq!(sha256(&place.feed("cat", &["--key", &key])), sha256(&content));
    let middle = place.feed("cat", &["--key", &key, "--from", "1", "--to", "3"]);
    assert_eq!(middle, &content[65_536..3 * 65_536]);
}

#[test]
fn many_small_blocks_come_back_in_their_order() {
    let place = Place::new();
    place.feed("create", &["--name", "many"]);
    let lines: String = (0..3_000).map(|n| format!("line {n}\n")).collect();
    let file = place.file("lines", lines.as_bytes());
    let indexes = place.feed_text("append", &["--name", "many", "--lines", path(&file)]);
    assert_eq!(indexes, (0..3_000).map(|n: u32| n.to_string()).collect::<Vec<_>>().join("\n"));
    assert_eq!(place.feed("cat", &["--name", "many"]), lines.replace('\n', "").as_bytes());
    assert_eq!(place.feed("cat", &["--name", "many", "--from", "2999"]), b"line 2999");
}

#[test]
fn standard_input_is_one_block_or_one_for_each_line() {
    let place = Place::new();
    place.feed("create", &["--name", "notes"]);
    let store = place.store();
    let append = ["feed", "append", "--store", path(&store), "--name", "notes"];

    assert_eq!(feed_input(&append, b"a\nb\n").stdout, b"0\n");
    assert_eq!(feed_input(&[&append[..], &["--lines", "-"]].concat(), b"c\n\nd").stdout, b"1\n2\n3\n");
    assert_eq!(place.feed("cat", &["--name", "notes", "--to", "1"]), b"a\nb\n");
    assert_eq!(place.feed("cat", &["--name", "notes", "--from", "1"]), b"cd");
    assert_eq!(place.info("--name", "notes")["length"], 4);
}

#[test]
fn a_compat_feed_works_as_any_other_and_has_another_kind_of_key() {
    let place = Place::new();
    let key = place.feed_text("create", &["--name", "old", "--compat"]);
    place.feed("append", &["--name", "old", path(&place.file("x", b"x"))]);
    assert_eq!(place.feed("cat", &["--key", &key]), b"x");
}

#[test]
fn all_feeds_of_a_store_are_listed() {
    let place = Place::new();
    let one = place.feed_text("create", &["--name", "one"]);
    let two = place.feed_text("create", &["--name", "two"]);
    place.feed("append", &["--name", "two", path(&place.file("x", b"xyz"))]);

    let list: serde_json::Value = serde_json::from_slice(&place.feed("ls", &["--json"])).unwrap();
    let mut rows: Vec<_> = list.as_array().unwrap().iter().collect();
    rows.sort_by_key(|row| row["name"].as_str().unwrap());
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["key"], &rows[0]["length"]), (&one.into(), &0.into()));
    assert_eq!((&rows[1]["key"], &rows[1]["byte_length"]), (&two.clone().into(), &3.into()));
    assert!(place.feed_text("ls", &[]).lines().any(|row| row.starts_with(&two) && row.ends_with("two")));
}

#[test]
fn a_store_that_is_open_is_not_opened_again() {
    let place = Place::new();
    place.feed("create", &["--name", "notes"]);
    let store = place.store();
    let mut holder =
        common::Running::start(&["feed", "append", "--store", path(&store), "--name", "notes", "--lines"]);
    holder.write(b"first\n");
    assert_eq!(holder.line(), "0");

    let said = fail(&["feed", "info", "--store", path(&store), "--name", "notes"]);
    assert!(said.contains("in use"), "{said}");
    assert!(said.contains(path(&store)), "{said}");

    holder.write(b"second\n");
    assert_eq!(holder.line(), "1");
    holder.close_input();
    assert!(holder.ends());
    assert_eq!(place.feed("cat", &["--name", "notes"]), b"firstsecond");
}

#[test]
fn what_can_not_be_done_is_said_in_one_line() {
    let place = Place::new();
    let store = place.store();
    let store = path(&store);
    assert!(fail(&["feed", "ls", "--store", store]).contains("no store"));
    place.feed("create", &["--name", "notes"]);
    assert!(fail(&["feed", "create", "--store", store, "--name", "notes"]).contains("taken"));
    assert!(fail(&["feed", "info", "--store", store, "--name", "others"]).contains("others"));
    assert!(fail(&["feed", "info", "--store", store, "--key", &"ab".repeat(32)]).contains("abab"));
    assert!(fail(&["feed", "cat", "--store", store, "--name", "notes", "--to", "1"]).contains('1'));
    assert!(
        fail(&["feed", "append", "--store", store, "--name", "notes", "/no/such/file"])
            .contains("/no/such/file")
    );
    let said = one_line(feed_input(&["feed", "append", "--store", store, "--name", "others"], b"x"));
    assert!(said.contains("others"), "{said}");
    assert_eq!(place.info("--name", "notes")["length"], 0);
}

#[test]
fn a_block_that_is_too_long_is_refused_and_nothing_is_stored() {
    let place = Place::new();
    place.feed("create", &["--name", "big"]);
    let store = place.store();
    let append = ["feed", "append", "--store", path(&store), "--name", "big"];
    let content = vec![7; (15 << 20) + 1];
    let said = one_line(feed_input(&append, &content));
    assert!(said.contains("--chunk"), "{said}");
    assert_eq!(place.info("--name", "big")["length"], 0);
    assert_eq!(feed_input(&append, &content[1..]).stdout, b"0\n");
}

/// A feed of 20 blocks of 1,000 bytes each.
fn twenty(place: &Place) -> String {
    let key = place.feed_text("create", &["--name", "log"]);
    place.feed("append", &["--name", "log", "--chunk", "1000", path(&place.file("log", &noise(3, 20_000)))]);
    key
}

#[test]
fn a_truncated_feed_goes_on_on_another_fork() {
    let place = Place::new();
    twenty(&place);
    assert_eq!(place.feed_text("truncate", &["--name", "log", "--length", "5"]), "length 5, fork 1");
    let indexes = place.feed_text("append", &["--name", "log", path(&place.file("more", b"more"))]);
    assert_eq!(indexes, "5");
    assert_eq!(place.feed("cat", &["--name", "log", "--from", "5"]), b"more");
    assert_eq!(place.info("--name", "log")["fork"], 1);
    place.feed("audit", &[]);

    let store = place.store();
    let said = fail(&["feed", "truncate", "--store", path(&store), "--name", "log", "--length", "7"]);
    assert!(said.contains("beyond the end"), "{said}");
}

#[test]
fn cleared_blocks_are_gone_and_the_feed_is_still_sound() {
    let place = Place::new();
    let key = twenty(&place);
    let cleared = place.feed_text("clear", &["--key", &key, "--from", "3", "--to", "18"]);
    assert_eq!(cleared, "15 blocks cleared");
    assert_eq!(place.info("--key", &key)["contiguous_length"], 3);
    assert_eq!(place.feed("cat", &["--key", &key, "--from", "18"]).len(), 2_000);
    let store = place.store();
    let said = fail(&["feed", "cat", "--store", path(&store), "--name", "log"]);
    assert!(said.contains("block 3 is not in the store"), "{said}");
    assert_eq!(place.feed_text("audit", &["--name", "log"]), format!("{key}  5 blocks  ok"));
}

#[test]
fn an_audit_names_the_block_that_is_damaged() {
    let place = Place::new();
    let key = twenty(&place);
    let file = place.store().join("blocks/0000000001");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[7_500] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let store = place.store();
    let output = common::party(&["feed", "audit", "--store", path(&store)]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(!output.status.success());
    assert!(text.starts_with(&format!("{key}  19 blocks  1 problem\n  block 7 ")), "{text}");
    assert!(one_line(output).contains("a feed is damaged"));
}

#[test]
fn an_encrypted_feed_is_read_and_written_with_its_key_only() {
    let place = Place::new();
    let store = place.store();
    let key_file = place.path("key");
    let with_key = ["--name", "diary", "--encrypt", path(&key_file)];
    place.feed("create", &with_key);
    let text = place.file("text", b"Dear diary");
    place.feed("append", &[&with_key[..], &[path(&text)]].concat());
    assert_eq!(place.feed("cat", &with_key), b"Dear diary");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key_file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let said = fail(&["feed", "cat", "--store", path(&store), "--name", "diary"]);
    assert!(said.contains("its key is not here"), "{said}");
    let said = fail(&["feed", "append", "--store", path(&store), "--name", "diary", path(&text)]);
    assert!(said.contains("its key is not here"), "{said}");
    let other = place.file("other", format!("{}\n", "07".repeat(32)).as_bytes());
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&other, private).unwrap();
    let said = fail(&["feed", "cat", "--store", path(&store), "--name", "diary", "--encrypt", path(&other)]);
    assert!(said.contains("key"), "{said}");
    let missing = place.path("missing");
    let said =
        fail(&["feed", "cat", "--store", path(&store), "--name", "diary", "--encrypt", path(&missing)]);
    assert!(said.contains("there is no key in"), "{said}");
    // The same file serves for another feed.
    place.feed("create", &["--name", "letters", "--encrypt", path(&key_file)]);
}

#[test]
fn a_name_means_another_feed_in_another_namespace() {
    let place = Place::new();
    let root = place.feed_text("create", &["--name", "notes"]);
    let work = place.feed_text("create", &["--namespace", "work", "--name", "notes"]);
    let deep = place.feed_text("create", &["--namespace", "work", "--namespace", "2026", "--name", "notes"]);
    assert!(root != work && work != deep && root != deep);
    let file = place.file("x", b"work");
    place.feed("append", &["--namespace", "work", "--name", "notes", path(&file)]);
    assert_eq!(place.feed("cat", &["--key", &work]), b"work");
    assert_eq!(place.info("--name", "notes")["length"], 0);
}

#[test]
fn a_feed_that_was_removed_is_gone_and_its_name_is_free() {
    let place = Place::new();
    let key = twenty(&place);
    let other = place.feed_text("create", &["--name", "other"]);
    assert_eq!(place.feed_text("rm", &["--name", "log"]), key);
    let store = place.store();
    let said = fail(&["feed", "cat", "--store", path(&store), "--key", &key]);
    assert!(said.contains("no feed with the key"), "{said}");
    let said = fail(&["feed", "rm", "--store", path(&store), "--name", "log"]);
    assert!(said.contains("no such feed"), "{said}");
    assert!(place.feed_text("ls", &[]).starts_with(&other));
    assert_eq!(place.feed_text("create", &["--name", "log"]), key);
    assert_eq!(place.feed_text("rm", &["--key", &other]), other);
}
