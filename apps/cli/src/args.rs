//! What can be typed. Meaning is given to it in the room of each command.

use std::{net::SocketAddr, ops::Range, path::PathBuf};

use clap::{ArgGroup, Args, Parser, Subcommand};
use party::{
    key::{FeedKey, PartyKey, PublicKey},
    limits::Limits,
};

/// Feeds on disk, served to and pulled from the members of a party.
#[derive(Debug, Parser)]
#[command(name = "party", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Machine-readable output: JSON on standard output, and no progress bars
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Party keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Feeds in a store
    #[command(subcommand)]
    Feed(FeedCommand),
    /// Serves the feeds of a store until interrupted
    Serve(Serve),
    /// Fetches feeds into a store; ends when all of them are complete
    Pull(Pull),
    /// Prints a ticket, a text by which somebody joins the party: whoever has it knows the party's key
    Invite(Invite),
    /// Makes somebody a member by credential, and prints the ticket with the membership
    Grant(Box<Grant>),
    /// Lists the members by credential that a store knows, and those who were removed
    Members(MembersOf),
    /// Removes a member by credential for good; other members hear of it when they next meet this store
    Revoke(Revoke),
    /// Says what the membership of somebody allows with a feed, and why
    Explain(Explain),
    /// Joins a party by a ticket: fetches the feeds that a member whom the ticket names introduces
    Join(Join),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Prints a fresh party key, 64 hexadecimal characters: whoever has it is a member
    New {
        /// Writes the founder's half, which signs for the party, into a new file that only you can read
        #[arg(long, value_name = "FILE")]
        secret: Option<PathBuf>,
    },
    /// Prints who a store is to its peers: the public key that a membership names
    Public {
        #[command(flatten)]
        store: StoreFolder,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeedCommand {
    /// Creates a feed and prints its key
    Create {
        #[command(flatten)]
        store: StoreFolder,
        /// The feed's name in this store
        #[arg(long)]
        name: String,
        /// A legacy feed, whose key is a public key, for hypercore 10 and older
        #[arg(long)]
        compat: bool,
        #[command(flatten)]
        encryption: EncryptionKey,
    },
    /// Appends blocks and prints the index of each, once it is durable
    Append(Append),
    /// Shows what is known of a feed
    Info {
        #[command(flatten)]
        store: StoreFolder,
        #[command(flatten)]
        feed: WhichFeed,
    },
    /// Writes blocks to standard output, as they are and with nothing between them
    Cat {
        #[command(flatten)]
        store: StoreFolder,
        #[command(flatten)]
        feed: WhichFeed,
        /// The first block
        #[arg(long, value_name = "A", default_value_t = 0)]
        from: u64,
        /// The block to stop before [default: the feed's length]
        #[arg(long, value_name = "B")]
        to: Option<u64>,
        #[command(flatten)]
        encryption: EncryptionKey,
    },
    /// Cuts a feed of this store off; what is appended then is on another fork, and readers follow
    Truncate {
        #[command(flatten)]
        store: StoreFolder,
        /// The feed's name in this store
        #[arg(long)]
        name: String,
        /// How many blocks stay
        #[arg(long, value_name = "BLOCKS")]
        length: u64,
    },
    /// Deletes stored blocks to have their space back; they can be fetched from others again
    Clear {
        #[command(flatten)]
        store: StoreFolder,
        #[command(flatten)]
        feed: WhichFeed,
        /// The first block
        #[arg(long, value_name = "A", default_value_t = 0)]
        from: u64,
        /// The block to stop before [default: the feed's length]
        #[arg(long, value_name = "B")]
        to: Option<u64>,
    },
    /// Reads and verifies all that is stored of a feed, or of every feed; fails if anything is wrong
    Audit {
        #[command(flatten)]
        store: StoreFolder,
        /// A feed of this store, by its name
        #[arg(long, conflicts_with = "key")]
        name: Option<String>,
        /// A feed by its key [default: every feed]
        #[arg(long)]
        key: Option<FeedKey>,
    },
    /// Deletes a feed of this store: its blocks, its name, and its secret
    Rm {
        #[command(flatten)]
        store: StoreFolder,
        #[command(flatten)]
        feed: WhichFeed,
    },
    /// Lists the feeds of a store
    Ls {
        #[command(flatten)]
        store: StoreFolder,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Append {
    #[command(flatten)]
    pub(crate) store: StoreFolder,
    /// The feed's name in this store
    #[arg(long)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) encryption: EncryptionKey,
    /// Cuts the input into blocks of this many bytes
    #[arg(long, value_name = "BYTES", conflicts_with = "lines", value_parser = block_size)]
    pub(crate) chunk: Option<usize>,
    /// One block for each line, without its end
    #[arg(long)]
    pub(crate) lines: bool,
    /// The input: one block if neither --chunk nor --lines is given; standard input for `-` or none
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) store: StoreFolder,
    /// Where to listen, as 127.0.0.1:4977; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) mode: Mode,
    /// Appends each line of standard input to this feed and prints its index once it is durable
    #[arg(long, value_name = "NAME")]
    pub(crate) append: Option<String>,
    /// Sends each peer no more than so many bytes of blocks a second
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) upload_limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    pub(crate) store: StoreFolder,
    /// The address of a serving peer
    #[arg(long, value_name = "ADDR")]
    pub(crate) connect: String,
    #[command(flatten)]
    pub(crate) mode: Mode,
    /// A feed to fetch; may be repeated [default: all that the peer introduces]
    #[arg(long = "feed", value_name = "KEY")]
    pub(crate) feeds: Vec<FeedKey>,
    /// Goes on following the feeds until interrupted
    #[arg(long)]
    pub(crate) live: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// The party's key
    #[arg(long, value_name = "KEY")]
    pub(crate) party: PartyKey,
    /// Where a member serves, as host:port; may be repeated, the first to try first
    #[arg(long = "address", value_name = "ADDR", required = true)]
    pub(crate) addresses: Vec<String>,
    /// How long the ticket is to be used; `join` refuses it then, but the party's key in it stays what it is
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires_in: Option<u32>,
    /// Draws the ticket as a QR code, too
    #[arg(long, conflicts_with = "json")]
    pub(crate) qr: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("signer").required(true).multiple(true)))]
#[command(group(ArgGroup::new("subject").required(true)))]
pub(crate) struct Grant {
    /// The file with the founder's half of the party's key, which signs; without it, the store's own membership is handed on
    #[arg(long, value_name = "FILE", group = "signer")]
    pub(crate) founder: Option<PathBuf>,
    /// The store that remembers the new member
    #[arg(long, value_name = "DIR", group = "signer")]
    pub(crate) store: Option<PathBuf>,
    /// The party's key, where no founder signs
    #[arg(long, value_name = "KEY", required_unless_present = "founder", conflicts_with = "founder")]
    pub(crate) party: Option<PartyKey>,
    /// The member's public key, as `party key public` prints it
    #[arg(long, value_name = "KEY", group = "subject")]
    pub(crate) to: Option<PublicKey>,
    /// Whoever has the ticket, which carries a secret then: send it as you would the party's key, and let it expire
    #[arg(long, group = "subject")]
    pub(crate) to_anybody: bool,
    /// The store itself, which keeps the membership
    #[arg(long, group = "subject", requires = "store")]
    pub(crate) here: bool,
    /// The member is a device of who signs
    #[arg(long, conflicts_with_all = ["founder", "to_anybody", "depth"])]
    pub(crate) device: bool,
    #[command(flatten)]
    pub(crate) terms: TermsOf,
    /// Where a member serves, as host:port; may be repeated, the first to try first
    #[arg(long = "address", value_name = "ADDR")]
    pub(crate) addresses: Vec<String>,
    /// Draws the ticket as a QR code, too
    #[arg(long, conflicts_with = "json")]
    pub(crate) qr: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TermsOf {
    /// The member reads, and brings nothing
    #[arg(long, conflicts_with = "bring_only")]
    pub(crate) read_only: bool,
    /// The member brings, and reads nothing
    #[arg(long)]
    pub(crate) bring_only: bool,
    /// The member keeps encrypted feeds, and is told no keys
    #[arg(long)]
    pub(crate) blind: bool,
    /// A feed that it is about; may be repeated [default: all]
    #[arg(long = "feed", value_name = "KEY")]
    pub(crate) feeds: Vec<FeedKey>,
    /// The blocks that it is about, as 0..100
    #[arg(long, value_name = "A..B", value_parser = block_range, conflicts_with = "newest")]
    pub(crate) range: Option<Range<u64>>,
    /// So many of the newest blocks
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) newest: Option<u64>,
    /// How long it is good [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires_in: Option<u32>,
    /// How many times it may be handed on
    #[arg(long, value_name = "LINKS", default_value_t = 0)]
    pub(crate) depth: u64,
}

#[derive(Debug, Args)]
pub(crate) struct MembersOf {
    #[command(flatten)]
    pub(crate) store: StoreFolder,
    /// The party's key
    #[arg(long, value_name = "KEY")]
    pub(crate) party: PartyKey,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) store: StoreFolder,
    /// The file with the founder's half of the party's key, which signs; without it, the store itself does, which may remove
    /// those to whom it has handed on its membership
    #[arg(long, value_name = "FILE")]
    pub(crate) founder: Option<PathBuf>,
    /// The party's key, where no founder signs
    #[arg(long, value_name = "KEY", required_unless_present = "founder", conflicts_with = "founder")]
    pub(crate) party: Option<PartyKey>,
    /// Ends the membership, and lets the key be granted another one
    #[arg(long)]
    pub(crate) link: bool,
    /// The public key of the member. Its feeds are good up to where this store has them
    #[arg(value_name = "KEY")]
    pub(crate) member: PublicKey,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) members: MembersOf,
    /// The public key of the member
    #[arg(long, value_name = "KEY")]
    pub(crate) peer: PublicKey,
    /// The feed
    #[arg(long, value_name = "KEY")]
    pub(crate) feed: FeedKey,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The ticket, or `-` to read it from standard input
    // Read later: what is mistyped here is shown on the screen, and may be a secret with one character too many.
    #[arg(value_name = "TICKET")]
    pub(crate) ticket: String,
    #[command(flatten)]
    pub(crate) store: StoreFolder,
    /// A feed to fetch; may be repeated [default: all that the peer introduces]
    #[arg(long = "feed", value_name = "KEY")]
    pub(crate) feeds: Vec<FeedKey>,
    /// Goes on following the feeds until interrupted
    #[arg(long)]
    pub(crate) live: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StoreFolder {
    /// The store's folder
    #[arg(long = "store", value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Names are those in this namespace; may be repeated, for one within the other
    #[arg(long = "namespace", value_name = "NAME")]
    pub(crate) namespaces: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EncryptionKey {
    /// The file with the key that the feed's blocks are encrypted with; `create` makes it if there is none
    #[arg(id = "keyfile", long = "encrypt", value_name = "KEYFILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true)))]
pub(crate) struct WhichFeed {
    /// A feed of this store, by its name
    #[arg(long, group = "which")]
    pub(crate) name: Option<String>,
    /// A feed by its key
    #[arg(long, group = "which")]
    pub(crate) key: Option<FeedKey>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("mode").required(true)))]
pub(crate) struct Mode {
    /// The party's key: its members see every feed of the store
    #[arg(long, value_name = "KEY", group = "mode")]
    pub(crate) party: Option<PartyKey>,
    /// No party: replicates every feed of the store with whoever knows its key, Node peers above all
    #[arg(long, group = "mode")]
    pub(crate) open: bool,
}

fn block_range(s: &str) -> Result<Range<u64>, String> {
    let ends = s.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    match ends {
        Some((from, to)) if from < to => Ok(from..to),
        _ => Err("a range of blocks looks like 0..100".to_owned()),
    }
}

fn block_size(s: &str) -> Result<usize, String> {
    let max = Limits::default().max_block;
    match s.parse() {
        Ok(size) if (1..=max).contains(&size) => Ok(size),
        _ => Err(format!("a block has 1 to {max} bytes")),
    }
}
