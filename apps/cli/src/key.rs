//! `party key`.

use std::path::PathBuf;

use anyhow::Context as _;
use party::key::{PartyKey, PublicKey};
use serde::Serialize;

use crate::{
    args::KeyCommand,
    identity,
    output::{Output, Show, text},
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

#[derive(Serialize)]
struct Public {
    #[serde(serialize_with = "text")]
    public_key: PublicKey,
}

impl Show for Public {
    fn text(&self) -> String {
        self.public_key.to_string()
    }
}

pub(crate) async fn run(command: KeyCommand, output: Output) -> anyhow::Result<()> {
    match command {
        KeyCommand::New { secret } => new(secret, output),
        KeyCommand::Public { store: folder } => {
            let store = folder.open_or_create().await?;
            let key_pair = identity::of_store(&folder.folder);
            store.close().await;
            output.show(&Public { public_key: key_pair?.public() })
        }
    }
}

fn new(secret: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
    let (key, founder) = PartyKey::generate();
    if let Some(file) = &secret {
        secret_file::write(file, &founder.seed()).with_context(|| {
            format!("cannot write {} (a new file in a folder that is there)", file.display())
        })?;
    }
    output.show(&NewKey { key: key.to_hex(), secret })
}
