//! What can be typed. Meaning is given to it in the room of each command.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgGroup, Args, Parser, Subcommand};
use party::{
    key::{FeedKey, PartyKey},
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
    /// Prints a ticket, a text by which somebody joins the party: whoever has it is a member
    Invite(Invite),
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
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The ticket
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

fn block_size(s: &str) -> Result<usize, String> {
    let max = Limits::default().max_block;
    match s.parse() {
        Ok(size) if (1..=max).contains(&size) => Ok(size),
        _ => Err(format!("a block has 1 to {max} bytes")),
    }
}
