//! The wish that a long command end: Ctrl-C, or the signal that `kill` sends.

use tokio::sync::watch;

/// Listens from now on. The value becomes true at the first signal; a second one ends the process at once, for
/// whoever can't wait.
pub(crate) fn listen() -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        signals.next().await;
        sender.send_replace(true);
        signals.next().await;
        std::process::exit(130);
    });
    Ok(receiver)
}

/// Waits until it is true.
pub(crate) async fn wait(interrupted: &mut watch::Receiver<bool>) {
    // The sender lives as long as the process.
    let _ = interrupted.wait_for(|interrupted| *interrupted).await;
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
