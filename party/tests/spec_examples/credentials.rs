//! Memberships, revocations, what members compare, and tickets.

use party::{
    credentials::{CutOff, Grant, Membership, Revocation, Revoked, SyncMessage, Terms},
    hash::{keyed_hash, namespace},
    key::{DiscoveryKey, KeyPair, PartyKey},
    limits::Limits,
    ticket::Ticket,
};

use super::{Example, Line, line};

pub(crate) fn examples() -> Vec<Example> {
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
    let statement = &revocation.encode()[1 + of_bob.encode().len()..];
    vec![
        (
            "credential-values",
            vec![
                line(namespace("party", 3), "LINK"),
                line(namespace("party", 4), "LINK-SIGNATURE"),
                line(namespace("party", 5), "REVOCATION"),
                line(namespace("party", 6), "REVOCATION-SIGNATURE"),
                line(party.as_bytes(), "P"),
                line(chain.ids()[0].as_bytes(), "id of link 1"),
                line(chain.ids()[1].as_bytes(), "id of link 2"),
                line(verified.id(), "id of the revocation"),
            ],
        ),
        ("membership", membership(&of_bob.encode())),
        (
            "revocation",
            vec![
                line(&statement[..1], "signer: the subject of link 1"),
                line(&statement[1..2], "kind: a key"),
                line(&statement[2..3], "one cut-off"),
                line(&statement[3..35], "discovery key"),
                line(&statement[35..37], "fork and length"),
                line(&statement[37..], "signature"),
            ],
        ),
        ("comparing", comparing(chain.id().as_bytes())),
        ("ticket", ticket()),
    ]
}

fn membership(bytes: &[u8]) -> Vec<Line> {
    let fields: [(usize, &'static str); 14] = [
        (1, "version"),
        (1, "two links"),
        (32, "link 1: subject, Ann"),
        (1, "flags READ and BRING"),
        (1, "depth"),
        (5, "serial"),
        (64, "signature of the founder"),
        (32, "link 2: subject, Bob"),
        (1, "flags READ, EXPIRES and NEWEST"),
        (1, "depth"),
        (5, "serial"),
        (5, "expiry"),
        (1, "newest"),
        (64, "signature of Ann"),
    ];
    let (mut lines, mut rest) = (Vec::new(), bytes);
    for (length, what) in fields {
        let (part, more) = rest.split_at(length);
        lines.push(line(part, what));
        rest = more;
    }
    assert!(rest.is_empty());
    lines
}

/// What is said of the membership with this id, with a salt of 16 bytes of 5.
fn comparing(id: &[u8; 32]) -> Vec<Line> {
    let salt = [5; 16];
    let place = keyed_hash(&salt, &[id]);
    let mut complete = [0; 32];
    complete[usize::from(place[0]) / 8] |= 1 << (place[0] % 8);
    let have = SyncMessage::Have { salt, complete, ids: vec![*id] }.encode();
    let want = SyncMessage::Want { ids: vec![*id] }.encode();
    vec![
        line(place, "the salted hash of the id: its first byte is the bucket"),
        line(&have[..1], "Have"),
        line(&have[1..17], "salt"),
        line(&have[17..49], "complete: this bucket"),
        line(&have[49..50], "one id"),
        line(&have[50..], "that of link 2"),
        line(&want[..2], "Want of one id"),
        line(&want[2..], "that of link 2"),
    ]
}

fn ticket() -> Vec<Line> {
    let ticket = Ticket::new(PartyKey::from_bytes([70; 32])).with_address("localhost:4977").unwrap();
    let text = ticket.to_text(&Limits::default()).unwrap();
    let page = include_str!("../../../protocol-spec/12-tickets.md");
    assert!(page.split_whitespace().any(|word| word == text), "it is {text}");
    let mut content = vec![0];
    content.extend([70; 32]);
    content.extend([1, 14]);
    content.extend(b"localhost:4977");
    let sum = party::hash::hash(&[&namespace("party", 7), &content]);
    assert_eq!(text, format!("party1_{}", base64(&[&content[..], &sum[..4]].concat())));
    vec![
        line(namespace("party", 7), "namespace(\"party\", 7)"),
        line(&content[..1], "flags"),
        line(&content[1..33], "party key"),
        line(&content[33..34], "one address"),
        line(&content[34..35], "of 14 bytes"),
        line(&content[35..], "`localhost:4977`"),
        line(&sum[..4], "checksum"),
    ]
}

/// With the alphabet for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits = (0..3).fold(0_u32, |bits, n| bits << 8 | u32::from(chunk.get(n).copied().unwrap_or(0)));
        (0..=chunk.len())
            .map(move |n| char::from(ALPHABET[(bits >> (18 - 6 * n) & 63) as usize]))
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}
