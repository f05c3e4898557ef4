//! Credentials: who is a member because the party's founder said so, and who is one no more. Sans-IO.
//!
//! Knowing the party key is enough to be admitted. Where that is too little, rules ask for a [`Membership`]: a chain
//! of links, the first of which the founder signs with the other half of the party key, and each later one the key
//! that the link before it names. The last link names the static key by which a peer is known on its connections.
//! Whoever holds a membership that may be delegated narrows it and hands it on, offline.
//!
//! A [`Revocation`] ends what a link or a key was granted. It spreads inside the party: [`Revocations`] is a set that
//! members merge in any order, and by which all of them come to the same members and the same cut-offs.
//!
//! | type | says |
//! |---|---|
//! | [`Membership`] | nothing yet: somebody's bytes |
//! | [`CheckedChain`] | each link is signed by who may, and narrows the one before |
//! | [`VerifiedMembership`] | and it is good now, for the peer on this connection |
//!
//! It may still have been revoked: ask [`Revocations::is_revoked`]. Specified in `protocol-spec/11-credentials.md`.
//!
//! ```
//! use party::{
//!     credentials::{Grant, Membership, Revocation, Revocations, Revoked, Terms},
//!     key::{KeyPair, PartyKey},
//!     limits::Limits,
//! };
//!
//! let limits = Limits::default();
//! let [founder, ann, bob] = [1, 2, 3].map(|seed| KeyPair::from_seed(&[seed; 32]));
//! let party = PartyKey::from_bytes(*founder.public().as_bytes());
//!
//! // The founder makes Ann a member who may bring in others; she lets Bob read for a day.
//! let now = 1_800_000_000; // seconds since 1970
//! let of_ann = Membership::found(&founder, Grant::to(ann.public(), Terms::everything().delegable(1)), &limits)?;
//! let terms = Terms::everything().read_only().expiring(now + 86_400);
//! let of_bob = of_ann.extend(&party, &ann, Grant::to(bob.public(), terms), &limits)?;
//!
//! // Bob shows it on a connection whose handshake has proved his key.
//! let shown = Membership::decode(&of_bob.encode(), &limits)?;
//! let verified = shown.verify_for(&party, &bob.public(), now)?;
//! assert!(verified.chain().terms().may_read && !verified.chain().terms().may_bring);
//!
//! // Ann thinks better of it.
//! let mut revocations = Revocations::new(party, &limits);
//! let revocation = Revocation::sign(verified.chain(), &ann, Revoked::Key, [], &limits)?;
//! revocations.insert(revocation.verify(&party)?)?;
//! assert!(revocations.is_revoked(verified.chain()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// The type of a `Custom` request that shows a membership to a peer.
///
/// Types that begin with `party/` are not the app's. See `protocol-spec/11-credentials.md#on-a-connection`.
pub const SHOW: &str = "party/membership";
/// The type of a `Custom` request that carries a [`SyncMessage`].
pub const SYNC: &str = "party/credentials";

mod link;
mod membership;
mod quota;
mod revocation;
mod set;
mod sync;
mod terms;

pub use link::{Grant, LinkId};
pub use membership::{CheckedChain, Membership, VerifiedMembership};
pub use revocation::{CutOff, Revocation, Revoked, VerifiedRevocation};
pub use set::{Inserted, Revocations};
pub use sync::{Handled, SyncMessage};
pub use terms::{Extent, Feeds, Terms};

/// The namespaces of `party` that credentials use; see `protocol-spec/01-overview.md#namespaces`.
mod namespaces {
    use crate::hash::{Hash, namespace};

    pub(super) fn link() -> Hash {
        namespace("party", 3)
    }

    pub(super) fn link_signature() -> Hash {
        namespace("party", 4)
    }

    pub(super) fn revocation() -> Hash {
        namespace("party", 5)
    }

    pub(super) fn revocation_signature() -> Hash {
        namespace("party", 6)
    }
}
