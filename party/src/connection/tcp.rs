//! Connections over TCP.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};

use super::{Connecting, Connection};
use crate::key::KeyPair;

/// About what it costs to put a processor to sleep and to wake it up, on a virtual machine; half of it elsewhere.
const LINGER: Duration = Duration::from_micros(100);

/// Dials `address`. What comes back wants to be told which party to [join](Connecting::join).
///
/// # Errors
/// Whatever the operating system says.
pub async fn dial(address: impl ToSocketAddrs, key_pair: &KeyPair) -> io::Result<Connecting<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Connection::dial(stream, key_pair).linger(LINGER))
}

/// Takes connections on a TCP address, all with the same identity.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    key_pair: KeyPair,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub async fn bind(address: impl ToSocketAddrs, key_pair: &KeyPair) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, key_pair: key_pair.clone() })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. `.await` what comes back in a task of its own: its handshake is carried out
    /// there, and a slow or hostile dialler must not keep the others waiting.
    ///
    /// # Errors
    /// Whatever the operating system says. Most are about one connection, or pass: go on accepting.
    pub async fn accept(&self) -> io::Result<(Connecting<TcpStream>, SocketAddr)> {
        let (stream, address) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Connection::accept(stream, &self.key_pair).linger(LINGER), address))
    }
}
