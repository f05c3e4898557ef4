//! What somebody at the keyboard can do about an error of the library or of the system, where there is one thing to do. Errors
//! of the program's own say it themselves.

use std::io;

use party::{
    error::{ApiMisuse, Error, StorageError},
    ticket::TicketError,
};

/// What to do about it; `None` if that is not known, or the text of the error says it.
pub(crate) fn of(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<StorageError>() {
            of_storage(error)
        } else if let Some(error) = cause.downcast_ref::<TicketError>() {
            of_ticket(error)
        } else if let Some(error) = cause.downcast_ref::<Error>() {
            of_party(error)
        } else {
            of_system(cause.downcast_ref::<io::Error>()?.kind())
        }
    })
}

fn of_party(error: &Error) -> Option<&'static str> {
    match error {
        Error::Io(error) => of_system(error.kind()),
        Error::ApiMisuse(ApiMisuse::UnknownMember(_)) => {
            Some("`party members` lists them, and only who stands above a member removes it")
        }
        Error::ApiMisuse(ApiMisuse::NoMembership) => Some("join by a ticket of `party grant` first"),
        _ => None,
    }
}

fn of_storage(error: &StorageError) -> Option<&'static str> {
    match error {
        StorageError::Locked { .. } => Some("end that one first: a store is for one at a time"),
        StorageError::NotAStore { .. } => Some("give a folder of its own"),
        StorageError::UnknownFormat { .. } => Some("a newer version of this program may"),
        StorageError::Io(error) => match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                Some("a store is a folder, and a file is in its place")
            }
            kind => of_system(kind),
        },
        _ => None,
    }
}

fn of_ticket(error: &TicketError) -> Option<&'static str> {
    match error {
        TicketError::UnknownVersion => Some("a newer version of this program reads it"),
        TicketError::NotATicket | TicketError::Character { .. } | TicketError::Checksum => {
            Some("copy the whole of it again")
        }
        TicketError::Malformed(_) | TicketError::Membership(_) => Some("ask for a new one"),
        _ => None,
    }
}

fn of_system(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => Some("look whose it is, and who may write it"),
        io::ErrorKind::AddrInUse => {
            Some("somebody else listens there: give another port, or 0 for one that is free")
        }
        io::ErrorKind::AddrNotAvailable => Some("give an address of this machine"),
        io::ErrorKind::ConnectionRefused => {
            Some("nobody listens there: start `party serve`, or give another address")
        }
        io::ErrorKind::InvalidInput => Some("an address looks like 127.0.0.1:4977"),
        io::ErrorKind::StorageFull => Some("make space"),
        _ => None,
    }
}
