//! Whom a probe dials: a peer that has what the probe wants to know about, and one that has it not.

use std::{collections::BTreeSet, time::Duration};

use party::{
    admission::{self, Hello, membership},
    connection::{self, Connection},
    encoding::Writer as _,
    feed::Feed,
    key::{DiscoveryKey, FeedKey},
    limits::Limits,
    mux::Event as MuxEvent,
    party::{Open, Party},
    peer::Peer,
    rules::{self, Decision, Question, Rules},
    session::Session,
    store::Store,
};
use tokio::{io::DuplexStream, task::JoinHandle};

use crate::{
    common::{feed_with, identity, party_key, random::Random, raw::RawPeer},
    prober::{Prober, Seen},
    script::{Knowledge, Pace, play},
};

/// What a probe knows, and wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Nothing,
    DiscoveryKeys,
    FeedKeys,
    Recording,
    /// It knows the party, which doesn't let it in.
    Excluded,
    /// It is a member of one party, and knows the discovery key of another.
    OtherParty,
    MemberWithDiscoveryKeys,
    MemberForbidden,
    OpenWithDiscoveryKeys,
    OpenForbidden,
    /// It knows the party, and is let in. Everything shows.
    Member,
    /// It knows nothing, but who has the party hangs up a millisecond sooner.
    Impatient,
}

/// Whether the peer that is dialled has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Has,
    HasNot,
}

/// Finds what is in a store, waits to be asked for it, and allows some of it.
#[derive(Clone)]
struct Finds {
    store: Store,
    forbidden: BTreeSet<FeedKey>,
    lets_nobody_in: bool,
}

impl Rules for Finds {
    async fn handshake(&self, _: &Peer) -> rules::Result<()> {
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(self.store.feed_by_discovery_key(key).await?)
    }

    fn decide(&self, question: &Question<'_>) -> Decision {
        match self.forbidden.contains(&question.feed) {
            true => Decision::deny("test", "it is forbidden"),
            false => Decision::allow("test", "it is not forbidden"),
        }
    }

    fn admit(&self, _: &Peer) -> Decision {
        match self.lets_nobody_in {
            true => Decision::deny("test", "it is excluded"),
            false => Decision::allow("test", "it is not excluded"),
        }
    }
}

/// What the peers have that are dialled.
pub(crate) struct Worlds {
    /// The store with the feeds that probes look for, and one with others.
    full: Store,
    other: Store,
    keys: Vec<FeedKey>,
    /// What a member said on another connection.
    recordings: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Whether the probe with this seed waits after all that it says until the other end has nothing more to do. Then all that it
/// sees is determined; else it is up to the runtime which of two things it does first.
pub(crate) fn is_settled(seed: u64) -> bool {
    !seed.is_multiple_of(4)
}

/// The party that probes look for.
const WANTED: u8 = 1;
/// One that a probe may be a member of.
const SHARED: u8 = 2;

impl Worlds {
    pub(crate) async fn new() -> Self {
        let (full, other) = (Store::memory(), Store::memory());
        let mut keys = Vec::new();
        for n in 0..3 {
            keys.push(feed_with(&full, &n.to_string(), &["a secret"]).await.key());
            feed_with(&other, &n.to_string(), &["nothing of interest"]).await;
        }
        Self { full, other, keys, recordings: vec![recorded().await] }
    }

    fn rules(&self, answer: Answer) -> Finds {
        let store = if answer == Answer::Has { &self.full } else { &self.other };
        Finds { store: store.clone(), forbidden: BTreeSet::new(), lets_nobody_in: false }
    }

    fn forbidding(&self, answer: Answer) -> Finds {
        Finds { forbidden: self.keys.iter().copied().collect(), ..self.rules(answer) }
    }

    fn knowledge(&self, case: Case) -> Knowledge {
        let discovery_key = Some(party_key(WANTED).discovery_key());
        let feed_discovery_keys: Vec<_> = self.keys.iter().map(FeedKey::discovery_key).collect();
        let discovery_keys = Knowledge { discovery_key, feed_discovery_keys, ..Knowledge::default() };
        match case {
            Case::Nothing | Case::Impatient => Knowledge::default(),
            Case::DiscoveryKeys
            | Case::OtherParty
            | Case::MemberWithDiscoveryKeys
            | Case::OpenWithDiscoveryKeys => discovery_keys,
            Case::FeedKeys | Case::MemberForbidden | Case::OpenForbidden => {
                Knowledge { feed_keys: self.keys.clone(), ..discovery_keys }
            }
            Case::Recording => Knowledge { recordings: self.recordings.clone(), ..discovery_keys },
            Case::Excluded | Case::Member => Knowledge {
                party_key: Some(party_key(WANTED)),
                feed_keys: self.keys.clone(),
                ..discovery_keys
            },
        }
    }

    /// Who is dialled. How many other parties it is in is up to chance.
    fn victim(&self, case: Case, answer: Answer, io: DuplexStream, random: &mut Random) -> JoinHandle<()> {
        let mut parties = Vec::new();
        let mut open = None;
        match case {
            Case::OpenWithDiscoveryKeys => open = Some(self.rules(answer)),
            Case::OpenForbidden => open = Some(self.forbidding(answer)),
            Case::MemberForbidden => parties.push((SHARED, self.forbidding(answer))),
            Case::MemberWithDiscoveryKeys => parties.push((SHARED, self.rules(answer))),
            _ => {
                if case == Case::OtherParty {
                    parties.push((SHARED, self.rules(Answer::HasNot)));
                }
                let others = random.below(3) as u8;
                parties.extend((0..others).map(|n| (100 + n, self.rules(Answer::HasNot))));
                if answer == Answer::Has {
                    let wanted = Finds { lets_nobody_in: case == Case::Excluded, ..self.rules(answer) };
                    parties.push((WANTED, wanted));
                }
            }
        }
        let mut accepting = Connection::accept(io, &identity(2));
        if let Some(rules) = open {
            accepting = accepting.open(&Open::new(rules));
        }
        for (n, rules) in parties {
            accepting = accepting.join(&Party::new(party_key(n), rules));
        }
        if case == Case::Impatient && answer == Answer::Has {
            let limits = Limits::default();
            let admission_timeout = limits.admission_timeout - Duration::from_millis(1);
            accepting = accepting.limits(Limits { admission_timeout, ..limits });
        }
        tokio::spawn(async move {
            let connection = accepting.await.unwrap();
            let _ = connection.closed().await;
        })
    }

    /// Lets one probe dial one peer. What it says depends on the seed alone.
    pub(crate) async fn probe(&self, case: Case, answer: Answer, seed: u64) -> Seen {
        let mut random = Random(seed.wrapping_mul(0x1000) ^ case as u64);
        let (left, right) = connection::memory();
        // Not even how many parties there are is the same for both.
        let mut elsewhere = Random(random.next() ^ answer as u64);
        let victim = self.victim(case, answer, right, &mut elsewhere);
        let mut prober = Prober::dial(left, seed).await;
        let mut next_channel = 1;
        let member_of = match case {
            Case::OtherParty | Case::MemberWithDiscoveryKeys | Case::MemberForbidden => Some(SHARED),
            Case::Member => Some(WANTED),
            _ => None,
        };
        if let Some(party) = member_of {
            prober.say(&open_party(&prober, party, next_channel)).await;
            next_channel += 1;
        }
        prober.listen(Duration::from_millis(10)).await;
        let pace = if is_settled(seed) { Pace::Settled } else { Pace::Crossing };
        play(&mut prober, &self.knowledge(case), next_channel, pace, &mut random).await;
        let session = prober.session().clone();
        let mut seen = prober.see_all().await;
        if let Some(party) = member_of {
            let session = Session { is_initiator: false, ..session };
            seen.mask(&membership::channel_id(&session, &party_key(party)));
            seen.mask(&membership::prove(&session, &party_key(party)));
        }
        victim.await.unwrap();
        seen
    }
}

/// The open of a party's channel by a member.
fn open_party(prober: &Prober, n: u8, channel: u64) -> Vec<u8> {
    let mut message = vec![0, 1];
    message.put_uint(channel);
    message.put_string(admission::PROTOCOL);
    message.put_optional_buffer(Some(&membership::channel_id(prober.session(), &party_key(n))));
    message.extend_from_slice(&Hello::new(membership::prove(prober.session(), &party_key(n))).encode());
    message
}

/// Lets a member dial somebody who keeps what it says.
async fn recorded() -> (Vec<u8>, Vec<u8>) {
    let (left, right) = connection::memory();
    let member = Party::new(party_key(WANTED), crate::common::Shared::default());
    let dialling = tokio::spawn(async move {
        let connection = Connection::dial(left, &identity(3)).join(&member).await.unwrap();
        let _ = connection.closed().await;
    });
    let mut attacker = RawPeer::accept(right, &identity(4)).await;
    let Some(MuxEvent::Incoming { id, handshake, .. }) = attacker.event().await else { panic!() };
    drop(attacker);
    dialling.await.unwrap();
    (id.unwrap().to_vec(), handshake.to_vec())
}
