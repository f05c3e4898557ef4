//! All that a shim has until it is told to forget it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use party::{
    connection::Listener,
    credentials::{Membership, Revocation},
    error::Error,
    key::{KeyPair, PartyKey, PublicKey},
    limits::Limits,
    members::{Members, MembersOptions},
    party::{Open, Party},
    peer::{Introduced, Peer, Replicate},
    store::Store,
    ticket::Ticket,
};
use tokio::{sync::broadcast, task::JoinSet};

use crate::{
    Wrong, class,
    connections::{self, Order, Purpose},
    feeds::Feeds,
    hex, number,
    rules::{Manner, Told, described},
    seed, tell, text, unhex,
};

/// What the open mode is called where a party's name stands.
const OPEN: &str = "open";

pub(crate) struct World {
    store: Store,
    feeds: Feeds,
    purpose: Purpose,
    rooms: BTreeMap<String, Room>,
    members: HashMap<String, Members>,
    orders: broadcast::Sender<Order>,
    /// Seconds since 1970, as far as memberships are concerned.
    clock: Arc<AtomicU64>,
    next_id: u64,
    tasks: JoinSet<()>,
}

/// A party, or the open mode.
#[derive(Clone)]
struct Room {
    rules: Told,
    mode: Mode,
}

#[derive(Clone)]
enum Mode {
    Party(Party),
    Open(Open),
}

impl Room {
    fn peers(&self) -> Vec<Peer> {
        match &self.mode {
            Mode::Party(party) => party.peers(),
            Mode::Open(open) => open.peers(),
        }
    }
}

type Said = Result<Option<String>, Wrong>;

impl World {
    pub(crate) fn new() -> Self {
        let store = Store::memory();
        let purpose = Purpose {
            key_pair: KeyPair::generate(),
            parties: Vec::new(),
            open: None,
            limits: Limits::default(),
            pad: 0,
            finite: false,
        };
        Self {
            feeds: Feeds::new(store.clone()),
            store,
            purpose,
            rooms: BTreeMap::new(),
            members: HashMap::new(),
            orders: broadcast::channel(64).0,
            clock: Arc::new(AtomicU64::new(0)),
            next_id: 1,
            tasks: JoinSet::new(),
        }
    }

    /// Carries out a command. `None` if it isn't known.
    pub(crate) async fn obey(&mut self, words: &[&str]) -> Said {
        let done = match words {
            ["ping"] => String::new(),
            ["key", word] => {
                self.purpose.key_pair = KeyPair::from_seed(&seed(word)?);
                self.purpose.key_pair.public().to_string()
            }
            ["listen"] => self.listen().await?,
            ["dial", port] => self.dial(number(port)?).await?,
            ["hangup"] => self.order(Order::HangUp),
            ["finite"] => {
                self.purpose.finite = true;
                String::new()
            }
            ["pad", count] => {
                self.purpose.pad = number(count)?;
                String::new()
            }
            ["patience", what, time] => {
                let time = Duration::from_millis(number(time)?);
                if !connections::set_patience(&mut self.purpose.limits, what, time) {
                    return Err(Wrong::usage(format!("no timeout is called {what}")));
                }
                String::new()
            }
            ["party", name, key] => self.enter(name, seed(key)?, false).await?,
            ["party", name, key, "members"] => self.enter(name, seed(key)?, true).await?,
            ["open"] => self.enter_open(),
            ["leave", name] => {
                let party = self.party(name)?.clone();
                self.purpose.parties.retain(|other| *other != party);
                self.order(Order::Leave(party))
            }
            ["exclude", name, key] => {
                self.party(name)?.remove_peer(&key.parse::<PublicKey>()?).await;
                String::new()
            }
            ["readmit", name, key] => {
                self.party(name)?.readmit(&key.parse::<PublicKey>()?).await;
                String::new()
            }
            ["rule", name, rule, manner] => {
                let manner = Manner::named(manner).ok_or_else(|| Wrong::usage("no such manner"))?;
                self.room(name)?.rules.state().manners.insert((*rule).to_owned(), manner);
                String::new()
            }
            ["bring", name, feeds @ ..] => {
                self.room(name)?.rules.state().brings = introduced(feeds)?;
                String::new()
            }
            ["introduce", name, feeds @ ..] => self.introduce(name, introduced(feeds)?)?,
            ["request", name, kind, value] => self.request(name, text(kind)?, unhex(value)?)?,
            ["ephemeral", name, kind, value] => {
                self.peer(name)?.send_ephemeral(&text(kind)?, unhex(value)?).await?;
                String::new()
            }
            ["membership" | "revocation" | "clock" | "ticket", ..] => {
                return self.obey_credentials(words).await;
            }
            _ => return self.obey_feeds(words).await,
        };
        Ok(Some(done))
    }

    async fn obey_feeds(&mut self, words: &[&str]) -> Said {
        let done = match words {
            ["create", name] => self.feeds.create(name, false).await?,
            ["create", name, "legacy"] => self.feeds.create(name, true).await?,
            ["add", name, key] => self.feeds.add(name, key).await?,
            ["append", name, blocks @ ..] => self.feeds.append(name, blocks).await?,
            ["truncate", name, length] => self.feeds.truncate(name, number(length)?).await?,
            ["clear", name, start, end] => self.feeds.clear(name, number(start)?..number(end)?).await?,
            ["state", name] => self.feeds.state(name)?,
            ["get", name, index] => self.feeds.get(name, number(index)?).await?,
            ["download", name, start, "*"] => self.feeds.download(name, number(start)?, None)?,
            ["download", name, start, end] => {
                self.feeds.download(name, number(start)?, Some(number(end)?))?
            }
            ["release", feed, name] => self.release(feed, name).await?,
            ["permit", feed, name] => {
                let feed = self.feeds.named(feed)?.clone();
                self.room(name)?.rules.state().permitted.push(feed);
                String::new()
            }
            ["withdraw", feed, name] => self.withdraw(feed, name).await?,
            _ => return Ok(None),
        };
        Ok(Some(done))
    }

    async fn obey_credentials(&mut self, words: &[&str]) -> Said {
        let limits = &self.purpose.limits;
        match words {
            ["clock", seconds] => self.clock.store(number(seconds)?, Ordering::SeqCst),
            ["membership", name, value] => {
                let membership = Membership::decode(&unhex(value)?, limits).map_err(Error::from)?;
                self.members(name)?.set_membership(membership).await?;
            }
            ["revocation", name, value] => {
                let revocation = Revocation::decode(&unhex(value)?, limits).map_err(Error::from)?;
                self.members(name)?.add_revocation(&revocation).await?;
            }
            ["ticket", ticket] => {
                let wrong =
                    |error: party::ticket::TicketError| Wrong { class: "refused", text: error.to_string() };
                let ticket = Ticket::parse(&text(ticket)?, limits).map_err(wrong)?;
                let addresses: String = ticket
                    .addresses()
                    .iter()
                    .map(|address| format!(" {}", hex(address.as_bytes())))
                    .collect();
                return Ok(Some(format!("{}{addresses}", ticket.party().to_hex())));
            }
            _ => return Ok(None),
        }
        Ok(Some(String::new()))
    }

    async fn listen(&mut self) -> Result<String, Wrong> {
        let bound = Listener::bind(("127.0.0.1", 0), &self.purpose.key_pair).await;
        let listener = bound.map_err(Error::from)?;
        let port = listener.local_addr().map_err(Error::from)?.port();
        self.tasks.spawn(connections::accept_all(listener, self.purpose.clone(), self.orders.clone()));
        Ok(port.to_string())
    }

    async fn dial(&mut self, port: u16) -> Result<String, Wrong> {
        let connecting = connections::dial_port(port, &self.purpose).await?;
        self.tasks.spawn(connections::run(connecting, self.orders.subscribe()));
        Ok(String::new())
    }

    fn order(&self, order: Order) -> String {
        // Nobody listens if there are no connections.
        let _ = self.orders.send(order);
        String::new()
    }

    async fn enter(&mut self, name: &str, key: [u8; 32], with_members: bool) -> Result<String, Wrong> {
        let key = PartyKey::from_bytes(key);
        if let Some(Room { mode: Mode::Party(party), .. }) = self.rooms.get(name) {
            // Back again.
            let party = party.clone();
            if !self.purpose.parties.contains(&party) {
                self.purpose.parties.push(party.clone());
                self.order(Order::Join(party));
            }
            return Ok(String::new());
        }
        let rules = Told::new(name);
        let party = if with_members {
            let clock = self.clock.clone();
            let options = MembersOptions::default()
                .limits(self.purpose.limits.clone())
                .clock(move || Duration::from_secs(clock.load(Ordering::SeqCst)));
            let members = Members::open_with(&self.store, &key, &self.purpose.key_pair, options).await?;
            let party = Party::new(key, members.rule(rules.clone()));
            self.members.insert(name.to_owned(), members);
            party
        } else {
            Party::new(key, rules.clone())
        };
        self.tasks.spawn(connections::report(name.to_owned(), party.events()));
        self.purpose.parties.push(party.clone());
        self.rooms.insert(name.to_owned(), Room { rules, mode: Mode::Party(party.clone()) });
        Ok(self.order(Order::Join(party)))
    }

    fn enter_open(&mut self) -> String {
        let rules = Told::new(OPEN);
        let open = Open::new(rules.clone());
        self.tasks.spawn(connections::report(OPEN.to_owned(), open.events()));
        self.purpose.open = Some(open.clone());
        self.rooms.insert(OPEN.to_owned(), Room { rules, mode: Mode::Open(open) });
        String::new()
    }

    fn introduce(&mut self, name: &str, feeds: Vec<Introduced>) -> Result<String, Wrong> {
        let peer = self.peer(name)?;
        let id = self.id();
        self.tasks.spawn(async move {
            match peer.introduce_labelled(feeds).await {
                Ok(feeds) => tell(format_args!("answer {id} feeds{}", described(&feeds))),
                Err(error) => tell(format_args!("answer {id} error {}", class(&error))),
            }
        });
        Ok(id.to_string())
    }

    fn request(&mut self, name: &str, kind: String, value: Vec<u8>) -> Result<String, Wrong> {
        let peer = self.peer(name)?;
        let id = self.id();
        self.tasks.spawn(async move {
            match peer.request(&kind, value).await {
                Ok(answer) => {
                    let kind = hex(answer.kind.as_bytes());
                    tell(format_args!("answer {id} custom {kind} {}", hex(&answer.value)));
                }
                Err(error) => tell(format_args!("answer {id} error {}", class(&error))),
            }
        });
        Ok(id.to_string())
    }

    async fn release(&mut self, feed: &str, name: &str) -> Result<String, Wrong> {
        let feed = self.feeds.named(feed)?.clone();
        let room = self.room(name)?.clone();
        room.rules.state().released.push(feed.clone());
        for peer in room.peers() {
            // One that is gone needs it no more.
            let _ = peer.replicate_as(&feed, Replicate::sparsely()).await;
        }
        Ok(String::new())
    }

    async fn withdraw(&mut self, feed: &str, name: &str) -> Result<String, Wrong> {
        let feed = self.feeds.named(feed)?.clone();
        let room = self.room(name)?.clone();
        {
            let mut state = room.rules.state();
            state.released.retain(|other| other.key() != feed.key());
            state.permitted.retain(|other| other.key() != feed.key());
        }
        for peer in room.peers() {
            let _ = peer.withdraw(&feed).await;
        }
        Ok(String::new())
    }

    fn room(&self, name: &str) -> Result<&Room, Wrong> {
        self.rooms.get(name).ok_or_else(|| Wrong::usage(format!("no party is called {name}")))
    }

    fn party(&self, name: &str) -> Result<&Party, Wrong> {
        match &self.room(name)?.mode {
            Mode::Party(party) => Ok(party),
            Mode::Open(_) => Err(Wrong::usage("the open mode is no party")),
        }
    }

    fn members(&self, name: &str) -> Result<&Members, Wrong> {
        self.members.get(name).ok_or_else(|| Wrong::usage(format!("{name} is no party with members")))
    }

    /// The peer that came last.
    fn peer(&self, name: &str) -> Result<Peer, Wrong> {
        let peer = self.room(name)?.peers().pop();
        peer.ok_or(Wrong { class: "closed", text: "nobody is there".to_owned() })
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

/// Feeds as commands name them: `KEY` or `KEY=LABEL`.
fn introduced(words: &[&str]) -> Result<Vec<Introduced>, Wrong> {
    let one = |word: &&str| -> Result<Introduced, Wrong> {
        match word.split_once('=') {
            None => Ok(Introduced::new(seed(word)?.into())),
            Some((key, label)) => Ok(Introduced::new(seed(key)?.into()).labelled(text(label)?)),
        }
    };
    words.iter().map(one).collect()
}
