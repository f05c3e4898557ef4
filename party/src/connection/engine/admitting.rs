//! Who is let in, what they ask, and how they go: the part of the engine that deals with members.

use futures_util::FutureExt as _;
use tokio::{sync::oneshot, time::Instant};

use super::{Engine, instrumented};
use crate::{
    admission::{self, Body, PartyChannel, RefusalCode, TransactionId, membership},
    connection::{
        grants::log_refusal,
        jobs::{Outcome, RuleOutcome, decide, while_here},
        members::{Admitted, Standing},
    },
    error::Error,
    mux::ChannelId,
    party::{Event, Rule, RuleFailure, has_room, kept},
    peer::{Admission, Introduced, MemberId, Message, Peer, is_reserved},
    rules::Action,
};

impl Engine {
    /// The remote as a peer in one of our parties, admitted or not.
    //= PARTY-24
    pub(super) fn peer(&self, member: MemberId) -> Option<Peer> {
        let entry = self.members.get(member)?;
        let admission = match &entry.party {
            Some(party) => Admission::Party(party.discovery_key()),
            None => Admission::Open,
        };
        let (remote, commands) = (self.session.remote, self.commands.clone());
        Some(Peer::new(remote, admission, member, self.connection, commands, &entry.hub))
    }

    //= PARTY-22, PARTY-112
    pub(super) fn admit(&mut self, member: MemberId, channel: Option<ChannelId>) {
        let Some(peer) = self.peer(member) else { return };
        let Some(entry) = self.members.get_mut(member) else { return };
        self.ever_admitted = true;
        let channel = channel.map(|id| (id, PartyChannel::new(&self.limits)));
        entry.standing = Standing::Admitted(Admitted::new(peer.clone(), channel));
        let (rules, timeout) = (entry.hub.rules(), self.limits.rule_timeout);
        let vetting = async move { RuleOutcome::Vetted(decide(rules.vet(&peer), timeout).await) };
        self.run_rule(member, vetting);
    }

    /// Asks a rule. One that has its answer at once costs no task, no timer and no switch; any other goes on in a task of
    /// its own, for as long as the peer is there.
    fn run_rule(&mut self, member: MemberId, rule: impl Future<Output = RuleOutcome> + Send + 'static) {
        let Some(entry) = self.members.get(member) else { return };
        let Some(peer) = entry.admitted().map(|admitted| admitted.peer.clone()) else { return };
        let span = entry.span.clone();
        let mut rule = Box::pin(rule);
        // Who has sent more than is to be answered in one go waits for the others: in tasks, whose number has a bound.
        if self.answered_at_once < self.limits.max_rules_in_line
            && self.mux.unsent_bytes() < self.limits.max_unsent_bytes
        {
            self.answered_at_once += 1;
            if let Some(outcome) = span.in_scope(|| (&mut rule).now_or_never()) {
                return self.conclude_rule(member, outcome);
            }
        }
        let rule = async move { Outcome::Rule { member, outcome: rule.await } };
        self.jobs.spawn(instrumented(&span, while_here(peer, rule)));
    }

    /// The app sees the peer from now on, and its other rules are asked.
    //= PARTY-112
    fn vetted(&mut self, member: MemberId) {
        let Some(entry) = self.members.get_mut(member) else { return };
        let hub = entry.hub.clone();
        let Some(admitted) = entry.admitted_mut() else { return };
        admitted.is_vetted = true;
        let peer = admitted.peer.clone();
        admitted.ephemeral_bytes = 0;
        for message in std::mem::take(&mut admitted.ephemeral) {
            if let Some(message) = hub.hand_out(&peer, message, &self.limits) {
                admitted.ephemeral_bytes += message.value.len();
                admitted.ephemeral.push_back(message);
            }
        }
        hub.add_peer(&peer);
        if let Some(count) = admitted.introduced.take() {
            admitted.introduces(count, &hub);
        }
        entry.span.in_scope(|| tracing::debug!("admitted"));

        let (rules, timeout) = (entry.hub.rules(), self.limits.rule_timeout);
        self.run_rule(member, async move {
            RuleOutcome::Handshake(match decide(rules.ready(&peer), timeout).await {
                Ok(()) => decide(rules.handshake(&peer), timeout)
                    .await
                    .map_err(|failure| (Rule::Handshake, failure)),
                Err(failure) => Err((Rule::Ready, failure)),
            })
        });
    }

    /// Begins a transaction; `reply` is told how it ends.
    //= PARTY-13
    pub(super) fn ask(
        &mut self,
        member: MemberId,
        body: Body,
        reply: oneshot::Sender<Result<Body, Error>>,
        now: Instant,
    ) {
        let Some(Admitted { peer, channel: Some((_, channel)), waiting, .. }) =
            self.members.admitted_mut(member)
        else {
            let _ = reply.send(Err(Error::Closed));
            return;
        };
        if reply.is_closed() {
            return;
        }
        // Only when their places are needed: who waits can't tell the difference.
        if waiting.len() >= self.limits.max_local_transactions {
            waiting.retain(|id, reply| !reply.is_closed() || !channel.give_up(*id));
        }
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
        let Some(Admitted { peer, channel: Some((_, channel)), .. }) = self.members.admitted_mut(member)
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
    //= PARTY-75, PARTY-76
    pub(super) fn pump_member(&mut self, member: MemberId, now: Instant) {
        if let Some(channel) = self.channel_of(member) {
            channel.handle_timeout(now.into_std());
        }
        while let Some(event) = self.channel_of(member).and_then(PartyChannel::poll_event) {
            self.handle_party_event(member, event);
        }
        self.hand_out_ephemeral(member);
        let Some(Admitted { channel: Some((id, channel)), .. }) = self.members.admitted_mut(member) else {
            return;
        };
        while let Some((message_type, payload)) = channel.poll_transmit() {
            let _ = self.mux.send(*id, message_type, &payload);
        }
    }

    fn handle_party_event(&mut self, member: MemberId, event: admission::Event) {
        let timeout = self.limits.rule_timeout;
        let Some(entry) = self.members.get_mut(member) else { return };
        let Standing::Admitted(admitted) = &mut entry.standing else { return };
        let peer = &admitted.peer;
        match event {
            admission::Event::Answered { id, result } => {
                if let Ok(Body::IntroduceFeeds(feeds)) = &result {
                    admitted.introduces(feeds.len(), &entry.hub);
                }
                if let Some(reply) = admitted.waiting.remove(&id) {
                    let _ = reply.send(result);
                }
            }
            admission::Event::Request { id, body } => {
                peer.said().requests_received.add_one();
                let (rules, peer) = (entry.hub.rules(), peer.clone());
                match body {
                    Body::IntroduceFeeds(feeds) => {
                        admitted.introduces(feeds.len(), &entry.hub);
                        self.run_rule(member, async move {
                            let answer = decide(rules.introduce_feeds(&peer, feeds), timeout).await;
                            RuleOutcome::Introduced(id, answer)
                        });
                    }
                    // Whatever the rule decides, its answer is a message of the app's, or a refusal.
                    //= PARTY-72
                    Body::Custom(message) => self.run_rule(member, async move {
                        let may_be_reserved = is_reserved(&message.kind);
                        let answer = decide(rules.request(&peer, message), timeout).await;
                        RuleOutcome::Answered(
                            id,
                            answer.and_then(|answer| own_answer(answer, may_be_reserved)),
                        )
                    }),
                }
            }
            admission::Event::Ephemeral(message) => {
                peer.said().ephemeral_received.add_one();
                let waiting = (admitted.ephemeral.len(), admitted.ephemeral_bytes);
                let for_rules = match admitted.is_vetted {
                    true => entry.hub.hand_out(peer, message, &self.limits),
                    false => Some(message),
                };
                match for_rules {
                    Some(Message { kind, value }) if has_room(waiting.0, waiting.1, &value, &self.limits) => {
                        admitted.ephemeral_bytes += value.len();
                        admitted.ephemeral.push_back(Message { kind, value: kept(&value) });
                    }
                    Some(_) => peer.said().ephemeral_dropped.add_one(),
                    None => {}
                }
            }
        }
    }

    /// Gives the rules the ephemeral messages that wait for them, one after the other.
    fn hand_out_ephemeral(&mut self, member: MemberId) {
        let timeout = self.limits.rule_timeout;
        while let Some(entry) = self.members.get_mut(member) {
            let rules = entry.hub.rules();
            let Standing::Admitted(admitted) = &mut entry.standing else { return };
            if !admitted.is_vetted || admitted.ephemeral_running {
                return;
            }
            let Some(message) = admitted.ephemeral.pop_front() else { return };
            admitted.ephemeral_running = true;
            admitted.ephemeral_bytes -= message.value.len();
            let peer = admitted.peer.clone();
            self.run_rule(member, async move {
                RuleOutcome::Ephemeral(decide(rules.ephemeral(&peer, message), timeout).await)
            });
        }
    }

    //= PARTY-52
    pub(super) fn fail_member(&mut self, member: MemberId, error: Error) {
        if let Some(entry) = self.members.get(member)
            && let Some(admitted) = entry.admitted()
        {
            tracing::warn!(%error, "closing the party channel");
            entry.hub.tell(Event::ChannelFailed { peer: admitted.peer.clone(), feed: None, error });
        }
        self.remove_member(member, Standing::Gone);
    }

    /// The member is gone: its channel is closed and what only it has released is taken back. Returns what it is known by
    /// from now on.
    //= PARTY-36, PARTY-37, PARTY-38
    pub(super) fn remove_member(&mut self, member: MemberId, standing: Standing) -> Option<MemberId> {
        let entry = self.members.get_mut(member)?;
        let before = std::mem::replace(&mut entry.standing, standing);
        let (hub, party) = (entry.hub.clone(), entry.party);
        if let Some(party) = party
            && matches!(before, Standing::Admitted(_) | Standing::Offered(_))
        {
            //= protocol-spec/08-party.md#a-party-that-ends
            self.remember_offer(membership::channel_id(&self.session, &party));
        }
        let admitted = match before {
            Standing::Admitted(admitted) => admitted,
            Standing::Offered(channel) => {
                self.close_party(channel);
                return Some(member);
            }
            _ => return Some(member),
        };
        if let Some((channel, _)) = admitted.channel {
            self.close_party(channel);
        }
        if admitted.is_vetted {
            hub.remove_peer(&admitted.peer);
        }
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
            } else {
                self.regard(key);
            }
        }
        self.members.renumber(member)
    }

    fn close_party(&mut self, channel: ChannelId) {
        if self.channels.remove(&channel).is_some() {
            self.mux.close(channel);
        }
    }

    /// Those of the feeds whose keys the peer may be told.
    pub(super) fn that_may_be_introduced(
        &self,
        member: MemberId,
        mut feeds: Vec<Introduced>,
    ) -> Vec<Introduced> {
        if let Some(admitted) = self.members.admitted(member) {
            feeds.retain(|feed| {
                let decision = admitted.peer.decide(&feed.key, Action::Introduce);
                if !decision.is_allowed() {
                    log_refusal(&admitted.peer, &feed.key, Action::Introduce, &decision);
                }
                decision.is_allowed()
            });
        }
        feeds
    }

    //= PARTY-84, PARTY-85
    pub(super) fn handle_rule(&mut self, member: MemberId, outcome: RuleOutcome, now: Instant) {
        self.conclude_rule(member, outcome);
        self.pump_member(member, now);
    }

    /// Does what a rule has decided. What is to be said for it is said when the member is pumped next, or with the next flush:
    /// after what the rule had sent, as that was said before the rule heard that it was.
    //= PARTY-117
    fn conclude_rule(&mut self, member: MemberId, outcome: RuleOutcome) {
        match outcome {
            RuleOutcome::Vetted(Ok(())) => self.vetted(member),
            RuleOutcome::Vetted(Err(failure)) => {
                self.rule_failed(member, Rule::Vet, failure);
                self.remove_member(member, Standing::Gone);
            }
            RuleOutcome::Handshake(Ok(())) => {
                let Some(entry) = self.members.get_mut(member) else { return };
                let hub = entry.hub.clone();
                if let Some(admitted) = entry.admitted_mut() {
                    admitted.handshake_done = true;
                    hub.tell(Event::HandshakeDone(admitted.peer.clone()));
                }
            }
            RuleOutcome::Handshake(Err((rule, failure))) => {
                self.rule_failed(member, rule, failure);
                self.remove_member(member, Standing::Gone);
            }
            RuleOutcome::Introduced(id, answer) => {
                let answer =
                    answer.map(|keys| Body::IntroduceFeeds(self.that_may_be_introduced(member, keys)));
                self.answer(member, id, Rule::IntroduceFeeds, answer);
            }
            RuleOutcome::Answered(id, answer) => {
                self.answer(member, id, Rule::Request, answer.map(Body::Custom));
            }
            RuleOutcome::Ephemeral(result) => {
                if let Err(failure) = result {
                    self.rule_failed(member, Rule::Ephemeral, failure);
                }
                if let Some(admitted) = self.members.admitted_mut(member) {
                    admitted.ephemeral_running = false;
                }
            }
            RuleOutcome::Found(search, found) => self.handle_found(member, search, found),
        }
    }

    //= LIMIT-21
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
        let Some(member) = self.members.get(member) else { return };
        if let Some(admitted) = member.admitted() {
            tracing::warn!(?rule, %failure, "a rule failed");
            member.hub.tell(Event::RuleFailed { peer: admitted.peer.clone(), rule, failure });
        }
    }
}

/// Who was asked in a kind of the specification's may know it, as rules for members do. Nobody else speaks in one.
//= PARTY-73
fn own_answer(answer: Message, may_be_reserved: bool) -> Result<Message, RuleFailure> {
    if is_reserved(&answer.kind) && !may_be_reserved {
        return Err(RuleFailure::ReservedKind(answer.kind));
    }
    Ok(answer)
}
