//! Messages of applications beside a feed, by the name of the extension.
//!
//! A name is left out on the wire if it is that of the extension message before, in each direction apart. What the
//! remote sends waits here until it is fetched, within limits: of a flood, the first messages are kept and the rest is
//! dropped and counted. A message whose name is too long is dropped, and so are those after it that leave out
//! that name.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::messages::Extension;
use crate::{error::ApiMisuse, limits::Limits};

/// The extension messages of one channel, both ways.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// The name of our last message.
    sent: Option<Arc<str>>,
    /// The name of the remote's last message, if it is one that we keep.
    received: Option<Arc<str>>,
    arrived: Waiting<Arc<str>>,
    leaving: Waiting<Extension>,
}

/// Messages that wait, and their bytes.
#[derive(Debug)]
struct Waiting<T> {
    queue: VecDeque<(T, Bytes)>,
    bytes: usize,
}

impl Extensions {
    //= protocol-spec/07-replication.md#extension-9
    /// A message has come. Returns whether it was taken.
    //= REPL-68, REPL-69, REPL-72, REPL-70
    pub(super) fn handle(&mut self, extension: Extension, limits: &Limits) -> bool {
        let Extension { name, message } = extension;
        if !name.is_empty() {
            let known = self.received.as_deref() == Some(name.as_str());
            if !known {
                self.received = (name.len() <= limits.max_extension_name).then(|| name.into());
            }
        }
        let Some(name) = &self.received else { return false };
        let fits = message.len() <= limits.max_extension_message && self.arrived.has_room(&message, limits);
        if fits {
            self.arrived.push(name.clone(), message);
        }
        fits
    }

    /// The next message that has come, with the name of its extension.
    pub(super) fn pop_arrived(&mut self) -> Option<(Arc<str>, Bytes)> {
        self.arrived.pop()
    }

    /// Queues a message for the remote.
    ///
    /// # Errors
    /// [`ApiMisuse::LimitExceeded`] for what is too long or too much.
    pub(super) fn send(&mut self, name: &Arc<str>, message: Bytes, limits: &Limits) -> Result<(), ApiMisuse> {
        check_name(name, limits)?;
        if message.len() > limits.max_extension_message {
            return Err(ApiMisuse::LimitExceeded("max_extension_message"));
        }
        if !self.has_room(limits) {
            return Err(ApiMisuse::LimitExceeded("max_queued_extensions"));
        }
        let same = self.sent.as_ref() == Some(name);
        let written = if same { String::new() } else { name.to_string() };
        self.sent = Some(name.clone());
        self.leaving.push(Extension { name: written, message: message.clone() }, message);
        Ok(())
    }

    /// Whether another message may be queued for the remote.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.leaving.has_room(&Bytes::new(), limits)
    }

    /// The next message to be sent.
    pub(super) fn pop_leaving(&mut self) -> Option<Extension> {
        self.leaving.pop().map(|(extension, _)| extension)
    }
}

/// Whether an extension may have this name.
///
/// # Errors
/// [`ApiMisuse::LimitExceeded`] if it is too long, or empty: that stands for the name before.
pub(super) fn check_name(name: &str, limits: &Limits) -> Result<(), ApiMisuse> {
    if name.is_empty() || name.len() > limits.max_extension_name {
        return Err(ApiMisuse::LimitExceeded("max_extension_name"));
    }
    Ok(())
}

impl<T> Waiting<T> {
    fn has_room(&self, message: &Bytes, limits: &Limits) -> bool {
        self.queue.len() < limits.max_queued_extensions
            && self.bytes.saturating_add(message.len()) <= limits.max_queued_extension_bytes
    }

    fn push(&mut self, item: T, message: Bytes) {
        self.bytes = self.bytes.saturating_add(message.len());
        self.queue.push_back((item, message));
    }

    fn pop(&mut self) -> Option<(T, Bytes)> {
        let (item, message) = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.len());
        Some((item, message))
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0 }
    }
}
