//! The proofs of membership: values that only who knows the party key can make, good for one connection and
//! one role.

use subtle::ConstantTimeEq as _;

use crate::{
    hash::{Hash, keyed_hash, namespace},
    key::PartyKey,
    session::Session,
};

const NAME: &str = "party";
const CHANNEL: u8 = 0;
const INITIATOR: u8 = 1;
const RESPONDER: u8 = 2;

/// The id of the party's channel on this connection.
///
/// It tells a stranger nothing, and it is worthless on any other connection, as it is keyed with the
/// handshake hash.
//= PARTY-1
pub fn channel_id(session: &Session, party: &PartyKey) -> Hash {
    keyed_hash(&session.binding, &[&namespace(NAME, CHANNEL), party.as_bytes()])
}

/// Our proof that we know the party key.
//= PARTY-5
pub fn prove(session: &Session, party: &PartyKey) -> Hash {
    proof(session, party, session.is_initiator)
}

/// Whether `claimed` proves that the remote knows the party key. The proof is bound to the remote's role, so
/// an echo of ours proves nothing. Takes the same time whatever is wrong with it.
//= PARTY-4, PARTY-8
pub fn verify(session: &Session, party: &PartyKey, claimed: &[u8]) -> bool {
    proof(session, party, !session.is_initiator).ct_eq(claimed).into()
}

fn proof(session: &Session, party: &PartyKey, of_initiator: bool) -> Hash {
    let role = if of_initiator { INITIATOR } else { RESPONDER };
    keyed_hash(&session.binding, &[&namespace(NAME, role), party.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    fn session(binding: u8, is_initiator: bool) -> Session {
        Session {
            binding: [binding; 64],
            is_initiator,
            local: PublicKey::from_bytes([1; 32]),
            remote: PublicKey::from_bytes([2; 32]),
        }
    }

    //= PARTY-8
    #[test]
    fn a_proof_holds_for_its_party_connection_and_role_only() {
        let (party, other) = (PartyKey::from_bytes([7; 32]), PartyKey::from_bytes([8; 32]));
        let (dialler, listener) = (session(1, true), session(1, false));

        assert!(verify(&listener, &party, &prove(&dialler, &party)));
        assert!(verify(&dialler, &party, &prove(&listener, &party)));
        assert!(!verify(&dialler, &party, &prove(&dialler, &party)), "an echo");
        assert!(!verify(&listener, &party, &prove(&dialler, &other)), "another party");
        assert!(!verify(&session(2, false), &party, &prove(&dialler, &party)), "another connection");
        assert!(!verify(&listener, &party, &[]));
    }

    //= PARTY-1
    #[test]
    fn both_ends_compute_the_same_channel_id() {
        let party = PartyKey::from_bytes([7; 32]);
        assert_eq!(channel_id(&session(1, true), &party), channel_id(&session(1, false), &party));
        assert_ne!(channel_id(&session(1, true), &party), channel_id(&session(2, true), &party));
    }
}
