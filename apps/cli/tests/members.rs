//! Members by credential: `party grant`, `join`, `members`, `revoke`, `explain`.

mod common;

use common::{Place, Running, fail, feed_input, one_line, path, succeed, succeed_text};

/// A party whose founder's half is in a file.
struct Founded {
    place: Place,
    key: String,
    founder: String,
}

impl Founded {
    fn new() -> Self {
        let place = Place::new();
        let file = place.path("founder");
        let key = succeed_text(&["key", "new", "--secret", path(&file)]);
        Self { key, founder: path(&file).to_owned(), place }
    }

    fn grant(&self, rest: &[&str]) -> String {
        succeed_text(&[&["grant", "--founder", &self.founder], rest].concat())
    }

    /// A store that is a member.
    fn member(&self, rest: &[&str]) -> (Place, String) {
        let place = Place::new();
        let public = self.grant(&[&["--store", path(&place.store()), "--here"], rest].concat());
        assert_eq!(public, public_key(&place));
        (place, public)
    }

    fn serve(&self, place: &Place) -> (Running, String) {
        let store = place.store();
        let arguments = ["serve", "--store", path(&store), "--listen", "127.0.0.1:0", "--party", &self.key];
        let mut running = Running::start(&arguments);
        let address = running.line().strip_prefix("listening ").unwrap().to_owned();
        running.line();
        (running, address)
    }

    fn of(&self, command: &str, place: &Place, rest: &[&str]) -> String {
        let store = place.store();
        succeed_text(&[&[command, "--store", path(&store), "--party", &self.key], rest].concat())
    }
}

fn public_key(place: &Place) -> String {
    succeed_text(&["key", "public", "--store", path(&place.store())])
}

#[test]
fn a_member_is_granted_joins_is_explained_and_removed() {
    let party = Founded::new();
    let (alice, of_alice) = party.member(&["--depth", "1"]);
    let feed = alice.feed_text("create", &["--name", "notes"]);
    alice.feed("append", &["--name", "notes", path(&alice.file("note", b"a note"))]);
    let bob = Place::new();
    let (store, of_bob) = (bob.store(), public_key(&bob));
    let bobs = bob.feed_text("create", &["--name", "diary"]);

    let (mut server, address) = party.serve(&alice);
    let ticket =
        party.grant(&["--to", &of_bob, "--read-only", "--expires-in", "3600", "--address", &address]);
    succeed(&["join", &ticket, "--store", path(&store)]);
    assert_eq!(bob.feed("cat", &["--key", &feed]), b"a note");
    // The membership is kept, and shown again.
    let pull = ["pull", "--store", path(&store), "--connect", &address, "--party", &party.key];
    succeed(&pull);

    // Who knows the key only gets nothing, and the ticket is for Bob.
    let stranger = Place::new();
    let strange = stranger.store();
    let said = fail(&["pull", "--store", path(&strange), "--connect", &address, "--party", &party.key]);
    assert!(said.contains("members only") && said.contains("party grant"), "{said}");
    assert_eq!(stranger.feed_text("ls", &["--json"]), "[]");
    let said = fail(&["join", &ticket, "--store", path(&strange)]);
    assert!(said.contains("for another member") && said.contains(&public_key(&stranger)), "{said}");
    assert!(server.interrupt());

    // Alice has met Bob, and took nothing of his.
    let listed = party.of("members", &alice, &[]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let line = |key: &str| listed.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(
        line(&of_alice).contains("this store") && line(&of_alice).contains("reads and brings"),
        "{listed}"
    );
    assert!(line(&of_bob).contains("  reads  ") && line(&of_bob).contains(" UTC"), "{listed}");
    assert!(!alice.feed_text("ls", &[]).contains(&bobs));
    let why = party.of("explain", &alice, &["--peer", &of_bob, "--feed", &feed]);
    assert!(why.contains("serve: allowed by members") && why.contains("accept: denied by members"), "{why}");

    // He is removed, and told.
    assert!(
        fail(&["revoke", "--store", path(&alice.store()), "--party", &party.key, &of_bob]).contains(&of_bob)
    );
    let folder = alice.store();
    let revoke = ["revoke", "--store", path(&folder), "--founder", &party.founder, &of_bob];
    assert_eq!(succeed_text(&revoke), of_bob);
    assert!(party.of("members", &alice, &[]).contains(&format!("removed by {}", party.key)));
    let (mut server, address) = party.serve(&alice);
    let pull = ["pull", "--store", path(&store), "--connect", &address, "--party", &party.key];
    let said = fail(&pull);
    assert!(said.contains("removed from the party") && said.contains(&party.key), "{said}");
    // From now on without asking.
    let said = fail(&pull);
    assert!(said.contains("removed from the party"), "{said}");
    assert!(server.interrupt());
}

#[test]
fn whoever_has_a_ticket_for_anybody_becomes_a_member_and_brings_what_it_may() {
    let party = Founded::new();
    let (alice, _) = party.member(&[]);
    let (mut server, address) = party.serve(&alice);
    let ticket = party.grant(&["--to-anybody", "--expires-in", "600", "--address", &address]);
    let bob = Place::new();
    let feed = bob.feed_text("create", &["--name", "diary"]);
    bob.feed("append", &["--name", "diary", path(&bob.file("day", b"today"))]);
    // Not on the command line, where others may see it.
    let store = bob.store();
    let joined = feed_input(&["join", "-", "--store", path(&store)], format!("{ticket}\n").as_bytes());
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    assert!(server.interrupt());
    assert_eq!(alice.feed("cat", &["--key", &feed]), b"today");
    // The second time he is a member already.
    let listed = party.of("members", &bob, &["--json"]);
    succeed(&["join", &party.grant(&["--to", &public_key(&bob)]), "--store", path(&store)]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let member: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert!(member["reads"].as_bool().unwrap() && member["member"].is_string());
    let said = one_line(feed_input(&["join", "-", "--store", path(&store)], b"party1_nonsense"));
    assert!(said.contains("ticket") && !said.contains("nonsense"), "{said}");
}

#[test]
fn a_membership_is_handed_on_by_who_may_and_removed_by_who_has() {
    let party = Founded::new();
    let (alice, _) = party.member(&["--depth", "1", "--newest", "10"]);
    let guest = public_key(&Place::new());
    let store = alice.store();
    let hand_on = ["grant", "--store", path(&store), "--party", &party.key, "--to", &guest];
    let said = fail(&hand_on);
    assert!(said.contains("widens the blocks"), "{said}");
    succeed(&[&hand_on[..], &["--newest", "5", "--bring-only"]].concat());
    assert!(party.of("members", &alice, &[]).contains("the newest 5 blocks"));
    assert_eq!(party.of("revoke", &alice, &[&guest]), guest);
    assert!(party.of("members", &alice, &[]).contains("removed by"));
    // A store without a membership can't.
    let other = Place::new();
    other.feed("create", &["--name", "x"]);
    let store = other.store();
    let said = fail(&["grant", "--store", path(&store), "--party", &party.key, "--to", &guest]);
    assert!(said.contains("no membership"), "{said}");
    let missing = party.place.path("nobody");
    let said = fail(&["grant", "--founder", path(&missing), "--to", &guest]);
    assert!(said.contains("nobody"), "{said}");
}

#[test]
fn a_ticket_is_drawn_as_a_qr_code() {
    let party = Founded::new();
    let said = succeed_text(&["invite", "--party", &party.key, "--address", "localhost:4977", "--qr"]);
    let (drawn, ticket) = said.rsplit_once('\n').unwrap();
    assert!(ticket.starts_with("party1_"));
    assert!(drawn.lines().count() > 15);
    assert!(drawn.chars().all(|c| " ▀▄█\n".contains(c)), "{drawn}");
    let widths: Vec<usize> = drawn.trim_matches('\n').lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
}
