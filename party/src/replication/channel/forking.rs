//! What a channel does when the two sides' trees part: by forks, or by signatures that contradict each other.

use std::time::Instant;

use super::{Channel, Compared, Output, Ticket};
use crate::{
    error::{Error, PeerMisbehaved},
    feed::{local::Local, proof::Proof},
    replication::{
        conflict::CONFLICT,
        messages::{Data, Message},
    },
};

impl Channel {
    /// A proof for the way to a higher fork was [taken](Output::Follow) or not, or what can't be shown was [given up](Output::Forgo).
    ///
    /// # Errors
    /// What did not verify, or could not be read or stored; the channel is to be closed.
    //= REPL-82, REPL-83
    pub fn handle_followed(
        &mut self,
        ticket: Ticket,
        result: Result<(), Error>,
        local: &dyn Local,
    ) -> Result<(), Error> {
        self.notice_fork(local);
        if !self.forks.worked(ticket.0) {
            return Ok(());
        }
        self.telling.touch();
        if let Err(error) = result {
            if matches!(error, Error::PeerMisbehaved(_)) {
                self.counters.invalid_proofs += 1;
            }
            return Err(error);
        }
        self.asking.backoff.succeeded();
        Ok(())
    }

    /// A proof was [looked at](Output::CheckConflict): whether it shows that the feed's signers have contradicted
    /// themselves. If so, `local` [has a conflict](Local::has_conflict), on every channel of the feed: the remote is told,
    /// and then it [is over](Self::is_over).
    ///
    /// # Errors
    /// What the remote has sent before that did not verify, if no conflict explains it; the channel is to be closed.
    pub fn handle_conflict_checked(&mut self, is_conflict: bool) -> Result<(), Error> {
        if !is_conflict {
            self.counters.unproved_conflicts += 1;
        }
        self.conflicts.checked(is_conflict).map_or(Ok(()), Err)
    }

    /// Time has passed: to be called at [`poll_timeout`](Self::poll_timeout), or whenever it suits.
    ///
    /// # Errors
    /// What the remote has sent that did not verify, if it doesn't show in time why; the channel is to be closed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.conflicts.expired(now).map_or(Ok(()), Err)
    }

    /// Whether everything is said on a channel of a feed that [has a conflict](Local::has_conflict). It is to be closed,
    /// and nobody is to blame.
    pub fn is_over(&self) -> bool {
        self.conflicts.is_told()
    }

    /// What a remote said last that is gone now, if it was said to be the proof of a conflict: it has to be
    /// [looked at](Output::CheckConflict) all the same.
    pub fn take_conflicts(&mut self) -> Vec<Proof> {
        let conflicts = self.outputs.drain(..).filter_map(|output| match output {
            Output::CheckConflict { proof } => Some(proof),
            _ => None,
        });
        conflicts.collect()
    }

    /// Sees whether our fork is another than it was. What was asked for, told and found out in the old one is void;
    /// what the remote said of blocks is about its own fork and stands.
    pub(super) fn notice_fork(&mut self, local: &dyn Local) {
        let fork = local.fork();
        if self.fork.replace(fork).is_none_or(|before| before == fork) {
            return;
        }
        self.asking.fork_changed(fork, self.forks.reset(), &self.limits);
        self.telling.fork_changed();
        self.compared = Compared::default();
    }

    /// The next message on the way to the remote's fork.
    pub(super) fn poll_forks(&mut self, local: &dyn Local) -> Option<Message> {
        if !self.options.download || !self.options.follow_forks || self.suspended {
            return None;
        }
        self.forks.poll(local, &self.remote, &mut self.asking, &self.limits)
    }

    /// What the way to the remote's fork has to do without.
    pub(super) fn poll_forgo(&mut self, local: &dyn Local, now: Instant) -> Option<Output> {
        if !self.options.download
            || !self.options.follow_forks
            || self.suspended
            || self.asking.backoff.is_paused()
        {
            return None;
        }
        let (id, pending) =
            self.forks.poll_forgo(local, &self.remote, &mut self.asking, &self.limits, now)?;
        Some(Output::Forgo { ticket: Ticket(id), pending })
    }

    /// Whether nothing is left to get of the remote's fork.
    pub(super) fn has_followed(&self, local: &dyn Local) -> bool {
        !self.options.follow_forks
            || self.asking.backoff.is_paused()
            || self.forks.is_at_rest(local, &self.remote)
    }

    /// Data has come. Gives it back if it answers none of the requests of this file.
    pub(super) fn handle_fork_data(&mut self, data: Data) -> Result<Option<Data>, PeerMisbehaved> {
        let Data { request, proof } = data;
        let Some(answered) = self.forks.answered(request, &proof, &self.remote) else {
            return Ok(Some(Data { request, proof }));
        };
        self.telling.touch();
        self.asking.answered(request, &Default::default());
        if answered? {
            self.outputs.push_back(Output::Follow { ticket: Ticket(request), proof });
        } else {
            self.fork_refused();
        }
        Ok(None)
    }

    /// A request was refused. Returns whether it is one of this file.
    pub(super) fn handle_fork_refusal(&mut self, request: u64) -> Result<bool, Error> {
        if request == CONFLICT {
            return self.conflicts.cleared().map_or(Ok(true), Err);
        }
        let is_ours = self.forks.refused(request, &self.remote);
        if is_ours {
            self.asking.answered(request, &Default::default());
            self.fork_refused();
        }
        Ok(is_ours)
    }

    fn fork_refused(&mut self) {
        self.counters.refused_by_remote += 1;
        if self.asking.backoff.failed(false, &self.limits) {
            self.counters.pauses += 1;
        }
    }

    /// Data has come that answers no request. Returns whether it is taken for the proof of a conflict.
    //= REPL-90
    pub(super) fn handle_unasked(&mut self, proof: &Proof, local: &dyn Local) -> Result<bool, Error> {
        if self.conflicts.takes(proof, local, &self.limits) {
            self.outputs.push_back(Output::CheckConflict { proof: proof.clone() });
            return Ok(true);
        }
        if self.conflicts.is_suspicious() && proof.upgrade.is_some() {
            // Not what would clear it.
            return self.conflicts.cleared().map_or(Ok(false), Err);
        }
        Ok(false)
    }

    /// Something of the remote's does not verify. Returns whether it is asked for the proof of a conflict before it is
    /// blamed. Nothing else is asked of it then, and nothing taken.
    //= REPL-86, REPL-88
    pub(super) fn suspects(&mut self, error: &Error, local: &dyn Local) -> bool {
        if self.conflicts.is_suspicious() || local.has_conflict() {
            return true;
        }
        let Some(request) = self.conflicts.suspect(error, local, &self.remote) else { return false };
        self.send(&request);
        // Others may be asked for what this one was to bring.
        self.asking.abandon(&self.limits);
        true
    }

    /// What there is to do for a feed that has a conflict: to tell the remote.
    //= REPL-95, REPL-96
    pub(super) fn poll_conflict(&mut self, local: &dyn Local) -> Option<Output> {
        let serving = &mut self.serving;
        let (ticket, request) = self.conflicts.tell(|| serving.ticket(), local, &self.remote)?;
        Some(Output::Serve { ticket, request, fork: local.fork() })
    }

    /// A proof was made. Returns whether it is that of a conflict, for the remote.
    pub(super) fn handle_conflict_served(&mut self, ticket: Ticket, proof: Option<&Proof>) -> bool {
        let Some(contradiction) = self.conflicts.proved(ticket) else { return false };
        // Which of the two trees the remote has isn't known, so it is shown both. Ours first, as that is what one
        // expects that suspects us.
        for proof in proof.cloned().into_iter().chain(contradiction) {
            self.send(&Message::Data(Data { request: CONFLICT, proof }));
        }
        true
    }
}
