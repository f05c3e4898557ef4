//! What can be typed. Meaning is given to it in the room of each command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
