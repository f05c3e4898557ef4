//! What a shim may or may not be able to do.

/// A feature that a shim names in its answer to `hello`. A behaviour that needs one which it doesn't name is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// `party`, `rule`, `bring`, `introduce`, `request`, `ephemeral`: admission and the party channel.
    Party,
    /// `open`: connections without a party.
    Open,
    /// `create`, `append`, `release`, `permit`: feeds that it writes and serves.
    Write,
    /// `add`, `download`, `get`: feeds that it reads.
    Read,
    /// Labels of introduced feeds.
    Labels,
    /// `create NAME legacy`: feeds whose key is their signer's.
    Legacy,
    /// `clear`.
    Clear,
    /// `truncate`, and following other writers' forks.
    Truncate,
    /// `withdraw`.
    Withdraw,
    /// `party` and `leave` take effect on connections that are up.
    Live,
    /// `exclude` and `readmit`.
    Exclude,
    /// `pad`: offers of parties that are none.
    Decoys,
    /// `finite`.
    Finite,
    /// `patience`: timeouts that can be set.
    Patience,
    /// `party NAME KEY members`, `membership`, `revocation`, `clock`.
    Credentials,
    /// `ticket`.
    Tickets,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Party,
        Self::Open,
        Self::Write,
        Self::Read,
        Self::Labels,
        Self::Legacy,
        Self::Clear,
        Self::Truncate,
        Self::Withdraw,
        Self::Live,
        Self::Exclude,
        Self::Decoys,
        Self::Finite,
        Self::Patience,
        Self::Credentials,
        Self::Tickets,
    ];

    /// What it is called in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Party => "party",
            Self::Open => "open",
            Self::Write => "write",
            Self::Read => "read",
            Self::Labels => "labels",
            Self::Legacy => "legacy",
            Self::Clear => "clear",
            Self::Truncate => "truncate",
            Self::Withdraw => "withdraw",
            Self::Live => "live",
            Self::Exclude => "exclude",
            Self::Decoys => "decoys",
            Self::Finite => "finite",
            Self::Patience => "patience",
            Self::Credentials => "credentials",
            Self::Tickets => "tickets",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}
