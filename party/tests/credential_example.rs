//! The worked examples of `protocol-spec/11-credentials.md#example` and `protocol-spec/12-tickets.md#example`, made anew.

use party::{
    credentials::{CutOff, Grant, Membership, Revocation, Revoked, Terms},
    hash::namespace,
    key::{DiscoveryKey, KeyPair, PartyKey},
    limits::Limits,
    ticket::Ticket,
};

/// Each value, as bytes, stands behind its name on the page, however it is broken into lines.
fn check(page: &str, values: &[(&str, Vec<u8>)]) {
    let squeezed: String = page.split_whitespace().collect();
    for (name, bytes) in values {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let name: String = name.split_whitespace().collect();
        assert!(squeezed.contains(&format!("{name}{hex}")), "{name} is {hex}");
    }
}

//= CRED-2, CRED-23
#[test]
fn the_example_of_credentials_is_what_is_made() {
    let limits = Limits::default();
    let [founder, ann, bob] = [1, 2, 3].map(|seed| KeyPair::from_seed(&[seed; 32]));
    let party = PartyKey::from_bytes(*founder.public().as_bytes());
    let to_ann = Grant::to(ann.public(), Terms::everything().delegable(1)).with_serial(1_800_000_000);
    let of_ann = Membership::found(&founder, to_ann, &limits).unwrap();
    let terms = Terms::everything().read_only().newest(100).expiring(1_800_086_400);
    let to_bob = Grant::to(bob.public(), terms).with_serial(1_800_000_100);
    let of_bob = of_ann.extend(&party, &ann, to_bob, &limits).unwrap();
    let chain = of_bob.check(&party).unwrap();
    let cut_off = CutOff { feed: DiscoveryKey::from_bytes([7; 32]), fork: 1, length: 42 };
    let revocation = Revocation::sign(&chain, &ann, Revoked::Key, [cut_off], &limits).unwrap();
    let verified = revocation.verify(&party).unwrap();

    check(
        include_str!("../../protocol-spec/11-credentials.md"),
        &[
            ("LINK", namespace("party", 3).to_vec()),
            ("LINK-SIGNATURE", namespace("party", 4).to_vec()),
            ("REVOCATION", namespace("party", 5).to_vec()),
            ("REVOCATION-SIGNATURE", namespace("party", 6).to_vec()),
            ("P", party.as_bytes().to_vec()),
            ("id of link 1", chain.ids()[0].as_bytes().to_vec()),
            ("id of link 2", chain.ids()[1].as_bytes().to_vec()),
            ("membership", of_bob.encode()),
            ("id of the revocation", verified.id().to_vec()),
            ("statement and signature", revocation.encode()[1 + of_bob.encode().len()..].to_vec()),
        ],
    );
}

//= TICKET-1, TICKET-2
#[test]
fn the_example_of_tickets_is_what_is_made() {
    let ticket = Ticket::new(PartyKey::from_bytes([70; 32])).with_address("localhost:4977").unwrap();
    let text = ticket.to_text(&Limits::default()).unwrap();
    let page = include_str!("../../protocol-spec/12-tickets.md");
    assert!(page.split_whitespace().any(|word| word == text), "it is {text}");
    check(page, &[("namespace(\"party\", 7)", namespace("party", 7).to_vec())]);
}
