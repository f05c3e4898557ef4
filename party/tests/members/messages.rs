//! What revocations and the messages about credentials look like, byte by byte, and what is refused or taken.
//! `protocol-spec/11-credentials.md#comparing`.

use crate::founded::{founder, limits, pair, party};
use std::collections::{BTreeMap, BTreeSet};

use party::{
    credentials::{
        CheckedChain, CutOff, Grant, Inserted, Membership, Revocation, Revocations, Revoked, SyncMessage,
        Terms,
    },
    error::DecodeError,
    hash::{hash, keyed_hash},
    key::DiscoveryKey,
};

const SALT: [u8; 16] = [9; 16];

/// A chain from the founder through these, the last with the terms `last`.
fn chain_with(seeds: &[u8], last: Terms) -> CheckedChain {
    let mut membership: Option<Membership> = None;
    let mut signer = founder();
    for (n, seed) in seeds.iter().enumerate() {
        let is_last = n + 1 == seeds.len();
        let depth = (seeds.len() - 1 - n) as u64;
        let terms = if is_last { last.clone() } else { Terms::everything().delegable(depth) };
        let grant = Grant::to(pair(*seed).public(), terms);
        membership = Some(match membership {
            None => Membership::found(&signer, grant, &limits()).unwrap(),
            Some(membership) => membership.extend(&party(), &signer, grant, &limits()).unwrap(),
        });
        signer = pair(*seed);
    }
    membership.unwrap().check(&party()).unwrap()
}

fn chain(seeds: &[u8]) -> CheckedChain {
    chain_with(seeds, Terms::everything())
}

/// A revocation, as it is sent.
fn revocation(chain: &CheckedChain, signer: u8, what: Revoked, cut_offs: &[CutOff]) -> Revocation {
    Revocation::sign(chain, &pair(signer), what, cut_offs.iter().copied(), &limits()).unwrap()
}

/// Of so many members, and of one revocation.
fn known(members: u8) -> Revocations {
    let mut known = Revocations::new(party(), &limits());
    for seed in 10..10 + members {
        assert_eq!(known.insert_member(chain(&[seed])), Ok(Inserted::New));
    }
    let end = revocation(&chain(&[200]), 1, Revoked::Key, &[]);
    assert_eq!(known.insert(end.verify(&party()).unwrap()), Ok(Inserted::New));
    known
}

/// The ids that [`known`] has, the revocation's first.
fn ids(members: u8) -> Vec<[u8; 32]> {
    let end = revocation(&chain(&[200]), 1, Revoked::Key, &[]).verify(&party()).unwrap();
    let members = (10..10 + members).map(|seed| *chain(&[seed]).id().as_bytes());
    [*end.id()].into_iter().chain(members).collect()
}

//= CRED-14
#[test]
fn the_terms_of_a_chain_are_those_of_its_last_link() {
    let narrow = Terms::everything().read_only().expiring(9_000);
    let narrowed = chain_with(&[2, 3], narrow.clone());
    assert_eq!(*narrowed.terms(), narrow);
    assert_eq!(*narrowed.ancestor(1).unwrap().terms(), Terms::everything().delegable(1));
}

//= CRED-1, CRED-26
#[test]
fn a_revocation_has_one_encoding() {
    let target = chain(&[2]);
    let feed = |byte| DiscoveryKey::from_bytes([byte; 32]);
    let said = [CutOff { feed: feed(7), fork: 0, length: 253 }, CutOff { feed: feed(8), fork: 1, length: 2 }];
    let whole = revocation(&target, 1, Revoked::Key, &said).encode();
    let before = [&[1][..], &target.membership().encode()].concat();
    let signature = &whole[whole.len() - 64..];
    // Depth, kind, count; then each feed with its fork and length, in as few bytes as they take.
    let cuts = [&[7; 32][..], &[0, 0xfd, 253, 0], &[8; 32], &[1, 2]].concat();
    let with = |start: &[u8], cuts: &[u8], end: &[u8]| [&before, start, cuts, signature, end].concat();
    assert_eq!(whole, with(&[0, 1, 2], &cuts, &[]));
    assert!(Revocation::decode(&whole, &limits()).is_ok());

    let longer = [&[7; 32][..], &[0xfd, 0, 0, 0xfd, 253, 0], &cuts[36..]].concat();
    let out_of_order = [&cuts[36..], &cuts[..36]].concat();
    let twice = [&cuts[36..], &cuts[36..]].concat();
    let many = (0..17).flat_map(|n| [&[n; 32][..], &[0, 0]].concat()).collect::<Vec<u8>>();
    let sixteen = with(&[0, 1, 16], &many[..16 * 34], &[]);
    assert!(Revocation::decode(&sixteen, &limits()).is_ok(), "sixteen cut-offs are not too many");
    for (what, bytes) in [
        ("another version", [&[2], &whole[1..]].concat()),
        ("another kind", with(&[0, 2, 2], &cuts, &[])),
        ("too many cut-offs", with(&[0, 1, 17], &many, &[])),
        ("out of order", with(&[0, 1, 2], &out_of_order, &[])),
        ("named twice", with(&[0, 1, 2], &twice, &[])),
        ("a longer integer", with(&[0, 1, 2], &longer, &[])),
        ("a longer count", with(&[0, 1, 0xfd, 2, 0], &cuts, &[])),
        ("bytes left over", with(&[0, 1, 2], &cuts, &[0])),
    ] {
        assert!(Revocation::decode(&bytes, &limits()).is_err(), "{what}");
    }
}

//= CRED-27
#[test]
fn a_revocation_holds_whatever_has_expired_or_was_revoked() {
    let over = chain_with(&[2, 3], Terms::everything().expiring(1));
    let by_2 = revocation(&over, 2, Revoked::Link, &[]).verify(&party()).unwrap();
    for (seeds, signer, what) in
        [(&[2][..], 1, Revoked::Link), (&[2], 1, Revoked::Key), (&[2, 3], 2, Revoked::Key)]
    {
        // Of the link, or of the key, or of whom it revokes.
        let other = revocation(&chain(seeds), signer, what, &[]).verify(&party()).unwrap();
        for order in [[&by_2, &other], [&other, &by_2]] {
            let mut known = Revocations::new(party(), &limits());
            for it in order {
                assert_eq!(known.insert(it.clone()), Ok(Inserted::New));
            }
            assert!(known.is_revoked(&over));
        }
    }
}

//= CRED-29
#[test]
fn what_one_has_revoked_stays_revoked_when_it_is_revoked_itself() {
    // Key 3 is a member through 2 and through 5. 2 removes it; it removes 4, which it let in through 5.
    let (through_2, through_5) = (chain(&[2, 3]), chain(&[5, 3, 4]));
    let of_3 = revocation(&through_2, 2, Revoked::Key, &[]).verify(&party()).unwrap();
    let of_4 = revocation(&through_5, 3, Revoked::Link, &[]).verify(&party()).unwrap();
    for order in [[&of_3, &of_4], [&of_4, &of_3]] {
        let mut known = Revocations::new(party(), &limits());
        for it in order {
            assert_eq!(known.insert(it.clone()), Ok(Inserted::New));
        }
        assert!(known.is_revoked(&through_2) && known.is_revoked(&through_5));
        assert_eq!(known.revoked_by(&through_5), Some(&of_4));
        assert!(!known.is_revoked(&through_5.ancestor(2).unwrap()), "3 itself is still a member through 5");
    }
}

//= CRED-1, CRED-38
#[test]
fn the_four_messages_have_the_form_that_the_page_gives_them() {
    let ours = known(30);
    // In buckets by the first byte of a hash with the salt, in the order of these hashes.
    let mut buckets: BTreeMap<u8, BTreeMap<[u8; 32], [u8; 32]>> = BTreeMap::new();
    for id in ids(30) {
        let place = keyed_hash(&SALT, &[&id]);
        buckets.entry(place[0]).or_default().insert(place, id);
    }
    assert!(buckets.len() < 31, "two share a bucket");
    let sum = |n: u8| match buckets.get(&n) {
        Some(ids) => hash(&[&ids.values().flatten().copied().collect::<Vec<u8>>()])[..8].to_vec(),
        None => vec![0; 8],
    };
    let sums: Vec<u8> = (0..=255).flat_map(sum).collect();
    let summary = [&[0][..], &SALT, &sums].concat();
    assert_eq!(ours.summary(SALT).encode(), summary);

    // Asked by one who knows nothing, all buckets are listed that have something.
    let answer = |message: &SyncMessage| known(30).handle(message).unwrap().replies;
    let nothing = Revocations::new(party(), &limits()).summary(SALT);
    assert_eq!(nothing.encode(), [&[0][..], &SALT, &[0; 256 * 8]].concat());
    let [have] = answer(&nothing).try_into().unwrap();
    let mut complete = [0_u8; 32];
    buckets.keys().for_each(|n| complete[usize::from(n / 8)] |= 1 << (n % 8));
    let listed: Vec<u8> = buckets.values().flat_map(BTreeMap::values).flatten().copied().collect();
    assert_eq!(have.encode(), [&[1][..], &SALT, &complete, &[31], &listed].concat());

    let [want] = Revocations::new(party(), &limits()).handle(&have).unwrap().replies.try_into().unwrap();
    let sorted: BTreeSet<[u8; 32]> = ids(30).into_iter().collect();
    let wanted: Vec<u8> = sorted.iter().flatten().copied().collect();
    assert_eq!(want.encode(), [&[2, 31][..], &wanted].concat());

    // The revocation, and a membership of two links, which takes a length of three bytes.
    let end = revocation(&chain(&[200]), 1, Revoked::Key, &[]);
    let long = chain(&[2, 3, 4]).membership().clone();
    let items = SyncMessage::Items { revocations: vec![end.clone()], memberships: vec![long.clone()] };
    let (end, long) = (end.encode(), long.encode());
    assert!(end.len() < 0xfd && long.len() >= 0xfd);
    let length = [0xfd, (long.len() % 256) as u8, (long.len() / 256) as u8];
    let expected = [&[3, 0, end.len() as u8][..], &end, &[1], &length, &long].concat();
    assert_eq!(items.encode(), expected);

    for message in [ours.summary(SALT), have, want, items] {
        let bytes = message.encode();
        assert_eq!(SyncMessage::decode(&bytes, &limits()).as_ref(), Ok(&message));
        for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], &[9]].concat()[..], &[]] {
            assert!(SyncMessage::decode(wrong, &limits()).is_err());
        }
    }
}

//= CRED-40
#[test]
fn a_message_may_name_4096_ids() {
    let listed = |n: usize| [&[0xfd, (n % 256) as u8, (n / 256) as u8][..], &vec![7; n * 32]].concat();
    let want = |n| [&[2][..], &listed(n)].concat();
    let have = |n| [&[1][..], &[0; 16 + 32], &listed(n)].concat();
    for bytes in [want(4096), have(4096)] {
        let message = SyncMessage::decode(&bytes, &limits()).unwrap();
        assert_eq!(message.encode(), bytes);
        assert!(known(3).handle(&message).is_ok());
    }
    for bytes in [want(4097), have(4097)] {
        assert_eq!(SyncMessage::decode(&bytes, &limits()), Err(DecodeError::TooMany { max: 4096 }));
    }
}

//= CRED-41
#[test]
fn items_may_take_512_kibibytes() {
    const MOST: usize = 512 << 10;
    let member = chain(&[2]).membership().clone();
    let each = member.encode().len() + 2;
    let items = |count| SyncMessage::Items { revocations: vec![], memberships: vec![member.clone(); count] };
    let most = items((MOST - 1) / each);
    let bytes = most.encode();
    assert!(bytes.len() <= MOST && bytes.len() > MOST - each);
    assert_eq!(SyncMessage::decode(&bytes, &limits()).as_ref(), Ok(&most));
    assert_eq!(known(0).handle(&most).unwrap().new_members, 1);
    assert!(
        SyncMessage::decode(&items(MOST / each + 2).encode(), &limits()).is_err(),
        "there is an end to it"
    );
}
