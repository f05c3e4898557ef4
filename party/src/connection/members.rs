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
    party::Hub,
    peer::Peer,
};

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
    /// We dialled: our proof is on its way, the remote's is awaited.
    Offered,
    Admitted(Box<Admitted>),
    /// The remote does not know the party, or does not say so.
    Refused,
    /// It was admitted once.
    Gone,
}

pub(super) struct Admitted {
    pub(super) peer: Peer,
    /// `None` in open mode.
    pub(super) channel: Option<(ChannelId, PartyChannel)>,
    /// Who waits for our transactions.
    pub(super) waiting: BTreeMap<TransactionId, oneshot::Sender<Result<Body, Error>>>,
    pub(super) handshake_done: bool,
    pub(super) ephemeral: VecDeque<Message>,
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
            Standing::Stranger | Standing::Offered => false,
            Standing::Refused | Standing::Gone => true,
            Standing::Admitted(admitted) => {
                admitted.handshake_done
                    && !admitted.ephemeral_running
                    && admitted.channel.as_ref().is_none_or(|(_, channel)| channel.is_idle())
            }
        }
    }
}

impl Admitted {
    pub(super) fn new(peer: Peer, channel: Option<(ChannelId, PartyChannel)>) -> Box<Self> {
        Box::new(Self {
            peer,
            channel,
            waiting: BTreeMap::new(),
            handshake_done: false,
            ephemeral: VecDeque::new(),
            ephemeral_running: false,
        })
    }
}
