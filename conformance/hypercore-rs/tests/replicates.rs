//! The crate `hypercore` 0.17.0-alpha.1 as a peer over TCP, with legacy feeds, which are all that it knows.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::VerifyingKey;
use hypercore::{Hypercore, HypercoreBuilder, PartialKeypair, Storage};
use hypercore_handshake::{
    Cipher,
    state_machine::{SecStream, hc_specific::generate_keypair},
};
use party::{
    connection::Connection,
    feed::Feed,
    key::{DiscoveryKey, FeedKey, KeyPair},
    party::Open,
    peer::{Peer, Replicate},
    rules::{self, Rules},
    store::{FeedOptions, Store},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use uint24le_framing::Uint24LELengthPrefixedFraming;

/// Nothing here takes long; a standstill is to fail.
const PATIENCE: Duration = Duration::from_secs(20);

/// Their end of the socket. `uint24le_framing` 0.2.0, which reads frames for them, goes to sleep when a read has brought a
/// part of a frame, and nothing would wake it again: so each read that has brought something does.
struct Wakeful(TcpStream);

impl AsyncRead for Wakeful {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        if buf.filled().len() > before {
            cx.waker().wake_by_ref();
        }
        read
    }
}

impl AsyncWrite for Wakeful {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Who dials whom.
#[derive(Clone, Copy, Debug)]
enum Dials {
    Us,
    Them,
}

/// Releases one feed in open mode.
struct Only(Feed, Replicate);

impl Rules for Only {
    async fn handshake(&self, peer: &Peer) -> rules::Result<()> {
        peer.replicate_as(&self.0, self.1).await?;
        Ok(())
    }

    async fn introduce_feeds(&self, _: &Peer, _: Vec<FeedKey>) -> rules::Result<Vec<FeedKey>> {
        Ok(vec![])
    }

    async fn find_feed(&self, _: &Peer, key: &DiscoveryKey) -> rules::Result<Option<Feed>> {
        Ok(Some(&self.0).filter(|feed| feed.discovery_key() == *key).cloned())
    }
}

/// Our end of a connection, and their task.
async fn connect(
    feed: &Feed,
    how: Replicate,
    core: &Hypercore,
    dials: Dials,
) -> Result<(Connection, tokio::task::JoinHandle<()>)> {
    let open = Open::new(Only(feed.clone(), how));
    let pair = KeyPair::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (dialled, accepted) =
        tokio::try_join!(TcpStream::connect(listener.local_addr()?), async { listener.accept().await })?;
    // Small writes wait for what was sent before to be acknowledged, as is the default. Where they don't, this peer
    // stands still sooner or later, as a message that comes while it is about another is dropped.
    let (ours, theirs) = match dials {
        Dials::Us => (dialled, accepted.0),
        Dials::Them => (accepted.0, dialled),
    };
    let framed = Uint24LELengthPrefixedFraming::new(Wakeful(theirs).compat());
    let secured = match dials {
        Dials::Us => SecStream::new_responder_xx(&generate_keypair()?, &[])?.into(),
        Dials::Them => SecStream::new_initiator_xx(&[])?.into(),
    };
    let replicator = core.replicate(Cipher::new(Some(Box::new(framed)), secured));
    let task = tokio::spawn(async move {
        // It ends with the connection, in whatever way.
        let _ = replicator.await;
    });
    let connection = match dials {
        Dials::Us => Connection::dial(ours, &pair).open(&open).await?,
        Dials::Them => Connection::accept(ours, &pair).open(&open).await?,
    };
    Ok((connection, task))
}

async fn in_time<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work).await.with_context(|| format!("standstill: {what}"))?
}

fn block(index: u64) -> Vec<u8> {
    vec![index as u8; 1 + index as usize % 500]
}

async fn their_core(key: Option<VerifyingKey>) -> Result<Hypercore> {
    let builder = HypercoreBuilder::new(Storage::new_memory().await?);
    Ok(match key {
        Some(public) => builder.key_pair(PartialKeypair { public, secret: None }),
        None => builder,
    }
    .build()
    .await?)
}

/// It answers one request at a time and drops those that come meanwhile, so blocks are asked for one by one.
#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_it_writes() -> Result<()> {
    for dials in [Dials::Us, Dials::Them] {
        let core = their_core(None).await?;
        for index in 0..30 {
            core.append(&block(index)).await?;
        }
        let store = Store::memory();
        let feed = store.feed(&FeedKey::from_bytes(core.key_pair().public.to_bytes())).await?;
        let (connection, task) = connect(&feed, Replicate::sparsely(), &core, dials).await?;
        in_time("blocks of theirs", async {
            feed.update().await?;
            for index in (0..30).rev() {
                ensure!(feed.fetch(index).await? == block(index), "block {index}");
            }
            Ok(())
        })
        .await?;
        core.append(b"one more").await?;
        in_time("what they append", async {
            feed.update().await?;
            ensure!(feed.fetch(30).await? == "one more");
            Ok(())
        })
        .await?;
        connection.close().await?;
        task.abort();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_what_we_write() -> Result<()> {
    for dials in [Dials::Us, Dials::Them] {
        let store = Store::memory();
        let feed = store.create_feed("f", FeedOptions::default().compat(true)).await?;
        for index in 0..30 {
            feed.append(block(index)).await?;
        }
        let core = their_core(Some(VerifyingKey::from_bytes(feed.key().as_bytes())?)).await?;
        let (connection, task) = connect(&feed, Replicate::fully(), &core, dials).await?;
        in_time("blocks of ours", async {
            // Its events come before what they tell of can be seen.
            while core.info().contiguous_length < 30 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        })
        .await?;
        for index in 0..30 {
            ensure!(core.get(index).await?.is_some_and(|it| it == block(index)), "block {index}");
        }
        connection.close().await?;
        task.abort();
    }
    Ok(())
}
