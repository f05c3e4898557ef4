//! What a channel answers to the remote's requests, and what else goes out only while the remote takes it.

use std::time::Instant;

use super::{Channel, Output, Ticket};
use crate::{
    error::Error,
    feed::{
        local::Local,
        proof::{Proof, ProofRequest},
    },
    replication::{
        messages::{
            Data, Message, NoData, REASON_INVALID_REQUEST, REASON_NOT_AVAILABLE, REASON_UNKNOWN, Request,
            Sync,
        },
        serving::Running,
        shown::Shown,
    },
};

impl Channel {
    /// A request of the remote's was served; `Ok(None)` or an error if it can't be.
    //= REPL-26
    pub fn handle_served(&mut self, ticket: Ticket, proof: Result<Option<Proof>, ()>) {
        if let Some((_, fork, upgrade)) = self.trial.take_if(|(trial, ..)| *trial == ticket) {
            // It says nothing of another fork.
            if self.fork == Some(fork) {
                let provable = matches!(&proof, Ok(Some(proof)) if proof.upgrade.is_some());
                self.telling.found(upgrade, provable);
            }
            return;
        }
        if self.handle_conflict_served(ticket, proof.as_ref().ok().and_then(Option::as_ref)) {
            return;
        }
        let pushed = self.push.served(ticket, proof.as_ref().ok().and_then(Option::as_ref), &self.remote);
        let running = match (self.serving.served(ticket), pushed) {
            (Some(running), _) => running,
            (None, Some(Some(fork))) => {
                self.counters.blocks_pushed_by_us += 1;
                Running { id: 0, fork }
            }
            (None, _) => return,
        };
        let message = match proof {
            Ok(Some(proof)) => {
                if let Some(block) = &proof.block {
                    self.counters.blocks_sent += 1;
                    self.counters.bytes_sent += block.value.len() as u64;
                }
                if let Some(upgrade) = &proof.upgrade {
                    self.push.sent(upgrade, running.fork);
                }
                Message::Data(Data { request: running.id, proof: Proof { fork: running.fork, ..proof } })
            }
            Ok(None) | Err(()) => {
                self.counters.refused_by_us += 1;
                Message::NoData(NoData { request: running.id, reason: REASON_NOT_AVAILABLE })
            }
        };
        self.send(&message);
    }

    /// A request of the remote's is not to be served, as it may not have the block. It hears so after what it is told of the
    /// blocks that it may have: else it would ask again. No reason is given: Node takes one for a sign that there is nothing more to be
    /// had, and after some asks for nothing more.
    //= PARTY-102
    pub fn deny(&mut self, ticket: Ticket) {
        let Some(Running { id, .. }) = self.serving.served(ticket) else {
            return self.handle_served(ticket, Ok(None));
        };
        self.push.served(ticket, None, &self.remote);
        self.counters.refused_by_us += 1;
        self.serving.deny(NoData { request: id, reason: REASON_UNKNOWN });
    }

    /// What goes out only while the remote takes what it gets.
    pub(super) fn poll_answers(&mut self, local: &dyn Local, now: Instant) -> Option<Output> {
        if let Some(extension) = self.extensions.pop_leaving() {
            return Some(self.output(&Message::Extension(extension)));
        }
        if let Some(output) = self.poll_push(local) {
            return Some(output);
        }
        let allow_push = self.takes_pushes(local);
        self.asking.pushes = allow_push;
        let (options, asking, remote) = (&self.options, &self.asking, &self.remote);
        let (limits, shown) = (&self.limits, Shown::new(local, self.served.as_ref()));
        let sync = || Sync {
            fork: local.fork(),
            length: local.length(),
            remote_length: if remote.sync.fork == local.fork() { remote.sync.length } else { 0 },
            can_upgrade: false,
            uploading: options.upload,
            downloading: options.download && (options.live || !asking.is_in_sync(local, remote)),
            has_manifest: local.has_manifest(),
            allow_push,
        };
        // A refusal before the news that it is older than: Node asks again for what was refused if it hears of more, and
        // not if it hears of more first. What is refused because of another fork comes after the news of that.
        if self.telling.has_told_of(local.fork())
            && let Some(refusal) = self.serving.pop_refusal()
        {
            return Some(self.output(&Message::NoData(refusal)));
        }
        let before = self.telling.sync();
        let told = if self.push.comes_first() {
            None
        } else {
            self.telling.poll((local, shown), remote, limits, sync)
        };
        if let Some(message) = told {
            if let Message::Sync(sync) = &message
                && before.is_none_or(|before| (before.fork, before.length) != (sync.fork, sync.length))
            {
                self.asking.length_told();
            }
            return Some(self.output(&message));
        }
        if !self.push.comes_first() {
            self.push.told();
        }
        if let Some(denial) = self.serving.pop_denial() {
            return Some(self.output(&Message::NoData(denial)));
        }
        if self.options.upload
            && self.trial.is_none()
            && let Some(upgrade) = self.telling.unsure(local, &self.remote)
        {
            let ticket = self.serving.ticket();
            self.trial = Some((ticket, local.fork(), upgrade));
            let request = ProofRequest { upgrade: Some(upgrade), ..ProofRequest::default() };
            return Some(Output::Serve { ticket, request, fork: local.fork() });
        }
        if self.suspended || self.busy {
            return None;
        }
        let (push, remote) = (&self.push, &self.remote);
        let next = self.serving.pop(|request| push.is_to_wait(&request.proof, request.fork, remote));
        let Some((ticket, Request { id, fork, proof, .. })) = next else {
            let pushes = self.push.looked(self.serving.is_holding(), &self.limits, now);
            return if pushes { self.poll_push(local) } else { None };
        };
        let Some(request) = push.connect(proof, fork, remote) else {
            self.serving.served(ticket);
            self.counters.refused_by_us += 1;
            return Some(self.output(&Message::NoData(NoData { request: id, reason: REASON_UNKNOWN })));
        };
        self.push.answering(ticket, &request, &self.remote);
        Some(Output::Serve { ticket, request, fork })
    }

    //= REPL-23, REPL-27, REPL-29, REPL-30, REPL-85
    pub(super) fn handle_request(&mut self, mut request: Request, local: &dyn Local) -> Result<(), Error> {
        // Node asks for the tree of a fork once, as long as it was told that it is. If it was empty then and isn't any
        // more, a refusal would leave the remote waiting for the next news.
        //= protocol-spec/07-replication.md#forks
        if let Some(upgrade) = &mut request.proof.upgrade
            && (upgrade.start, upgrade.length) == (0, 0)
            && local.fork() > 0
        {
            upgrade.length = local.length();
        }
        //= protocol-spec/07-replication.md#request-1-and-data-3
        let proof = &request.proof;
        let available = self.options.upload
            && request.fork == local.fork()
            && local.length() > 0
            && proof.block.is_none_or(|block| {
                // Whether what it may not have is here makes no difference to it.
                let may_be_had = self.served.as_ref().is_none_or(|it| it.around(block.index).is_some());
                block.index < local.length() && (!may_be_had || local.has(block.index))
            });
        let valid = proof.upgrade.is_none_or(|upgrade| {
            let end = upgrade.start.saturating_add(upgrade.length);
            upgrade.length > 0 && end <= local.length()
        }) && *proof != ProofRequest::default();
        if !available && proof.manifest && self.options.upload && local.has_manifest() {
            // The manifest alone, of our fork, as Node does.
            request.fork = local.fork();
            request.proof = ProofRequest { manifest: true, ..ProofRequest::default() };
        } else if !available || !valid {
            let reason = if available { REASON_INVALID_REQUEST } else { REASON_NOT_AVAILABLE };
            return self.refuse(request.id, reason);
        }
        let id = request.id;
        if self.serving.push(request, &self.limits) {
            return Ok(());
        }
        self.refuse(id, REASON_UNKNOWN)
    }

    pub(super) fn refuse(&mut self, request: u64, reason: u64) -> Result<(), Error> {
        self.serving.cancel(request);
        self.serving.refuse(NoData { request, reason }, &self.limits)?;
        self.counters.refused_by_us += 1;
        Ok(())
    }
}
