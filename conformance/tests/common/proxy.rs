//! A TCP proxy that cuts connections: now, or after so many bytes.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

/// Hands on what comes to its port to another port of 127.0.0.1, until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    /// Counts the cuts.
    cut: watch::Sender<u64>,
    /// How many bytes each connection to come may carry, both ways together; without one, any number.
    budgets: Mutex<Box<dyn FnMut() -> Option<u64> + Send>>,
    connections: AtomicU64,
    /// How many have ended.
    ended: watch::Sender<u64>,
}

impl Proxy {
    /// Every connection to `target` lives as long as its ends let it, or until [`cut`](Self::cut).
    pub(crate) async fn to(target: u16) -> Result<Self> {
        Self::with_budgets(target, || None).await
    }

    /// Each connection gets a budget of bytes, and ends when that is used up.
    pub(crate) async fn with_budgets(
        target: u16,
        budgets: impl FnMut() -> Option<u64> + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            cut: watch::Sender::new(0),
            budgets: Mutex::new(Box::new(budgets)),
            connections: AtomicU64::new(0),
            ended: watch::Sender::new(0),
        });
        let task = tokio::spawn(accept(listener, target, Arc::clone(&shared))).abort_handle();
        Ok(Self { port, shared, task })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until `count` connections have ended.
    pub(crate) async fn ended(&self, count: u64) {
        // The sender lives as long as this.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended >= count).await;
    }

    /// What each connection to come may carry.
    pub(crate) fn set_budgets(&self, budgets: impl FnMut() -> Option<u64> + Send + 'static) {
        *self.shared.budgets.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(budgets);
    }

    /// Ends every connection, whatever is on its way.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, target: u16, shared: Arc<Shared>) {
    while let Ok((near, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let budget = (shared.budgets.lock().unwrap_or_else(PoisonError::into_inner))();
        let mut cut = shared.cut.subscribe();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await {
                tokio::select! {
                    () = carry(near, far, budget.unwrap_or(u64::MAX)) => {}
                    _ = cut.changed() => {}
                }
            }
            shared.ended.send_modify(|ended| *ended += 1);
        });
    }
}

/// Ends when both directions have, or one of them fails, or the budget is used up.
async fn carry(near: TcpStream, far: TcpStream, budget: u64) {
    let (Ok(()), Ok(())) = (near.set_nodelay(true), far.set_nodelay(true)) else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let budget = AtomicU64::new(budget);
    // An end in good order of one direction leaves the other as it is.
    let _ = tokio::try_join!(copy(near_in, far_out, &budget), copy(far_in, near_out, &budget));
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    budget: &AtomicU64,
) -> Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        let left = budget.load(Ordering::Relaxed);
        let carried = left.min(read as u64);
        budget.store(left - carried, Ordering::Relaxed);
        to.write_all(&buffer[..carried as usize]).await?;
        anyhow::ensure!(left > carried, "the budget is used up");
    }
}
