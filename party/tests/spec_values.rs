//! The values that `protocol-spec/08-party.md#values` gives for checking an implementation are those of this one.

use party::{
    admission::{Hello, membership},
    key::{FeedKey, PartyKey, PublicKey},
    replication,
    session::Session,
};

const PAGE: &str = include_str!("../../protocol-spec/08-party.md");
const REPLICATION: &str = include_str!("../../protocol-spec/07-replication.md");

/// The value that stands on the page of parties behind `name`.
fn stands_for(name: &str) -> String {
    stands_on(PAGE, name)
}

fn stands_on(page: &str, name: &str) -> String {
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("    {name}  "))).unwrap();
    line.trim().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//= OVER-3, PARTY-1, PARTY-5
#[test]
fn the_page_and_the_code_agree_on_ids_and_proofs() {
    let party = PartyKey::from_bytes([0x70; 32]);
    let session = |is_initiator| Session {
        binding: std::array::from_fn(|n| n as u8),
        is_initiator,
        local: PublicKey::from_bytes([1; 32]),
        remote: PublicKey::from_bytes([2; 32]),
    };
    for n in 0..3 {
        assert_eq!(
            hex(&party::hash::namespace("party", n)),
            stands_for(&format!("namespace(\"party\", {n})"))
        );
    }
    assert_eq!(party.discovery_key().to_string(), stands_for("discovery key        "));
    assert_eq!(hex(&membership::channel_id(&session(true), &party)), stands_for("channel id           "));
    let proof = membership::prove(&session(true), &party);
    assert_eq!(hex(&proof), stands_for("proof of initiator   "));
    assert_eq!(hex(&membership::prove(&session(false), &party)), stands_for("proof of responder   "));
    assert_eq!(hex(&Hello::new(proof).encode()), format!("08011a20{}", hex(&proof)));
}

#[test]
fn the_page_and_the_code_agree_on_capabilities() {
    let session = |is_initiator| Session {
        binding: std::array::from_fn(|n| n as u8),
        is_initiator,
        local: PublicKey::from_bytes([1; 32]),
        remote: PublicKey::from_bytes([2; 32]),
    };
    for (name, is_initiator) in [("capability of initiator", true), ("capability of responder", false)] {
        let handshake = replication::handshake(&session(is_initiator), &FeedKey::from_bytes([1; 32]));
        assert_eq!(hex(&handshake), format!("01{}", stands_on(REPLICATION, name)));
    }
}
