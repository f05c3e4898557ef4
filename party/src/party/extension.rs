//! What apps say to each other in a party, by name and in a form of their own.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{Hub, Party};
use crate::{
    error::{ApiMisuse, Error},
    feed::Codec,
    key::PublicKey,
    limits::Limits,
    peer::{Message, Peer, not_reserved},
};

/// A name under which apps talk in a party, and how what they say is written. It goes as ephemeral messages of that kind:
/// best effort, in order, not stored, not answered for. While somebody listens to a name, its messages come here and not to
/// [`Rules::ephemeral`](crate::rules::Rules::ephemeral).
///
/// Of each peer [`Limits::max_queued_ephemeral`] messages of [`Limits::max_queued_ephemeral_bytes`] wait here at most. What comes
/// then is dropped and [counted](crate::peer::PeerMessages::ephemeral_dropped), so that a flood of one peer costs no other.
///
/// ```no_run
/// use party::{feed::Utf8, party::Party};
///
/// # async fn example(party: Party) -> Result<(), party::error::Error> {
/// let typing = party.extension("typing", Utf8);
/// typing.broadcast(&"alice".to_owned()).await?;
/// loop {
///     match typing.recv().await {
///         (_, Ok(name)) => println!("{name} is typing"),
///         (peer, Err(why)) => println!("{} says what is no text: {why}", peer.remote_public_key()),
///     }
/// }
/// # }
/// ```
#[must_use = "nobody listens when this is dropped"]
pub struct Extension<C> {
    party: Party,
    name: Arc<str>,
    codec: C,
    inbox: Arc<Inbox>,
}

impl Party {
    /// Listens to what peers say under `name`, and speaks under it. Several may listen to one name; each gets every message.
    /// Nothing can be said under a name that begins with `party/` ([`ApiMisuse::ReservedKind`]).
    pub fn extension<C: Codec>(&self, name: &str, codec: C) -> Extension<C> {
        let (name, inbox): (Arc<str>, _) = (name.into(), Arc::new(Inbox::default()));
        self.hub().listeners.add(name.clone(), &inbox);
        Extension { party: self.clone(), name, codec, inbox }
    }

    /// Says something to every peer that is in the party now, as [`Peer::send_ephemeral`] does. Returns to how many it was
    /// sent: not to those that have just gone, nor to those too slow to take it.
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`]; [`ApiMisuse::ReservedKind`].
    pub async fn broadcast(&self, kind: &str, value: impl Into<Bytes>) -> Result<usize, Error> {
        not_reserved(kind)?;
        let (value, peers) = (value.into(), self.peers());
        let sent = join_all(peers.iter().map(|peer| peer.send_ephemeral(kind, value.clone()))).await;
        let mut count = 0;
        for sent in sent {
            match sent {
                Ok(sent) => count += usize::from(sent),
                Err(Error::ApiMisuse(misuse @ ApiMisuse::MessageTooLarge { .. })) => {
                    return Err(misuse.into());
                }
                // It goes, or has gone.
                Err(_) => {}
            }
        }
        Ok(count)
    }
}

impl<C: Codec> Extension<C> {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says something to one peer. Returns whether it was sent: not if the peer is too slow to take it.
    ///
    /// # Errors
    /// [`ApiMisuse::NotEncodable`]; as [`Peer::send_ephemeral`].
    pub async fn send(&self, peer: &Peer, item: &C::Item) -> Result<bool, Error> {
        peer.send_ephemeral(&self.name, self.encode(item)?).await
    }

    /// Says something to every peer that is in the party now. Returns to how many it was sent.
    ///
    /// # Errors
    /// [`ApiMisuse::NotEncodable`]; as [`Party::broadcast`].
    pub async fn broadcast(&self, item: &C::Item) -> Result<usize, Error> {
        self.party.broadcast(&self.name, self.encode(item)?).await
    }

    /// Waits for the next message, and gives who said it: what the codec reads in it, or why it can't; a peer may say
    /// anything. A caller that stops waiting loses nothing.
    pub async fn recv(&self) -> (Peer, Result<C::Item, String>) {
        loop {
            let more = self.inbox.notify.notified();
            if let Some((peer, value)) = self.inbox.pop() {
                return (peer, self.codec.decode(value));
            }
            more.await;
        }
    }

    fn encode(&self, item: &C::Item) -> Result<Bytes, Error> {
        Ok(self.codec.encode(item).map_err(|why| ApiMisuse::NotEncodable { why })?)
    }
}

impl<C> fmt::Debug for Extension<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who listens to what in a party.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<(Arc<str>, Weak<Inbox>)>>);

impl Listeners {
    fn add(&self, name: Arc<str>, inbox: &Arc<Inbox>) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|(_, inbox)| inbox.strong_count() > 0);
        listeners.push((name, Arc::downgrade(inbox)));
    }

    fn of(&self, name: &str) -> Vec<Arc<Inbox>> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter(|(of, _)| **of == *name).filter_map(|(_, inbox)| inbox.upgrade()).collect()
    }
}

impl Hub {
    /// Gives a peer's message to those who listen to its kind. Gives it back if nobody does.
    pub(crate) fn hand_out(&self, peer: &Peer, message: Message, limits: &Limits) -> Option<Message> {
        let listeners = self.listeners.of(&message.kind);
        for inbox in &listeners {
            if !inbox.put(peer, &message.value, limits) {
                peer.said().ephemeral_dropped.add_one();
            }
        }
        listeners.is_empty().then_some(message)
    }
}

/// What has come for one who listens.
#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<(Peer, Bytes)>,
    /// How many of them, and how many bytes, are whose. Who comes back, on this connection or another, is the same.
    waiting: BTreeMap<PublicKey, (usize, usize)>,
}

impl Inbox {
    /// Returns whether there was room.
    fn put(&self, peer: &Peer, value: &Bytes, limits: &Limits) -> bool {
        let mut queue = self.queue();
        let (count, bytes) = queue.waiting.entry(peer.remote_public_key()).or_default();
        if !has_room(*count, *bytes, value, limits) {
            return false;
        }
        *count += 1;
        *bytes += value.len();
        queue.messages.push_back((peer.clone(), kept(value)));
        drop(queue);
        self.notify.notify_one();
        true
    }

    fn pop(&self) -> Option<(Peer, Bytes)> {
        let mut queue = self.queue();
        let (peer, value) = queue.messages.pop_front()?;
        if let Entry::Occupied(mut waiting) = queue.waiting.entry(peer.remote_public_key()) {
            let (count, bytes) = waiting.get_mut();
            *count -= 1;
            *bytes -= value.len();
            if *count == 0 {
                waiting.remove();
            }
        }
        // One notification may have stood for several messages.
        if !queue.messages.is_empty() {
            self.notify.notify_one();
        }
        Some((peer, value))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one more may wait where so many of a peer do already.
pub(crate) fn has_room(count: usize, bytes: usize, value: &Bytes, limits: &Limits) -> bool {
    let fits = count == 0 || bytes.saturating_add(value.len()) <= limits.max_queued_ephemeral_bytes;
    count < limits.max_queued_ephemeral && fits
}

/// What is kept of a message while it waits: itself, and not the frame that it came in.
pub(crate) fn kept(value: &Bytes) -> Bytes {
    const LARGE: usize = 32 << 10;
    if value.len() < LARGE { Bytes::copy_from_slice(value) } else { value.clone() }
}
