//! How a connection stands with each of its parties, and with the open mode.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::sync::oneshot;
use tracing::Span;

use crate::{
    admission::{Body, Message, PartyChannel, TransactionId},
    error::Error,
    key::PartyKey,
    mux::ChannelId,
    party::{Event, Hub},
    peer::{MemberId, Peer},
};

/// The parties of a connection, and its open mode. Each time that a membership ends it gets a new number, so that
/// what was under way for it is not taken for the next one's.
#[derive(Default)]
pub(super) struct Members {
    members: BTreeMap<MemberId, Member>,
    next: u64,
}

impl Members {
    pub(super) fn add(&mut self, member: Member) -> MemberId {
        let id = MemberId(self.next);
        self.next += 1;
        self.members.insert(id, member);
        id
    }

    /// Gives a member a new number.
    pub(super) fn renumber(&mut self, id: MemberId) -> Option<MemberId> {
        let member = self.members.remove(&id)?;
        Some(self.add(member))
    }

    pub(super) fn remove(&mut self, id: MemberId) -> Option<Member> {
        self.members.remove(&id)
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    pub(super) fn admitted(&self, id: MemberId) -> Option<&Admitted> {
        self.get(id)?.admitted()
    }

    pub(super) fn admitted_mut(&mut self, id: MemberId) -> Option<&mut Admitted> {
        self.get_mut(id)?.admitted_mut()
    }

    pub(super) fn ids(&self) -> Vec<MemberId> {
        self.members.keys().copied().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    pub(super) fn of_party(&self, party: &PartyKey) -> Option<MemberId> {
        self.iter().find_map(|(id, member)| (member.party == Some(*party)).then_some(id))
    }

    pub(super) fn of_hub(&self, hub: &Arc<Hub>) -> Vec<MemberId> {
        self.iter().filter(|(_, member)| Arc::ptr_eq(&member.hub, hub)).map(|(id, _)| id).collect()
    }
}

/// A party that was joined on this connection, or its open mode.
pub(super) struct Member {
    pub(super) hub: Arc<Hub>,
    /// `None` in open mode.
    pub(super) party: Option<PartyKey>,
    pub(super) standing: Standing,
    pub(super) span: Span,
}

pub(super) enum Standing {
    /// We answer: the remote has not proved that it is a member.
    Stranger,
    /// Our proof is on its way on this channel, the remote's is awaited.
    Offered(ChannelId),
    Admitted(Box<Admitted>),
    /// The remote does not know the party, or does not say so.
    Refused,
    /// It was admitted once.
    Gone,
    /// We don't let it in, or not any more. No rule is asked about who has not `proved` that it is a member.
    Excluded {
        proved: bool,
    },
}

pub(super) struct Admitted {
    pub(super) peer: Peer,
    /// `None` in open mode.
    pub(super) channel: Option<(ChannelId, PartyChannel)>,
    /// Who waits for our transactions.
    pub(super) waiting: BTreeMap<TransactionId, oneshot::Sender<Result<Body, Error>>>,
    /// Whether the rules have nothing more to ask before the app sees it.
    pub(super) is_vetted: bool,
    pub(super) handshake_done: bool,
    /// Feeds that it has introduced before the app sees it, if it has introduced any.
    pub(super) introduced: Option<usize>,
    pub(super) ephemeral: VecDeque<Message>,
    /// The bytes of their values.
    pub(super) ephemeral_bytes: usize,
    pub(super) ephemeral_running: bool,
}

impl Member {
    pub(super) fn new(hub: Arc<Hub>, party: Option<PartyKey>) -> Self {
        let span = match &party {
            Some(key) => tracing::debug_span!("party", key = %key.discovery_key()),
            None => tracing::debug_span!("open"),
        };
        Self { hub, party, standing: Standing::Stranger, span }
    }

    pub(super) fn admitted(&self) -> Option<&Admitted> {
        match &self.standing {
            Standing::Admitted(admitted) => Some(admitted),
            _ => None,
        }
    }

    pub(super) fn admitted_mut(&mut self) -> Option<&mut Admitted> {
        match &mut self.standing {
            Standing::Admitted(admitted) => Some(admitted),
            _ => None,
        }
    }

    /// Whether nothing is under way with this member.
    pub(super) fn is_idle(&self) -> bool {
        match &self.standing {
            Standing::Stranger | Standing::Offered(_) => false,
            Standing::Refused | Standing::Gone | Standing::Excluded { .. } => true,
            Standing::Admitted(admitted) => {
                admitted.handshake_done
                    && !admitted.ephemeral_running
                    && admitted.channel.as_ref().is_none_or(|(_, channel)| channel.is_idle())
            }
        }
    }
}

impl Admitted {
    /// The remote has told us of feeds. The app hears of it once it sees the peer.
    pub(super) fn introduces(&mut self, count: usize, hub: &Hub) {
        if self.is_vetted {
            hub.tell(Event::FeedsIntroduced { peer: self.peer.clone(), count });
        } else {
            self.introduced = Some(self.introduced.unwrap_or(0).saturating_add(count));
        }
    }

    pub(super) fn new(peer: Peer, channel: Option<(ChannelId, PartyChannel)>) -> Box<Self> {
        Box::new(Self {
            peer,
            channel,
            waiting: BTreeMap::new(),
            is_vetted: false,
            handshake_done: false,
            introduced: None,
            ephemeral: VecDeque::new(),
            ephemeral_bytes: 0,
            ephemeral_running: false,
        })
    }
}
