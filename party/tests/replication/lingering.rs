//! A connection that looks for what comes next, instead of going to sleep, is in nobody's way.

use std::{future::IntoFuture as _, net::Ipv4Addr, time::Duration};

use crate::common::{Behaviour, Shared, identity, party_key, peer_added};
use party::{
    connection::{self, Connection, Listener},
    party::Party,
};

/// Longer than a test takes: whoever waited for the end of it would not come back.
const FOR_EVER: Duration = Duration::from_secs(3_600);

async fn linger(at_most: Duration, dialler: &Party, listener: &Party) -> (Connection, Connection) {
    let socket = Listener::bind((Ipv4Addr::LOCALHOST, 0), &identity(2)).await.unwrap();
    let dialled = connection::dial(socket.local_addr().unwrap(), &identity(1)).await.unwrap();
    let (accepted, _) = socket.accept().await.unwrap();
    tokio::try_join!(
        dialled.linger(at_most).join(dialler).into_future(),
        accepted.linger(at_most).join(listener).into_future(),
    )
    .unwrap()
}

/// Both ends and the app share one thread; each goes on while another lingers.
#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_lingers_keeps_nobody_from_running() {
    let rules = Shared::default();
    let (here, there) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(1), rules.clone()));
    let mut events = here.events();
    let (connection, other) = linger(FOR_EVER, &here, &there).await;
    let peer = peer_added(&mut events).await;
    for n in 0..100_u8 {
        assert_eq!(peer.request("echo", vec![n]).await.unwrap().value, vec![n]);
    }

    // The remote takes as long as it likes over this one, and both ends linger.
    *rules.0.on_request.lock().unwrap() = Some(Behaviour::Hang);
    let asking = tokio::spawn({
        let peer = peer.clone();
        async move { peer.request("echo", "slow").await }
    });
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert!(!asking.is_finished());
    asking.abort();

    // It ends when it is told to, and so does the other end.
    connection.close().await.unwrap();
    other.closed().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_does_not_linger_talks_as_well() {
    let (here, there) =
        (Party::new(party_key(1), Shared::default()), Party::new(party_key(1), Shared::default()));
    let mut events = here.events();
    let _connections = linger(Duration::ZERO, &here, &there).await;
    let peer = peer_added(&mut events).await;
    assert_eq!(peer.request("echo", "hello").await.unwrap().value, "hello");
}
