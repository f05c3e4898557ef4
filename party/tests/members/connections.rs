//! Members by credential on real connections: who is let in, and what strangers and liars get.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    Shared,
    membership::{Site, dial, founder, key, meet, options, settle, with_limits},
    until,
};
use bytes::Bytes;
use party::{
    credentials::{Grant, Membership, Revocations, SHOW, SYNC, SyncMessage, Terms},
    error::{CredentialFlaw, Error},
    feed::{Feed, Utf8},
    key::{DiscoveryKey, FeedKey, KeyPair},
    limits::Limits,
    members::{Members, Refusal},
    party::{Event, Party, Rule},
    peer::{Message, Peer},
    rules::{self, Action, Denied, Rules},
    store::Store,
};

/// Somebody who knows the party's key, and says and answers what it likes.
#[derive(Clone, Default)]
struct Liar {
    /// What it shows as its membership, one after the other; nothing if there is nothing here.
    shows: Vec<Bytes>,
    /// What it says about credentials afterwards.
    says: Vec<Bytes>,
    /// What it answers to whatever it is asked about credentials; with `None` nothing, ever.
    answer: Option<Bytes>,
    /// What it was asked.
    asked: Arc<Mutex<Vec<Message>>>,
    /// What became of what it has said, as it came.
    heard: Arc<Mutex<Vec<Result<Message, String>>>>,
    /// Feeds that it would like to have or to bring.
    feeds: Vec<Feed>,
}

impl Liar {
    fn party(&self) -> Party {
        Party::new(key(), self.clone())
    }

    fn heard(&self) -> Vec<Result<Message, String>> {
        self.heard.lock().unwrap().clone()
    }
}

impl Rules for Liar {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        let messages = self.shows.iter().map(|it| (SHOW, it)).chain(self.says.iter().map(|it| (SYNC, it)));
        for (kind, value) in messages {
            let heard =
                peer.request_of_any_kind(kind, value.clone()).await.map_err(|error| error.to_string());
            self.heard.lock().unwrap().push(heard);
        }
        for feed in &self.feeds {
            peer.replicate(feed).await?;
        }
        if !self.feeds.is_empty() {
            peer.introduce_feeds(self.feeds.iter().map(Feed::key)).await?;
        }
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, keys: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        self.heard.lock().unwrap().extend(keys.iter().map(|key| Err(format!("introduced {key}"))));
        Ok(vec![])
    }
    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        self.asked.lock().unwrap().push(message.clone());
        match &self.answer {
            Some(answer) => Ok(Message::new(message.kind, answer.clone())),
            None => std::future::pending().await,
        }
    }
}

/// A member whose rules count whether they are asked.
async fn counting(n: u8) -> (Site, Shared) {
    let rules = Shared::default();
    let site = Site::with_rules(n, &options(), |_| rules.clone()).await;
    site.found(Terms::everything()).await;
    (site, rules)
}

//= CRED-44
#[tokio::test(start_paused = true)]
async fn members_meet_whoever_dials() {
    for (first, second) in [(1, 2), (2, 1)] {
        let one = Site::member(first, Terms::everything()).await;
        let other = Site::member(second, Terms::everything()).await;
        let feed = one.feed("log", 3).await;
        let _connections = meet(&one, &other).await;
        settle().await;
        assert_eq!(other.copy(&feed).await.info().contiguous_length, 3);
        for site in [&one, &other] {
            assert_eq!((site.party.peers().len(), site.members.members().len()), (1, 2));
        }
        assert_eq!(one.members.digest(), other.members.digest());
    }
}

//= CRED-46, CRED-47
#[tokio::test(start_paused = true)]
async fn who_has_no_membership_gets_nothing_and_the_app_is_never_asked() {
    for stranger_dials in [true, false] {
        let (mut site, rules) = counting(1).await;
        let mut app = site.party.events();
        let stranger = Site::stranger(2).await;
        let (dialler, listener) = if stranger_dials { (&stranger, &site) } else { (&site, &stranger) };
        let _connections = meet(dialler, listener).await;
        assert_eq!(site.refuses().await, Refusal::NoMembership);
        let failed = until(&mut app, |event| match event {
            Event::RuleFailed { rule: Rule::Vet, failure, .. } => Some(failure.to_string()),
            Event::PeerAdded(_) => panic!("the app has seen a stranger"),
            _ => None,
        })
        .await;
        assert!(failed.contains("no membership"), "{failed}");
        settle().await;
        assert_eq!(rules.0.calls(), 0);
        assert!(site.party.peers().is_empty() && stranger.party.peers().is_empty());
    }
}

//= CRED-17, CRED-45
#[tokio::test(start_paused = true)]
async fn somebody_elses_membership_is_refused() {
    let (mut site, rules) = counting(1).await;
    let bob = Site::member(2, Terms::everything()).await;
    let stolen: Bytes = bob.members.membership().unwrap().membership().encode().into();
    let liar = Liar { shows: vec![stolen], answer: Some(Bytes::new()), ..Liar::default() };
    let mallory = KeyPair::from_seed(&[3; 32]);
    let _connections = dial(&mallory, &liar.party(), &site.me, &site.party).await;
    assert_eq!(site.refuses().await, Refusal::Flaw(CredentialFlaw::OtherKey));
    settle().await;
    assert_eq!((rules.0.calls(), site.party.peers().len()), (0, 0));
    assert!(liar.heard().iter().all(Result::is_err), "{:?}", liar.heard());
}

#[tokio::test(start_paused = true)]
async fn a_membership_of_another_party_or_from_somebody_else_or_that_is_over_is_refused() {
    let me = KeyPair::from_seed(&[3; 32]);
    let grant = |terms| Grant::to(me.public(), terms);
    let limits = Limits::default();
    let other = KeyPair::from_seed(&[9; 32]);
    let forged = Membership::found(&other, grant(Terms::everything()), &limits).unwrap();
    let over = Membership::found(&founder(), grant(Terms::everything().expiring(1_000)), &limits).unwrap();
    let garbage = [&[1][..], &[7; 40]].concat();
    let too_long = vec![1; 5_000];
    let cases: [(Vec<u8>, Refusal); 4] = [
        (forged.encode(), Refusal::Flaw(CredentialFlaw::Signature { link: 1 })),
        (over.encode(), Refusal::Flaw(CredentialFlaw::Expired(1_000))),
        (garbage, Refusal::NoMembership),
        (too_long, Refusal::NoMembership),
    ];
    for (shown, expected) in cases {
        let (mut site, rules) = counting(1).await;
        let liar = Liar { shows: vec![shown.into()], answer: Some(Bytes::new()), ..Liar::default() };
        let _connections = dial(&me, &liar.party(), &site.me, &site.party).await;
        let why = site.refuses().await;
        let is_malformed = matches!(why, Refusal::Malformed(_)) && expected == Refusal::NoMembership;
        assert!(why == expected || is_malformed, "{why:?}");
        settle().await;
        assert_eq!((rules.0.calls(), site.party.peers().len()), (0, 0));
    }
}

//= CRED-48
#[allow(clippy::disallowed_methods)] // virtual time is looked at
#[tokio::test(start_paused = true)]
async fn who_never_shows_anything_is_refused_in_time_and_gets_nothing_meanwhile() {
    let rules = Shared::default();
    let options = with_limits(|limits| limits.membership_timeout = Duration::from_secs(3));
    let mut site = Site::with_rules(1, &options, |_| rules.clone()).await;
    site.found(Terms::everything()).await;
    let feed = site.feed("secret", 5).await;
    *rules.0.released.lock().unwrap() = vec![feed.clone()];

    // It knows the key of the feed, and asks for it, and never for anything else.
    let reading = Store::memory().feed(&feed.key()).await.unwrap();
    let liar = Liar { feeds: vec![reading.clone()], ..Liar::default() };
    let begun = tokio::time::Instant::now();
    let mallory = KeyPair::from_seed(&[3; 32]);
    let connections = dial(&mallory, &liar.party(), &site.me, &site.party).await;
    assert_eq!(site.refuses().await, Refusal::TooSlow);
    assert_eq!(begun.elapsed().as_secs(), 3);
    settle().await;
    assert_eq!((rules.0.calls(), feed.traffic().blocks_sent, reading.info().length), (0, 0, 0));
    // The connection stays, for other parties.
    assert!(tokio::time::timeout(Duration::from_secs(1), connections.1.closed()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_not_answered_gives_up_too() {
    // It shows a membership that holds, and never answers ours.
    let me = KeyPair::from_seed(&[3; 32]);
    let grant = Grant::to(me.public(), Terms::everything());
    let shown = Membership::found(&founder(), grant, &Limits::default()).unwrap();
    let (mut site, rules) = counting(1).await;
    let liar = Liar { shows: vec![shown.encode().into()], ..Liar::default() };
    let _connections = dial(&me, &liar.party(), &site.me, &site.party).await;
    assert_eq!(site.refuses().await, Refusal::TooSlow);
    assert_eq!((rules.0.calls(), site.party.peers().len()), (0, 0));
}

//= CRED-43, CRED-70
#[tokio::test(start_paused = true)]
async fn a_member_that_lies_about_credentials_loses_its_place() {
    let me = KeyPair::from_seed(&[3; 32]);
    let grant = Grant::to(me.public(), Terms::everything());
    let mine = Membership::found(&founder(), grant.clone(), &Limits::default()).unwrap();
    let another = grant.clone().with_serial(7);
    let forged = Membership::found(&KeyPair::from_seed(&[9; 32]), another, &Limits::default()).unwrap();
    let items = [&[3, 1, u8::try_from(forged.encode().len()).unwrap()][..], &forged.encode()].concat();
    // A forged membership; no message at all; more bytes than any is long; an answer nobody has asked for.
    let have = [&[1][..], &[0; 16 + 32 + 1]].concat();
    for said in [items, vec![77], vec![3; 900_000], have] {
        let mut site = Site::member(1, Terms::everything()).await;
        let liar = Liar {
            shows: vec![mine.encode().into()],
            says: vec![said.into()],
            answer: Some(Bytes::new()),
            ..Liar::default()
        };
        let _connections = dial(&me, &liar.party(), &site.me, &site.party).await;
        site.admits().await;
        assert!(matches!(site.refuses().await, Refusal::Misbehaved(_)));
        settle().await;
        assert!(site.party.peers().is_empty());
    }
}

//= CRED-52
#[tokio::test(start_paused = true)]
async fn a_membership_that_was_shown_is_told_to_others() {
    let ann = Site::member(1, Terms::everything()).await;
    let bob = Site::member(2, Terms::everything()).await;
    let cem = Site::member(3, Terms::everything()).await;
    let _first = meet(&ann, &bob).await;
    settle().await;
    assert!(bob.members.member(&cem.me.public()).is_none());
    let _second = meet(&ann, &cem).await;
    settle().await;
    for site in [&ann, &bob, &cem] {
        assert_eq!(site.members.members().len(), 3);
    }
}

//= CRED-67, CRED-68
#[tokio::test(start_paused = true)]
async fn questions_about_credentials_are_answered_with_what_is_known() {
    let site = Site::member(1, Terms::everything()).await;
    let me = KeyPair::from_seed(&[3; 32]);
    let grant = Grant::to(me.public(), Terms::everything());
    let mine = Membership::found(&founder(), grant, &Limits::default()).unwrap();
    let its = site.members.membership().unwrap().membership().clone();
    let mut both = Revocations::new(key(), &Limits::default());
    for membership in [&mine, &its] {
        let _ = both.insert_member(membership.check(&key()).unwrap()).unwrap();
    }
    let ids = [&mine, &its].map(|membership| *membership.check(&key()).unwrap().id().as_bytes());
    let nothing = Revocations::new(key(), &Limits::default());
    let want = SyncMessage::Want { ids: vec![ids[0], [9; 32], ids[1]] };
    let items = SyncMessage::Items { revocations: vec![], memberships: vec![mine.clone()] };
    let says = [nothing.summary([5; 16]), both.summary([6; 16]), want, items];
    let liar = Liar {
        shows: vec![mine.encode().into()],
        says: says.iter().map(|message| message.encode().into()).collect(),
        answer: Some(Bytes::new()),
        ..Liar::default()
    };
    let _connections = dial(&me, &liar.party(), &site.me, &site.party).await;
    settle().await;
    let heard: Vec<Message> = liar.heard().into_iter().map(Result::unwrap).skip(1).collect();
    assert!(heard.iter().all(|answer| answer.kind == SYNC), "{heard:?}");
    let [have, same, items, taken] = heard.try_into().unwrap();
    let SyncMessage::Have { salt, ids: listed, .. } =
        SyncMessage::decode(&have.value, &Limits::default()).unwrap()
    else {
        panic!("{have:?}")
    };
    assert_eq!(salt, [5; 16]);
    assert_eq!(BTreeSet::from_iter(listed), BTreeSet::from(ids));
    assert_eq!((&same.value[..], &taken.value[..]), (&b""[..], &b""[..]));
    let expected = SyncMessage::Items { revocations: vec![], memberships: vec![mine, its] };
    assert_eq!(SyncMessage::decode(&items.value, &Limits::default()), Ok(expected));
}

//= CRED-39
#[tokio::test(start_paused = true)]
async fn each_summary_has_a_salt_of_its_own() {
    let site = Site::member(1, Terms::everything()).await;
    let mut salts = Vec::new();
    for seed in 10..20 {
        let me = KeyPair::from_seed(&[seed; 32]);
        let grant = Grant::to(me.public(), Terms::everything());
        let mine = Membership::found(&founder(), grant, &Limits::default()).unwrap();
        let shows = vec![mine.encode().into()];
        let liar = Liar { shows, answer: Some(Bytes::new()), ..Liar::default() };
        let _connections = dial(&me, &liar.party(), &site.me, &site.party).await;
        settle().await;
        for message in liar.asked.lock().unwrap().iter().filter(|message| message.kind == SYNC) {
            if let Ok(SyncMessage::Summary { salt, .. }) =
                SyncMessage::decode(&message.value, &Limits::default())
            {
                salts.push(salt);
            }
        }
    }
    assert!(salts.len() > 1, "of ten, some have a higher key: those it begins to compare with");
    let different: BTreeSet<_> = salts.iter().collect();
    assert_eq!(different.len(), salts.len());
}

//= CRED-71
#[tokio::test(start_paused = true)]
async fn a_flood_of_questions_about_credentials_is_cut() {
    let me = KeyPair::from_seed(&[3; 32]);
    let grant = Grant::to(me.public(), Terms::everything());
    let mine = Membership::found(&founder(), grant, &Limits::default()).unwrap();
    let site = Site::member(1, Terms::everything()).await;
    let summary: Bytes = vec![0; 1 + 16 + 256 * 8].into();
    let liar = Liar {
        shows: vec![mine.encode().into()],
        says: vec![summary; 200],
        answer: Some(Bytes::new()),
        ..Liar::default()
    };
    let _connections = dial(&me, &liar.party(), &site.me, &site.party).await;
    settle().await;
    let heard = liar.heard();
    let answered = heard.iter().filter(|heard| heard.is_ok()).count();
    assert_eq!(heard.len(), 201);
    assert!(answered <= Limits::default().max_sync_burst as usize, "{answered} were answered");
    assert_eq!(site.party.peers().len(), 1, "it is only refused what is too much");
}

/// Answers what it is asked, with who has asked.
struct Echo;

impl Rules for Echo {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }
    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }
    async fn find_feed(&self, _: &Peer, _: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(None)
    }
    async fn request(&self, _: &Peer, message: Message) -> rules::Result<Message> {
        if message.kind.contains("no") {
            return Err(Denied::because("no is no"));
        }
        Ok(message)
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_app_says_itself_goes_through_as_it_is() {
    let (here, there) =
        (Site::with_rules(1, &options(), |_| Echo).await, Site::with_rules(2, &options(), |_| Echo).await);
    for site in [&here, &there] {
        site.found(Terms::everything()).await;
    }
    let listening = there.party.extension("typing", Utf8);
    let mut events = here.party.events();
    let _connections = meet(&here, &there).await;
    let peer = crate::common::peer_added(&mut events).await;
    for kind in ["", "app", "party/other", "party/membership/x"] {
        let answer = peer.request_of_any_kind(kind, "value").await.unwrap();
        assert_eq!((answer.kind.as_str(), &answer.value[..]), (kind, &b"value"[..]));
    }
    assert!(matches!(peer.request("no", "value").await, Err(Error::Refused)));
    here.party.extension("typing", Utf8).send(&peer, &"ann".to_owned()).await.unwrap();
    assert_eq!(listening.recv().await.1.unwrap(), "ann");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_all_does_not_go_to_a_stranger_nor_is_it_heard() {
    let (site, rules) = counting(1).await;
    let listening = site.party.extension("typing", Utf8);
    // It says something at once, and only then nothing.
    let party = Liar::default().party();
    let overheard = party.extension("news", Utf8);
    let mut events = party.events();
    let _connections = dial(&KeyPair::from_seed(&[3; 32]), &party, &site.me, &site.party).await;
    let peer = crate::common::peer_added(&mut events).await;
    peer.send_ephemeral("typing", "let me in").await.unwrap();
    assert_eq!(site.party.broadcast("news", "for members").await.unwrap(), 0);
    assert!(tokio::time::timeout(Duration::from_secs(100), listening.recv()).await.is_err());
    assert_eq!(rules.0.calls(), 0);
    assert!(tokio::time::timeout(Duration::from_secs(1), overheard.recv()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_device_is_let_in_by_the_link_that_its_owner_has_signed() {
    let identity = KeyPair::from_seed(&[50; 32]);
    let limits = Limits::default();
    let terms = Terms::everything().delegable(1);
    let of_identity = Membership::found(&founder(), Grant::to(identity.public(), terms), &limits).unwrap();
    let mut phone = Site::stranger(2).await;
    let link = Grant::device(phone.me.public(), Terms::everything().read_only());
    let of_phone = of_identity.extend(&key(), &identity, link, &limits).unwrap();
    // The identity's own membership is of no use to the device.
    assert!(phone.members.set_membership(of_identity).await.is_err());
    phone.members.set_membership(of_phone).await.unwrap();

    let desk = Site::member(1, Terms::everything()).await;
    let feed = desk.feed("log", 2).await;
    let connections = meet(&phone, &desk).await;
    phone.admits().await;
    settle().await;
    assert_eq!(phone.copy(&feed).await.info().contiguous_length, 2);
    let known = desk.members.member(&identity.public()).unwrap();
    assert_eq!((known.holder(), known.member()), (phone.me.public(), identity.public()));
    assert!(!desk.members.decide(&phone.me.public(), &feed.key(), Action::Ask).is_allowed());

    // Who removes the identity removes the device.
    desk.members.remove_as(&founder(), &identity.public()).await.unwrap();
    assert!(desk.party.peers().is_empty());
    drop(connections);
}

//= CRED-49, CRED-50, CRED-51
#[tokio::test(start_paused = true)]
async fn a_member_may_show_another_membership_while_it_is_connected() {
    let ann = Site::member(1, Terms::everything()).await;
    let bob = Site::member(2, Terms::everything().only([])).await;
    let feed = ann.feed("log", 4).await;
    let _connections = meet(&ann, &bob).await;
    settle().await;
    assert_eq!(bob.copy(&feed).await.info().length, 0);
    let peer = ann.party.peers().remove(0);
    let may = || ann.party.explain(&peer, &feed.key()).serve.is_allowed();
    assert!(!may() && !ann.members.decide(&bob.me.public(), &feed.key(), Action::Serve).is_allowed());
    bob.found(Terms::everything()).await;
    settle().await;
    // It was not introduced to it before. From now on it may ask.
    assert!(may() && ann.members.decide(&bob.me.public(), &feed.key(), Action::Serve).is_allowed());
    bob.party.peers()[0].replicate(&bob.copy(&feed).await).await.unwrap();
    settle().await;
    assert_eq!(bob.copy(&feed).await.info().contiguous_length, 4);
}

#[tokio::test(start_paused = true)]
async fn in_open_mode_nobody_is_a_member() {
    use party::{connection::Connection, party::Open};
    use std::future::IntoFuture as _;

    let store = Store::memory();
    let me = KeyPair::from_seed(&[1; 32]);
    let members = Members::open_with(&store, &key(), &me, options()).await.unwrap();
    let rules = Shared::default();
    let open = Open::new(members.rule(rules.clone()));
    let (left, right) = party::connection::memory();
    let _connections = tokio::try_join!(
        Connection::dial(left, &me).open(&open).into_future(),
        Connection::accept(right, &KeyPair::from_seed(&[2; 32]))
            .open(&Open::new(Shared::default()))
            .into_future(),
    )
    .unwrap();
    settle().await;
    assert_eq!((open.peers().len(), rules.0.calls()), (0, 0));
}
