//! Accepted connections, at most as many as the limit allows.
//!
//! # Invariants
//! - A place is held by who speaks: a connection whose first bytes do not come in time is closed.
//! - One address of the network holds at most a share of the places. Loopback is exempt: what
//!   comes from there may be a proxy for everybody.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::types::Limits;

/// Wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that show that somebody speaks: an HTTP/2 connection preface (RFC 9113, 3.4) or about as
/// much of a TLS handshake.
const FIRST_BYTES: usize = 24;
/// One address may hold one in so many of all connections,
const PEER_SHARE: usize = 4;
/// but this many at least.
const PEER_LEAST: usize = 8;

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    connections: Arc<Semaphore>,
    peers: Arc<Peers>,
    silence: Duration,
}

impl Listener {
    /// Binds `address` for as many connections as the limits allow.
    ///
    /// # Errors
    /// The address is not to be had.
    pub async fn bind(address: SocketAddr, limits: &Limits) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self {
            socket,
            connections: Arc::new(Semaphore::new(limits.connections)),
            peers: Arc::new(Peers::new(limits.connections)),
            silence: Duration::from_millis(limits.handshake_ms),
        })
    }

    /// The address, with the port that the system chose where 0 was asked for.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The connections. A full house leaves further ones in the system's backlog.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> {
        futures_util::stream::unfold(self, |this| async move {
            let place = Arc::clone(&this.connections).acquire_owned().await.ok()?;
            let accepted = this.accept(place).await;
            if accepted.is_err() {
                // Out of file descriptors, mostly: without a pause this would spin.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Some((accepted, this))
        })
    }

    /// The next connection of an address that has not too many; others are closed at once.
    async fn accept(&self, place: OwnedSemaphorePermit) -> io::Result<Connection> {
        loop {
            let (stream, peer) = self.socket.accept().await?;
            let Some(share) = Peers::enter(&self.peers, peer.ip()) else {
                tracing::debug!("an address has too many connections; one is closed");
                continue;
            };
            stream.set_nodelay(true)?;
            let patience = Box::pin(tokio::time::sleep_until(Instant::now() + self.silence));
            let awaited = Some(Awaited { patience, received: 0 });
            return Ok(Connection { stream, awaited, _place: place, _share: share });
        }
    }
}

/// How many connections each address has.
#[derive(Debug)]
struct Peers {
    most: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address; given back when dropped. `None` for loopback.
#[derive(Debug)]
struct Share(Option<(Arc<Peers>, IpAddr)>);

impl Peers {
    fn new(connections: usize) -> Self {
        Self { most: (connections / PEER_SHARE).max(PEER_LEAST), held: Mutex::default() }
    }

    fn enter(this: &Arc<Self>, peer: IpAddr) -> Option<Share> {
        // An IPv4 address that came in on an IPv6 socket is the same address.
        let peer = peer.to_canonical();
        if peer.is_loopback() {
            return Some(Share(None));
        }
        // The map is whole after every line: a panic elsewhere cannot leave it half changed.
        let mut held = this.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(peer).or_default();
        (*count < this.most).then(|| {
            *count += 1;
            Share(Some((Arc::clone(this), peer)))
        })
    }

    fn leave(&self, peer: IpAddr) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                held.remove(&peer);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((peers, peer)) = self.0.take() {
            peers.leave(peer);
        }
    }
}

/// What a connection owes us before it may stay.
#[derive(Debug)]
struct Awaited {
    patience: Pin<Box<Sleep>>,
    received: usize,
}

/// One connection and its place among the allowed ones.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Until its first bytes are here.
    awaited: Option<Awaited>,
    _place: OwnedSemaphorePermit,
    _share: Share,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let Some(awaited) = &mut this.awaited else { return read };
        awaited.received += buffer.filled().len() - before;
        if awaited.received >= FIRST_BYTES {
            this.awaited = None;
        } else if read.is_pending() && awaited.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places() {
        let peers = Arc::new(Peers::new(40));
        let [flood, other, local] =
            ["192.0.2.1", "2001:db8::1", "127.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let mut held: Vec<_> = (0..10).map(|_| Peers::enter(&peers, flood).unwrap()).collect();
        assert!(Peers::enter(&peers, flood).is_none());
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(Peers::enter(&peers, mapped).is_none(), "the same address in other words");
        assert!(Peers::enter(&peers, other).is_some());
        let locals: Vec<_> = (0..50).map(|_| Peers::enter(&peers, local)).collect();
        assert!(locals.iter().all(Option::is_some));
        held.pop();
        held.extend(Peers::enter(&peers, flood));
        assert_eq!(held.len(), 10);
        held.clear();
        assert!(peers.held.lock().unwrap().is_empty());
    }
}
