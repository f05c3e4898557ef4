//! What has happened on a channel, in figures.

/// What has happened on a channel.
///
/// ```
/// use party::replication::Counters;
///
/// let counters = Counters::default();
/// assert_eq!((counters.blocks_received, counters.sent.total()), (0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Blocks that came and were stored.
    pub blocks_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Blocks that were sent.
    pub blocks_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Of the blocks received, those that came as a push.
    pub blocks_pushed_to_us: u64,
    /// Of the blocks sent, those that were pushed.
    pub blocks_pushed_by_us: u64,
    /// Proofs that did not verify.
    pub invalid_proofs: u64,
    /// Requests of ours that the remote refused.
    pub refused_by_remote: u64,
    /// Requests of the remote's that we refused.
    pub refused_by_us: u64,
    /// Proofs that were to show that the feed's signers have contradicted themselves, and did not.
    pub unproved_conflicts: u64,
    /// How often the remote was left in peace for a while, as it had refused too much.
    pub pauses: u64,
    /// Pushes that we don't take, don't want, or could not verify.
    pub unwanted_pushes: u64,
    /// Messages of extensions that were dropped: too long, or more than wait.
    pub dropped_extensions: u64,
    /// Messages that were passed over: of unknown types, answers that came too late.
    pub ignored: u64,
    /// Messages sent, by their type.
    pub sent: MessageCounts,
    /// Messages received, by their type; also those that turned out to be wrong.
    pub received: MessageCounts,
}

/// How many messages of each type went one way.
///
/// ```
/// use party::replication::MessageCounts;
///
/// let counts = MessageCounts { sync: 2, range: 1, ..MessageCounts::default() };
/// assert_eq!(counts.total(), 3);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each is the message of that name
pub struct MessageCounts {
    pub sync: u64,
    pub request: u64,
    pub cancel: u64,
    pub data: u64,
    pub no_data: u64,
    pub want: u64,
    pub unwant: u64,
    pub bitfield: u64,
    pub range: u64,
    pub extension: u64,
    /// Of types that are not known here.
    pub unknown: u64,
}

impl MessageCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { sync, request, cancel, data, no_data, .. } = self;
        let Self { want, unwant, bitfield, range, extension, unknown, .. } = self;
        [sync, request, cancel, data, no_data, want, unwant, bitfield, range, extension, unknown]
            .into_iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub(super) fn count(&mut self, message_type: u64) {
        let count = match message_type {
            0 => &mut self.sync,
            1 => &mut self.request,
            2 => &mut self.cancel,
            3 => &mut self.data,
            4 => &mut self.no_data,
            5 => &mut self.want,
            6 => &mut self.unwant,
            7 => &mut self.bitfield,
            8 => &mut self.range,
            9 => &mut self.extension,
            _ => &mut self.unknown,
        };
        *count = count.saturating_add(1);
    }
}
