//! Every bound on what a peer can make us keep, in one place.

use std::time::Duration;

/// The bounds within which a connection works. A peer that goes beyond one is refused, by name; none of
/// them is reached by a Node peer that behaves.
///
/// ```
/// use party::limits::Limits;
///
/// let limits = Limits { max_channels: 64, ..Limits::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest frame of the secret stream, in bytes after its length. The format allows 2^24 - 1.
    pub max_frame: usize,
    /// The longest message of the Noise handshake, in bytes. Noise allows 65535; Node sends less than 100.
    pub max_handshake_message: usize,
    /// How long the Noise handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may be up without the remote being admitted anywhere. It is the same whether or
    /// not we are in the party that the remote asks for.
    pub admission_timeout: Duration,
    /// How long a connection may be silent before it is given up.
    pub idle_timeout: Duration,
    /// How slowly a frame may come, in bytes a second. Each byte of one that is not complete puts off the end of
    /// [`idle_timeout`](Self::idle_timeout) by the time that it takes at this rate, and by no more: a peer that trickles is
    /// dropped.
    pub min_frame_rate: usize,
    /// After how long without anything else to send a keep-alive is sent, or after a third of
    /// [`idle_timeout`](Self::idle_timeout) if that is shorter. Node's streams send one every 5 seconds.
    pub keep_alive: Duration,

    /// Channels that are open, or being opened, in either direction.
    pub max_channels: usize,
    /// Opens by the remote that wait for our answer.
    pub max_incoming_opens: usize,
    /// Bytes kept of messages for channels that the remote has opened and we have not answered yet.
    pub max_early_bytes: usize,
    /// The longest protocol name or channel id in an open, in bytes.
    pub max_channel_name: usize,
    /// The longest channel handshake in an open, in bytes.
    pub max_channel_handshake: usize,

    /// Bytes sealed and not yet taken by the socket, above which no further request of the remote is served.
    pub max_unsent_bytes: usize,
    /// Bytes of blocks that have come and are not yet verified and stored, above which no more is read.
    pub max_unverified_bytes: usize,

    /// The longest block, in bytes.
    pub max_block: usize,
    /// Nodes in one list of a proof.
    pub max_proof_nodes: usize,
    /// Signers of a manifest.
    pub max_signers: usize,
    /// Requests by the remote on one feed channel that are not answered yet. More are answered `noData`.
    pub max_queued_requests: usize,
    /// Requests of ours that are on the way, for each feed channel.
    pub max_inflight_requests: usize,
    /// Bytes of blocks that we have asked for and not got, for each feed channel, by an estimate from the
    /// sizes seen.
    pub max_inflight_bytes: usize,
    /// Ranges kept of what a remote says it has, for each feed channel.
    pub max_remote_ranges: usize,
    /// Pages of 32,768 bits, 4 KiB each, kept where what a remote has takes too many ranges, for each feed
    /// channel.
    pub max_remote_pages: usize,
    /// Ranges kept of what a remote wants to be told about, for each feed channel.
    pub max_remote_wants: usize,
    /// Blocks of one feed that wait to be pushed to one remote, or are being read for that. More are left for the
    /// remote to ask for.
    pub max_queued_pushes: usize,
    /// How long a remote may take to say that it has what was pushed to it, before its requests are answered as if it
    /// hadn't come.
    pub push_timeout: Duration,
    /// Pushes that we don't take or want, or that don't verify, before the feed's channel is closed. Each one that
    /// is stored makes up for one.
    pub max_unwanted_pushes: usize,
    /// The longest name of an extension, in bytes. Messages of longer ones are dropped.
    pub max_extension_name: usize,
    /// The longest message of an extension, in bytes. Longer ones are dropped.
    pub max_extension_message: usize,
    /// Messages of extensions that wait, for each feed, peer and direction. More of the remote's are dropped, the
    /// newest first; more of ours are an error.
    pub max_queued_extensions: usize,
    /// Bytes of the messages of extensions that wait, likewise.
    pub max_queued_extension_bytes: usize,
    /// Requests for which the remote may say `noData`, each success making up for one, before it is left in peace for
    /// a while; of those that it calls invalid, half as many.
    pub max_failed_requests: usize,
    /// After how long we ask again for what a remote has refused, and how long a remote is left in peace that has
    /// refused too much. Each further time in vain doubles it.
    pub retry_after: Duration,
    /// The longest that becomes.
    pub max_retry_after: Duration,

    /// How long a remote that sent what contradicts our tree may take to show that its own is signed.
    pub conflict_timeout: Duration,

    /// Parties joined on one connection, with those that it is padded to.
    pub max_parties: usize,
    /// Parties that a dialler has offered and that we are not in, remembered in case that we join one of them.
    pub max_offered_parties: usize,
    /// How long a remote may take to take what was sealed before something was forbidden, until it loses the connection.
    pub revocation_timeout: Duration,
    /// The longest message of the party channel, in bytes.
    pub max_party_message: usize,
    /// Feed keys in one introduction.
    pub max_introduced_feeds: usize,
    /// The longest label of one of them, in bytes.
    pub max_label: usize,
    /// Transactions by the remote that are not answered yet, for each party.
    pub max_remote_transactions: usize,
    /// Transactions of ours that are not answered yet, for each party.
    pub max_local_transactions: usize,
    /// Answers to transactions that we never made, or that we have given up, before the channel is closed.
    pub max_stray_answers: usize,
    /// How long an answer to one of our transactions may take.
    pub transaction_timeout: Duration,
    /// How long a rule may take to decide.
    pub rule_timeout: Duration,
    /// Calls of rules that are asked on a connection's own task, one after the other, before what they said is sent; the
    /// rest are tasks of their own. With 0 all are. A rule that takes its time without waiting holds up its connection for so many calls at
    /// most.
    pub max_rules_in_line: usize,
    /// Ephemeral messages of a peer that wait for their rule or to be received, for each party. More are dropped.
    pub max_queued_ephemeral: usize,
    /// Bytes of their values, beyond which more are dropped, too. One that finds nothing waiting is taken.
    pub max_queued_ephemeral_bytes: usize,
    /// Feeds released to one peer.
    pub max_released_feeds: usize,

    /// The longest membership, in bytes. This and the limits below it up to the quotas must be the same for all
    /// members of a party, or they don't converge.
    pub max_membership: usize,
    /// Links of a membership, which is also how many signatures have to be verified for one.
    pub max_links: usize,
    /// Feeds named by one link.
    pub max_link_feeds: usize,
    /// Feeds cut off by one revocation.
    pub max_cut_offs: usize,
    /// Revocations kept that the founder has signed.
    pub max_founder_revocations: usize,
    /// Revocations kept that were signed within one branch: by a key that the founder named, and all keys whose
    /// chains go through it, together.
    pub max_branch_revocations: usize,
    /// Members known within one branch.
    pub max_branch_members: usize,
    /// Branches of which members, and of which revocations, are kept.
    pub max_branches: usize,
    /// Ids in one message by which members compare what revocations and members they know.
    pub max_sync_ids: usize,
    /// Bytes of revocations and memberships in one message.
    pub max_sync_bytes: usize,

    /// How long a peer may take to show its membership and to answer ours, before it is refused.
    pub membership_timeout: Duration,
    /// How often we begin to tell one peer about credentials, at most.
    pub sync_interval: Duration,
    /// Requests about credentials that a peer may make at once. In each [`sync_interval`](Self::sync_interval) it may make
    /// four more; what goes beyond is refused.
    pub max_sync_burst: u32,
    /// Rounds in which we compare what we know with one peer, for each occasion.
    pub max_sync_rounds: usize,
    /// Feeds that are remembered as taken on the word of one member. It can bring no more.
    pub max_member_feeds: usize,
    /// Feeds of all members of a party together that are remembered so.
    pub max_attributed_feeds: usize,

    /// The longest ticket, in bytes, before it is written as text.
    pub max_ticket: usize,
    /// Addresses in one ticket.
    pub max_ticket_addresses: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: (1 << 24) - 1,
            max_handshake_message: 4_096,
            handshake_timeout: Duration::from_secs(10),
            admission_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            // A block of 15 MiB may take four hours, and 30 KiB a minute: slower than any link that people call one.
            min_frame_rate: 1_024,
            keep_alive: Duration::from_secs(5),
            max_channels: 16_384,
            max_incoming_opens: 4_096,
            max_early_bytes: 1 << 20,
            max_channel_name: 256,
            max_channel_handshake: 4_096,
            max_unsent_bytes: 4 << 20,
            max_unverified_bytes: 32 << 20,
            max_block: 15 << 20,
            max_proof_nodes: 256,
            max_signers: 256,
            max_queued_requests: 2_048,
            max_inflight_requests: 512,
            max_inflight_bytes: 16 << 20,
            max_remote_ranges: 16_384,
            max_remote_pages: 1_024,
            max_remote_wants: 512,
            max_queued_pushes: 64,
            push_timeout: Duration::from_secs(2),
            max_unwanted_pushes: 64,
            max_extension_name: 256,
            max_extension_message: 1 << 20,
            max_queued_extensions: 256,
            max_queued_extension_bytes: 4 << 20,
            max_failed_requests: 64,
            conflict_timeout: Duration::from_secs(5),
            retry_after: Duration::from_secs(5),
            max_retry_after: Duration::from_secs(300),
            max_parties: 64,
            max_offered_parties: 64,
            revocation_timeout: Duration::from_secs(5),
            max_party_message: 1 << 20,
            max_introduced_feeds: 4_096,
            max_label: 256,
            max_remote_transactions: 64,
            max_local_transactions: 256,
            max_stray_answers: 16,
            transaction_timeout: Duration::from_secs(30),
            rule_timeout: Duration::from_secs(20),
            max_rules_in_line: 256,
            max_queued_ephemeral: 256,
            max_queued_ephemeral_bytes: 4 << 20,
            max_released_feeds: 8_192,
            max_membership: 1_024,
            max_links: 5,
            max_link_feeds: 16,
            max_cut_offs: 16,
            max_founder_revocations: 4_096,
            max_branch_revocations: 32,
            max_branch_members: 64,
            max_branches: 1_024,
            max_sync_ids: 4_096,
            max_sync_bytes: 256 << 10,
            membership_timeout: Duration::from_secs(10),
            sync_interval: Duration::from_millis(500),
            max_sync_burst: 32,
            max_sync_rounds: 64,
            max_member_feeds: 1_024,
            max_attributed_feeds: 65_536,
            max_ticket: 2_048,
            max_ticket_addresses: 8,
        }
    }
}
