//! Parties that come to a connection, and go from it: who opens the channel, and who answers.

use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;

use super::{Engine, Owner};
use crate::{
    admission::{self, Hello, membership},
    connection::members::{Member, Standing},
    error::{ApiMisuse, Error},
    hash::Hash,
    key::PartyKey,
    mux::{ChannelId, Incoming},
    party::{Party, Reevaluated},
    peer::MemberId,
    random::Random,
    rules::Decision,
};

impl Engine {
    /// Makes it look to the remote, if we dialled, as if we had so many parties at least.
    pub(in crate::connection) fn pad_to(&mut self, parties: usize) {
        self.pad_to = parties;
    }

    /// Offers our parties, if we dialled, and begins the open mode.
    //= PARTY-10, PARTY-11, PARTY-12
    pub(in crate::connection) fn start(&mut self) -> Result<(), Error> {
        let mut parties: Vec<Option<MemberId>> = Vec::new();
        for (id, member) in self.members.iter() {
            if member.party.is_some() {
                parties.push(Some(id));
            }
        }
        if self.session.is_initiator {
            //= protocol-spec/08-party.md#admission
            let decoys = self.pad_to.saturating_sub(parties.len());
            parties.extend(std::iter::repeat_n(None, decoys));
            if decoys > 0 {
                shuffle(&mut parties, &mut self.random);
            }
        }
        for party in parties {
            match party {
                Some(member) => self.begin(member)?,
                None => self.open_decoy()?,
            }
        }
        for member in self.members.ids() {
            if self.members.get(member).is_some_and(|member| member.party.is_none()) {
                self.begin(member)?;
            }
        }
        Ok(())
    }

    /// Does what can be done from our side for the remote to be admitted.
    //= PARTY-27, PARTY-28, PARTY-30
    fn begin(&mut self, member: MemberId) -> Result<(), Error> {
        let Some(entry) = self.members.get(member) else { return Ok(()) };
        let Some(party) = entry.party else {
            if self.may_be_here(member) {
                self.admit(member, None);
            } else {
                self.set_standing(member, Standing::Excluded { proved: true });
            }
            return Ok(());
        };
        let id = membership::channel_id(&self.session, &party);
        //= protocol-spec/08-party.md#parties-that-come-later
        if !self.session.is_initiator && !self.offered.contains(&id) {
            self.set_standing(member, Standing::Stranger);
        } else if entry.hub.is_removed(&self.session.remote) {
            self.set_standing(member, Standing::Excluded { proved: false });
        } else {
            self.forget_offer(&id);
            self.offer(member, &party)?;
        }
        Ok(())
    }

    fn offer(&mut self, member: MemberId, party: &PartyKey) -> Result<(), Error> {
        let id = membership::channel_id(&self.session, party);
        let hello = Hello::new(membership::prove(&self.session, party)).encode();
        let channel = self.mux.open(admission::PROTOCOL, Some(&id), &hello)?;
        self.channels.insert(channel, Owner::Member(member));
        self.set_standing(member, Standing::Offered(channel));
        Ok(())
    }

    fn open_decoy(&mut self) -> Result<(), Error> {
        let id: Hash = self.random.bytes();
        let hello = Hello::new(self.random.bytes()).encode();
        let channel = self.mux.open(admission::PROTOCOL, Some(&id), &hello)?;
        self.channels.insert(channel, Owner::Decoy);
        Ok(())
    }

    /// The remote claims to be a member of some party.
    //= PARTY-14, PARTY-15, PARTY-19, PARTY-29, PARTY-110, PARTY-111, PARTY-18, PARTY-31, PARTY-39
    pub(super) fn handle_offer(&mut self, incoming: Incoming, id: &[u8], hello: Bytes) {
        let member = self.answering(id, hello).filter(|member| {
            let may = self.may_be_here(*member);
            if !may {
                self.set_standing(*member, Standing::Excluded { proved: true });
            }
            may
        });
        let party = member.and_then(|member| Some((member, self.members.get(member)?.party?)));
        let Some((member, party)) = party else {
            // Not a member, a party that we don't know, an echo, or already here: all the same from outside.
            if let Ok(id) = id.try_into() {
                self.remember_offer(id);
            }
            return self.mux.reject(incoming);
        };
        let hello = Hello::new(membership::prove(&self.session, &party)).encode();
        if let Ok(Some(channel)) = self.mux.accept(incoming, &hello) {
            self.channels.insert(channel, Owner::Member(member));
            if let Ok(id) = id.try_into() {
                self.forget_offer(&id);
            }
            self.admit(member, Some(channel));
        }
    }

    /// Which of our parties it is that the remote has opened, and has proved to be in.
    //= PARTY-6, PARTY-7, PARTY-8, PARTY-25, PARTY-33
    fn answering(&self, id: &[u8], hello: Bytes) -> Option<MemberId> {
        let hello = Hello::decode(hello).ok()?;
        self.members.iter().find_map(|(member, entry)| {
            let party = entry.party.as_ref()?;
            if let Standing::Admitted(_) | Standing::Offered(_) = entry.standing {
                return None;
            }
            let known: bool = membership::channel_id(&self.session, party).ct_eq(id).into();
            (known && membership::verify(&self.session, party, &hello.proof)).then_some(member)
        })
    }

    /// The remote opened the channel of a party that we had opened.
    //= PARTY-20, PARTY-21, PARTY-23, PARTY-32, PARTY-34
    pub(super) fn handle_offer_answered(&mut self, member: MemberId, channel: ChannelId, hello: Bytes) {
        let party = self.members.get(member).and_then(|entry| entry.party);
        let proved = party.is_some_and(|party| {
            Hello::decode(hello).is_ok_and(|hello| membership::verify(&self.session, &party, &hello.proof))
        });
        if proved && self.may_be_here(member) {
            return self.admit(member, Some(channel));
        }
        tracing::debug!(proved, "the remote is not admitted");
        self.channels.remove(&channel);
        self.mux.close(channel);
        let standing = if proved { Standing::Excluded { proved } } else { Standing::Refused };
        self.set_standing(member, standing);
    }

    /// Whether the rules let the remote in.
    fn may_be_here(&self, member: MemberId) -> bool {
        let Some((peer, entry)) = self.peer(member).zip(self.members.get(member)) else { return false };
        let decision = entry.hub.admit(&peer);
        if !decision.is_allowed() {
            log_exclusion(&peer, &decision);
        }
        decision.is_allowed()
    }

    fn is_removed(&self, member: MemberId) -> bool {
        self.members.get(member).is_some_and(|entry| entry.hub.is_removed(&self.session.remote))
    }

    /// Those that were excluded and may be here now begin anew, and those that may not be here any more are excluded.
    /// Returns how many memberships have ended.
    pub(super) fn reconsider_member(&mut self, member: MemberId) -> usize {
        match self.members.get(member).map(|entry| &entry.standing) {
            Some(Standing::Admitted(_)) if !self.may_be_here(member) => {
                self.remove_member(member, Standing::Excluded { proved: true });
                1
            }
            Some(Standing::Offered(_)) if self.is_removed(member) => {
                self.remove_member(member, Standing::Excluded { proved: false });
                1
            }
            Some(Standing::Excluded { proved: false }) if self.is_removed(member) => 0,
            Some(Standing::Excluded { proved: true }) if !self.may_be_here(member) => 0,
            Some(Standing::Excluded { .. }) => {
                if let Err(error) = self.begin(member) {
                    tracing::debug!(%error, "can't open the channel of a party");
                }
                0
            }
            _ => 0,
        }
    }

    /// The connection gains a party.
    //= LIMIT-20
    pub(super) fn join(&mut self, party: &Party) -> Result<(), Error> {
        if self.members.of_party(party.key()).is_some() {
            return Err(ApiMisuse::PartyJoined(party.discovery_key()).into());
        }
        let parties = self.members.values().filter(|member| member.party.is_some()).count();
        if parties >= self.limits.max_parties {
            return Err(ApiMisuse::LimitExceeded("max_parties").into());
        }
        let hub = party.hub();
        let member = self.members.add(Member::new(hub.clone(), Some(*party.key())));
        hub.add_connection(self.connection, self.session.remote, self.commands.clone());
        self.begin(member)
    }

    /// The connection loses a party.
    pub(super) fn leave(&mut self, party: &PartyKey, reply: oneshot::Sender<Reevaluated>) {
        let mut result = Reevaluated::default();
        let jobs = self.running_jobs();
        if let Some(member) = self.members.of_party(party) {
            result.stopped = 1;
            let member = self.remove_member(member, Standing::Gone);
            if let Some(entry) = member.and_then(|member| self.members.remove(member)) {
                entry.hub.remove_connection(self.connection);
            }
        }
        self.answer_when_stopped(result, jobs, reply);
    }

    fn set_standing(&mut self, member: MemberId, standing: Standing) {
        if let Some(entry) = self.members.get_mut(member) {
            entry.standing = standing;
        }
    }

    //= PARTY-29
    pub(super) fn remember_offer(&mut self, id: Hash) {
        if self.session.is_initiator || self.offered.contains(&id) {
            return;
        }
        while self.offered.len() >= self.limits.max_offered_parties.max(1) {
            self.offered.pop_front();
        }
        self.offered.push_back(id);
    }

    /// Whether the remote had offered it.
    fn forget_offer(&mut self, id: &Hash) -> bool {
        let at = self.offered.iter().position(|offered| offered == id);
        at.and_then(|at| self.offered.remove(at)).is_some()
    }
}

fn log_exclusion(peer: &crate::peer::Peer, decision: &Decision) {
    tracing::info!(
        peer = %peer.remote_public_key(),
        rule = decision.rule(),
        reason = decision.reason(),
        "not admitted by the rules"
    );
}

/// Puts them into an order that tells nothing.
fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        let at = u64::from_le_bytes(random.bytes()) % (last as u64 + 1);
        items.swap(last, at as usize);
    }
}
