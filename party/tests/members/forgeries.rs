//! Memberships and revocations that are not what they say. `protocol-spec/11-credentials.md#verification`.

use crate::founded::{founder, limits, pair, party};
use party::{
    credentials::{CutOff, Grant, Inserted, Membership, Revocation, Revocations, Revoked, Terms},
    error::{CredentialFlaw, DecodeError, Widening},
    hash::{hash, namespace},
    key::{DiscoveryKey, KeyPair, PartyKey, PublicKey},
    limits::Limits,
};

const NOW: u64 = 1_800_000_000;
/// A link without expiry, feeds and range whose numbers are small: subject, flags, depth, serial, signature.
const LINK: usize = 32 + 1 + 1 + 1 + 64;

/// Founder, then these, each with all that the one before has.
fn chain(seeds: &[u8]) -> Membership {
    let depth = |n: usize| (seeds.len() - 1 - n) as u64;
    let grant = |n: usize| Grant::to(pair(seeds[n]).public(), Terms::everything().delegable(depth(n)));
    let mut membership = Membership::found(&founder(), grant(0), &limits()).unwrap();
    for n in 1..seeds.len() {
        membership = membership.extend(&party(), &pair(seeds[n - 1]), grant(n), &limits()).unwrap();
    }
    membership
}

/// The bytes of its links, without what stands before them.
fn links(membership: &Membership) -> Vec<Vec<u8>> {
    membership.encode()[2..].chunks(LINK).map(<[u8]>::to_vec).collect()
}

fn joined(links: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![1, links.len() as u8];
    links.iter().for_each(|link| bytes.extend(link));
    bytes
}

/// A link of any body, signed as links are.
fn signed(body: &[u8], party: &PartyKey, before: &[u8; 32], signer: &KeyPair) -> Vec<u8> {
    let id = hash(&[&namespace("party", 3), party.as_bytes(), before, body]);
    let signature = signer.sign(&[namespace("party", 4), id].concat());
    [body, &signature].concat()
}

/// The body of a link that allows everything.
fn body(subject: &PublicKey, flags: u8, depth: u8, rest: &[u8]) -> Vec<u8> {
    [&subject.as_bytes()[..], &[flags, depth, 0], rest].concat()
}

fn verify(bytes: &[u8], shown_by: u8) -> Result<(), CredentialFlaw> {
    let membership = Membership::decode(bytes, &limits()).expect("it can be read");
    membership.verify_for(&party(), &pair(shown_by).public(), NOW).map(drop)
}

//= CRED-17
#[test]
fn a_membership_holds_for_its_party_and_its_key_only() {
    let membership = chain(&[2, 3, 4]);
    assert_eq!(verify(&membership.encode(), 4), Ok(()));
    for other in [1, 2, 3, 5] {
        assert_eq!(verify(&membership.encode(), other), Err(CredentialFlaw::OtherKey));
    }
    let other_party = PartyKey::from_bytes(*pair(9).public().as_bytes());
    assert_eq!(membership.check(&other_party), Err(CredentialFlaw::Signature { link: 1 }));
}

#[test]
fn a_link_that_the_same_founder_signed_for_another_party_is_refused() {
    // Somebody signs with one key, but names another party in what is signed.
    let other = PartyKey::from_bytes([9; 32]);
    let link = signed(&body(&pair(2).public(), 3, 0, &[]), &other, &[0; 32], &founder());
    assert_eq!(verify(&joined(&[link]), 2), Err(CredentialFlaw::Signature { link: 1 }));
}

#[test]
fn links_that_change_places_are_refused() {
    let links = links(&chain(&[2, 3, 4]));
    for (order, flaw) in [
        ([1, 0, 2], CredentialFlaw::Widens { link: 2, what: Widening::Depth }),
        ([0, 2, 1], CredentialFlaw::Widens { link: 3, what: Widening::Depth }),
    ] {
        let swapped: Vec<_> = order.iter().map(|n| links[*n].clone()).collect();
        let membership = Membership::decode(&joined(&swapped), &limits()).unwrap();
        assert_eq!(membership.check(&party()), Err(flaw));
    }
}

#[test]
fn a_chain_that_is_cut_short_names_another_holder() {
    let links = links(&chain(&[2, 3, 4]));
    assert_eq!(verify(&joined(&links[..2]), 4), Err(CredentialFlaw::OtherKey));
    assert_eq!(verify(&joined(&links[..2]), 3), Ok(()), "it is that of the one before");
    let without_middle = [links[0].clone(), links[2].clone()];
    assert_eq!(verify(&joined(&without_middle), 4), Err(CredentialFlaw::Signature { link: 2 }));
    assert_eq!(verify(&joined(&links[1..]), 4), Err(CredentialFlaw::Signature { link: 1 }));
    let bytes = joined(&links);
    for end in 0..bytes.len() {
        assert!(Membership::decode(&bytes[..end], &limits()).is_err(), "cut at {end}");
    }
}

#[test]
fn links_of_two_chains_can_not_be_spliced() {
    // Both go through key 2; what the founder granted to it in the second is another link.
    let grant = |terms: Terms| Membership::found(&founder(), Grant::to(pair(2).public(), terms), &limits());
    let wide = grant(Terms::everything().delegable(1)).unwrap();
    let narrow = grant(Terms::everything().delegable(1).read_only()).unwrap();
    let last = Grant::to(pair(3).public(), Terms::everything().read_only());
    let under_narrow = narrow.extend(&party(), &pair(2), last, &limits()).unwrap();
    let spliced = joined(&[links(&wide)[0].clone(), links(&under_narrow)[1].clone()]);
    assert_eq!(verify(&under_narrow.encode(), 3), Ok(()));
    assert_eq!(verify(&spliced, 3), Err(CredentialFlaw::Signature { link: 2 }));
}

//= CRED-18
#[test]
fn a_membership_ends_at_the_second_at_which_it_expires() {
    let grant = Grant::to(pair(2).public(), Terms::everything().expiring(NOW));
    let membership = Membership::found(&founder(), grant, &limits()).unwrap();
    let key = pair(2).public();
    assert!(membership.verify_for(&party(), &key, NOW - 1).is_ok());
    assert_eq!(membership.verify_for(&party(), &key, NOW), Err(CredentialFlaw::Expired(NOW)));
}

//= CRED-13, CRED-20
#[test]
fn a_link_that_widens_is_refused_however_well_it_is_signed() {
    let feed = DiscoveryKey::from_bytes([7; 32]);
    let above = Terms::everything().delegable(1).only([feed]).read_only().newest(5).blind().expiring(NOW + 9);
    let first = Membership::found(&founder(), Grant::to(pair(2).public(), above), &limits()).unwrap();
    let id = *first.check(&party()).unwrap().id().as_bytes();

    let expires = [0xfe, 9, 0xd2, 0x49, 0x6b]; // NOW + 9
    assert_eq!(u32::from_le_bytes([9, 0xd2, 0x49, 0x6b]) as u64, NOW + 9);
    let feeds = [&[1][..], &[7; 32]].concat();
    let (read, bring, blind, expiry, only, newest) = (1, 2, 4, 16, 32, 128);
    let rest = |parts: &[&[u8]]| parts.concat();
    let fits = read | blind | expiry | only | newest;
    for (flags, depth, rest, what) in [
        (fits | bring, 0, rest(&[&expires, &feeds, &[5]]), Widening::Bring),
        (fits & !blind, 0, rest(&[&expires, &feeds, &[5]]), Widening::Blind),
        (fits & !expiry, 0, rest(&[&feeds, &[5]]), Widening::Expiry),
        (fits & !only, 0, rest(&[&expires, &[5]]), Widening::Feeds),
        (fits & !newest, 0, rest(&[&expires, &feeds]), Widening::Blocks),
        (fits, 0, rest(&[&expires, &feeds, &[6]]), Widening::Blocks),
        (fits, 1, rest(&[&expires, &feeds, &[5]]), Widening::Depth),
    ] {
        let link = signed(&body(&pair(3).public(), flags, depth, &rest), &party(), &id, &pair(2));
        let bytes = [&[1, 2][..], &first.encode()[2..], &link].concat();
        assert_eq!(verify(&bytes, 3), Err(CredentialFlaw::Widens { link: 2, what }), "{what}");
    }
    let rest = rest(&[&expires, &feeds, &[5]]);
    let link = signed(&body(&pair(3).public(), fits, 0, &rest), &party(), &id, &pair(2));
    assert_eq!(verify(&[&[1, 2][..], &first.encode()[2..], &link].concat(), 3), Ok(()));

    // Nor does the library make one.
    let grant = Grant::to(pair(3).public(), Terms::everything());
    let made = first.extend(&party(), &pair(2), grant, &limits());
    assert!(matches!(made, Err(CredentialFlaw::Widens { link: 2, .. })));
}

//= CRED-21
#[test]
fn a_link_is_refused_that_another_than_its_issuer_signed() {
    let first = chain(&[2, 3]);
    let grant = || Grant::to(pair(5).public(), Terms::everything());
    assert_eq!(first.extend(&party(), &pair(4), grant(), &limits()), Err(CredentialFlaw::NotTheSigner));

    let forged = signed(&body(&pair(2).public(), 3, 0, &[]), &party(), &[0; 32], &pair(2));
    assert_eq!(verify(&joined(&[forged]), 2), Err(CredentialFlaw::Signature { link: 1 }));
    let mut links = links(&first);
    let id = *first.check(&party()).unwrap().ids()[0].as_bytes();
    links[1] = signed(&body(&pair(4).public(), 3, 0, &[]), &party(), &id, &pair(4));
    assert_eq!(verify(&joined(&links), 4), Err(CredentialFlaw::Signature { link: 2 }));
}

//= CRED-15
#[test]
fn a_device_shows_its_own_link_and_delegates_nothing() {
    let identity = chain(&[2, 3]).check(&party()).unwrap().ancestor(1).unwrap();
    let device = |seed: u8, terms| Grant::device(pair(seed).public(), terms);
    let phone = identity.membership().extend(&party(), &pair(2), device(7, Terms::everything()), &limits());
    let phone = phone.unwrap();
    assert_eq!(verify(&phone.encode(), 7), Ok(()));
    assert_eq!(phone.check(&party()).unwrap().member(), pair(2).public(), "it is the identity's");
    for thief in [2, 3, 8] {
        assert_eq!(verify(&phone.encode(), thief), Err(CredentialFlaw::OtherKey), "a replay");
    }

    let on = phone.extend(&party(), &pair(7), device(8, Terms::everything()), &limits());
    assert_eq!(on, Err(CredentialFlaw::Widens { link: 3, what: Widening::Depth }));
    let delegating = Membership::found(&founder(), device(7, Terms::everything().delegable(1)), &limits());
    assert_eq!(delegating, Err(CredentialFlaw::DeviceDelegates { link: 1 }));
    let forged = signed(&body(&pair(7).public(), 3 | 8, 1, &[]), &party(), &[0; 32], &founder());
    assert_eq!(verify(&joined(&[forged]), 7), Err(CredentialFlaw::DeviceDelegates { link: 1 }));
}

//= CRED-19, CRED-21
#[test]
fn keys_of_small_order_are_neither_named_nor_believed() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    for weak in [[0; 32], neutral, [0xff; 32]] {
        let key = PublicKey::from_bytes(weak);
        let grant = Grant::to(key, Terms::everything());
        let flaw = CredentialFlaw::BadKey { link: 1 };
        assert_eq!(Membership::found(&founder(), grant, &limits()), Err(flaw));
        let link = signed(&body(&key, 3, 1, &[]), &party(), &[0; 32], &founder());
        let membership = Membership::decode(&joined(&[link]), &limits()).unwrap();
        assert_eq!(membership.verify_for(&party(), &key, NOW), Err(flaw));
    }
    // For the neutral point as the party's key, this signature would satisfy the equation for any message.
    let mut any = body(&pair(2).public(), 3, 0, &[]);
    any.extend_from_slice(&neutral);
    any.extend_from_slice(&[0; 32]);
    let membership = Membership::decode(&joined(&[any]), &limits()).unwrap();
    let flaw = CredentialFlaw::Signature { link: 1 };
    assert_eq!(membership.check(&PartyKey::from_bytes(neutral)), Err(flaw));
}

//= CRED-16, CRED-24
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let bytes = chain(&[2, 3]).encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let verified = Membership::decode(&flipped, &limits()).map(|membership| membership.check(&party()));
        assert!(!matches!(verified, Ok(Ok(_))), "bit {bit}");
    }
}

//= CRED-4, CRED-5, CRED-6, CRED-7, CRED-8
#[test]
fn a_membership_has_one_encoding() {
    let grant = Grant::to(pair(2).public(), Terms::everything().only([DiscoveryKey::from_bytes([1; 32])]));
    let bytes = Membership::found(&founder(), grant, &limits()).unwrap().encode();
    let encoding = Err(DecodeError::Invalid("encoding of a membership"));

    // The depth in three bytes instead of one, and the feed twice.
    let longer = [&bytes[..35], &[0xfd, 0, 0], &bytes[36..]].concat();
    assert_eq!(Membership::decode(&longer, &limits()), encoding);
    let twice = [&bytes[..37], &[2], &bytes[38..70], &bytes[38..70], &bytes[70..]].concat();
    assert_eq!(Membership::decode(&twice, &limits()), encoding);
    let trailing = [&bytes[..], &[0]].concat();
    let end = Err(DecodeError::Invalid("end of a membership"));
    assert_eq!(Membership::decode(&trailing, &limits()), end);
}

//= CRED-9, CRED-10
#[test]
fn a_membership_is_no_larger_than_the_limits() {
    let short = Limits { max_links: 2, ..limits() };
    assert_eq!(Membership::decode(&chain(&[2, 3, 4]).encode(), &short), Err(DecodeError::TooMany { max: 2 }));
    let feeds = |n: u8| Terms::everything().only((0..n).map(|byte| DiscoveryKey::from_bytes([byte; 32])));
    let made = Membership::found(&founder(), Grant::to(pair(2).public(), feeds(17)), &limits());
    assert_eq!(made, Err(CredentialFlaw::LimitExceeded("max_link_feeds")));
    let first = Grant::to(pair(2).public(), feeds(16).delegable(1));
    let first = Membership::found(&founder(), first, &limits()).unwrap();
    let second = first.extend(&party(), &pair(2), Grant::to(pair(3).public(), feeds(16)), &limits());
    assert_eq!(second, Err(CredentialFlaw::LimitExceeded("max_membership")));
}

//= CRED-25
#[test]
fn only_the_founder_those_above_and_the_holder_itself_revoke() {
    let target = chain(&[2, 3, 4]).check(&party()).unwrap();
    for signer in [1, 2, 3, 4] {
        let revocation = Revocation::sign(&target, &pair(signer), Revoked::Key, [], &limits()).unwrap();
        let verified = revocation.verify(&party()).unwrap();
        assert_eq!(verified.signer(), pair(signer).public());
        let mut known = Revocations::new(party(), &limits());
        assert_eq!(known.insert(verified), Ok(Inserted::New));
        assert!(known.is_revoked(&target));
        assert_eq!(known.revoked_by(&target).unwrap().revocation(), &revocation);
    }
    let by_stranger = Revocation::sign(&target, &pair(9), Revoked::Key, [], &limits());
    assert_eq!(by_stranger, Err(CredentialFlaw::NotTheSigner));

    // Key 2 signs, and the revocation says that another did.
    let bytes = Revocation::sign(&target, &pair(2), Revoked::Key, [], &limits()).unwrap().encode();
    for depth in [0, 2, 3, 4, 200] {
        let mut forged = bytes.clone();
        let at = forged.len() - 64 - 3;
        assert_eq!(forged[at], 1);
        forged[at] = depth;
        let forged = Revocation::decode(&forged, &limits()).unwrap();
        assert_eq!(forged.verify(&party()), Err(CredentialFlaw::RevocationSignature), "depth {depth}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let verified = Revocation::decode(&flipped, &limits()).map(|revocation| revocation.verify(&party()));
        assert!(!matches!(verified, Ok(Ok(_))), "bit {bit}");
    }
}

//= CRED-28
#[test]
fn a_member_revokes_in_its_own_branch_only() {
    // Key 4 was let in by 2 and by 3.
    let [by_2, by_3] = [&[2, 4, 5][..], &[3, 4, 5]].map(|seeds| chain(seeds).check(&party()).unwrap());
    let mut known = Revocations::new(party(), &limits());
    let target = by_2.ancestor(2).unwrap();
    let revocation = Revocation::sign(&target, &pair(2), Revoked::Key, [], &limits()).unwrap();
    assert_eq!(known.insert(revocation.verify(&party()).unwrap()), Ok(Inserted::New));
    assert!(known.is_revoked(&target) && known.is_revoked(&by_2), "and whom it let in");
    assert!(!known.is_revoked(&by_3));
    assert!(!known.is_revoked(&by_2.ancestor(1).unwrap()));

    // That 2 makes a link to 3, which is not its own, and revokes it gives it no power over 3.
    let claimed = chain(&[2, 3]).check(&party()).unwrap();
    let revocation = Revocation::sign(&claimed, &pair(2), Revoked::Key, [], &limits()).unwrap();
    assert_eq!(known.insert(revocation.verify(&party()).unwrap()), Ok(Inserted::New));
    assert!(!known.is_revoked(&by_3));

    let revocation = Revocation::sign(&by_3.ancestor(2).unwrap(), &founder(), Revoked::Key, [], &limits());
    assert_eq!(known.insert(revocation.unwrap().verify(&party()).unwrap()), Ok(Inserted::New));
    assert!(known.is_revoked(&by_3), "the founder revokes anybody");
}

#[test]
fn a_revoked_link_can_be_granted_anew_and_a_revoked_key_can_not() {
    let granted = |serial| {
        let grant = Grant::to(pair(2).public(), Terms::everything()).with_serial(serial);
        Membership::found(&founder(), grant, &limits()).unwrap().check(&party()).unwrap()
    };
    let mut known = Revocations::new(party(), &limits());
    let revoke = |what| {
        let revocation = Revocation::sign(&granted(1), &founder(), what, [], &limits()).unwrap();
        revocation.verify(&party()).unwrap()
    };
    assert_eq!(known.insert(revoke(Revoked::Link)), Ok(Inserted::New));
    assert_eq!(known.insert(revoke(Revoked::Link)), Ok(Inserted::Known));
    assert!(known.is_revoked(&granted(1)) && !known.is_revoked(&granted(2)));
    assert_eq!(known.insert(revoke(Revoked::Key)), Ok(Inserted::New));
    assert!(known.is_revoked(&granted(2)));
}

//= CRED-30
#[test]
fn the_cut_off_of_who_stands_nearest_to_the_founder_holds_and_of_that_the_lowest() {
    let writer = chain(&[2, 3]).check(&party()).unwrap();
    let feed = DiscoveryKey::from_bytes([7; 32]);
    let cut = |fork, length| CutOff { feed, fork, length };
    let said = |signer: u8, cut_off| {
        let revocation = Revocation::sign(&writer, &pair(signer), Revoked::Link, [cut_off], &limits());
        revocation.unwrap().verify(&party()).unwrap()
    };
    let mut known = Revocations::new(party(), &limits());
    assert_eq!(known.cut_off(&feed, &writer), None);
    for (statement, holds) in [
        (said(3, cut(0, 10)), cut(0, 10)),
        (said(2, cut(1, 50)), cut(1, 50)),
        (said(2, cut(0, 60)), cut(0, 60)),
        (said(2, cut(0, 70)), cut(0, 60)),
        (said(3, cut(0, 1)), cut(0, 60)),
        (said(1, cut(2, 100)), cut(2, 100)),
    ] {
        assert_eq!(known.insert(statement), Ok(Inserted::New));
        assert_eq!(known.cut_off(&feed, &writer), Some(holds));
        assert_eq!(known.cut_offs(&writer), [holds]);
    }

    // Nobody can cut off the feed of a writer that is not below it, by naming it in a chain of its own.
    let honest = chain(&[4]).check(&party()).unwrap();
    let claimed = chain(&[5, 4]).check(&party()).unwrap();
    let revocation = Revocation::sign(&claimed, &pair(5), Revoked::Key, [cut(0, 0)], &limits()).unwrap();
    assert_eq!(known.insert(revocation.verify(&party()).unwrap()), Ok(Inserted::New));
    assert_eq!(known.cut_off(&feed, &honest), None);
}

#[test]
fn what_belongs_to_another_party_is_not_taken_in() {
    let mut other = Revocations::new(PartyKey::from_bytes(*pair(9).public().as_bytes()), &limits());
    let target = chain(&[2]).check(&party()).unwrap();
    let revocation = Revocation::sign(&target, &founder(), Revoked::Key, [], &limits()).unwrap();
    let verified = revocation.verify(&party()).unwrap();
    assert_eq!(other.insert(verified), Err(CredentialFlaw::OtherParty));
    assert_eq!(other.insert_member(target), Err(CredentialFlaw::OtherParty));
    assert_eq!(other.merge(&Revocations::new(party(), &limits())), Err(CredentialFlaw::OtherParty));
}
