//! Word that something has changed, for many who may be slow: they hear that it has, not how often.
//!
//! It does what `tokio::sync::watch` does, but those who wait are woken in the order in which they began to. There it is
//! left to chance, and a simulation could not be repeated.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Who tells. When it is dropped, the listeners hear that, too.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    told: Arc<Told>,
}

/// Who is told.
#[derive(Debug)]
pub(crate) struct Listener {
    told: Arc<Told>,
    /// How often it had been told when this one looked last.
    heard: u64,
}

#[derive(Debug, Default)]
struct Told {
    times: AtomicU64,
    listeners: AtomicUsize,
    is_over: AtomicBool,
    notify: Notify,
}

impl Teller {
    pub(crate) fn tell(&self) {
        self.told.times.fetch_add(1, Ordering::AcqRel);
        self.told.notify.notify_waiters();
    }

    /// Hears of what is told from now on.
    pub(crate) fn subscribe(&self) -> Listener {
        Listener::new(&self.told, self.told.times.load(Ordering::Acquire))
    }

    pub(crate) fn listeners(&self) -> usize {
        self.told.listeners.load(Ordering::Acquire)
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.told.is_over.store(true, Ordering::Release);
        self.told.notify.notify_waiters();
    }
}

impl Listener {
    fn new(told: &Arc<Told>, heard: u64) -> Self {
        told.listeners.fetch_add(1, Ordering::AcqRel);
        Self { told: told.clone(), heard }
    }

    /// Takes all that was told till now as heard.
    pub(crate) fn catch_up(&mut self) {
        self.heard = self.told.times.load(Ordering::Acquire);
    }

    /// Waits until something is told that this one has not heard. Returns `false` once nothing more will be.
    pub(crate) async fn heard(&mut self) -> bool {
        loop {
            // Before the look: what is told after it wakes this one.
            let mut notified = pin!(self.told.notify.notified());
            notified.as_mut().enable();
            let times = self.told.times.load(Ordering::Acquire);
            if times != self.heard {
                self.heard = times;
                return true;
            }
            if self.told.is_over.load(Ordering::Acquire) {
                return false;
            }
            notified.await;
        }
    }
}

impl Clone for Listener {
    fn clone(&self) -> Self {
        Self::new(&self.told, self.heard)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.told.listeners.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_was_told_often_is_heard_once_and_by_all() {
        let teller = Teller::default();
        let (mut early, mut late) = (teller.subscribe(), teller.subscribe());
        assert_eq!(early.heard().now_or_never(), None);
        teller.tell();
        teller.tell();
        let mut copy = late.clone();
        for listener in [&mut early, &mut late, &mut copy] {
            assert_eq!(listener.heard().now_or_never(), Some(true));
            assert_eq!(listener.heard().now_or_never(), None);
        }
        assert_eq!(teller.subscribe().heard().now_or_never(), None);
        assert_eq!(teller.listeners(), 3);
    }

    #[tokio::test]
    async fn who_waits_is_woken_in_the_order_of_coming_and_at_the_end() {
        let teller = Teller::default();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let (mut listener, order) = (teller.subscribe(), order.clone());
                tokio::spawn(async move {
                    while listener.heard().await {
                        order.lock().unwrap().push(n);
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        teller.tell();
        tokio::task::yield_now().await;
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        drop(teller);
        for task in tasks {
            task.await.unwrap();
        }
    }
}
