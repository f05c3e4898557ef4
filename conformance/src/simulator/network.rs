//! A network in memory and virtual time: streams between peers, of which links are slow, cut and parted.
// Time is virtual here: it is what the paused runtime says.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};

use super::trace::Trace;
use crate::dice::Dice;

/// Bytes on their way to one end, and there but not read, after which no more are taken: the buffers of two sockets.
const WINDOW: usize = 256 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// How long a dial into a partition takes to fail.
const UNREACHABLE: Duration = Duration::from_secs(10);

/// How good a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quality {
    /// One way.
    pub(super) latency: Duration,
    /// In each direction.
    pub(super) bytes_per_second: u64,
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub(super) struct Network {
    inner: Arc<Mutex<Inner>>,
    trace: Arc<Trace>,
    /// Rings when something is due earlier than all else.
    earlier: Arc<Notify>,
    start: Instant,
}

struct Inner {
    links: Vec<Quality>,
    listeners: BTreeMap<usize, mpsc::Sender<Stream>>,
    wires: BTreeMap<u64, Wire>,
    next: u64,
    /// What is on its way, by the millisecond in which it comes.
    due: BTreeMap<u64, Vec<Delivery>>,
    /// One side of each partition that there is.
    parted: BTreeMap<u64, BTreeSet<usize>>,
    dice: Dice,
}

struct Wire {
    link: usize,
    /// Who dialled, and who was dialled.
    peers: [usize; 2],
    /// What goes to each of them.
    ways: [Way; 2],
    is_reset: bool,
}

/// One direction of a wire.
#[derive(Default)]
struct Way {
    arrived: VecDeque<Bytes>,
    /// What came while the wire was parted.
    held: Vec<Delivery>,
    /// Bytes that were written and not read.
    queued: usize,
    /// When the last of what was written comes; nothing overtakes it.
    last: u64,
    /// Until when the link is taken by what was written, in microseconds.
    busy: u64,
    is_finished: bool,
    has_ended: bool,
    is_unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Delivery {
    wire: u64,
    end: usize,
    /// `None` is the end.
    bytes: Option<Bytes>,
}

impl Network {
    /// A network with these links, in whose `trace` everything is that it delivers.
    pub(super) fn new(links: Vec<Quality>, trace: Arc<Trace>, dice: Dice) -> Self {
        let inner = Inner {
            links,
            listeners: BTreeMap::new(),
            wires: BTreeMap::new(),
            next: 0,
            due: BTreeMap::new(),
            parted: BTreeMap::new(),
            dice,
        };
        let network = Self {
            inner: Arc::new(Mutex::new(inner)),
            trace,
            earlier: Arc::default(),
            start: Instant::now(),
        };
        tokio::spawn(network.clone().deliver());
        network
    }

    /// Takes connections to a peer, until it is [unplugged](Self::unplug).
    pub(super) fn listen(&self, peer: usize) -> mpsc::Receiver<Stream> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.inner().listeners.insert(peer, sender);
        receiver
    }

    /// Connects over a link, from one of its ends to the other.
    ///
    /// # Errors
    /// When the other end doesn't listen, or is in another part of the network.
    pub(super) async fn dial(&self, link: usize, from: usize, to: usize) -> io::Result<Stream> {
        let latency = self.inner().links[link].latency;
        sleep(latency * 2).await;
        if self.inner().are_parted(from, to) {
            sleep(UNREACHABLE).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut inner = self.inner();
        let listener = inner.listeners.get(&to).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        let number = inner.next;
        inner.next += 1;
        let wire = Wire { link, peers: [from, to], ways: Default::default(), is_reset: false };
        inner.wires.insert(number, wire);
        drop(inner);
        let [near, far] = [0, 1].map(|end| Stream { network: self.clone(), wire: number, end });
        match listener.try_send(far) {
            Ok(()) => Ok(near),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    /// Breaks every connection over a link. Returns how many there were.
    pub(super) fn cut(&self, link: usize) -> usize {
        self.inner().reset(|wire| wire.link == link)
    }

    /// Takes a peer off the network, as the end of its process does.
    pub(super) fn unplug(&self, peer: usize) {
        let mut inner = self.inner();
        inner.listeners.remove(&peer);
        inner.reset(|wire| wire.peers.contains(&peer));
    }

    /// Keeps the peers of `side` and all others from each other, till [`heal`](Self::heal).
    pub(super) fn part(&self, number: u64, side: BTreeSet<usize>) {
        self.inner().parted.insert(number, side);
    }

    /// Ends a partition. What was on its way arrives.
    pub(super) fn heal(&self, number: u64) {
        let mut inner = self.inner();
        inner.parted.remove(&number);
        let now = self.now() / 1_000 + 1;
        let Inner { wires, due, parted, .. } = &mut *inner;
        for wire in wires.values_mut().filter(|wire| !apart(parted, wire.peers[0], wire.peers[1])) {
            for way in &mut wire.ways {
                due.entry(now).or_default().append(&mut way.held);
            }
        }
        drop(inner);
        self.earlier.notify_one();
    }

    /// Makes a link as good or bad as this. Returns how it was.
    pub(super) fn set_quality(&self, link: usize, quality: Quality) -> Quality {
        std::mem::replace(&mut self.inner().links[link], quality)
    }

    /// Connections that there are.
    pub(super) fn connections(&self) -> usize {
        self.inner().wires.len()
    }

    /// Connections that there were.
    pub(super) fn dialled(&self) -> u64 {
        self.inner().next
    }

    /// Hands over what is due, forever. One task does it for all, so that there is one order.
    async fn deliver(self) {
        loop {
            let next = self.inner().due.first_key_value().map(|(at, _)| *at);
            let Some(at) = next else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(self.start + Duration::from_millis(at)) => self.hand_over(at),
                () = self.earlier.notified() => {}
            }
        }
    }

    fn hand_over(&self, at: u64) {
        let mut inner = self.inner();
        let Inner { wires, due, parted, .. } = &mut *inner;
        for delivery in due.remove(&at).unwrap_or_default() {
            let Some(wire) = wires.get_mut(&delivery.wire).filter(|wire| !wire.is_reset) else { continue };
            if apart(parted, wire.peers[0], wire.peers[1]) {
                wire.ways[delivery.end].held.push(delivery);
                continue;
            }
            let way = &mut wire.ways[delivery.end];
            match delivery.bytes {
                // Nobody will read it: whoever sent it is told.
                Some(_) if way.is_unread => {
                    wire.reset();
                    continue;
                }
                Some(bytes) => {
                    self.trace.delivered(at, delivery.wire, delivery.end, &bytes);
                    way.arrived.push_back(bytes);
                }
                None => way.has_ended = true,
            }
            wake(&mut way.reader);
        }
    }

    /// Microseconds since the network was made.
    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn are_parted(&self, a: usize, b: usize) -> bool {
        apart(&self.parted, a, b)
    }

    fn reset(&mut self, which: impl Fn(&Wire) -> bool) -> usize {
        let wires = self.wires.values_mut().filter(|wire| !wire.is_reset && which(wire));
        wires.map(Wire::reset).count()
    }

    /// Puts something on its way. Returns whether it is due before all else.
    fn send(&mut self, number: u64, end: usize, bytes: Option<Bytes>, now: u64) -> bool {
        let Self { links, wires, due, dice, .. } = self;
        let Some(wire) = wires.get_mut(&number) else { return false };
        let Quality { latency, bytes_per_second } = links[wire.link];
        let way = &mut wire.ways[end];
        let length = bytes.as_ref().map_or(0, Bytes::len);
        way.queued += length;
        way.busy = way.busy.max(now) + length as u64 * 1_000_000 / bytes_per_second.max(1);
        let latency = latency.as_micros() as u64;
        let jitter = dice.below(latency / 10 + 1);
        way.last = way.last.max((way.busy + latency + jitter).div_ceil(1_000));
        let is_first = due.first_key_value().is_none_or(|(first, _)| way.last < *first);
        due.entry(way.last).or_default().push(Delivery { wire: number, end, bytes });
        is_first
    }
}

fn apart(parted: &BTreeMap<u64, BTreeSet<usize>>, a: usize, b: usize) -> bool {
    parted.values().any(|side| side.contains(&a) != side.contains(&b))
}

impl Wire {
    fn reset(&mut self) {
        self.is_reset = true;
        for way in &mut self.ways {
            wake(&mut way.reader);
            wake(&mut way.writer);
            // All but what its length was counted for.
            way.arrived.clear();
            way.held.clear();
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// One end of a connection. Dropping it ends the connection, as the end of a process does.
pub(super) struct Stream {
    network: Network,
    wire: u64,
    end: usize,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.network.inner();
        let Some(wire) = inner.wires.get_mut(&self.wire).filter(|wire| !wire.is_reset) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let way = &mut wire.ways[self.end];
        let before = buffer.remaining();
        while buffer.remaining() > 0
            && let Some(front) = way.arrived.front_mut()
        {
            let length = front.len().min(buffer.remaining());
            buffer.put_slice(&front[..length]);
            front.advance(length);
            if front.is_empty() {
                way.arrived.pop_front();
            }
        }
        let read = before - buffer.remaining();
        if read == 0 && before > 0 && !way.has_ended {
            way.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        way.queued -= read;
        if read > 0 {
            wake(&mut way.writer);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let to = 1 - self.end;
        let mut inner = self.network.inner();
        let Some(wire) = inner.wires.get_mut(&self.wire).filter(|wire| !wire.is_reset) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let way = &mut wire.ways[to];
        if way.is_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(WINDOW.saturating_sub(way.queued));
        if length == 0 && !bytes.is_empty() {
            way.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let is_first =
            inner.send(self.wire, to, Some(Bytes::copy_from_slice(&bytes[..length])), self.network.now());
        drop(inner);
        if is_first {
            self.network.earlier.notify_one();
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// Says that nothing more is sent.
    fn finish(&self) {
        let to = 1 - self.end;
        let mut inner = self.network.inner();
        let Some(wire) = inner.wires.get_mut(&self.wire).filter(|wire| !wire.is_reset) else { return };
        if std::mem::replace(&mut wire.ways[to].is_finished, true) {
            return;
        }
        let is_first = inner.send(self.wire, to, None, self.network.now());
        drop(inner);
        if is_first {
            self.network.earlier.notify_one();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.finish();
        let mut inner = self.network.inner();
        let Some(wire) = inner.wires.get_mut(&self.wire) else { return };
        wire.ways[self.end].is_unread = true;
        if wire.ways[1 - self.end].is_unread {
            inner.wires.remove(&self.wire);
        }
    }
}
