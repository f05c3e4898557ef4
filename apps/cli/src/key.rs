//! `party key`.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use party::key::{KeyPair, PartyKey};
use serde::Serialize;

use crate::{
    args::KeyCommand,
    output::{Output, Show},
};

#[derive(Serialize)]
struct NewKey {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<PathBuf>,
}

impl Show for NewKey {
    fn text(&self) -> String {
        self.key.clone()
    }
}

pub(crate) fn run(command: KeyCommand, output: Output) -> anyhow::Result<()> {
    let KeyCommand::New { secret } = command;
    let (key, founder) = PartyKey::generate();
    if let Some(file) = &secret {
        write_secret(file, &founder).with_context(|| format!("cannot write {}", file.display()))?;
    }
    output.show(&NewKey { key: key.to_hex(), secret })
}

/// The founder's seed as a line of hexadecimal. The file must be new: to overwrite one would lose the founder's
/// half of another party, and a file that is there may be open to others.
fn write_secret(path: &Path, founder: &KeyPair) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    let line: String = founder.seed().iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]).collect();
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
