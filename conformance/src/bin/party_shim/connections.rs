//! The shim's connections, each a task of its own that takes orders.

use std::time::Duration;

use party::{
    connection::{Connecting, Connection, Listener, dial},
    key::KeyPair,
    limits::Limits,
    party::{Event, Events, Open, Party},
};
use tokio::{net::TcpStream, sync::broadcast, task::JoinSet};

use crate::{Wrong, class, tell};

/// An order to all connections.
#[derive(Clone)]
pub(crate) enum Order {
    Join(Party),
    Leave(Party),
    HangUp,
}

/// What connections are made for from now on.
#[derive(Clone)]
pub(crate) struct Purpose {
    pub(crate) key_pair: KeyPair,
    pub(crate) parties: Vec<Party>,
    pub(crate) open: Option<Open>,
    pub(crate) limits: Limits,
    pub(crate) pad: usize,
    pub(crate) finite: bool,
}

impl Purpose {
    fn apply(&self, mut connecting: Connecting<TcpStream>) -> Connecting<TcpStream> {
        connecting = connecting.limits(self.limits.clone()).pad_to(self.pad);
        for party in &self.parties {
            connecting = connecting.join(party);
        }
        if let Some(open) = &self.open {
            connecting = connecting.open(open);
        }
        if self.finite { connecting.finite() } else { connecting }
    }
}

/// Runs one connection to its end.
pub(crate) async fn run(connecting: Connecting<TcpStream>, mut orders: broadcast::Receiver<Order>) {
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => {
            eprintln!("a connection is none: {error}");
            return tell(format_args!("ended {}", class(&error)));
        }
    };
    tell(format_args!("connected {}", connection.remote_public_key()));
    let ended = loop {
        let order = tokio::select! {
            ended = connection.closed() => break ended,
            order = orders.recv() => order,
        };
        match order {
            Ok(Order::HangUp) => break connection.close().await,
            Ok(order) => obey(&connection, order).await,
            Err(_) => return,
        }
    };
    match ended {
        Ok(()) => tell("ended clean"),
        Err(error) => {
            eprintln!("a connection has ended: {error}");
            tell(format_args!("ended {}", class(&error)));
        }
    }
}

async fn obey(connection: &Connection, order: Order) {
    // If the connection has ended there is nothing to obey.
    match order {
        Order::Join(party) => drop(connection.join(&party).await),
        Order::Leave(party) => drop(connection.leave(&party).await),
        Order::HangUp => {}
    }
}

/// Dials a port of 127.0.0.1.
pub(crate) async fn dial_port(port: u16, purpose: &Purpose) -> Result<Connecting<TcpStream>, Wrong> {
    let connecting = dial(("127.0.0.1", port), &purpose.key_pair).await.map_err(party::error::Error::from)?;
    Ok(purpose.apply(connecting))
}

/// Takes whoever dials.
pub(crate) async fn accept_all(listener: Listener, purpose: Purpose, orders: broadcast::Sender<Order>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    while let Ok((connecting, _)) = listener.accept().await {
        connections.spawn(run(purpose.apply(connecting), orders.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

/// Tells who comes to a party and who leaves it.
pub(crate) async fn report(name: String, mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::PeerAdded(peer) => tell(format_args!("admitted {name} {}", peer.remote_public_key())),
            Event::PeerRemoved(peer) => tell(format_args!("left {name} {}", peer.remote_public_key())),
            Event::FeedRefused { feed, .. } => tell(format_args!("refused {name} {feed}")),
            Event::ChannelFailed { error, .. } => eprintln!("a channel has failed: {error}"),
            _ => {}
        }
    }
}

/// The limit that a word of `patience` names.
pub(crate) fn set_patience(limits: &mut Limits, what: &str, time: Duration) -> bool {
    let limit = match what {
        "handshake" => &mut limits.handshake_timeout,
        "admission" => &mut limits.admission_timeout,
        "idle" => &mut limits.idle_timeout,
        "answer" => &mut limits.transaction_timeout,
        "rule" => &mut limits.rule_timeout,
        "membership" => &mut limits.membership_timeout,
        _ => return false,
    };
    *limit = time;
    true
}
