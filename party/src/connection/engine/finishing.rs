//! When a connection has nothing left to do, and what is said of it.

use super::{Engine, Owner};
use crate::{
    connection::members::{Member, Standing},
    error::Error,
};

/// Whether the connection has nothing under way, and has said so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Busy,
    /// It has nothing under way, but apps have not had their turn since, and may have a next request. Two messages become
    /// one, and the remote isn't woken for what doesn't hold any more. Whatever happens first ends it.
    Pausing,
    Finished,
}

impl Engine {
    //= PARTY-77, PARTY-78, PARTY-79
    pub(super) fn tell_whether_finished(&mut self) {
        self.rest = match (self.is_idle(), self.rest) {
            (false, _) => Rest::Busy,
            (true, Rest::Busy) => Rest::Pausing,
            (true, Rest::Pausing | Rest::Finished) => Rest::Finished,
        };
        for member in self.members.values_mut() {
            let Some(admitted) = member.admitted_mut() else { continue };
            let Some((id, channel)) = &mut admitted.channel else { continue };
            match self.rest {
                Rest::Busy => channel.resume(),
                Rest::Pausing => {}
                Rest::Finished => channel.finish(),
            }
            while let Some((message_type, payload)) = channel.poll_transmit() {
                let _ = self.mux.send(*id, message_type, &payload);
            }
        }
    }

    /// Whether other tasks shall have a turn before more is sent. It ends with the next flush.
    pub(in crate::connection) fn is_pausing(&self) -> bool {
        self.rest == Rest::Pausing
    }

    fn is_idle(&self) -> bool {
        self.unsettled.is_empty()
            && self.searches.is_empty()
            && self.members.values().all(|member| self.may_still_come(member) || member.is_idle())
    }

    /// Whether somebody may yet show up for this party, which keeps nothing waiting as long as others are
    /// there.
    fn may_still_come(&self, member: &Member) -> bool {
        matches!(member.standing, Standing::Stranger)
            && self.members.values().any(|member| member.admitted().is_some())
    }

    /// Whether a finite connection has done what it was made for.
    //= PARTY-82, PARTY-83
    pub(in crate::connection) fn is_done(&self) -> bool {
        let all_finished =
            self.members.values().filter_map(Member::admitted).all(|admitted| {
                admitted.channel.as_ref().is_none_or(|(_, channel)| channel.remote_finished())
            });
        self.finite && self.ever_admitted && self.rest == Rest::Finished && all_finished
    }

    /// What went wrong first with a feed, if anything did.
    pub(in crate::connection) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Whether the remote has refused all that we are here for. Who was dialled waits for the end of the time that it
    /// gives everybody: that it goes sooner would tell that it knows whom it refuses.
    //= PARTY-40, PARTY-42
    pub(in crate::connection) fn is_refused(&self) -> bool {
        //= protocol-spec/08-party.md#what-this-hides-and-what-not
        if !self.session.is_initiator || self.has_decoys() {
            return false;
        }
        let refused =
            |member: &Member| matches!(member.standing, Standing::Refused | Standing::Excluded { .. });
        !self.ever_admitted && self.members.values().all(refused)
    }

    /// Whether offers of nothing are not answered yet.
    fn has_decoys(&self) -> bool {
        self.channels.values().any(|owner| matches!(owner, Owner::Decoy))
    }

    /// Whether nobody has been let in yet.
    pub(in crate::connection) fn is_among_strangers(&self) -> bool {
        !self.ever_admitted
    }

    /// Whether all that was to be got has been got, as far as we know.
    pub(in crate::connection) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }
}
