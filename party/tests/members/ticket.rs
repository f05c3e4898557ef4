//! Tickets: `protocol-spec/12-tickets.md`.

use crate::founded::{founder, limits, party};
use party::{
    credentials::{Grant, Membership, Terms},
    error::{CredentialFlaw, DecodeError},
    hash::{hash, namespace},
    key::{KeyPair, PartyKey},
    ticket::{Ticket, TicketError},
};

fn membership(seed: u8) -> Membership {
    let subject = KeyPair::from_seed(&[seed; 32]).public();
    Membership::found(&founder(), Grant::to(subject, Terms::everything().delegable(1)), &limits()).unwrap()
}

fn full() -> Ticket {
    Ticket::new(party())
        .with_secret(membership(2), KeyPair::from_seed(&[2; 32]))
        .and_then(|ticket| ticket.with_address("chat.example:4977"))
        .and_then(|ticket| ticket.with_address("192.0.2.7:1"))
        .and_then(|ticket| ticket.with_address("[2001:db8::1]:65535"))
        .unwrap()
        .expiring(1_900_000_000)
}

fn parse(text: &str) -> Result<Ticket, TicketError> {
    Ticket::parse(text, &limits())
}

/// A text with any content and the checksum for it, made without the library.
fn text_of(content: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sum = hash(&[&namespace("party", 7), content]);
    let bits: Vec<u8> =
        content.iter().chain(&sum[..4]).flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
    let digit = |bits: &[u8]| {
        let value = (0..6).fold(0, |value, n| value << 1 | bits.get(n).copied().unwrap_or(0));
        char::from(ALPHABET[usize::from(value)])
    };
    std::iter::once("party1_".to_owned()).chain(bits.chunks(6).map(|bits| digit(bits).to_string())).collect()
}

#[test]
fn a_ticket_comes_back_as_it_was_written() {
    let text = full().to_text(&limits()).unwrap();
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    let read = parse(&text).unwrap();
    assert_eq!(*read.party(), party());
    assert_eq!(read.membership(), Some(&membership(2)));
    assert_eq!(read.secret().map(KeyPair::public), Some(KeyPair::from_seed(&[2; 32]).public()));
    assert_eq!(read.addresses(), ["chat.example:4977", "192.0.2.7:1", "[2001:db8::1]:65535"]);
    assert!(!read.is_expired(1_899_999_999) && read.is_expired(1_900_000_000));
    assert_eq!(read.to_text(&limits()).unwrap(), text);

    let plain = Ticket::new(party()).to_text(&limits()).unwrap();
    let read = parse(&plain).unwrap();
    assert!(read.membership().is_none() && read.secret().is_none() && read.addresses().is_empty());
    assert!(!read.is_expired(u64::MAX));
    assert_eq!(plain, text_of(&[&[0][..], party().as_bytes(), &[0]].concat()));
}

//= TICKET-10
#[test]
fn neither_debug_nor_an_error_shows_a_secret() {
    let shown = format!("{:?}", full());
    assert!(shown.contains("chat.example:4977"));
    let secrets = [party().to_hex(), "02".repeat(32), "[2, 2, 2".to_owned(), founder().public().to_string()];
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");

    let text = full().to_text(&limits()).unwrap();
    for broken in [&text[1..], &text[..text.len() - 1], &format!("{text} ")] {
        let error = parse(broken).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            !text.as_bytes()[7..].windows(8).any(|part| shown.as_bytes().windows(8).any(|it| it == part))
        );
    }
}

//= TICKET-5
#[test]
fn any_mistyped_character_is_noticed() {
    let text = Ticket::new(party()).with_address("a.example:1").unwrap().to_text(&limits()).unwrap();
    for at in 0..text.len() {
        for typed in ['A', 'z', '0', '-', '_', ' ', '=', '\u{e9}'] {
            let mut mistyped: Vec<char> = text.chars().collect();
            if mistyped[at] != typed {
                mistyped[at] = typed;
                assert!(parse(&mistyped.iter().collect::<String>()).is_err(), "{typed:?} at {at}");
            }
        }
        let (head, tail) = text.split_at(at);
        assert!(parse(head).is_err(), "cut at {at}");
        assert!(parse(&format!("{head}{}", &tail[1..])).is_err(), "without {at}");
    }
    assert_eq!(parse(&format!("{text} ")).unwrap_err(), TicketError::Character { at: text.len() + 1 });
    assert_eq!(parse(&format!(" {text}")).unwrap_err(), TicketError::NotATicket);
    assert_eq!(parse("").unwrap_err(), TicketError::NotATicket);
    assert_eq!(parse("party1_").unwrap_err(), TicketError::Checksum);
    assert_eq!(parse("party2_AAAA").unwrap_err(), TicketError::UnknownVersion);
    assert_eq!(parse("partying_AAAA").unwrap_err(), TicketError::NotATicket);
}

//= TICKET-3
#[test]
fn what_no_ticket_has_is_refused_with_a_sound_checksum_too() {
    let content = |flags: u8, rest: &[u8]| [&[flags][..], party().as_bytes(), rest].concat();
    assert!(parse(&text_of(&content(0, &[0]))).is_ok());
    for (content, error) in [
        (content(8, &[0]), DecodeError::Unknown { what: "flags of a ticket", value: 8 }),
        (content(2, &[0]), DecodeError::Invalid("secret without a membership")),
        (content(0, &[0, 0]), DecodeError::Invalid("end of a ticket")),
        (content(0, &[0xfd, 0, 0]), DecodeError::Invalid("encoding of a ticket")),
        (content(0, &[9]), DecodeError::TooMany { max: 8 }),
        (content(0, &[1]), DecodeError::UnexpectedEnd),
        (content(0, &[1, 1, 0xff]), DecodeError::NotUtf8),
        (content(1, &[0, 0]), DecodeError::UnexpectedEnd),
        (Vec::new(), DecodeError::UnexpectedEnd),
    ] {
        assert_eq!(parse(&text_of(&content)).unwrap_err(), TicketError::Malformed(error));
    }
    let long = content(0, &[&[1, 0xfd, 0xff, 0x0f][..], &[b'a'; 0xfff]].concat());
    assert_eq!(parse(&text_of(&long)).unwrap_err(), TicketError::LimitExceeded("max_ticket"));
}

//= TICKET-6, TICKET-7
#[test]
fn a_membership_in_a_ticket_holds_in_its_party_and_for_its_secret() {
    let other = PartyKey::from_bytes([9; 32]);
    let flaw = Ticket::new(other).with_membership(membership(2)).unwrap_err();
    assert_eq!(flaw, TicketError::Membership(CredentialFlaw::Signature { link: 1 }));
    let flaw = Ticket::new(party()).with_secret(membership(2), KeyPair::from_seed(&[3; 32])).unwrap_err();
    assert_eq!(flaw, TicketError::Membership(CredentialFlaw::OtherKey));

    let bytes = membership(2).encode();
    let buffer = [&[bytes.len() as u8][..], &bytes].concat();
    let of_other = [&[1][..], other.as_bytes(), &buffer, &[0]].concat();
    assert!(matches!(parse(&text_of(&of_other)), Err(TicketError::Membership(_))));
    let wrong_secret = [&[3][..], party().as_bytes(), &buffer, &[3; 32], &[0]].concat();
    assert!(matches!(parse(&text_of(&wrong_secret)), Err(TicketError::Membership(_))));

    // With the secret, the guest makes its own key a member.
    let ticket = parse(&full().to_text(&limits()).unwrap()).unwrap();
    let guest = KeyPair::from_seed(&[5; 32]).public();
    let grant = Grant::to(guest, Terms::everything());
    let own =
        ticket.membership().unwrap().extend(&party(), ticket.secret().unwrap(), grant, &limits()).unwrap();
    assert!(own.verify_for(&party(), &guest, 0).is_ok());
}

//= TICKET-4
#[test]
fn addresses_are_a_host_and_a_port() {
    let with = |address: &str| Ticket::new(party()).with_address(address).map(drop);
    for good in ["localhost:1", "a-b.example:65535", "192.0.2.7:4977", "[::1]:80", "[2001:db8::1]:80"] {
        assert_eq!(with(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        ":",
        "host",
        "host:",
        ":80",
        "host:0",
        "host:080",
        "host:65536",
        "host:+80",
        "host:8o",
        "a b:80",
        "a..b:80",
        ".a:80",
        "a.:80",
        "-a:80",
        "a-:80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[fe80::1%1]:80",
        "[host]:80",
        "[::1:80",
        "user@host:80",
        "http://host:80",
        "h\u{f6}st:80",
        "host:80\n",
    ] {
        assert_eq!(with(bad), Err(TicketError::Address), "{bad:?}");
    }
    assert_eq!(with(&format!("{}:80", ["a"; 127].join("."))), Ok(()));
    assert_eq!(with(&format!("{}:80", ["a"; 128].join("."))), Err(TicketError::Address));

    let many =
        (1..=9).try_fold(Ticket::new(party()), |ticket, port| ticket.with_address(format!("a:{port}")));
    assert_eq!(many.unwrap().to_text(&limits()), Err(TicketError::LimitExceeded("max_ticket_addresses")));
}
