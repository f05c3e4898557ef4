//! Blocks that travel without being asked for: a writer gives what it has just appended to the readers that allow it, and
//! saves them the way of a request.
//!
//! What is pushed is one block, with the growth of the feed if the block lies beyond the length that the remote is known
//! to have. Growths must follow each other: each begins where the one sent before has led the remote to, whether or not
//! it has said so yet. While one is in the making, nothing else of ours goes out, or the remote would hear of the new
//! length first and ask for what is on its way. What it asks for nevertheless, while growths are on their way, waits until
//! it says that they have come: an answer from where it stood when it asked would be of no use to it.
//!
//! Of what is pushed to us we take the growth, and the block if it is wanted. All else, and what does not verify, is
//! counted, and too much of it ends the channel. If growths get out of step, we say not to take pushes until we have
//! caught up by asking.
//!
//! It is part of `hypercore/alpha` as hypercore 11 speaks it; see `protocol-spec/07-replication.md#push`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{Ticket, asking::Asking, ranges::Ranges, remote::Remote, window::Asked};
use crate::{
    error::PeerMisbehaved,
    feed::{
        local::Local,
        proof::{BlockRequest, HashProof, Node, Proof, ProofRequest, UpgradeProof, UpgradeRequest},
        tree::leaf_hashes,
    },
    limits::Limits,
};

/// What is pushed over one channel, both ways.
#[derive(Debug, Default)]
pub(super) struct Push {
    out: Outgoing,
    inwards: Incoming,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// Whether the remote took pushes when last looked at.
    allowed: bool,
    fork: u64,
    /// The length to which what was sent leads the remote.
    length: u64,
    /// What was appended below this is pushed, or is not going to be.
    appended: u64,
    waiting: Ranges,
    running: BTreeMap<Ticket, Pushing>,
    /// Answers with an upgrade that are in the making.
    answering: BTreeSet<Ticket>,
    /// Until when requests wait for the remote to say that what was pushed has come.
    deadline: Option<Instant>,
    /// Whether what requests wait for may have happened.
    has_news: bool,
    /// Whether requests that have waited are to be looked at before anything else that grows goes out.
    yields: bool,
    /// Whether a growth was pushed since the remote has heard of our length. It hears of it before the next one.
    is_sync_due: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pushing {
    fork: u64,
    grows: bool,
}

#[derive(Debug, Default)]
struct Incoming {
    /// Pushes in vain; each that is stored makes up for one.
    unwanted: usize,
    /// Growths have got out of step: none is taken until we are so long, and as long as the remote.
    suspended: Option<u64>,
    /// The length to which what is being verified leads us, pushed or asked for.
    leads_to: u64,
}

/// Whether a remote takes pushes of ours, as things stand.
fn takes_pushes(local: &dyn Local, remote: &Remote) -> bool {
    let sync = &remote.sync;
    remote.synced && sync.allow_push && sync.downloading && sync.fork == local.fork()
}

/// Whether an upgrade of `fork` that the remote asks for may begin further on than it says. Who is still on its way to a
/// fork asks for that from 0, and its length is that of another.
fn may_be_brought_forward(fork: u64, remote: &Remote) -> bool {
    remote.sync.allow_push && remote.sync.fork == fork
}

impl Push {
    // What we push

    //= protocol-spec/07-replication.md#push
    /// The block that is to be pushed next. With `appended`, whatever is appended while the remote takes it is. With
    /// `may_grow`, it may lie beyond what the remote has.
    //= REPL-40, REPL-41, REPL-42
    pub(super) fn poll(
        &mut self,
        appended: bool,
        local: &dyn Local,
        remote: &Remote,
        may_grow: bool,
        limits: &Limits,
    ) -> Option<ProofRequest> {
        let out = &mut self.out;
        out.look(appended, local, remote, limits);
        let may_grow = may_grow && !out.yields && out.answering.is_empty() && !out.is_sync_due;
        if out.is_growing() || out.running.len() >= limits.max_queued_pushes {
            return None;
        }
        let theirs = remote.sync.length.max(out.length);
        // No more than the limit has blocks are waiting.
        while let Some(index) = out.waiting.next(0) {
            let nodes = levels(index, theirs);
            // A remote that is longer has roots that we can't prove anything to.
            let provable = theirs <= local.length() || nodes == levels(index, local.length());
            let possible = index < local.length() && local.has(index) && !remote.have.has(index) && provable;
            let grows = index >= theirs;
            if possible && grows && !may_grow {
                return None;
            }
            out.waiting.remove(index..index.saturating_add(1));
            if possible {
                let length = local.length().saturating_sub(theirs);
                return Some(ProofRequest {
                    block: Some(BlockRequest { index, nodes }),
                    upgrade: grows.then_some(UpgradeRequest { start: theirs, length }),
                    manifest: remote.sync.length == 0 && local.has_manifest(),
                    ..ProofRequest::default()
                });
            }
        }
        None
    }

    /// The proof that [`poll`](Self::poll) asked for is being made.
    pub(super) fn started(&mut self, ticket: Ticket, request: &ProofRequest, fork: u64) {
        self.out.running.insert(ticket, Pushing { fork, grows: request.upgrade.is_some() });
    }

    /// Whether a growth is in the making, before which nothing else is to go out.
    pub(super) fn comes_first(&self) -> bool {
        self.out.is_growing()
    }

    /// The remote has heard of all that there is to tell.
    pub(super) fn told(&mut self) {
        self.out.is_sync_due = false;
    }

    /// A proof was made. `None` if it was none of ours; else its fork, if it is to be sent.
    pub(super) fn served(
        &mut self,
        ticket: Ticket,
        proof: Option<&Proof>,
        remote: &Remote,
    ) -> Option<Option<u64>> {
        self.out.has_news |= self.out.answering.remove(&ticket);
        let pushing = self.out.running.remove(&ticket)?;
        self.out.has_news = true;
        // It may have left the fork, or taken its word back, while the proof was made.
        //= REPL-40, REPL-41
        let goes = proof.is_some() && remote.sync.allow_push && remote.sync.fork == pushing.fork;
        if pushing.grows {
            self.out.is_sync_due |= goes;
        }
        Some(goes.then_some(pushing.fork))
    }

    /// An upgrade of `fork` goes to the remote, asked for or not.
    pub(super) fn sent(&mut self, upgrade: &UpgradeProof, fork: u64) {
        // One that was made before ours changed says nothing of the new one.
        if fork == self.out.fork {
            self.out.length = self.out.length.max(leads_to(upgrade));
        }
    }

    /// Whether a request of the remote's is to wait: for another growth to be made, or for the remote to say that those
    /// on their way have come.
    pub(super) fn is_to_wait(&self, request: &ProofRequest, fork: u64, remote: &Remote) -> bool {
        let Some(upgrade) = request.upgrade.filter(|_| may_be_brought_forward(fork, remote)) else {
            return false;
        };
        let out = &self.out;
        let on_its_way = remote.sync.length < out.length && upgrade.start < out.length;
        out.is_growing() || !out.answering.is_empty() || on_its_way
    }

    /// Whether to look again at what waits, if anything does.
    pub(super) fn look_again(&mut self, is_holding: bool, remote: &Remote, now: Instant) -> bool {
        let out = &mut self.out;
        let is_late = out.deadline.is_some_and(|deadline| deadline <= now);
        if is_late {
            // It has not taken what was pushed.
            (out.length, out.deadline) = (remote.sync.length, None);
        }
        out.yields |= is_holding && (std::mem::take(&mut out.has_news) || is_late);
        out.yields && is_holding
    }

    /// All requests were looked at, and some of them wait or none does. Returns whether something may be pushed again.
    pub(super) fn looked(&mut self, is_holding: bool, limits: &Limits, now: Instant) -> bool {
        let out = &mut self.out;
        out.deadline = is_holding.then(|| out.deadline.unwrap_or(now + limits.push_timeout));
        std::mem::take(&mut out.yields) && !is_holding
    }

    /// When [`look_again`](Self::look_again) is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.out.deadline
    }

    /// The remote has said how long it is.
    pub(super) fn heard(&mut self) {
        (self.out.has_news, self.out.deadline) = (true, None);
    }

    /// A request as it is to be answered, after what was pushed since it was made. `None` if nothing of it is left.
    pub(super) fn connect(&self, request: ProofRequest, fork: u64, remote: &Remote) -> Option<ProofRequest> {
        let Some(upgrade) = request.upgrade.filter(|_| may_be_brought_forward(fork, remote)) else {
            return Some(request);
        };
        let led = remote.sync.length.max(self.out.length);
        if led <= upgrade.start {
            return Some(request);
        }
        if request.hash.is_some() || request.seek.is_some() {
            // They were about a shorter tree.
            return None;
        }
        let length = upgrade.start.saturating_add(upgrade.length).saturating_sub(led);
        let mut block = request.block;
        // It was to come with the upgrade, and has nothing but its root above it now.
        if let Some(block) = block.as_mut().filter(|block| (upgrade.start..led).contains(&block.index)) {
            block.nodes = levels(block.index, led);
        }
        let upgrade = (length > 0).then_some(UpgradeRequest { start: led, length });
        let connected = ProofRequest { block, upgrade, ..request };
        (connected != ProofRequest::default()).then_some(connected)
    }

    /// The answer to a request of the remote's is being made.
    pub(super) fn answering(&mut self, ticket: Ticket, request: &ProofRequest, remote: &Remote) {
        if request.upgrade.is_some() && remote.sync.allow_push {
            self.out.answering.insert(ticket);
        }
    }

    /// Pushes blocks, as far as the remote takes them and the queue has room.
    pub(super) fn push(&mut self, range: std::ops::Range<u64>, local: &dyn Local, limits: &Limits) {
        self.out.wait(range.start..range.end.min(local.length()), limits);
    }

    /// Whether nothing is on its way out.
    pub(super) fn is_idle(&self) -> bool {
        self.out.running.is_empty() && self.out.waiting.len() == 0
    }

    // What is pushed to us

    /// Whether pushes are taken at the moment.
    pub(super) fn takes(&mut self, local: &dyn Local, remote: &Remote) -> bool {
        let inwards = &mut self.inwards;
        let is_fork = remote.sync.fork != local.fork();
        inwards.suspended =
            inwards.suspended.filter(|length| is_fork || local.length() < remote.sync.length.max(*length));
        inwards.suspended.is_none()
    }

    /// Takes no pushes until we have that length and are as long as the remote.
    pub(super) fn suspend(&mut self, length: u64) {
        self.inwards.suspended = self.inwards.suspended.max(Some(length));
    }

    /// What is of use in a push, and what it stands for; `None` if nothing is.
    //= REPL-45, REPL-46, REPL-49
    pub(super) fn sift(
        &self,
        proof: Proof,
        asking: &Asking,
        local: &dyn Local,
        limits: &Limits,
    ) -> Option<(Asked, Proof)> {
        let inwards = &self.inwards;
        if proof.fork != local.fork() || proof.hash.is_some() || proof.seek.is_some() {
            return None;
        }
        if let Some(upgrade) = &proof.upgrade {
            let leads_to = if asking.window.is_storing() { inwards.leads_to } else { 0 };
            if upgrade.start != local.length().max(leads_to) {
                return None;
            }
        }
        let block = proof.block.as_ref()?;
        let (index, bytes) = (block.index, block.value.len());
        let wanted =
            !local.has(index) && asking.picking.demand.wants(index) && !asking.window.is_storing_block(index);
        if !asking.window.has_room_for(bytes, limits) || !(wanted || proof.upgrade.is_some()) {
            return None;
        }
        let asked = Asked {
            fork: proof.fork,
            block: wanted.then_some(index),
            upgrade: proof
                .upgrade
                .as_ref()
                .map(|upgrade| UpgradeRequest { start: upgrade.start, length: upgrade.length }),
            manifest: proof.manifest.is_some(),
            pushed: true,
            ..Asked::default()
        };
        Some((asked, if wanted { proof } else { without_block(proof)? }))
    }

    /// What was asked for, or what [`sift`](Self::sift) has found, is going to be verified.
    pub(super) fn storing(&mut self, proof: &Proof, asking: &Asking) {
        if let Some(upgrade) = &proof.upgrade {
            let before = if asking.window.is_storing() { self.inwards.leads_to } else { 0 };
            self.inwards.leads_to = leads_to(upgrade).max(before);
        }
    }

    /// A push was verified; `useful` if it held and something was stored.
    ///
    /// # Errors
    /// As [`handle_unwanted`](Self::handle_unwanted).
    pub(super) fn stored(&mut self, useful: bool, limits: &Limits) -> Result<(), PeerMisbehaved> {
        if useful {
            self.inwards.unwanted = self.inwards.unwanted.saturating_sub(1);
            return Ok(());
        }
        self.handle_unwanted(Some(self.inwards.leads_to), limits)
    }

    /// A push was in vain. If it was to make us grow to a length, so will be those that follow, until
    /// we have caught up.
    ///
    /// # Errors
    /// [`PeerMisbehaved::UnrequestedData`] if there were too many.
    //= REPL-47
    pub(super) fn handle_unwanted(
        &mut self,
        grows_to: Option<u64>,
        limits: &Limits,
    ) -> Result<(), PeerMisbehaved> {
        self.inwards.suspended = self.inwards.suspended.max(grows_to);
        self.inwards.unwanted = self.inwards.unwanted.saturating_add(1);
        if self.inwards.unwanted > limits.max_unwanted_pushes {
            return Err(PeerMisbehaved::UnrequestedData);
        }
        Ok(())
    }
}

impl Outgoing {
    fn is_growing(&self) -> bool {
        self.running.values().any(|pushing| pushing.grows)
    }

    /// Takes note of how things stand.
    //= LIMIT-19
    fn look(&mut self, appended: bool, local: &dyn Local, remote: &Remote, limits: &Limits) {
        if self.fork != local.fork() {
            (self.fork, self.length, self.allowed) = (local.fork(), 0, false);
        }
        if !takes_pushes(local, remote) {
            (self.allowed, self.waiting) = (false, Ranges::default());
        } else if !self.allowed {
            // What was here before, the remote asks for as it likes.
            (self.allowed, self.appended) = (true, local.length());
        }
        if self.allowed {
            let new = self.appended.min(local.length())..local.length();
            self.appended = local.length();
            if appended {
                self.wait(new, limits);
            }
        }
    }

    /// More than the limit is left to be asked for.
    fn wait(&mut self, range: std::ops::Range<u64>, limits: &Limits) {
        let waiting: u64 = self.waiting.iter().map(|range| range.end - range.start).sum();
        let room = (limits.max_queued_pushes as u64).saturating_sub(waiting);
        if self.allowed {
            self.waiting.insert(range.start..range.end.min(range.start.saturating_add(room)));
        }
    }
}

/// The length that an upgrade leads to.
pub(super) fn leads_to(upgrade: &UpgradeProof) -> u64 {
    let end = upgrade.start.saturating_add(upgrade.length);
    // In the flat tree, a node of height h stands 2^h - 1 before the last leaf that is below it.
    let last = upgrade.additional_nodes.last().map(|node| {
        let span = 1_u64.checked_shl(node.index.trailing_ones()).unwrap_or(1);
        node.index.saturating_add(span - 1) / 2 + 1
    });
    last.map_or(end, |last| last.max(end))
}

/// How many levels above a block the root stands that it is below, in a tree of `length` blocks; 0 if it is in none.
fn levels(index: u64, length: u64) -> u64 {
    if index >= length {
        return 0;
    }
    let fits = |height: &u32| {
        let span = 1_u64.checked_shl(*height);
        let end = span.and_then(|span| (index >> height).checked_add(1)?.checked_mul(span));
        end.is_some_and(|end| end <= length)
    };
    (0..u64::BITS).take_while(fits).last().unwrap_or(0).into()
}

/// The proof with the hash of the block in its place.
fn without_block(mut proof: Proof) -> Option<Proof> {
    let block = proof.block.take()?;
    let hash = leaf_hashes([block.value.as_ref()]).pop()?;
    let index = block.index.checked_mul(2)?;
    let leaf = Node { index, size: block.value.len() as u64, hash };
    proof.hash = Some(HashProof { index, nodes: std::iter::once(leaf).chain(block.nodes).collect() });
    Some(proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_so_many_levels_below_its_root() {
        // A tree of seven blocks has roots above four, two and one of them.
        let found: Vec<u64> = (0..8).map(|index| levels(index, 7)).collect();
        assert_eq!(found, [2, 2, 2, 2, 1, 1, 0, 0]);
        assert_eq!(levels(u64::MAX - 1, u64::MAX), 0);
    }

    #[test]
    fn additional_nodes_lead_further() {
        let node = |index| Node { index, size: 1, hash: [0; 32] };
        let upgrade = |additional_nodes| UpgradeProof {
            start: 2,
            length: 2,
            nodes: vec![],
            additional_nodes,
            signature: bytes::Bytes::new(),
        };
        assert_eq!(leads_to(&upgrade(vec![])), 4);
        // Node 9 is above blocks 4 and 5, leaf 12 is block 6.
        assert_eq!(leads_to(&upgrade(vec![node(9)])), 6);
        assert_eq!(leads_to(&upgrade(vec![node(9), node(12)])), 7);
        assert_eq!(leads_to(&upgrade(vec![node(u64::MAX)])), 1 << 63);
    }
}
