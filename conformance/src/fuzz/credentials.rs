//! Credentials and tickets: anything is read or refused, nothing forged is believed, and members agree in the end.

use std::sync::OnceLock;

use party::{
    credentials::{
        CheckedChain, CutOff, Grant, Membership, Revocation, Revocations, Revoked, SyncMessage, Terms,
        VerifiedRevocation,
    },
    key::{DiscoveryKey, KeyPair, PartyKey},
    limits::Limits,
    ticket::Ticket,
};

use super::script::Script;

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn party() -> PartyKey {
    PartyKey::from_bytes(*pair(0).public().as_bytes())
}

/// A membership, a revocation or a message of any bytes; then a true one of each that somebody has changed.
pub fn credential(data: &[u8]) {
    let limits = Limits::default();
    read_any(data, &limits);

    let world = World::get();
    let mut script = Script::new(data);
    let chain = &world.chains[script.below(world.chains.len())];
    let revocation = &world.revocations[script.below(world.revocations.len())];
    let (membership_bytes, revocation_bytes) =
        (chain.membership().encode(), revocation.revocation().encode());
    let mut membership = membership_bytes.clone();
    let mut statement = revocation_bytes.clone();
    while !script.is_over() {
        let (at, bits) = (script.number(), script.byte());
        change(&mut membership, at, bits);
        change(&mut statement, at, bits);
    }
    if let Ok(read) = Membership::decode(&membership, &limits)
        && let Ok(checked) = read.check(&party())
    {
        // Nobody but the founder and those on the chain could have made another.
        assert!(world.chains.contains(&checked), "a forged membership");
    }
    if let Ok(read) = Revocation::decode(&statement, &limits)
        && let Ok(verified) = read.verify(&party())
    {
        assert_eq!(statement, revocation_bytes, "a forged revocation");
        assert_eq!(verified, *revocation);
    }
}

fn read_any(data: &[u8], limits: &Limits) {
    if let Ok(membership) = Membership::decode(data, limits) {
        assert_eq!(membership.encode(), data, "another encoding");
        if let Ok(verified) = membership.verify_for(&party(), &membership.claimed_holder(), 1_800_000_000) {
            assert!(!verified.chain().terms().is_expired(1_800_000_000));
        }
    }
    if let Ok(revocation) = Revocation::decode(data, limits) {
        assert_eq!(revocation.encode(), data, "another encoding");
        let _ = revocation.verify(&party());
    }
    if let Ok(message) = SyncMessage::decode(data, limits) {
        let again = SyncMessage::decode(&message.encode(), limits);
        assert_eq!(again.as_ref(), Ok(&message));
        let mut known = World::get().everything(limits);
        let before = known.digest();
        match known.handle(&message) {
            Ok(handled) => {
                for reply in handled.replies {
                    assert!(SyncMessage::decode(&reply.encode(), limits).is_ok(), "a reply that is too long");
                }
            }
            Err(error) => assert!(matches!(message, SyncMessage::Items { .. }), "{error}"),
        }
        // Whatever a stranger says, nothing is known now that a member hasn't signed.
        assert_eq!(known.digest(), before);
    }
}

fn change(bytes: &mut Vec<u8>, at: usize, bits: u8) {
    let length = bytes.len();
    match (at % (length + 1), bits) {
        (at, 0) => bytes.truncate(at),
        (at, _) if at < length => bytes[at] ^= bits,
        (_, bits) => bytes.push(bits),
    }
}

/// Statements reach some members in any order, and are told on by merging and by messages that may be lost. In the end
/// all know the same, and what one knows who has heard of everything at once. Quotas are small.
pub fn revocations(data: &[u8]) {
    let mut script = Script::new(data);
    let quota = 1 + script.below(8);
    let limits = Limits {
        max_founder_revocations: quota,
        max_branch_revocations: quota,
        max_branch_members: quota,
        max_branches: 1 + script.below(4),
        max_sync_ids: 4 + script.below(64),
        ..Limits::default()
    };
    let world = World::get();
    let mut members = [(); 3].map(|()| Revocations::new(party(), &limits));
    let mut at_once = Revocations::new(party(), &limits);
    while !script.is_over() {
        let to = script.below(3);
        match script.below(4) {
            0 => {
                let revocation = &world.revocations[script.below(world.revocations.len())];
                let _ = members[to].insert(revocation.clone()).expect("it is of this party");
                let _ = at_once.insert(revocation.clone()).expect("it is of this party");
            }
            1 => {
                let chain = &world.chains[script.below(world.chains.len())];
                let _ = members[to].insert_member(chain.clone()).expect("it is of this party");
                let _ = at_once.insert_member(chain.clone()).expect("it is of this party");
            }
            2 => {
                let from = members[script.below(3)].clone();
                members[to].merge(&from).expect("they are of one party");
            }
            _ => {
                let from = script.below(3);
                let lost_after = script.below(6);
                sync(&mut members, from, to, [script.byte(); 16], lost_after, &limits);
            }
        }
        for known in &members {
            assert!(known.revocations().count() <= quota * (limits.max_branches + 1));
            assert!(known.known().count() <= quota * limits.max_branches);
        }
    }
    for _ in 0..2 {
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let known = members[from].clone();
            members[to].merge(&known).expect("they are of one party");
        }
    }
    for known in &members {
        assert!(known.digest() == at_once.digest(), "members differ");
        for chain in &world.chains {
            assert_eq!(known.is_revoked(chain), at_once.is_revoked(chain));
            assert_eq!(known.revoked_by(chain).is_some(), known.is_revoked(chain));
            assert_eq!(known.cut_offs(chain), at_once.cut_offs(chain));
        }
    }
}

fn sync(
    members: &mut [Revocations; 3],
    from: usize,
    to: usize,
    salt: [u8; 16],
    lost_after: usize,
    limits: &Limits,
) {
    let mut on_the_way = vec![(to, members[from].summary(salt))];
    for _ in 0..lost_after {
        let Some((receiver, message)) = on_the_way.pop() else { return };
        let message = SyncMessage::decode(&message.encode(), limits).expect("a member's message");
        let handled = members[receiver].handle(&message).expect("a member misbehaves");
        on_the_way.extend(handled.replies.into_iter().map(|reply| (from + to - receiver, reply)));
    }
}

/// What anybody has signed in the party of these targets: signing takes longer than all else.
struct World {
    chains: Vec<CheckedChain>,
    revocations: Vec<VerifiedRevocation>,
}

impl World {
    fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(Self::new)
    }

    fn new() -> Self {
        let (limits, party) = (Limits::default(), party());
        let mut chains: Vec<CheckedChain> = Vec::new();
        for path in [&[1][..], &[2], &[3], &[1, 4], &[1, 2], &[2, 4], &[1, 4, 5], &[2, 4, 5], &[1, 4, 5, 6]] {
            let terms = Terms::everything().delegable(4 - path.len() as u64);
            let grant = Grant::to(pair(path[path.len() - 1]).public(), terms);
            let membership = if path.len() == 1 {
                Membership::found(&pair(0), grant, &limits)
            } else {
                let above = chains.iter().find(|chain| {
                    let keys: Vec<_> =
                        path[..path.len() - 1].iter().map(|seed| pair(*seed).public()).collect();
                    chain.subjects().eq(keys)
                });
                let above = above.expect("shorter paths come first").membership();
                above.extend(&party, &pair(path[path.len() - 2]), grant, &limits)
            };
            chains.push(membership.and_then(|membership| membership.check(&party)).expect("it is sound"));
        }
        let mut revocations = Vec::new();
        for chain in &chains {
            for signer in (0..=6).map(pair) {
                for (revoked, length) in [(Revoked::Link, 5), (Revoked::Key, 9)] {
                    let feed = DiscoveryKey::from_bytes([7; 32]);
                    let cut_off = CutOff { feed, fork: 0, length };
                    if let Ok(revocation) = Revocation::sign(chain, &signer, revoked, [cut_off], &limits) {
                        revocations.push(revocation.verify(&party).expect("it is sound"));
                    }
                }
            }
        }
        Self { chains, revocations }
    }

    fn everything(&self, limits: &Limits) -> Revocations {
        let mut known = Revocations::new(party(), limits);
        for revocation in &self.revocations {
            let _ = known.insert(revocation.clone()).expect("it is of this party");
        }
        for chain in &self.chains {
            let _ = known.insert_member(chain.clone()).expect("it is of this party");
        }
        known
    }
}

/// Any text, and any content with a sound checksum.
pub fn ticket(data: &[u8]) {
    let limits = Limits::default();
    let text = String::from_utf8_lossy(data);
    for text in [text.to_string(), text_of(data)] {
        if let Ok(ticket) = Ticket::parse(&text, &limits) {
            assert_eq!(ticket.to_text(&limits).as_ref(), Ok(&text), "another text");
            let shown = format!("{ticket:?}");
            let key = ticket.party().to_hex();
            assert!(!shown.contains(&key), "a secret is shown");
            if let Some(membership) = ticket.membership() {
                assert!(membership.check(ticket.party()).is_ok());
            }
        }
    }
}

fn text_of(content: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sum = party::hash::hash(&[&party::hash::namespace("party", 7), content]);
    let bits = content.iter().chain(&sum[..4]).flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1));
    let bits: Vec<u8> = bits.collect();
    let digits = bits.chunks(6).map(|bits| {
        let value = (0..6).fold(0, |value, n| value << 1 | bits.get(n).copied().unwrap_or(0));
        char::from(ALPHABET[usize::from(value)])
    });
    "party1_".chars().chain(digits).collect()
}
