//! `party key`.

use std::path::PathBuf;

use anyhow::Context as _;
use party::key::PartyKey;
use serde::Serialize;

use crate::{
    args::KeyCommand,
    output::{Output, Show},
    secret as secret_file,
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
        secret_file::write(file, &founder.seed())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    output.show(&NewKey { key: key.to_hex(), secret })
}
