//! The remote's requests that are not answered yet.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Ticket,
    messages::{NoData, Request},
    numbered::Numbered,
};
use crate::{error::PeerMisbehaved, limits::Limits};

/// The remote's requests: those that wait, those that are being served, and those to be refused.
#[derive(Debug, Default)]
pub(super) struct Serving {
    next_serial: u64,
    /// Those with a priority, and those without, by age.
    waiting: [Numbered<Request>; 2],
    /// Those that wait for something else to end first.
    held: BTreeMap<Place, Request>,
    /// `None` if it was cancelled meanwhile.
    running: Numbered<Option<Running>>,
    /// The last request of an id.
    ids: Numbered<Stage>,
    refusals: VecDeque<NoData>,
    denials: VecDeque<NoData>,
}

/// A request that is being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) id: u64,
    pub(super) fork: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    later: bool,
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Waiting(Place),
    Running(u64),
}

impl Serving {
    /// Requests that are waiting or being served.
    pub(super) fn len(&self) -> usize {
        let [first, later] = &self.waiting;
        first.len() + later.len() + self.held.len() + self.running.len()
    }

    /// Whether nothing waits, runs or is to be refused.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.refusals.is_empty() && self.denials.is_empty()
    }

    /// Takes a request in. One with the same id is replaced. Returns whether there is room.
    //= REPL-24, REPL-25
    pub(super) fn push(&mut self, request: Request, limits: &Limits) -> bool {
        self.cancel(request.id);
        if self.len() >= limits.max_queued_requests {
            return false;
        }
        self.next_serial += 1;
        let place = Place { later: request.priority == 0, serial: self.next_serial };
        self.ids.insert(request.id, Stage::Waiting(place));
        self.wait(place, request);
        true
    }

    /// The request is not to be answered any more.
    //= REPL-51
    pub(super) fn cancel(&mut self, id: u64) {
        match self.ids.remove(id) {
            Some(Stage::Waiting(place)) => {
                self.waiting[usize::from(place.later)].remove(place.serial);
                self.held.remove(&place);
            }
            Some(Stage::Running(serial)) => {
                self.running.insert(serial, None);
            }
            None => {}
        }
    }

    /// The ids of those that wait or were put aside, which are not to be served.
    pub(super) fn take_waiting(&mut self) -> Vec<u64> {
        self.release();
        std::iter::from_fn(|| self.pop_waiting()).map(|(_, request)| request.id).collect()
    }

    /// The next request to serve. Those that are to wait are put aside until they are [let go](Self::release).
    pub(super) fn pop(&mut self, is_to_wait: impl Fn(&Request) -> bool) -> Option<(Ticket, Request)> {
        let (place, request) = loop {
            let (place, request) = self.pop_waiting()?;
            if !is_to_wait(&request) {
                break (place, request);
            }
            self.held.insert(place, request);
        };
        self.ids.insert(request.id, Stage::Running(place.serial));
        self.running.insert(place.serial, Some(Running { id: request.id, fork: request.fork }));
        Some((Ticket(place.serial), request))
    }

    /// Whether requests were put aside.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// What was put aside waits with the others again, in its old place.
    pub(super) fn release(&mut self) {
        for (place, request) in std::mem::take(&mut self.held) {
            self.wait(place, request);
        }
    }

    fn wait(&mut self, place: Place, request: Request) {
        self.waiting[usize::from(place.later)].insert(place.serial, request);
    }

    fn pop_waiting(&mut self) -> Option<(Place, Request)> {
        let mut queues = [false, true].into_iter().zip(&mut self.waiting);
        queues.find_map(|(later, queue)| {
            let (serial, request) = queue.pop_first()?;
            Some((Place { later, serial }, request))
        })
    }

    /// A ticket for a proof of our own.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_serial += 1;
        Ticket(self.next_serial)
    }

    /// A request was served. `None` if it is not to be answered.
    pub(super) fn served(&mut self, ticket: Ticket) -> Option<Running> {
        let running = self.running.remove(ticket.0)??;
        self.ids.remove(running.id);
        Some(running)
    }

    /// The request is to be answered `noData`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::LimitExceeded`] if the remote takes no answers and goes on asking.
    pub(super) fn refuse(&mut self, refusal: NoData, limits: &Limits) -> Result<(), PeerMisbehaved> {
        if self.refusals.len() >= limits.max_queued_requests {
            return Err(PeerMisbehaved::LimitExceeded("max_queued_requests"));
        }
        self.refusals.push_back(refusal);
        Ok(())
    }

    /// The request, which was handed out and so is one of a limited number, is to be answered `noData` once the remote was told what
    /// it may have.
    pub(super) fn deny(&mut self, refusal: NoData) {
        self.denials.push_back(refusal);
    }

    /// The next denial.
    pub(super) fn pop_denial(&mut self) -> Option<NoData> {
        self.denials.pop_front()
    }

    /// The next refusal.
    pub(super) fn pop_refusal(&mut self) -> Option<NoData> {
        self.refusals.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::proof::ProofRequest;

    fn request(id: u64, priority: u64) -> Request {
        Request { id, fork: 0, proof: ProofRequest::default(), priority }
    }

    #[test]
    fn requests_are_served_by_priority_and_age() {
        let limits = Limits::default();
        let mut serving = Serving::default();
        for (id, priority) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
            assert!(serving.push(request(id, priority), &limits));
        }
        let order: Vec<u64> =
            std::iter::from_fn(|| serving.pop(|_| false)).map(|(_, request)| request.id).collect();
        assert_eq!(order, [3, 4, 1, 2]);
    }

    #[test]
    fn a_cancelled_request_is_not_answered() {
        let limits = Limits::default();
        let mut serving = Serving::default();
        serving.push(request(1, 0), &limits);
        let (ticket, _) = serving.pop(|_| false).unwrap();
        serving.cancel(1);
        // The same id again: it is another request.
        serving.push(request(1, 0), &limits);
        let (again, _) = serving.pop(|_| false).unwrap();
        assert_eq!(serving.served(ticket), None);
        assert_eq!(serving.served(again), Some(Running { id: 1, fork: 0 }));
        assert!(serving.is_empty() && serving.ids.is_empty());
    }

    #[test]
    fn what_was_put_aside_keeps_its_place() {
        let limits = Limits::default();
        let mut serving = Serving::default();
        for id in 1..=4 {
            serving.push(request(id, 0), &limits);
        }
        assert_eq!(serving.pop(|request| request.id < 3).unwrap().1.id, 3);
        assert!(serving.is_holding() && serving.len() == 4);
        serving.cancel(2);
        serving.release();
        assert!(!serving.is_holding());
        let order: Vec<u64> =
            std::iter::from_fn(|| serving.pop(|_| false)).map(|(_, request)| request.id).collect();
        assert_eq!(order, [1, 4]);
    }

    #[test]
    fn floods_of_requests_and_cancels_stay_bounded() {
        let limits = Limits { max_queued_requests: 16, ..Limits::default() };
        let mut serving = Serving::default();
        for id in 0..10_000 {
            let room = serving.push(request(id, id % 2), &limits);
            assert_eq!(room, serving.len() < 16 || room);
            serving.pop(|request| request.id % 3 == 0);
            serving.cancel(id);
            assert!(serving.len() <= 16 && serving.ids.len() <= 16);
        }
    }
}
