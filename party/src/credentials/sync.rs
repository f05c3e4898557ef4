//! How two members tell each other what the other lacks, in messages of bounded length.
//!
//! One sends a [`Summary`](SyncMessage::Summary) when it feels like it; whatever follows is an answer. Nothing is
//! remembered between messages, so any of them may be lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    credentials::{
        membership::Membership,
        revocation::Revocation,
        set::{Inserted, Revocations},
    },
    encoding::{Reader, Writer as _},
    error::{DecodeError, PeerMisbehaved},
    hash::{Hash, hash, keyed_hash},
    limits::Limits,
};

/// How many buckets the ids are compared by.
const BUCKETS: usize = 256;
const REVOCATION: u8 = 0;
const MEMBERSHIP: u8 = 1;

/// What members say to each other about revocations and memberships. How it is carried is the application's choice; a
/// message of its own on the party channel does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncMessage {
    /// Hashes of what the sender knows, in 256 buckets.
    Summary {
        /// Chosen anew each time at random, so that nobody can aim at a bucket.
        salt: [u8; 16],
        /// The first 8 bytes of a hash of the ids in each bucket.
        buckets: Box<[[u8; 8]; BUCKETS]>,
    },
    /// The ids that the sender knows in some buckets.
    Have {
        /// That of the summary.
        salt: [u8; 16],
        /// A bit for each bucket of which all ids follow, the lowest bit of each byte first.
        complete: [u8; BUCKETS / 8],
        /// The ids.
        ids: Vec<Hash>,
    },
    /// Asks for the revocations and memberships with these ids.
    Want {
        /// The ids.
        ids: Vec<Hash>,
    },
    /// Revocations and memberships.
    Items {
        /// Revocations.
        revocations: Vec<Revocation>,
        /// Memberships.
        memberships: Vec<Membership>,
    },
}

/// What came of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// To be sent back, in this order.
    pub replies: Vec<SyncMessage>,
    /// Revocations that were new: time to look at the feeds of connected peers again.
    pub new_revocations: usize,
    /// Members that were new.
    pub new_members: usize,
}

impl Revocations {
    /// What to begin with. `salt` is random.
    //= CRED-38
    pub fn summary(&self, salt: [u8; 16]) -> SyncMessage {
        let buckets = self.buckets(&salt);
        SyncMessage::Summary { salt, buckets: Box::new(std::array::from_fn(|n| summed(&buckets[n]))) }
    }

    /// Takes in what a peer says, and answers it. Both ends do, and when no answer is left to give, both know the
    /// same, unless a message was full: then another summary finds what is left.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Credential`] for something that doesn't hold. What came before it in the message is kept.
    //= CRED-43
    pub fn handle(&mut self, message: &SyncMessage) -> Result<Handled, PeerMisbehaved> {
        match message {
            SyncMessage::Summary { salt, buckets } => Ok(reply(self.have(salt, buckets))),
            SyncMessage::Have { salt, complete, ids } => Ok(self.compare(salt, complete, ids)),
            SyncMessage::Want { ids } => Ok(reply(self.items(ids.iter()))),
            SyncMessage::Items { revocations, memberships } => {
                let mut handled = Handled::default();
                for revocation in revocations {
                    // Known already, and signed by then: verifying costs more than all the rest.
                    if !self.revocations.contains(&revocation.claimed_id(&self.party))
                        && self.insert(revocation.verify(&self.party)?)? == Inserted::New
                    {
                        handled.new_revocations += 1;
                    }
                }
                for membership in memberships {
                    if !self.members.contains(membership.claimed_id(&self.party).as_bytes())
                        && self.insert_member(membership.check(&self.party)?)? == Inserted::New
                    {
                        handled.new_members += 1;
                    }
                }
                Ok(handled)
            }
        }
    }

    fn have(&self, salt: &[u8; 16], theirs: &[[u8; 8]; BUCKETS]) -> Option<SyncMessage> {
        let mut complete = [0; BUCKETS / 8];
        let mut ids = Vec::new();
        let ours = self.buckets(salt);
        let different = ours.iter().enumerate().filter(|(n, bucket)| summed(bucket) != theirs[*n]);
        for (n, bucket) in different {
            let room = self.limits.max_sync_ids - ids.len();
            ids.extend(bucket.values().take(room));
            if bucket.len() > room {
                break;
            }
            complete[n / 8] |= 1 << (n % 8);
        }
        (complete != [0; BUCKETS / 8] || !ids.is_empty()).then_some(SyncMessage::Have {
            salt: *salt,
            complete,
            ids,
        })
    }

    fn compare(&self, salt: &[u8; 16], complete: &[u8; BUCKETS / 8], ids: &[Hash]) -> Handled {
        let theirs: BTreeSet<&Hash> = ids.iter().collect();
        let buckets = self.buckets(salt);
        let covered = buckets.iter().enumerate().filter(|(n, _)| complete[n / 8] & 1 << (n % 8) != 0);
        let they_lack = covered.flat_map(|(_, bucket)| bucket.values()).filter(|id| !theirs.contains(id));
        let we_lack: Vec<Hash> = theirs.iter().filter(|id| !self.knows(id)).map(|id| **id).collect();
        let mut replies: Vec<SyncMessage> = self.items(they_lack).into_iter().collect();
        replies.extend((!we_lack.is_empty()).then_some(SyncMessage::Want { ids: we_lack }));
        Handled { replies, ..Handled::default() }
    }

    /// As many of these as are known and fit into one message.
    //= CRED-41
    pub(crate) fn items<'a>(&self, ids: impl Iterator<Item = &'a Hash>) -> Option<SyncMessage> {
        let (mut revocations, mut memberships, mut bytes) = (Vec::new(), Vec::new(), 0);
        for id in ids {
            if let Some(revocation) = self.revocations.get(id) {
                bytes += revocation.revocation().encode().len();
                revocations.push(revocation.revocation().clone());
            } else if let Some(chain) = self.members.get(id) {
                bytes += chain.membership().encode().len();
                memberships.push(chain.membership().clone());
            }
            // The one that was too much goes with the next message; a message has at least one.
            if bytes > self.limits.max_sync_bytes && revocations.len() + memberships.len() > 1 {
                if self.revocations.contains(id) {
                    drop(revocations.pop())
                } else {
                    drop(memberships.pop())
                }
                break;
            }
        }
        (bytes > 0).then_some(SyncMessage::Items { revocations, memberships })
    }

    fn knows(&self, id: &Hash) -> bool {
        self.revocations.contains(id) || self.members.contains(id)
    }

    /// What is known, by bucket, in the order of the salted hashes that place it.
    fn buckets(&self, salt: &[u8; 16]) -> Vec<BTreeMap<Hash, Hash>> {
        let mut buckets = vec![BTreeMap::new(); BUCKETS];
        for id in self.revocations.ids().chain(self.members.ids()) {
            let place = keyed_hash(salt, &[id]);
            buckets[usize::from(place[0])].insert(place, *id);
        }
        buckets
    }
}

impl SyncMessage {
    /// The bytes of it.
    //= CRED-1, CRED-38
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Summary { salt, buckets } => {
                out.put_bytes(&[0]);
                out.put_bytes(salt);
                buckets.iter().for_each(|bucket| out.put_bytes(bucket));
            }
            Self::Have { salt, complete, ids } => {
                out.put_bytes(&[1]);
                out.put_bytes(salt);
                out.put_bytes(complete);
                put_ids(&mut out, ids);
            }
            Self::Want { ids } => {
                out.put_bytes(&[2]);
                put_ids(&mut out, ids);
            }
            Self::Items { revocations, memberships } => {
                out.put_bytes(&[3]);
                for revocation in revocations {
                    out.put_bytes(&[REVOCATION]);
                    out.put_buffer(&revocation.encode());
                }
                for membership in memberships {
                    out.put_bytes(&[MEMBERSHIP]);
                    out.put_buffer(&membership.encode());
                }
            }
        }
        out
    }

    /// Reads what a peer has encoded.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no such message, or go beyond the limits.
    //= protocol-spec/11-credentials.md#comparing
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            0 => {
                let salt = reader.array()?;
                let mut buckets = Box::new([[0; 8]; BUCKETS]);
                for bucket in buckets.iter_mut() {
                    *bucket = reader.array()?;
                }
                Self::Summary { salt, buckets }
            }
            1 => Self::Have {
                salt: reader.array()?,
                complete: reader.array()?,
                ids: ids(&mut reader, limits)?,
            },
            2 => Self::Want { ids: ids(&mut reader, limits)? },
            3 => items(&mut reader, limits)?,
            other => {
                return Err(DecodeError::Unknown { what: "message about credentials", value: other.into() });
            }
        };
        if !reader.is_empty() {
            return Err(DecodeError::Invalid("end of a message about credentials"));
        }
        Ok(message)
    }
}

fn reply(message: Option<SyncMessage>) -> Handled {
    Handled { replies: message.into_iter().collect(), ..Handled::default() }
}

fn summed(bucket: &BTreeMap<Hash, Hash>) -> [u8; 8] {
    if bucket.is_empty() {
        return [0; 8];
    }
    let parts: Vec<&[u8]> = bucket.values().map(|id| &id[..]).collect();
    let hash = hash(&parts);
    std::array::from_fn(|n| hash[n])
}

fn put_ids(out: &mut Vec<u8>, ids: &[Hash]) {
    out.put_uint(ids.len() as u64);
    ids.iter().for_each(|id| out.put_bytes(id));
}

//= CRED-40
fn ids(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<Hash>, DecodeError> {
    let count = reader.count(32, limits.max_sync_ids)?;
    (0..count).map(|_| reader.array()).collect()
}

fn items(reader: &mut Reader<'_>, limits: &Limits) -> Result<SyncMessage, DecodeError> {
    // A single item may be longer than what is otherwise put into one message, if that was set very low.
    let longest = limits.max_membership + 96 + 50 * limits.max_cut_offs;
    if reader.remaining().len() > limits.max_sync_bytes.max(longest).saturating_mul(2) {
        return Err(DecodeError::Invalid("length of a message about credentials"));
    }
    let (mut revocations, mut memberships) = (Vec::new(), Vec::new());
    while !reader.is_empty() {
        match reader.u8()? {
            REVOCATION => revocations.push(Revocation::decode(reader.buffer()?, limits)?),
            MEMBERSHIP => memberships.push(Membership::decode(reader.buffer()?, limits)?),
            other => return Err(DecodeError::Unknown { what: "kind of a credential", value: other.into() }),
        }
    }
    Ok(SyncMessage::Items { revocations, memberships })
}
