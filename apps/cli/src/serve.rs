//! `party serve`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use party::{
    connection::{Connecting, Listener},
    error::Error,
    feed::Feed,
    key::{KeyPair, PublicKey},
    members::Members,
    party::{Open, Party},
    rules::WholeStore,
    store::Store,
};
use serde::Serialize;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    args::{Mode, Serve},
    feed, identity,
    input::{Blocks, Cut},
    interrupt, members,
    output::{Output, Show, text},
};

/// Connections at the same time. More wait until one has ended.
const MAX_CONNECTIONS: usize = 512;

/// How long to wait after the operating system has refused to accept a connection, mostly for want of files.
const BREATH: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Listening {
    listening: SocketAddr,
    #[serde(serialize_with = "text")]
    public_key: PublicKey,
}

impl Show for Listening {
    fn text(&self) -> String {
        format!("listening {}\npublic key {}\n", self.listening, self.public_key)
    }
}

pub(crate) async fn run(arguments: Serve, output: Output) -> anyhow::Result<()> {
    let mut interrupted = interrupt::listen()?;
    let store = arguments.store.open_or_create().await?;
    let result = serve(&store, &arguments, output, &mut interrupted).await;
    store.close().await;
    result
}

async fn serve(
    store: &Store,
    arguments: &Serve,
    output: Output,
    interrupted: &mut watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let key_pair = identity::of_store(&arguments.store.folder)?;
    let appended = match &arguments.append {
        Some(name) => Some(feed::by_name(store, name).await?),
        None => None,
    };
    let (host, members) = Host::new(store, &key_pair, &arguments.mode, arguments.upload_limit).await?;
    let listener = Listener::bind(arguments.listen, &key_pair)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    output.show(&Listening { listening: listener.local_addr()?, public_key: key_pair.public() })?;

    let (end, ended) = watch::channel(false);
    let accepting = tokio::spawn(accept(listener, host, ended));
    let result = tokio::select! {
        () = interrupt::wait(interrupted) => Ok(()),
        result = append(appended, output) => result,
    };
    end.send_replace(true);
    accepting.await.context("the listener has failed")?;
    if let Some(members) = members {
        members.saved().await?;
    }
    result
}

/// Appends the lines of standard input. Goes on for ever after their end, unless appending fails.
async fn append(feed: Option<Feed>, output: Output) -> anyhow::Result<()> {
    if let Some(feed) = feed {
        let mut lines = Blocks::open(None, Cut::Lines)?;
        let progress = output.quiet();
        while let Some(batch) = lines.next().await? {
            feed::append_batch(&feed, batch, output, &progress).await?;
        }
    }
    std::future::pending().await
}

/// What the listener offers to whoever comes.
#[derive(Clone)]
struct Host {
    offer: Offer,
    /// For each peer, in bytes a second.
    upload_limit: Option<u64>,
}

#[derive(Clone)]
enum Offer {
    Party(Party),
    Open(Open),
}

impl Host {
    async fn new(
        store: &Store,
        key_pair: &KeyPair,
        mode: &Mode,
        upload_limit: Option<u64>,
    ) -> anyhow::Result<(Self, Option<Members>)> {
        let rules = WholeStore::new(store.clone());
        let (offer, members) = match mode.party {
            Some(key) => {
                let (party, members) = members::party(store, &key, key_pair, rules).await?;
                (Offer::Party(party), members)
            }
            None => (Offer::Open(Open::new(rules)), None),
        };
        Ok((Self { offer, upload_limit }, members))
    }

    fn receive(&self, connecting: Connecting<TcpStream>) -> Connecting<TcpStream> {
        let connecting = match &self.offer {
            Offer::Party(party) => connecting.join(party),
            Offer::Open(open) => connecting.open(open),
        };
        match self.upload_limit {
            Some(limit) => connecting.upload_at_most(limit),
            None => connecting,
        }
    }
}

/// Takes connections until `ended`, and then closes all in good order.
async fn accept(listener: Listener, host: Host, mut ended: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?, place))
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok(((connecting, address), place)) => {
                    let connecting = host.receive(connecting);
                    let ended = ended.clone();
                    connections.spawn(async move {
                        match connection(connecting, ended).await {
                            Ok(()) => tracing::info!(%address, "closed"),
                            Err(error) => tracing::info!(%address, %error, "ended"),
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(BREATH).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = interrupt::wait(&mut ended) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    connecting: Connecting<TcpStream>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), Error> {
    let connection = tokio::select! {
        connection = connecting => connection?,
        () = interrupt::wait(&mut ended) => return Ok(()),
    };
    tokio::select! {
        result = connection.closed() => return result,
        () = interrupt::wait(&mut ended) => {}
    }
    connection.close().await
}
