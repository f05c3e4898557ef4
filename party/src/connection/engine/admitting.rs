//! Who is let in, what they ask, and how they go: the part of the engine that deals with members.

use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use tokio::{sync::oneshot, time::Instant};

use super::{Engine, Owner, instrumented};
use crate::{
    admission::{self, Body, Hello, PartyChannel, RefusalCode, TransactionId, membership},
    connection::{
        jobs::{Outcome, RuleOutcome, decide},
        members::{Admitted, Standing},
    },
    error::Error,
    mux::{ChannelId, Incoming},
    party::{Event, Rule, RuleFailure},
    peer::{Admission, MemberId, Message, Peer},
};

impl Engine {
    /// The remote, which dialled, claims to be a member of some party.
    pub(super) fn handle_offer(&mut self, incoming: Incoming, id: &[u8], hello: Bytes) {
        let member = self.answering(id, hello);
        let Some(member) = member else {
            // Not a member, a party that we don't know, an echo, or already here: all the same from outside.
            return self.mux.reject(incoming);
        };
        let Some(party) = self.members[member.0].party else { return self.mux.reject(incoming) };
        let hello = Hello::new(membership::prove(&self.session, &party)).encode();
        if let Ok(Some(channel)) = self.mux.accept(incoming, &hello) {
            self.channels.insert(channel, Owner::Member(member));
            self.admit(member, Some(channel));
        }
    }

    pub(super) fn answering(&self, id: &[u8], hello: Bytes) -> Option<MemberId> {
        if self.session.is_initiator {
            return None;
        }
        let hello = Hello::decode(hello).ok()?;
        self.members.iter().enumerate().find_map(|(index, member)| {
            let (Some(party), Standing::Stranger) = (&member.party, &member.standing) else { return None };
            let known: bool = membership::channel_id(&self.session, party).ct_eq(id).into();
            (known && membership::verify(&self.session, party, &hello.proof)).then_some(MemberId(index))
        })
    }

    pub(super) fn admit(&mut self, member: MemberId, channel: Option<ChannelId>) {
        let entry = &mut self.members[member.0];
        let admission = match &entry.party {
            Some(party) => Admission::Party(party.discovery_key()),
            None => Admission::Open,
        };
        let peer = Peer::new(self.session.remote, admission, member, self.connection, self.commands.clone());
        let channel = channel.map(|id| (id, PartyChannel::new(&self.limits)));
        entry.standing = Standing::Admitted(Admitted::new(peer.clone(), channel));
        entry.hub.add_peer(&peer);
        entry.span.in_scope(|| tracing::debug!("admitted"));

        let rules = entry.hub.rules();
        let timeout = self.limits.rule_timeout;
        let span = entry.span.clone();
        self.jobs.spawn(instrumented(&span, async move {
            let outcome = match decide(rules.ready(&peer), timeout).await {
                Ok(()) => decide(rules.handshake(&peer), timeout)
                    .await
                    .map_err(|failure| (Rule::Handshake, failure)),
                Err(failure) => Err((Rule::Ready, failure)),
            };
            Outcome::Rule { member, outcome: RuleOutcome::Handshake(outcome) }
        }));
    }

    /// Begins a transaction; `reply` is told how it ends.
    pub(super) fn ask(
        &mut self,
        member: MemberId,
        body: Body,
        reply: oneshot::Sender<Result<Body, Error>>,
        now: Instant,
    ) {
        let Some(Admitted { peer, channel: Some((_, channel)), waiting, .. }) =
            self.members[member.0].admitted_mut()
        else {
            let _ = reply.send(Err(Error::Closed));
            return;
        };
        match channel.request(body, now.into_std()) {
            Ok(id) => {
                peer.said().requests_sent.add_one();
                waiting.insert(id, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(error.into()));
            }
        }
    }

    /// Says something that wants no answer, unless the remote is too slow to take it. Returns whether it did.
    /// `unsent` is what the socket has not taken yet, in bytes.
    pub(super) fn say(&mut self, member: MemberId, message: Message, unsent: usize) -> Result<bool, Error> {
        let is_slow = unsent.saturating_add(self.mux.unsent_bytes()) >= self.limits.max_unsent_bytes;
        let Some(Admitted { peer, channel: Some((_, channel)), .. }) = self.members[member.0].admitted_mut()
        else {
            return Err(Error::Closed);
        };
        if is_slow {
            peer.said().ephemeral_unsent.add_one();
            return Ok(false);
        }
        channel.send_ephemeral(message)?;
        peer.said().ephemeral_sent.add_one();
        Ok(true)
    }

    /// Takes what the party channel of a member has to tell and to send.
    pub(super) fn pump_member(&mut self, member: MemberId, now: Instant) {
        let timeout = self.limits.rule_timeout;
        let entry = &mut self.members[member.0];
        let (rules, span) = (entry.hub.rules(), entry.span.clone());
        let Standing::Admitted(admitted) = &mut entry.standing else { return };
        let Some((id, channel)) = &mut admitted.channel else { return };
        channel.handle_timeout(now.into_std());
        while let Some(event) = channel.poll_event() {
            let (rules, peer) = (rules.clone(), admitted.peer.clone());
            match event {
                admission::Event::Answered { id, result } => {
                    if let Some(reply) = admitted.waiting.remove(&id) {
                        let _ = reply.send(result);
                    }
                }
                admission::Event::Request { id, body: Body::IntroduceFeeds(keys) } => {
                    peer.said().requests_received.add_one();
                    self.jobs.spawn(instrumented(&span, async move {
                        let answer = decide(rules.introduce_feeds(&peer, keys), timeout).await;
                        Outcome::Rule { member, outcome: RuleOutcome::Introduced(id, answer) }
                    }));
                }
                admission::Event::Request { id, body: Body::Custom(message) } => {
                    peer.said().requests_received.add_one();
                    self.jobs.spawn(instrumented(&span, async move {
                        let answer = decide(rules.request(&peer, message), timeout).await;
                        Outcome::Rule { member, outcome: RuleOutcome::Answered(id, answer) }
                    }));
                }
                admission::Event::Ephemeral(message) => {
                    peer.said().ephemeral_received.add_one();
                    let most = self.limits.max_queued_ephemeral;
                    match entry.hub.hand_out(&peer, message, most) {
                        Some(message) if admitted.ephemeral.len() < most => {
                            admitted.ephemeral.push_back(message);
                        }
                        Some(_) => peer.said().ephemeral_dropped.add_one(),
                        None => {}
                    }
                }
            }
        }
        if !admitted.ephemeral_running
            && let Some(message) = admitted.ephemeral.pop_front()
        {
            admitted.ephemeral_running = true;
            let (rules, peer) = (rules.clone(), admitted.peer.clone());
            self.jobs.spawn(instrumented(&span, async move {
                let outcome = RuleOutcome::Ephemeral(decide(rules.ephemeral(&peer, message), timeout).await);
                Outcome::Rule { member, outcome }
            }));
        }
        while let Some((message_type, payload)) = channel.poll_transmit() {
            let _ = self.mux.send(*id, message_type, &payload);
        }
    }

    pub(super) fn fail_member(&mut self, member: MemberId, error: Error) {
        if let Some(admitted) = self.members[member.0].admitted() {
            tracing::warn!(%error, "closing the party channel");
            let event = Event::ChannelFailed { peer: admitted.peer.clone(), feed: None, error };
            self.members[member.0].hub.tell(event);
        }
        self.remove_member(member);
    }

    /// The member is gone: its channel is closed and what only it has released is taken back.
    pub(super) fn remove_member(&mut self, member: MemberId) {
        let entry = &mut self.members[member.0];
        let Standing::Admitted(admitted) = std::mem::replace(&mut entry.standing, Standing::Gone) else {
            return;
        };
        if let Some((channel, _)) = admitted.channel
            && self.channels.remove(&channel).is_some()
        {
            self.mux.close(channel);
        }
        entry.hub.remove_peer(&admitted.peer);
        let released: Vec<_> = self
            .feeds
            .iter()
            .filter(|(_, link)| link.released_by.contains_key(&member))
            .map(|(key, _)| *key)
            .collect();
        for key in released {
            let Some(link) = self.feeds.get_mut(&key) else { continue };
            if link.take_back(member, &admitted.peer) {
                self.end_feed(key);
            }
        }
    }

    pub(super) fn handle_rule(&mut self, member: MemberId, outcome: RuleOutcome, now: Instant) {
        match outcome {
            RuleOutcome::Handshake(Ok(())) => {
                let entry = &mut self.members[member.0];
                let hub = entry.hub.clone();
                if let Some(admitted) = entry.admitted_mut() {
                    admitted.handshake_done = true;
                    hub.tell(Event::HandshakeDone(admitted.peer.clone()));
                }
            }
            RuleOutcome::Handshake(Err((rule, failure))) => {
                self.rule_failed(member, rule, failure);
                self.remove_member(member);
            }
            RuleOutcome::Introduced(id, answer) => {
                let answer = answer.map(Body::IntroduceFeeds);
                self.answer(member, id, Rule::IntroduceFeeds, answer);
            }
            RuleOutcome::Answered(id, answer) => {
                self.answer(member, id, Rule::Request, answer.map(Body::Custom));
            }
            RuleOutcome::Ephemeral(result) => {
                if let Err(failure) = result {
                    self.rule_failed(member, Rule::Ephemeral, failure);
                }
                if let Some(admitted) = self.members[member.0].admitted_mut() {
                    admitted.ephemeral_running = false;
                }
            }
            RuleOutcome::Found(search, found) => self.handle_found(member, search, found),
        }
        self.pump_member(member, now);
    }

    pub(super) fn answer(
        &mut self,
        member: MemberId,
        id: TransactionId,
        rule: Rule,
        answer: Result<Body, RuleFailure>,
    ) {
        let code = match &answer {
            Err(RuleFailure::TimedOut) => RefusalCode::Timeout,
            _ => RefusalCode::Refused,
        };
        let failure = match (self.channel_of(member), answer) {
            (None, _) => None,
            (Some(channel), Ok(body)) => {
                channel.respond(id, body).err().map(|error| RuleFailure::Denied(error.to_string()))
            }
            (Some(channel), Err(failure)) => {
                channel.refuse(id, code);
                Some(failure)
            }
        };
        if let Some(failure) = failure {
            self.rule_failed(member, rule, failure);
        }
    }

    pub(super) fn rule_failed(&mut self, member: MemberId, rule: Rule, failure: RuleFailure) {
        let member = &self.members[member.0];
        if let Some(admitted) = member.admitted() {
            tracing::warn!(?rule, %failure, "a rule failed");
            member.hub.tell(Event::RuleFailed { peer: admitted.peer.clone(), rule, failure });
        }
    }
}
