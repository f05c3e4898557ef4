//! `party key`.

mod common;

use common::{Place, fail, path, succeed, succeed_text};

#[test]
fn a_new_key_is_64_hexadecimal_characters_and_another_each_time() {
    let key = succeed_text(&["key", "new"]);
    assert_eq!(key.len(), 64);
    assert!(key.chars().all(|c| c.is_ascii_hexdigit()));
    assert_ne!(key, succeed_text(&["key", "new"]));
}

#[test]
fn the_secret_is_the_other_half_in_a_file_that_only_its_owner_can_read() {
    let place = Place::new();
    let file = place.path("founder");
    let key = succeed_text(&["key", "new", "--secret", path(&file)]);

    let seed = std::fs::read_to_string(&file).unwrap();
    let seed: [u8; 32] = (0..32)
        .map(|i| u8::from_str_radix(&seed[2 * i..2 * i + 2], 16).unwrap())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert_eq!(party::key::KeyPair::from_seed(&seed).public().to_string(), key);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_secret_that_is_there_is_not_overwritten() {
    let place = Place::new();
    let file = place.file("founder", b"precious");
    let said = fail(&["key", "new", "--secret", path(&file)]);
    assert!(said.contains("founder"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn machines_get_json() {
    let key: serde_json::Value = serde_json::from_slice(&succeed(&["key", "new", "--json"])).unwrap();
    assert_eq!(key["key"].as_str().unwrap().len(), 64);
}
