//! What the mux tells its program, and the handles in it.

use bytes::Bytes;

#[cfg(doc)]
use super::Mux;
#[cfg(doc)]
use crate::limits::Limits;

/// What has happened on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The remote has opened a channel that we have not. Nothing is answered until [`Mux::accept`],
    /// [`Mux::reject`] or an [`Mux::open`] of the same protocol and id, and until then the open counts towards
    /// [`Limits::max_incoming_opens`]. Opens of the same protocol and id are told one after another, each once
    /// the one before it is answered, because the wire pairs them in order.
    Incoming {
        /// What to answer with.
        incoming: Incoming,
        /// The name of the protocol, aliases resolved.
        protocol: String,
        /// The channel's id. An empty one is none.
        id: Option<Bytes>,
        /// What the remote sent along.
        handshake: Bytes,
    },
    /// A channel that we opened with [`Mux::open`] is paired.
    Opened {
        /// The channel.
        channel: ChannelId,
        /// What the remote sent along.
        handshake: Bytes,
    },
    /// A message on a paired channel.
    Message {
        /// The channel.
        channel: ChannelId,
        /// The number of the message's type. A type that isn't known is to be passed over.
        message_type: u64,
        /// The message. A slice of what [`Mux::handle_message`] was given: who keeps it keeps all of that.
        payload: Bytes,
    },
    /// A channel has ended, not by [`Mux::close`]. It is the last event of the channel, after every message
    /// that the remote sent on it.
    Closed {
        /// The channel.
        channel: ChannelId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a channel has ended without our doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The remote had no use for it. It was never paired; what was sent on it is lost.
    Rejected,
    /// The remote closed it.
    Remote,
}

impl Event {
    /// The channel of ours that it is about.
    pub fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Incoming { .. } => None,
            Self::Opened { channel, .. } | Self::Message { channel, .. } | Self::Closed { channel, .. } => {
                Some(*channel)
            }
        }
    }
}

/// A channel of ours, from [`Mux::open`] or [`Mux::accept`]. No other channel of the same [`Mux`] ever has the
/// same handle, though ids on the wire are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    pub(super) slot: u32,
    pub(super) serial: u64,
}

impl ChannelId {
    /// Our id on the wire.
    pub(super) fn id(self) -> u64 {
        u64::from(self.slot) + 1
    }
}

/// An open by the remote, to be answered with [`Mux::accept`] or [`Mux::reject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incoming(pub(super) u64);
