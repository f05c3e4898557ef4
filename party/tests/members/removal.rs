//! Members who are removed: how that spreads, what it ends, and what is remembered.

use std::sync::Arc;

use crate::common::{
    membership::{Site, append, blocks, founder, key, meet, options, settle},
    until,
};
use party::{
    credentials::{CutOff, Grant, Membership, Revoked, Terms},
    error::{ApiMisuse, Error, StorageError},
    feed::{
        memory::MemoryStorage,
        storage::{Key, Storage as _, Write},
    },
    members::{Members, MembersEvent, Refusal, Standing},
    party::Event,
    rules::{Action, WholeStore},
    store::Store,
};

async fn three() -> [Site; 3] {
    let ann = Site::member(1, Terms::everything().delegable(1)).await;
    let bob = Site::member(2, Terms::everything()).await;
    let carol = Site::member(3, Terms::everything()).await;
    [ann, bob, carol]
}

//= CRED-60, CRED-61, CRED-73
#[tokio::test(start_paused = true)]
async fn a_removal_reaches_a_third_through_the_second_and_ends_the_removed_everywhere() {
    let [ann, mut bob, carol] = three().await;
    let feed = bob.feed("log", 5).await;
    // Everybody knows Bob, and Ann meets Carol only.
    let _bob_carol = meet(&bob, &carol).await;
    let _bob_ann = meet(&ann, &bob).await;
    settle().await;
    let _ann_carol = meet(&ann, &carol).await;
    settle().await;
    let here = [ann.copy(&feed).await, carol.copy(&feed).await];
    assert!(here.iter().all(|copy| copy.info().contiguous_length == 5));

    let mut carols = carol.members.events();
    let revocations = ann.members.remove_as(&founder(), &bob.me.public()).await.unwrap();
    // At once here.
    assert_eq!(ann.party.peers().len(), 1);
    let cut_off = CutOff { feed: feed.discovery_key(), fork: 0, length: 5 };
    assert_eq!(revocations[0].cut_offs(), [cut_off]);
    append(&feed, 5).await;
    settle().await;
    // And soon there.
    assert_eq!(carol.party.peers().len(), 1);
    loop {
        if let MembersEvent::Removed { chain, revocation } = carols.next().await.unwrap() {
            assert_eq!((chain.holder(), revocation.signer()), (bob.me.public(), founder().public()));
            break;
        }
    }
    assert!(here.iter().all(|copy| copy.info().length == 5));
    for site in [&ann, &carol] {
        assert_eq!((site.members.members().len(), site.members.removed().len()), (2, 1));
        // Whoever brings more of it is not believed.
        let why = site.party.explain(&site.party.peers()[0], &feed.key());
        for action in [Action::Serve, Action::Ask, Action::Accept] {
            assert_eq!(why.of(action).extent().blocks, 0..5, "{why}");
        }
        assert!(why.accept.reason().contains("writer was removed"), "{why}");
    }
    assert_eq!(ann.members.digest(), carol.members.digest());

    // The removed knows who has done it.
    loop {
        match bob.events.next().await.unwrap() {
            MembersEvent::OwnRemoved(revocation) => {
                assert_eq!(revocation.signer(), founder().public());
                break;
            }
            MembersEvent::Refused { .. } => panic!("it is refused before it is told why"),
            _ => {}
        }
    }
    assert!(matches!(bob.members.standing(), Standing::Removed(_)));
    assert!(matches!(
        bob.members.grant(Grant::to(founder().public(), Terms::everything())).await,
        Err(Error::ApiMisuse(ApiMisuse::MembershipRevoked))
    ));
}

//= CRED-31
#[tokio::test(start_paused = true)]
async fn blocks_beyond_the_cut_off_are_not_taken_from_a_member_that_has_them() {
    let [ann, bob, carol] = three().await;
    let feed = bob.feed("log", 5).await;
    let bob_ann = meet(&ann, &bob).await;
    settle().await;
    drop(bob_ann);
    settle().await;
    // Carol gets more of it, before she hears of the removal, as Bob doesn't yet.
    ann.members.remove_as(&founder(), &bob.me.public()).await.unwrap();
    append(&feed, 5).await;
    let bob_carol = meet(&bob, &carol).await;
    settle().await;
    assert_eq!(carol.copy(&feed).await.info().contiguous_length, 10);
    drop(bob_carol);
    settle().await;

    let _ann_carol = meet(&ann, &carol).await;
    settle().await;
    assert_eq!(blocks(&ann.copy(&feed).await, 10).await, [0, 1, 2, 3, 4]);
    assert_eq!((ann.members.removed().len(), carol.members.removed().len()), (1, 1));
}

//= CRED-63, CRED-64
#[tokio::test(start_paused = true)]
async fn who_was_removed_while_it_was_away_is_told_when_it_comes_back() {
    for removed_dials in [true, false] {
        let [mut ann, bob, _] = three().await;
        ann.members.remove_as(&founder(), &bob.me.public()).await.unwrap_err();
        ann.members.add_membership(bob.members.membership().unwrap().membership()).await.unwrap();
        ann.members.remove_as(&founder(), &bob.me.public()).await.unwrap();
        let mut app = ann.party.events();
        let (dialler, listener) = if removed_dials { (&bob, &ann) } else { (&ann, &bob) };
        let _connections = meet(dialler, listener).await;
        assert_eq!(ann.refuses().await, Refusal::Revoked { by: founder().public() });
        settle().await;
        assert!(matches!(bob.members.standing(), Standing::Removed(_)));
        assert!(ann.party.peers().is_empty() && bob.party.peers().is_empty());
        until(&mut app, |event| match event {
            Event::PeerAdded(_) => panic!("the app has seen it"),
            Event::RuleFailed { .. } => Some(()),
            _ => None,
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_link_ends_and_another_one_may_be_granted() {
    let [ann, bob, _] = three().await;
    let connections = meet(&ann, &bob).await;
    settle().await;
    let chain = ann.members.member(&bob.me.public()).unwrap();
    ann.members.revoke(&founder(), &chain, Revoked::Link, []).await.unwrap();
    settle().await;
    assert!(!bob.members.standing().is_good());
    drop(connections);

    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    bob.found(Terms::everything()).await;
    let _connections = meet(&ann, &bob).await;
    settle().await;
    assert_eq!(
        (ann.party.peers().len(), ann.members.members().len(), ann.members.removed().len()),
        (1, 2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_removes_those_who_are_not_below() {
    let [ann, bob, _] = three().await;
    let _connections = meet(&ann, &bob).await;
    settle().await;
    for member in [bob.me.public(), founder().public()] {
        let refused = ann.members.remove(&member).await;
        assert!(matches!(refused, Err(Error::ApiMisuse(ApiMisuse::UnknownMember(_)))), "{refused:?}");
    }
    assert!(ann.members.remove_as(&bob.me, &ann.me.public()).await.is_err());
    assert_eq!(ann.party.peers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_guest_of_a_member_that_is_removed_goes_with_it() {
    let [ann, bob, carol] = three().await;
    let guest = Site::stranger(4).await;
    let link = Grant::to(guest.me.public(), Terms::everything());
    guest.members.set_membership(ann.members.grant(link).await.unwrap()).await.unwrap();
    let _guest = meet(&guest, &carol).await;
    let _bob = meet(&bob, &carol).await;
    settle().await;
    assert_eq!(carol.party.peers().len(), 2);
    bob.members.add_membership(ann.members.membership().unwrap().membership()).await.unwrap();
    bob.members.remove_as(&founder(), &ann.me.public()).await.unwrap();
    settle().await;
    assert_eq!(carol.party.peers().len(), 1);
    assert!(matches!(guest.members.standing(), Standing::Removed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_who_is_a_member_who_is_not_and_whose_feed_is_whose() {
    let storage = Arc::new(MemoryStorage::default());
    let ann = Site::on(1, Store::with_storage(storage.clone()), &options(), WholeStore::new).await;
    ann.found(Terms::everything()).await;
    let [_, bob, carol] = three().await;
    let feed = bob.feed("log", 5).await;
    let connections = (meet(&ann, &bob).await, meet(&ann, &carol).await);
    settle().await;
    ann.members.remove_as(&founder(), &bob.me.public()).await.unwrap();
    let before = (ann.members.digest(), ann.members.membership(), ann.members.members());
    drop((connections, ann));

    let ann = Site::on(1, Store::with_storage(storage.clone()), &options(), WholeStore::new).await;
    let after = (ann.members.digest(), ann.members.membership(), ann.members.members());
    assert_eq!(before, after);
    let writer = ann.members.attributed_to(&feed.discovery_key()).unwrap();
    assert_eq!((writer.holder(), ann.members.removed().len()), (bob.me.public(), 1));
    let _connections = meet(&carol, &ann).await;
    settle().await;
    let why = ann.party.explain(&ann.party.peers()[0], &feed.key());
    assert_eq!(why.accept.extent().blocks, 0..5, "{why}");

    // Of another party nothing is known in the same store.
    let other = party::key::PartyKey::from_bytes([9; 32]);
    let others = Members::open(&ann.store, &other, &ann.me).await.unwrap();
    assert!(others.members().is_empty() && others.membership().is_none());
}

//= STORE-13
#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_an_error_that_names_it() {
    let storage = Arc::new(MemoryStorage::default());
    let ann = Site::on(1, Store::with_storage(storage.clone()), &options(), WholeStore::new).await;
    ann.found(Terms::everything()).await;
    let [_, bob, _] = three().await;
    let feed = bob.feed("log", 5).await;
    let connections = meet(&ann, &bob).await;
    settle().await;
    ann.members.remove_as(&founder(), &bob.me.public()).await.unwrap();
    drop(connections);
    let prefix = [&b"credential/"[..], key().discovery_key().as_bytes()].concat();
    let records = storage.records(prefix.clone()).await.unwrap();
    // Our own, two members, a revocation, and a feed of which it is known whose it is.
    assert_eq!(records.len(), 5, "{records:?} {feed:?}");
    let put = async |key: &[u8], value: &[u8]| {
        let write = Write::Put(Key::Record(key.to_vec()), value.to_vec().into());
        storage.commit(vec![write]).await.unwrap();
    };
    for (record, value) in &records {
        for at in 0..value.len() {
            let mut damaged = value.to_vec();
            damaged[at] ^= 4;
            put(record, &damaged).await;
            let opened = Members::open(&ann.store, &key(), &ann.me).await;
            assert!(
                matches!(opened, Err(Error::Storage(StorageError::Damaged { .. }))),
                "{at} of {record:?}"
            );
        }
        put(record, value).await;
    }
    put(&[&prefix[..], b"9"].concat(), b"").await;
    assert!(matches!(
        Members::open(&ann.store, &key(), &ann.me).await,
        Err(Error::Storage(StorageError::Damaged { .. }))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_makes_its_reader_a_member() {
    use party::{key::KeyPair, ticket::Ticket};

    let [ann, ..] = three().await;
    let limits = party::limits::Limits::default();
    let (guest, secret) = (Site::stranger(4).await, KeyPair::from_seed(&[40; 32]));
    let terms = Terms::everything().read_only();
    let of_ticket =
        Membership::found(&founder(), Grant::to(secret.public(), terms.clone().delegable(1)), &limits);
    let ticket = Ticket::new(key()).with_secret(of_ticket.unwrap(), secret).unwrap();
    let text = ticket.to_text(&limits).unwrap();
    guest.members.join(&Ticket::parse(&text, &limits).unwrap()).await.unwrap();
    assert_eq!(*guest.members.membership().unwrap().terms(), terms);
    let _connections = meet(&guest, &ann).await;
    settle().await;
    assert_eq!(ann.party.peers().len(), 1);

    let bare = Ticket::new(key());
    assert!(matches!(guest.members.join(&bare).await, Err(Error::ApiMisuse(ApiMisuse::NoMembership))));
    let elsewhere = Ticket::new(party::key::PartyKey::from_bytes([9; 32]));
    assert!(matches!(guest.members.join(&elsewhere).await, Err(Error::ApiMisuse(ApiMisuse::Credential(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_party_that_is_forgotten_takes_its_credentials_with_it() {
    use party::{key::PartyKey, party_map::PartyMap};

    let storage = Arc::new(MemoryStorage::default());
    let store = Store::with_storage(storage.clone());
    let ann = Site::on(1, store.clone(), &options(), WholeStore::new).await;
    ann.found(Terms::everything()).await;
    let parties = PartyMap::new(&store, &ann.me);
    parties.register("members", ann.members.rule(WholeStore::new(store.clone()))).await.unwrap();
    parties.add("ours", &key(), "members").await.unwrap();
    parties.add("other", &PartyKey::from_bytes([9; 32]), "members").await.unwrap();
    let count = async || storage.records(b"credential/".to_vec()).await.unwrap().len();
    parties.remove(&PartyKey::from_bytes([9; 32]).discovery_key()).await.unwrap();
    assert_eq!(count().await, 2);
    parties.remove(&key().discovery_key()).await.unwrap();
    assert_eq!(count().await, 0);
}
