//! How an app writes rules: what is asked when, and what follows from the answer.
//!
//! # The order of events
//!
//! ```text
//!   the remote proves that it knows the party's key
//!        |
//!        v
//!      admit ------- no --> answered as a stranger                 at once
//!        | yes
//!        v
//!       vet -------- no --> the party's channel is closed          within rule_timeout
//!        | yes, and from now on the app sees the peer
//!        v
//!      ready ------- no --> the party's channel is closed          within rule_timeout
//!        | yes
//!        v
//!    handshake ----- no --> the party's channel is closed          within rule_timeout
//!        |
//!        |  peer.introduce_feeds(keys) --> decide(Introduce) for each key; those denied are left out
//!        |  peer.replicate(&feed) -------> decide(Serve, Ask, Accept)
//!        |                                   all denied: no channel   else: the channel opens, within what is allowed
//!        v
//!   what the peer does, at any time from `vet` on:
//!        introduces feeds --> introduce_feeds --> decide(Introduce) for each key of the answer
//!        opens a feed ------> find_feed --------> decide(Serve, Ask, Accept)
//!        asks something ----> request
//!        says something ----> ephemeral
//!        requests a block, sends a block: no rule is asked; what was decided holds
//!
//!   party.reevaluate() -----> admit, then decide(Serve, Ask, Accept) for each released feed, at once
//! ```
//!
//! A rule is first polled by the connection itself, so that an answer which needs no waiting costs no task and no switch. (All but
//! `find_feed`, which always has a task.) One that waits goes on in a task of its own, beside others, and holds up nothing. So wait by `.await`, and give what keeps a
//! processor or a disk busy for long to `tokio::task::spawn_blocking`: until its first `.await` a rule holds up the feeds and messages of
//! its connection. A rule that panics denies, wherever it runs.
//!
//! A rule that is still at work when its peer has left, or the connection has ended, is dropped where it waits. What must be done
//! to its end belongs in a task of its own.
//!
//! # Releasing and allowing
//!
//! A feed must be *released* to a peer before it has a channel, by [`Peer::replicate`] or by what
//! [`find_feed`](super::Rules::find_feed) returns; that says which feeds there are for a peer, and it may take its time. And it
//! must be *allowed*, by [`decide`](super::Rules::decide), which says what is done with them, and answers at once. The default of
//! `decide` is yes, so rules that don't write it decide by releasing alone.
//!
//! | asked | when | a no means |
//! |---|---|---|
//! | [`Introduce`](super::Action::Introduce) | before a key is sent to the peer, by us or as an answer | the key is left out |
//! | [`Serve`](super::Action::Serve) | when the feed is released, and re-evaluated | requests are refused; nothing is pushed |
//! | [`Ask`](super::Action::Ask) | likewise | nothing is requested |
//! | [`Accept`](super::Action::Accept) | likewise | nothing is requested, pushes are dropped |
//!
//! What was requested before asking was denied may still come, and is stored if accepting it is allowed.
//!
//! If the last three are all denied, the feed's channel is closed, and an open by the remote gets the same reject as a
//! feed that isn't here. The release stays: when something is allowed again, the channel opens.
//!
//! # How much
//!
//! A yes may be limited: to [`blocks`](super::Decision::blocks), to the [`newest`](super::Decision::newest), to
//! [`while_unmetered`](super::Decision::while_unmetered), or [`within`](super::Decision::within) a quota. It is about blocks:
//! how long the feed is, is told to whoever has its channel. Of the blocks, a peer is told of those that it may have, as far as they are
//! here. So who wants the whole feed gets the part that it may have, has then what there is to be had for it, and waits for more
//! without asking. With a quota that is used up nothing more is there, until the rules are asked again.
//!
//! ```
//! use party::rules::{Action, Decision, Policy, Question, Quota};
//!
//! /// Guests may read the latest news, and as much as this together.
//! struct Guests(Quota);
//!
//! impl Policy for Guests {
//!     fn decide(&self, question: &Question<'_>) -> Decision {
//!         match question.action {
//!             Action::Serve => Decision::allow("guests", "the latest news are for all").newest(100).within(&self.0),
//!             _ => Decision::deny("guests", "guests read"),
//!         }
//!     }
//! }
//! ```
//!
//! Where several parties on a connection release the same feed, what any of them allows is allowed.
//!
//! # Changing your mind
//!
//! Answers hold until [`Party::reevaluate`], or its like for one peer or feed. Change the list, then call it: what is not
//! allowed any more has stopped when it returns. Never call it from within `decide`, which holds up the connection that it would
//! wait for; a rule that is `async` may.
//!
//! # Why?
//!
//! Every decision carries the name of the rule that made it and a reason. [`Party::explain`] shows them, each refusal is an event of `tracing` with
//! the fields `peer`, `feed`, `action`, `rule` and `reason`, and [`Event::FeedForbidden`] brings the decision. Peers
//! never see any of it.
//!
//! [`Peer::replicate`]: crate::peer::Peer::replicate
//! [`Party::reevaluate`]: crate::party::Party::reevaluate
//! [`Party::explain`]: crate::party::Party::explain
//! [`Event::FeedForbidden`]: crate::party::Event::FeedForbidden
