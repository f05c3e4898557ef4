//! The transactions of two admitted peers in one party.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem::{Discriminant, discriminant},
    time::Instant,
};

use bytes::Bytes;

use super::messages::{Body, Frame, Message, RefusalCode};
use crate::{
    encoding::MAX_SAFE_INTEGER,
    error::{ApiMisuse, DecodeError, Error, PeerMisbehaved},
    limits::Limits,
};

/// A transaction on one party channel, ours or the remote's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub(super) u64);

/// What a party channel has to tell.
#[derive(Clone, Debug)]
pub enum Event {
    /// The remote asks; answer with [`PartyChannel::respond`] or [`PartyChannel::refuse`].
    Request {
        /// The remote's transaction.
        id: TransactionId,
        /// What it asks.
        body: Body,
    },
    /// One of our transactions is over.
    Answered {
        /// Our transaction.
        id: TransactionId,
        /// The answer, [`Error::Refused`] or [`Error::Timeout`].
        result: Result<Body, Error>,
    },
    /// A message that wants no answer.
    Ephemeral(Message),
}

/// The state of a party channel between two admitted peers.
///
/// Feed it with [`handle_message`](Self::handle_message) and, when [`poll_timeout`](Self::poll_timeout) says
/// so, [`handle_timeout`](Self::handle_timeout); then take all of [`poll_event`](Self::poll_event) and
/// [`poll_transmit`](Self::poll_transmit). An error of `handle_message` is for closing the channel.
#[derive(Debug)]
pub struct PartyChannel {
    limits: Limits,
    next_id: u64,
    ours: BTreeMap<TransactionId, Ours>,
    theirs: BTreeMap<TransactionId, Discriminant<Body>>,
    last_theirs: u64,
    /// Transactions of ours that timed out: their answers may still come, and are no misbehaviour.
    given_up: BTreeSet<TransactionId>,
    stray_answers: usize,
    sent_finish: bool,
    remote_finished: bool,
    events: VecDeque<Event>,
    outgoing: VecDeque<(u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Ours {
    kind: Discriminant<Body>,
    deadline: Instant,
}

impl PartyChannel {
    /// A channel on which nothing was said yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            next_id: 1,
            ours: BTreeMap::new(),
            theirs: BTreeMap::new(),
            last_theirs: 0,
            given_up: BTreeSet::new(),
            stray_answers: 0,
            sent_finish: false,
            remote_finished: false,
            events: VecDeque::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// Asks the remote. The outcome is an [`Event::Answered`] with the id returned, at the latest after
    /// [`Limits::transaction_timeout`].
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`], or [`ApiMisuse::LimitExceeded`] when
    /// [`Limits::max_local_transactions`] are open, for more feeds than [`Limits::max_introduced_feeds`], or for a longer
    /// label than [`Limits::max_label`].
    //= PARTY-53
    pub fn request(&mut self, body: Body, now: Instant) -> Result<TransactionId, ApiMisuse> {
        if self.ours.len() >= self.limits.max_local_transactions {
            return Err(ApiMisuse::LimitExceeded("max_local_transactions"));
        }
        let id = TransactionId(self.next_id);
        let kind = discriminant(&body);
        self.send(Frame::Request { id: id.0, body: Some(body) })?;
        // At one transaction a nanosecond the ids last for more than a hundred days.
        self.next_id = (self.next_id + 1).min(MAX_SAFE_INTEGER);
        self.ours.insert(id, Ours { kind, deadline: now + self.limits.transaction_timeout });
        Ok(id)
    }

    /// Gives up one of ours, for whose answer nobody waits any more: another may take its place, no event tells how it ends,
    /// and an answer that comes all the same is passed over. While [`Limits::max_local_transactions`] such answers may
    /// still come it does nothing, as one more could not be told from an answer to nothing. Returns whether it did.
    //= PARTY-62
    pub fn give_up(&mut self, id: TransactionId) -> bool {
        self.given_up.len() < self.limits.max_local_transactions
            && self.ours.remove(&id).is_some()
            && self.given_up.insert(id)
    }

    /// Answers a transaction of the remote's. An answer to one that is over does nothing.
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`] and [`ApiMisuse::LimitExceeded`]; the remote is told a refusal then.
    //= PARTY-59
    pub fn respond(&mut self, id: TransactionId, body: Body) -> Result<(), ApiMisuse> {
        let Some(asked) = self.theirs.remove(&id) else { return Ok(()) };
        debug_assert!(asked == discriminant(&body), "an answer is of the same kind as its question");
        let sent = self.send(Frame::Response { id: id.0, body: Some(body) });
        if sent.is_err() {
            self.send_error(id, RefusalCode::Refused);
        }
        sent
    }

    /// Refuses a transaction of the remote's.
    pub fn refuse(&mut self, id: TransactionId, code: RefusalCode) {
        if self.theirs.remove(&id).is_some() {
            self.send_error(id, code);
        }
    }

    /// Sends a message that wants no answer.
    ///
    /// # Errors
    /// [`ApiMisuse::MessageTooLarge`].
    pub fn send_ephemeral(&mut self, message: Message) -> Result<(), ApiMisuse> {
        self.send(Frame::Ephemeral(message))
    }

    /// Tells the remote that our side of a finite replication is done. Whatever is sent later takes it back.
    //= PARTY-81
    pub fn finish(&mut self) {
        if !self.sent_finish && self.send(Frame::Finish).is_ok() {
            self.sent_finish = true;
        }
    }

    /// Our side is not done after all: [`finish`](Self::finish) will be told anew.
    pub fn resume(&mut self) {
        self.sent_finish = false;
    }

    /// Whether the remote has said that it is done, and nothing since.
    //= PARTY-80
    pub fn remote_finished(&self) -> bool {
        self.remote_finished
    }

    /// Whether both sides' transactions are all over.
    pub fn is_idle(&self) -> bool {
        self.ours.is_empty() && self.theirs.is_empty()
    }

    /// Takes a message of the remote's.
    ///
    /// # Errors
    /// A [`DecodeError`], or a [`PeerMisbehaved`] for what has no place here. Close the channel.
    //= PARTY-43, PARTY-56, PARTY-60
    pub fn handle_message(&mut self, message_type: u64, payload: Bytes) -> Result<(), Error> {
        let Some(frame) = Frame::decode(message_type, payload, &self.limits)? else { return Ok(()) };
        self.remote_finished = frame == Frame::Finish;
        match frame {
            Frame::Request { id, body } => self.handle_request(id, body)?,
            Frame::Response { id, body } => {
                let id = TransactionId(id);
                match (self.ours.get(&id), body) {
                    (Some(ours), Some(body)) if ours.kind == discriminant(&body) => {
                        self.ours.remove(&id);
                        self.events.push_back(Event::Answered { id, result: Ok(body) });
                    }
                    (Some(_), _) => {
                        return Err(PeerMisbehaved::UnexpectedMessage("an answer of another kind").into());
                    }
                    (None, _) => self.handle_stray(id)?,
                }
            }
            Frame::Error { id, code } => {
                let id = TransactionId(id);
                if self.ours.remove(&id).is_some() {
                    let error = match code {
                        RefusalCode::Timeout => Error::Timeout,
                        RefusalCode::Refused | RefusalCode::Busy | RefusalCode::Unsupported => Error::Refused,
                    };
                    self.events.push_back(Event::Answered { id, result: Err(error) });
                } else {
                    self.handle_stray(id)?;
                }
            }
            Frame::Ephemeral(message) => self.events.push_back(Event::Ephemeral(message)),
            Frame::Finish => {}
        }
        Ok(())
    }

    //= PARTY-54, PARTY-55, PARTY-57, PARTY-58, PARTY-61
    fn handle_request(&mut self, id: u64, body: Option<Body>) -> Result<(), Error> {
        if id == 0 || id > MAX_SAFE_INTEGER {
            return Err(DecodeError::Invalid("transaction id").into());
        }
        if id <= self.last_theirs {
            return Err(PeerMisbehaved::UnexpectedMessage("a transaction id used before").into());
        }
        self.last_theirs = id;
        let id = TransactionId(id);
        if self.theirs.len() >= self.limits.max_remote_transactions {
            self.send_error(id, RefusalCode::Busy);
        } else if let Some(body) = body {
            self.theirs.insert(id, discriminant(&body));
            self.events.push_back(Event::Request { id, body });
        } else {
            self.send_error(id, RefusalCode::Unsupported);
        }
        Ok(())
    }

    //= PARTY-62, PARTY-63
    fn handle_stray(&mut self, id: TransactionId) -> Result<(), PeerMisbehaved> {
        if self.given_up.remove(&id) {
            return Ok(());
        }
        self.stray_answers += 1;
        if self.stray_answers > self.limits.max_stray_answers {
            return Err(PeerMisbehaved::UnknownTransaction);
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // They all have the same timeout, so the oldest is the first.
        self.ours.values().next().map(|ours| ours.deadline)
    }

    /// Gives up the transactions whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(oldest) = self.ours.first_entry()
            && oldest.get().deadline <= now
        {
            let id = *oldest.key();
            oldest.remove();
            self.given_up.insert(id);
            if self.given_up.len() > self.limits.max_local_transactions {
                self.given_up.pop_first();
            }
            self.events.push_back(Event::Answered { id, result: Err(Error::Timeout) });
        }
    }

    /// What is to be told, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be sent, in order: Protomux message type and payload.
    pub fn poll_transmit(&mut self) -> Option<(u64, Vec<u8>)> {
        self.outgoing.pop_front()
    }

    fn send_error(&mut self, id: TransactionId, code: RefusalCode) {
        // It has a fixed, small size.
        let _ = self.send(Frame::Error { id: id.0, code });
    }

    fn send(&mut self, frame: Frame) -> Result<(), ApiMisuse> {
        let frame = frame.encode(&self.limits)?;
        self.sent_finish = false;
        self.outgoing.push_back(frame);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{admission::Introduced, key::FeedKey};

    /// Two channels and a clock that stands still unless moved.
    struct Pair {
        asker: PartyChannel,
        answerer: PartyChannel,
        now: Instant,
    }

    impl Pair {
        #[allow(clippy::disallowed_methods)] // any instant will do as the start of virtual time
        fn new(limits: Limits) -> Self {
            Self {
                asker: PartyChannel::new(&limits),
                answerer: PartyChannel::new(&limits),
                now: Instant::now(),
            }
        }

        fn drive(&mut self) -> Result<(), Error> {
            loop {
                if let Some((message_type, payload)) = self.asker.poll_transmit() {
                    self.answerer.handle_message(message_type, payload.into())?;
                } else if let Some((message_type, payload)) = self.answerer.poll_transmit() {
                    self.asker.handle_message(message_type, payload.into())?;
                } else {
                    return Ok(());
                }
            }
        }

        fn ask(&mut self, body: Body) -> TransactionId {
            self.asker.request(body, self.now).unwrap()
        }

        fn asked(&mut self) -> (TransactionId, Body) {
            match self.answerer.poll_event() {
                Some(Event::Request { id, body }) => (id, body),
                other => panic!("{other:?}"),
            }
        }

        fn answer(&mut self) -> Result<Body, Error> {
            match self.asker.poll_event() {
                Some(Event::Answered { result, .. }) => result,
                other => panic!("{other:?}"),
            }
        }
    }

    fn custom(kind: &str) -> Body {
        Body::Custom(Message::new(kind, &b"value"[..]))
    }

    fn feed(n: u8) -> Introduced {
        Introduced::new(FeedKey::from_bytes([n; 32]))
    }

    //= PARTY-68, PARTY-70
    #[test]
    fn labels_go_both_ways_beside_the_feeds_that_have_one() {
        let limits = Limits::default();
        let mut pair = Pair::new(limits.clone());
        let longest = "l".repeat(limits.max_label);
        for feeds in [
            vec![feed(1).labelled("notes"), feed(2), feed(3).labelled("fotos für alle"), feed(4)],
            vec![feed(1), feed(2).labelled(longest.clone())],
            vec![feed(1).labelled(""), feed(2)],
        ] {
            pair.ask(Body::IntroduceFeeds(feeds.clone()));
            pair.drive().unwrap();
            let (id, body) = pair.asked();
            assert_eq!(body, Body::IntroduceFeeds(feeds.clone()));
            pair.answerer.respond(id, Body::IntroduceFeeds(feeds.clone())).unwrap();
            pair.drive().unwrap();
            assert_eq!(pair.answer().unwrap(), Body::IntroduceFeeds(feeds));
        }
        // One that is too long is not sent, and nothing is left behind.
        let too_long = Body::IntroduceFeeds(vec![feed(1).labelled(longest + "l")]);
        let error = pair.asker.request(too_long, pair.now).unwrap_err();
        assert_eq!(error, ApiMisuse::LimitExceeded("max_label"));
        assert!(pair.asker.is_idle());
    }

    #[test]
    fn a_channel_is_idle_when_the_transactions_of_both_sides_are_over() {
        let mut pair = Pair::new(Limits::default());
        assert!(pair.asker.is_idle() && pair.answerer.is_idle());
        pair.ask(Body::IntroduceFeeds(vec![feed(1)]));
        pair.drive().unwrap();
        let (id, body) = pair.asked();
        assert!(!pair.asker.is_idle(), "it waits for the answer");
        assert!(!pair.answerer.is_idle(), "it has to answer");
        pair.answerer.respond(id, body).unwrap();
        pair.drive().unwrap();
        pair.answer().unwrap();
        assert!(pair.asker.is_idle() && pair.answerer.is_idle());
    }

    //= PARTY-51
    #[test]
    fn more_feeds_than_may_be_introduced_are_not_sent() {
        let limits = Limits { max_introduced_feeds: 2, ..Limits::default() };
        let mut pair = Pair::new(limits);
        let feeds = |count| Body::IntroduceFeeds((0..count).map(feed).collect());
        let error = pair.asker.request(feeds(3), pair.now).unwrap_err();
        assert_eq!(error, ApiMisuse::LimitExceeded("max_introduced_feeds"));
        assert!(pair.asker.is_idle() && pair.asker.poll_transmit().is_none());
        // Nor as an answer: who asked is told a refusal.
        pair.ask(feeds(2));
        pair.drive().unwrap();
        let (id, _) = pair.asked();
        let error = pair.answerer.respond(id, feeds(3)).unwrap_err();
        assert_eq!(error, ApiMisuse::LimitExceeded("max_introduced_feeds"));
        pair.drive().unwrap();
        assert!(matches!(pair.answer(), Err(Error::Refused)));
    }

    //= PARTY-45, PARTY-47, PARTY-69
    #[test]
    fn labels_that_are_too_long_too_many_or_no_text_are_the_peers_fault() {
        let limits = Limits::default();
        let key = [&[0x0a, 32][..], &[1; 32]].concat();
        let label = |bytes: &[u8]| -> Vec<u8> {
            let length = [bytes.len() as u8 & 0x7f | 0x80, (bytes.len() >> 7) as u8];
            [&[0x12][..], &length, bytes].concat()
        };
        let heard = |body: Vec<u8>| {
            let length = [body.len() as u8 & 0x7f | 0x80, (body.len() >> 7) as u8];
            let request = [&[0x08, 1, 0x12][..], &length, &body].concat();
            let mut channel = PartyChannel::new(&limits);
            channel.handle_message(0, request.into()).map(|()| channel.poll_event())
        };
        let too_long = heard([&key[..], &label(&vec![b'l'; limits.max_label + 1])].concat()).unwrap_err();
        assert!(matches!(too_long, Error::PeerMisbehaved(PeerMisbehaved::LimitExceeded("max_label"))));
        let too_many = heard([&key[..], &label(b"one"), &label(b"two")].concat()).unwrap_err();
        assert!(matches!(too_many, Error::Decode(DecodeError::Invalid("label of no feed"))));
        let no_text = heard([&key[..], &label(&[0xff, 0xfe])].concat()).unwrap_err();
        assert!(matches!(no_text, Error::Decode(DecodeError::Protobuf)));
        // The example of the specification.
        let example = heard([&key[..], b"\x12\x05notes"].concat()).unwrap();
        let Some(Event::Request { body: Body::IntroduceFeeds(feeds), .. }) = example else { panic!() };
        assert_eq!(feeds, [feed(1).labelled("notes")]);
    }

    //= PARTY-67, PARTY-59
    #[test]
    fn an_introduction_is_answered_with_keys_and_an_empty_list_stays_a_list() {
        let mut pair = Pair::new(Limits::default());
        pair.ask(Body::IntroduceFeeds(vec![]));
        pair.drive().unwrap();
        let (id, body) = pair.asked();
        assert_eq!(body, Body::IntroduceFeeds(vec![]));
        let feeds = vec![feed(1), feed(2)];
        pair.answerer.respond(id, Body::IntroduceFeeds(feeds.clone())).unwrap();
        pair.drive().unwrap();
        assert_eq!(pair.answer().unwrap(), Body::IntroduceFeeds(feeds));
        assert!(pair.asker.is_idle() && pair.answerer.is_idle());
    }

    //= PARTY-56
    #[test]
    fn answers_may_come_in_any_order() {
        let mut pair = Pair::new(Limits::default());
        let first = pair.ask(custom("first"));
        let second = pair.ask(custom("second"));
        pair.drive().unwrap();
        let (one, _) = pair.asked();
        let (two, _) = pair.asked();
        pair.answerer.respond(two, custom("2")).unwrap();
        pair.answerer.refuse(one, RefusalCode::Refused);
        pair.drive().unwrap();
        assert!(
            matches!(pair.asker.poll_event(), Some(Event::Answered { id, result: Ok(_) }) if id == second)
        );
        assert!(matches!(
            pair.asker.poll_event(),
            Some(Event::Answered { id, result: Err(Error::Refused) }) if id == first
        ));
    }

    //= PARTY-60
    #[test]
    fn an_answer_of_another_kind_is_misbehaviour() {
        let mut pair = Pair::new(Limits::default());
        let id = pair.ask(custom("ask"));
        let (message_type, bytes) = Frame::Response { id: id.0, body: Some(Body::IntroduceFeeds(vec![])) }
            .encode(&Limits::default())
            .unwrap();
        let error = pair.asker.handle_message(message_type, bytes.into()).unwrap_err();
        assert!(matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnexpectedMessage(_))));
    }

    //= PARTY-62
    #[test]
    fn a_transaction_without_an_answer_times_out_and_a_late_answer_is_no_misbehaviour() {
        let limits = Limits { max_stray_answers: 0, ..Limits::default() };
        let timeout = limits.transaction_timeout;
        let mut pair = Pair::new(limits);
        pair.ask(custom("ask"));
        pair.drive().unwrap();
        pair.now += timeout;
        assert_eq!(pair.asker.poll_timeout(), Some(pair.now));
        pair.asker.handle_timeout(pair.now - Duration::from_nanos(1));
        assert!(pair.asker.poll_event().is_none());
        pair.asker.handle_timeout(pair.now);
        assert!(matches!(pair.answer(), Err(Error::Timeout)));
        let (id, _) = pair.asked();
        pair.answerer.respond(id, custom("late")).unwrap();
        pair.drive().unwrap();
        assert!(pair.asker.poll_event().is_none());
    }

    //= PARTY-63
    #[test]
    fn answers_to_nothing_are_counted_and_then_end_the_channel() {
        let limits = Limits { max_stray_answers: 3, ..Limits::default() };
        let mut channel = PartyChannel::new(&limits);
        for attempt in 0..4 {
            let (message_type, bytes) =
                Frame::Error { id: 9, code: RefusalCode::Refused }.encode(&limits).unwrap();
            assert_eq!(channel.handle_message(message_type, bytes.into()).is_err(), attempt == 3);
        }
    }

    //= PARTY-57, PARTY-58
    #[test]
    fn too_many_transactions_at_once_are_told_to_wait() {
        let limits = Limits { max_remote_transactions: 2, ..Limits::default() };
        let mut pair = Pair::new(limits);
        for _ in 0..3 {
            pair.ask(custom("ask"));
        }
        pair.drive().unwrap();
        assert!(matches!(pair.answer(), Err(Error::Refused)));
        pair.asked();
        pair.asked();
        assert!(pair.answerer.poll_event().is_none());
    }

    //= PARTY-54, PARTY-55
    #[test]
    fn ids_may_not_be_used_again() {
        let limits = Limits::default();
        let mut channel = PartyChannel::new(&limits);
        let request = Frame::Request { id: 5, body: Some(custom("ask")) }.encode(&limits).unwrap();
        channel.handle_message(request.0, request.1.clone().into()).unwrap();
        assert!(channel.handle_message(request.0, request.1.into()).is_err());
    }

    //= PARTY-80, PARTY-81
    #[test]
    fn finish_is_taken_back_by_whatever_follows() {
        let mut pair = Pair::new(Limits::default());
        pair.asker.finish();
        pair.drive().unwrap();
        assert!(pair.answerer.remote_finished());
        pair.asker.send_ephemeral(Message::new("ping", &b""[..])).unwrap();
        pair.drive().unwrap();
        assert!(!pair.answerer.remote_finished());
        pair.asker.finish();
        pair.drive().unwrap();
        assert!(pair.answerer.remote_finished());
    }

    //= PARTY-43, PARTY-45, MUX-4
    #[test]
    fn an_unknown_message_type_is_passed_over_and_a_malformed_one_is_not() {
        let mut channel = PartyChannel::new(&Limits::default());
        channel.handle_message(77, Bytes::from_static(b"whatever")).unwrap();
        assert!(channel.handle_message(0, Bytes::from_static(&[0xff])).is_err());
        assert!(channel.poll_event().is_none());
    }

    //= PARTY-46
    #[test]
    fn a_key_that_is_not_32_bytes_is_malformed() {
        use prost::Message as _;
        let body = super::super::proto::request::Body::IntroduceFeeds(super::super::proto::IntroduceFeeds {
            keys: vec![Bytes::from_static(&[1; 31])],
            labels: vec![],
        });
        let request = super::super::proto::Request { id: 1, body: Some(body) };
        let mut channel = PartyChannel::new(&Limits::default());
        let error = channel.handle_message(0, request.encode_to_vec().into()).unwrap_err();
        assert!(matches!(error, Error::Decode(DecodeError::Invalid("feed key"))));
    }
}
