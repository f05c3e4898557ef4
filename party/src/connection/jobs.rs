//! Work that a connection gives to tasks of their own: rules, proofs, commits.

use std::{
    any::Any,
    collections::VecDeque,
    convert::Infallible,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use crate::{
    admission::TransactionId,
    error::Error,
    feed::{
        Feed,
        proof::{Proof, ProofRequest},
    },
    key::DiscoveryKey,
    party::{Rule, RuleFailure},
    peer::{Introduced, MemberId, Message, Peer},
    replication::{Ticket, Verdict},
    rules,
};

use super::forks::{Checked, Followed};

/// Bytes of blocks after which a serving job makes a pause, so that what it has read can be sent.
pub(super) const SERVE_BYTES: usize = 1 << 20;
/// Proofs after which it does so: while they are being sent, the next are made.
const SERVE_PROOFS: usize = 256;

/// What a job has come to.
pub(super) enum Outcome {
    /// A rule was run for somebody who has left meanwhile.
    Left,
    Rule {
        member: MemberId,
        outcome: RuleOutcome,
    },
    Served(Served),
    Ingested(Ingested),
    Followed(Followed),
    Checked(Checked),
}

pub(super) enum RuleOutcome {
    /// `vet` is over.
    Vetted(Result<(), RuleFailure>),
    /// `ready` and `handshake` are over.
    Handshake(Result<(), (Rule, RuleFailure)>),
    Introduced(TransactionId, Result<Vec<Introduced>, RuleFailure>),
    Answered(TransactionId, Result<Message, RuleFailure>),
    Ephemeral(Result<(), RuleFailure>),
    Found(SearchId, Result<Option<Feed>, RuleFailure>),
}

/// A feed that the remote opened and that the rules are being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SearchId(pub(super) u64);

/// Which channel of which feed a job was for. The channel may be gone when the job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FeedJob {
    pub(super) feed: DiscoveryKey,
    pub(super) generation: u64,
}

/// A request of the remote's on its way to be served.
pub(super) struct Serve {
    pub(super) ticket: Ticket,
    pub(super) request: ProofRequest,
    pub(super) fork: u64,
}

pub(super) struct Served {
    pub(super) job: FeedJob,
    pub(super) proofs: Vec<(Ticket, Result<Option<Proof>, Error>)>,
    /// What the job did not get to.
    pub(super) rest: VecDeque<Serve>,
    /// What of the upload limits it was given.
    pub(super) budget: usize,
    /// What it has used, in bytes.
    pub(super) bytes: usize,
}

/// A batch of what has come over a channel.
pub(super) struct Arrived {
    pub(super) proofs: Vec<(Ticket, Proof)>,
    pub(super) bytes: usize,
    /// Ends with the job of the batch before: later proofs rest on earlier ones.
    pub(super) before: Option<oneshot::Receiver<Infallible>>,
    /// Held until this one is stored.
    pub(super) ended: oneshot::Sender<Infallible>,
}

pub(super) struct Ingested {
    pub(super) job: FeedJob,
    pub(super) results: Vec<(Ticket, Result<Verdict, Error>)>,
    /// The size of all that was ingested.
    pub(super) bytes: usize,
}

/// Runs a rule for a peer, for as long as the peer is there. Who comes and goes and comes again has no more rules at work
/// than who stays.
//= PARTY-115
pub(super) async fn while_here(peer: Peer, rule: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        biased;
        () = peer.membership_ended() => Outcome::Left,
        outcome = rule => outcome,
    }
}

/// Lets a rule decide, within its time, whatever it does. One that has its answer at once needs no timer.
pub(super) async fn decide<T>(
    rule: impl Future<Output = rules::Result<T>>,
    timeout: Duration,
) -> Result<T, RuleFailure> {
    let mut rule = pin!(AssertUnwindSafe(rule).catch_unwind());
    let at_once = poll_fn(|context| Poll::Ready(rule.as_mut().poll(context))).await;
    let decided = match at_once {
        Poll::Ready(decided) => decided,
        Poll::Pending => match tokio::time::timeout(timeout, rule).await {
            Ok(decided) => decided,
            Err(_) => return Err(RuleFailure::TimedOut),
        },
    };
    match decided {
        Ok(Ok(decision)) => Ok(decision),
        Ok(Err(denied)) => Err(RuleFailure::Denied(denied.to_string())),
        Err(panic) => Err(RuleFailure::Panicked(panic_message(&*panic))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Makes proofs of the first in the queue, as many as are worth a batch and come to no more than `budget` bytes; the
/// last may go beyond that.
pub(super) async fn serve(feed: Feed, job: FeedJob, mut queue: VecDeque<Serve>, budget: usize) -> Outcome {
    // Where there is a limit, one by one: what is read together may come to more.
    let together = if budget < SERVE_BYTES { 1 } else { SERVE_PROOFS };
    let (mut proofs, mut bytes) = (Vec::new(), 0);
    loop {
        let next = queue.iter().take(together);
        let requests: Vec<_> = next.map(|serve| (serve.request.clone(), serve.fork)).collect();
        let answers = feed.prove_up_to(&requests, SERVE_BYTES).await;
        let sent = answers.iter().filter_map(|answer| answer.as_ref().ok()?.as_ref()?.block.as_ref());
        bytes += sent.map(|block| block.value.len()).sum::<usize>();
        let made = answers.len();
        let served = queue.drain(..made.min(queue.len()));
        proofs.extend(served.zip(answers).map(|(serve, answer)| (serve.ticket, answer)));
        if together > 1 || made == 0 || bytes >= budget || proofs.len() >= SERVE_PROOFS || queue.is_empty() {
            return Outcome::Served(Served { job, proofs, rest: queue, budget, bytes });
        }
    }
}

/// Verifies and stores what has come, after the batch before it. What needs only itself is done meanwhile.
pub(super) async fn ingest(feed: Feed, job: FeedJob, batch: Arrived) -> Outcome {
    let Arrived { proofs, bytes, before, ended } = batch;
    let (tickets, proofs): (Vec<_>, Vec<_>) = proofs.into_iter().unzip();
    let before = async {
        if let Some(before) = before {
            // Nothing is sent: it is over when its other end is gone.
            let _ = before.await;
        }
    };
    let results = feed.ingest_after(proofs, before).await;
    drop(ended);
    let verdicts = results.into_iter().map(|result| {
        let unconnected = result?.unconnected;
        Ok(if unconnected { Verdict::Unconnected } else { Verdict::Holds })
    });
    let results = tickets.into_iter().zip(verdicts).collect();
    Outcome::Ingested(Ingested { job, results, bytes })
}
