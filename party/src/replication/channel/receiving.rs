//! What comes of a channel's own requests.

use std::time::Instant;

use super::{Channel, Compared, Output, Ticket, Verdict};
use crate::{
    encoding::MAX_SAFE_INTEGER,
    error::{Error, PeerMisbehaved},
    feed::local::Local,
    replication::{
        conflict::CONFLICT,
        messages::{Data, NoData, REASON_INVALID_REQUEST},
        push::leads_to,
        window::{Answered, Asked},
    },
};

impl Channel {
    /// An answer was verified and stored, or was not.
    ///
    /// # Errors
    /// What did not verify, or could not be stored; the channel is to be closed.
    //= REPL-38, REPL-39
    pub fn handle_ingested(
        &mut self,
        ticket: Ticket,
        result: Result<Verdict, Error>,
        local: &dyn Local,
    ) -> Result<(), Error> {
        let Some((asked, bytes)) = self.asking.window.stored(ticket.0) else { return Ok(()) };
        self.notice_fork(local);
        self.telling.touch_stored();
        self.compared = Compared::default();
        if asked.fork != local.fork() && result.is_ok() {
            // Honest, and too late.
            self.asking.window.give_up(&asked);
            self.asking.reconsider(asked.block.map_or(0..0, |index| index..index + 1));
            return Ok(());
        }
        let verdict = match result {
            // Not its fault: we had asked it to leave out what others were to bring.
            Ok(Verdict::Unconnected) if !asked.leans => {
                Err(PeerMisbehaved::InvalidProof("it leads nowhere").into())
            }
            result => result,
        };
        let verdict = verdict.inspect_err(|error| {
            if matches!(error, Error::PeerMisbehaved(_)) {
                self.counters.invalid_proofs += 1;
            }
        });
        if asked.pushed {
            return self.push_ingested(&asked, bytes, verdict.map(|_| ()), local);
        }
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) if self.suspects(&error, local) => {
                self.asking.window.give_up(&asked);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let stored = asked.block.is_none_or(|index| local.has(index));
        let grown = asked.upgrade.is_none_or(|upgrade| local.length() > upgrade.start);
        self.asking.window.settle(&asked, stored, grown);
        if let Some(index) = asked.block {
            if stored {
                self.counters.blocks_received += 1;
                self.counters.bytes_received += bytes as u64;
            } else if verdict == Verdict::Unconnected {
                self.asking.unconnected(index, &self.limits);
                return Ok(());
            } else {
                self.asking.reconsider(index..index + 1);
            }
        }
        if stored && grown {
            self.asking.backoff.succeeded();
        } else {
            self.failed(&asked, false, local);
        }
        Ok(())
    }

    //= REPL-33, REPL-34, FEED-69, LIMIT-13
    pub(super) fn handle_data(&mut self, data: Data, local: &dyn Local, now: Instant) -> Result<(), Error> {
        let Data { request, proof } = data;
        //= protocol-spec/07-replication.md#request-1-and-data-3
        if let Some(upgrade) = &proof.upgrade
            && (upgrade.length == 0 || upgrade.start > MAX_SAFE_INTEGER - upgrade.length)
        {
            return Err(PeerMisbehaved::InvalidProof("an empty upgrade").into());
        }
        let bytes = proof.block.as_ref().map_or(0, |block| block.value.len());
        if bytes > self.limits.max_block {
            return Err(PeerMisbehaved::LimitExceeded("max_block").into());
        }
        //= protocol-spec/07-replication.md#request-1-and-data-3
        if request == CONFLICT {
            if self.handle_unasked(&proof, local)? {
                return Ok(());
            }
            if proof.block.is_none() && proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start == 0) {
                // The proof of a conflict that is of no use.
                self.counters.ignored += 1;
                return Ok(());
            }
            return self.handle_push(proof, bytes, local);
        }
        let Some(data) = self.handle_fork_data(Data { request, proof })? else { return Ok(()) };
        let Data { request, proof } = data;
        let asked = match self.asking.window.answered(request, now) {
            Answered::Asked(asked) => asked,
            Answered::Late => {
                self.counters.ignored += 1;
                return Ok(());
            }
            Answered::Unasked => return Err(PeerMisbehaved::UnrequestedData.into()),
        };
        self.asking.answered(request, &asked);
        self.telling.touch();
        if !asked.covers(&proof) {
            return Err(PeerMisbehaved::UnrequestedData.into());
        }
        if let (Some(upgrade), Some(ours)) = (&proof.upgrade, asked.upgrade)
            && asked.pushes
            && upgrade.start != ours.start
        {
            // Node answers so if it takes us to have what it has pushed, or nothing.
            self.push.suspend(leads_to(upgrade));
        }
        if asked.probe {
            return Ok(());
        }
        // Not the seek: where the offset is may follow from the other parts, and Node leaves it out at times.
        //= REPL-35
        let (block, upgrade, hash) = (proof.block.is_some(), proof.upgrade.is_some(), proof.hash.is_some());
        if asked.block.is_some() != block
            || asked.upgrade.is_some() != upgrade
            || asked.hash.is_some() != hash
        {
            // A part is missing: Node answers with the manifest alone if it doesn't have the rest.
            let missing = Asked {
                block: asked.block.filter(|_| !block),
                upgrade: asked.upgrade.filter(|_| !upgrade),
                sought: asked.sought.filter(|_| !hash),
                manifest: false,
                ..asked
            };
            self.refused(&missing, false, local);
        } else if asked.manifest && proof.manifest.is_none() && !block && !upgrade && !hash {
            self.refused(&asked, false, local);
        }
        if !block && !upgrade && !hash && proof.manifest.is_none() {
            return Ok(());
        }
        let got = Asked {
            block: asked.block.filter(|_| block),
            upgrade: asked.upgrade.filter(|_| upgrade),
            hash: asked.hash.filter(|_| hash),
            sought: asked.sought.filter(|_| hash),
            ..asked
        };
        self.push.storing(&proof, &self.asking);
        self.asking.window.store(request, got, bytes);
        self.outputs.push_back(Output::Ingest { ticket: Ticket(request), proof });
        Ok(())
    }

    //= REPL-53
    pub(super) fn handle_no_data(
        &mut self,
        refusal: NoData,
        local: &dyn Local,
        now: Instant,
    ) -> Result<(), Error> {
        if self.handle_fork_refusal(refusal.request)? {
            return Ok(());
        }
        match self.asking.window.answered(refusal.request, now) {
            Answered::Asked(asked) => {
                self.asking.answered(refusal.request, &asked);
                self.refused(&asked, refusal.reason == REASON_INVALID_REQUEST, local);
            }
            // Not an error if it was not asked: Node refuses its own check for a conflict, too.
            Answered::Late | Answered::Unasked => self.counters.ignored += 1,
        }
        Ok(())
    }

    /// The remote did not answer with what was asked for.
    fn refused(&mut self, asked: &Asked, invalid: bool, local: &dyn Local) {
        self.counters.refused_by_remote += 1;
        self.asking.window.give_up(asked);
        self.telling.touch();
        //= protocol-spec/07-replication.md#forks
        if asked.fork != self.remote.sync.fork {
            // It has left the fork since it was asked, and is not to blame.
            self.asking.reconsider(asked.block.map_or(0..0, |index| index..index + 1));
            return;
        }
        if asked.pushes
            && asked.block.is_none()
            && asked
                .upgrade
                .is_some_and(|upgrade| upgrade.start.saturating_add(upgrade.length) <= local.length())
        {
            // Pushes have brought it meanwhile.
            return;
        }
        if let Some(index) = asked.block
            && !self.remote.have.has(index)
        {
            // It has said so meanwhile, and is not to blame for what was on its way.
            return self.asking.failed(asked, local, &self.remote);
        }
        if let Some(index) = asked.block {
            //= protocol-spec/07-replication.md#nodata-4
            // Whatever it said before: it doesn't have it. It fits, as it made no more than one range more.
            self.asking.backoff.refused(index, &self.limits);
            let _ = self.remote.have.remove(index..index + 1, &self.limits);
        }
        self.failed(asked, invalid, local);
    }

    fn failed(&mut self, asked: &Asked, invalid: bool, local: &dyn Local) {
        self.counters.pauses += u64::from(self.asking.backoff.failed(invalid, &self.limits));
        self.asking.failed(asked, local, &self.remote);
    }
}
