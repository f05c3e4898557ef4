//! A channel's dealings with [pushes](crate::replication::push).

use super::{Channel, Output, Ticket};
use crate::{
    error::Error,
    feed::{local::Local, proof::Proof},
    replication::{push::leads_to, window::Asked},
};

impl Channel {
    pub(super) fn handle_push(&mut self, proof: Proof, bytes: usize, local: &dyn Local) -> Result<(), Error> {
        let grows_to = proof.upgrade.as_deref().map(leads_to);
        let sifted = if self.takes_pushes(local) {
            self.push.sift(proof, &self.asking, local, &self.limits)
        } else {
            None
        };
        let Some((asked, proof)) = sifted else {
            self.counters.unwanted_pushes += 1;
            return Ok(self.push.handle_unwanted(grows_to, &self.limits)?);
        };
        self.push.storing(&proof, &self.asking);
        let id = self.asking.window.store_push(asked, bytes);
        self.outputs.push_back(Output::Ingest { ticket: Ticket(id), proof });
        Ok(())
    }

    pub(super) fn poll_push(&mut self, local: &dyn Local) -> Option<Output> {
        if !self.options.upload || self.suspended {
            return None;
        }
        let may_grow = !self.serving.is_holding();
        let request = self.push.poll(self.options.push, local, &self.remote, may_grow, &self.limits)?;
        let ticket = self.serving.ticket();
        self.push.started(ticket, &request, local.fork());
        Some(Output::Serve { ticket, request, fork: local.fork() })
    }

    /// A push was verified and stored, or was not. What does not verify is as if it hadn't come.
    pub(super) fn push_ingested(
        &mut self,
        asked: &Asked,
        bytes: usize,
        result: Result<(), Error>,
        local: &dyn Local,
    ) -> Result<(), Error> {
        let misbehaved = matches!(result, Err(Error::PeerMisbehaved(_)));
        if !misbehaved {
            result?;
        }
        let stored = asked.block.filter(|index| local.has(*index));
        let grown = asked.upgrade.is_none_or(|upgrade| local.length() > upgrade.start);
        let useful = !misbehaved && stored == asked.block && grown;
        if useful {
            self.asking.window.settle(asked, true, true);
        } else if let Some(index) = asked.block {
            self.asking.reconsider(index..index.saturating_add(1));
        }
        if stored.is_some() && useful {
            self.counters.blocks_received += 1;
            self.counters.bytes_received += bytes as u64;
            self.counters.blocks_pushed_to_us += 1;
        }
        self.counters.unwanted_pushes += u64::from(!useful);
        Ok(self.push.stored(useful, &self.limits)?)
    }

    pub(super) fn takes_pushes(&mut self, local: &dyn Local) -> bool {
        let options = &self.options;
        let may = options.allow_push
            && options.download
            && !self.suspended
            && (options.live || !self.is_in_sync(local));
        may && self.push.takes(local, &self.remote)
    }
}
