//! Tickets: all that somebody needs to join a party, as text that can be sent, printed or scanned.
//!
//! A [`Ticket`] carries the party key, and may carry a [membership](crate::credentials), addresses where members
//! listen, and a time after which it should not be used. Whoever reads it is in: it is to be kept as the party key is.
//! Specified in `protocol-spec/12-tickets.md`.

use std::{fmt, net::Ipv6Addr};

use zeroize::Zeroizing;

use crate::{
    credentials::Membership,
    encoding::{MAX_SAFE_INTEGER, Reader, Writer as _},
    error::{CredentialFlaw, DecodeError},
    hash::{hash, namespace},
    key::{KeyPair, PartyKey},
    limits::Limits,
};

/// What every ticket of this version begins with.
const PREFIX: &str = "party1_";
const CHECKSUM: usize = 4;

const MEMBERSHIP: u8 = 1;
const SECRET: u8 = 1 << 1;
const EXPIRES: u8 = 1 << 2;

/// An invitation to a party.
///
/// It has no `Display`, and `Debug` shows neither keys nor credentials: [`to_text`](Self::to_text) is the one way to
/// the secret that it is.
///
/// ```
/// use party::{key::PartyKey, limits::Limits, ticket::Ticket};
///
/// let limits = Limits::default();
/// let key = PartyKey::from_bytes([7; 32]);
/// let ticket = Ticket::new(key).with_address("chat.example:4977")?.expiring(1_900_000_000);
///
/// let read = Ticket::parse(&ticket.to_text(&limits)?, &limits)?;
/// assert_eq!(*read.party(), key);
/// assert_eq!(read.addresses(), ["chat.example:4977"]);
/// assert!(!read.is_expired(1_800_000_000));
/// # Ok::<(), party::ticket::TicketError>(())
/// ```
#[derive(Clone)]
pub struct Ticket {
    party: PartyKey,
    membership: Option<Membership>,
    secret: Option<KeyPair>,
    addresses: Vec<String>,
    expires: Option<u64>,
}

/// Why a text is no ticket, or a ticket can't be made. None of them repeats what was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It doesn't begin as tickets do.
    #[error("not a ticket: tickets begin with {PREFIX}")]
    NotATicket,
    /// A ticket of a later version.
    #[error("a ticket of a later version")]
    UnknownVersion,
    /// A character that no ticket has, or one too many or too few.
    #[error("mistyped or incomplete at character {at}")]
    Character {
        /// Which one, the first being 1.
        at: usize,
    },
    /// The checksum is wrong: some character is another than it was, or some are missing.
    #[error("mistyped or incomplete: its checksum is wrong")]
    Checksum,
    /// The content is not laid out as that of a ticket.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// An address that is not of the form host:port.
    #[error("an address that is not of the form host:port")]
    Address,
    /// The membership does not hold in the party, or the secret is not that of the key that it names.
    #[error("its membership does not hold: {0}")]
    Membership(#[from] CredentialFlaw),
    /// More of something than a limit of ours allows.
    #[error("beyond the limit {0}")]
    LimitExceeded(&'static str),
}

impl Ticket {
    /// A ticket to the party with this key, and nothing more.
    pub fn new(party: PartyKey) -> Self {
        Self { party, membership: None, secret: None, addresses: Vec::new(), expires: None }
    }

    /// With a membership. Its last link names the key of the guest.
    ///
    /// # Errors
    /// [`TicketError::Membership`] if the chain doesn't hold in this party.
    pub fn with_membership(self, membership: Membership) -> Result<Self, TicketError> {
        membership.check(&self.party)?;
        Ok(Self { membership: Some(membership), secret: None, ..self })
    }

    /// With a membership that names a key made for the purpose, and the secret of this key: for a guest whose key is not
    /// known. The guest signs a link to its own key with it. Whoever comes first is the guest; let such tickets expire.
    ///
    /// # Errors
    /// [`TicketError::Membership`] if the chain doesn't hold in this party or names another key.
    pub fn with_secret(self, membership: Membership, secret: KeyPair) -> Result<Self, TicketError> {
        if membership.claimed_holder() != secret.public() {
            return Err(CredentialFlaw::OtherKey.into());
        }
        Ok(Self { secret: Some(secret), ..self.with_membership(membership)? })
    }

    /// With one more address at which a member listens, as `host:port`, where the host is a name, an IPv4 address, or
    /// an IPv6 address in brackets. It is a hint: who answers there has to prove that it is in the party.
    ///
    /// # Errors
    /// [`TicketError::Address`].
    pub fn with_address(mut self, address: impl Into<String>) -> Result<Self, TicketError> {
        let address = address.into();
        if !is_address(&address) {
            return Err(TicketError::Address);
        }
        self.addresses.push(address);
        Ok(self)
    }

    /// Not to be used from then on, in seconds since 1970 UTC. It is a request to whoever has the ticket: the party key
    /// in it doesn't change.
    #[must_use]
    pub fn expiring(self, at: u64) -> Self {
        Self { expires: Some(at), ..self }
    }

    /// The key of the party.
    pub fn party(&self) -> &PartyKey {
        &self.party
    }

    /// The membership, if it carries one.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// The key pair that the membership names, if the ticket carries the secret.
    pub fn secret(&self) -> Option<&KeyPair> {
        self.secret.as_ref()
    }

    /// Where members listen, in the order in which to try.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// From when on it is not to be used, in seconds since 1970 UTC.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// Whether it is not to be used at `now`, in seconds since 1970 UTC.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }

    /// The ticket as text of letters, digits, `-` and `_`: the secret itself.
    ///
    /// # Errors
    /// [`TicketError::LimitExceeded`] if it is too long or has too many addresses.
    //= TICKET-1
    pub fn to_text(&self, limits: &Limits) -> Result<String, TicketError> {
        if self.addresses.len() > limits.max_ticket_addresses {
            return Err(TicketError::LimitExceeded("max_ticket_addresses"));
        }
        if self.expires.is_some_and(|at| at > MAX_SAFE_INTEGER) {
            return Err(DecodeError::IntegerTooLarge.into());
        }
        let bytes = self.encode();
        if bytes.len() > limits.max_ticket {
            return Err(TicketError::LimitExceeded("max_ticket"));
        }
        Ok(format!("{PREFIX}{}", base64::encode(&bytes)))
    }

    /// Reads what [`to_text`](Self::to_text) has written, and nothing else: not even white space around it.
    ///
    /// Whether it has expired is for the caller to see.
    ///
    /// # Errors
    /// [`TicketError`], which tells a typing mistake from a text that never was a ticket.
    //= TICKET-3, TICKET-5
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, TicketError> {
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let is_later = text.strip_prefix("party").and_then(|rest| rest.split_once('_'));
            let is_later = is_later.is_some_and(|(version, _)| {
                !version.is_empty() && version.len() <= 3 && version.bytes().all(|byte| byte.is_ascii_digit())
            });
            return Err(if is_later { TicketError::UnknownVersion } else { TicketError::NotATicket });
        };
        if encoded.len() > limits.max_ticket.saturating_mul(4).div_ceil(3) {
            return Err(TicketError::LimitExceeded("max_ticket"));
        }
        let bytes = base64::decode(encoded)
            .map_err(|at| TicketError::Character { at: PREFIX.len() + encoded[..at].chars().count() + 1 })?;
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TicketError::Checksum)?;
        if *sum != checksum(content) {
            return Err(TicketError::Checksum);
        }
        let ticket = Self::decode(content, limits)?;
        // Integers in a longer form than need be.
        if *ticket.encode() != *bytes {
            return Err(DecodeError::Invalid("encoding of a ticket").into());
        }
        Ok(ticket)
    }

    //= TICKET-2
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = flag(self.membership.is_some(), MEMBERSHIP)
            | flag(self.secret.is_some(), SECRET)
            | flag(self.expires.is_some(), EXPIRES);
        let mut out = Zeroizing::new(vec![flags]);
        out.put_bytes(self.party.as_bytes());
        if let Some(at) = self.expires {
            out.put_uint(at);
        }
        if let Some(membership) = &self.membership {
            out.put_buffer(&membership.encode());
        }
        if let Some(secret) = &self.secret {
            out.put_bytes(&*secret.seed());
        }
        out.put_uint(self.addresses.len() as u64);
        self.addresses.iter().for_each(|address| out.put_string(address));
        let sum = checksum(&out);
        out.put_bytes(&sum);
        out
    }

    //= TICKET-3, TICKET-4, TICKET-6, TICKET-7
    fn decode(content: &[u8], limits: &Limits) -> Result<Self, TicketError> {
        let mut reader = Reader::new(content);
        let flags = reader.u8()?;
        if flags & !(MEMBERSHIP | SECRET | EXPIRES) != 0 {
            return Err(DecodeError::Unknown { what: "flags of a ticket", value: flags.into() }.into());
        }
        let mut ticket = Self::new(PartyKey::from_bytes(reader.array()?));
        if flags & EXPIRES != 0 {
            ticket.expires = Some(reader.uint()?);
        }
        if flags & MEMBERSHIP != 0 {
            let membership = Membership::decode(reader.buffer()?, limits)?;
            ticket = if flags & SECRET == 0 {
                ticket.with_membership(membership)?
            } else {
                ticket.with_secret(membership, KeyPair::from_seed(&Zeroizing::new(reader.array()?)))?
            };
        } else if flags & SECRET != 0 {
            return Err(DecodeError::Invalid("secret without a membership").into());
        }
        for _ in 0..reader.count(1, limits.max_ticket_addresses)? {
            ticket = ticket.with_address(reader.string()?)?;
        }
        if !reader.is_empty() {
            return Err(DecodeError::Invalid("end of a ticket").into());
        }
        Ok(ticket)
    }
}

//= TICKET-10
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("party", &self.party)
            .field("has_membership", &self.membership.is_some())
            .field("has_secret", &self.secret.is_some())
            .field("addresses", &self.addresses)
            .field("expires", &self.expires)
            .finish()
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let hash = hash(&[&namespace("party", 7), content]);
    std::array::from_fn(|n| hash[n])
}

/// Whether this is `host:port`.
fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && !port.starts_with('0')
        && port.parse::<u16>().is_ok();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.len() <= 253 && host.split('.').all(is_label),
    };
    is_port && is_host
}

/// Base64 with the alphabet for URLs and without padding, as RFC 4648 has it.
mod base64 {
    use zeroize::Zeroizing;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity((bytes.len() * 4).div_ceil(3));
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for n in 0..=chunk.len() {
                text.push(char::from(ALPHABET[(group >> (18 - 6 * n) & 63) as usize]));
            }
        }
        text
    }

    /// # Errors
    /// The byte offset of the first character that can't stand where it does.
    pub(super) fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, usize> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() * 3 / 4));
        let (mut group, mut bits) = (0_u32, 0);
        for (at, character) in text.char_indices() {
            let value = match character {
                'A'..='Z' => character as u32 - 'A' as u32,
                'a'..='z' => character as u32 - 'a' as u32 + 26,
                '0'..='9' => character as u32 - '0' as u32 + 52,
                '-' => 62,
                '_' => 63,
                _ => return Err(at),
            };
            group = group << 6 | value;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push((group >> bits) as u8);
                group &= (1 << bits) - 1;
            }
        }
        // What is left of the last character says nothing: six bits would be a whole one, others must be zero.
        if bits == 6 || group != 0 { Err(text.len() - 1) } else { Ok(bytes) }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        //= TICKET-1, TICKET-3
        #[test]
        fn text_is_read_in_its_one_form_only() {
            for length in 0..20_u8 {
                let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(77)).collect();
                assert_eq!(*decode(&encode(&bytes)).unwrap(), bytes);
            }
            assert_eq!(encode(&[0xfb, 0xff, 0xfe]), "-__-");
            assert_eq!(encode(b"f"), "Zg");
            assert_eq!(decode("Zh"), Err(1), "bits that are not zero");
            assert_eq!(decode("Zm9vY"), Err(4), "a character alone");
            assert_eq!(decode("Zg=="), Err(2));
            assert_eq!(decode("Z\u{e9}"), Err(1));
        }
    }
}
