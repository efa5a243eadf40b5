//! The sockets that listen for TCP connections: opened at the start, changed by CONFIG SET of `bind` and `port`.
//!
//! Invariants:
//! - A change keeps the sockets that are wanted both before and after it.
//! - A change that fails leaves the server listening where it did.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::acceptor::{Dealer, accept_tcp};
use crate::base::config::Settings;
use crate::base::lock::{Mutex, Rank};
use crate::base::logging;

/// The listening sockets of a server that accepts connections.
pub struct Listeners {
    runtime: Handle,
    dealer: Dealer,
    backlog: i32,
    open: Mutex<Vec<Open>>,
}

/// A socket at which connections are accepted.
struct Open {
    address: SocketAddr,
    socket: std::net::TcpListener,
    accepting: AbortHandle,
}

/// A socket that listens and does not accept yet.
pub type Bound = (SocketAddr, std::net::TcpListener);

/// Opens the sockets that `bind` and `port` ask for.
///
/// # Errors
/// An address cannot be bound (unless marked optional with a leading `-`), or none could be.
pub fn listen(settings: &Settings) -> io::Result<Vec<Bound>> {
    let wanted = wanted(settings)?;
    let bound = bind_all(&wanted, settings.tcp_backlog)?;
    if bound.is_empty() && !wanted.is_empty() { Err(nowhere()) } else { Ok(bound) }
}

impl Listeners {
    /// Begins to accept at these sockets. Must be called inside the runtime that continues this.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(dealer: Dealer, settings: &Settings, bound: Vec<Bound>) -> io::Result<Listeners> {
        let (runtime, backlog) = (Handle::current(), settings.tcp_backlog);
        let listeners = Listeners { runtime, dealer, backlog, open: Mutex::new(Rank::Listeners, Vec::new()) };
        *listeners.open.lock() = listeners.accept(bound)?;
        Ok(listeners)
    }

    /// Where connections are accepted.
    pub fn addresses(&self) -> Vec<String> {
        let local = |open: &Open| open.socket.local_addr().ok().map(|address| address.to_string());
        self.open.lock().iter().filter_map(local).collect()
    }

    /// From now on, listens where these settings say, and nowhere else. Callable from any thread.
    ///
    /// # Errors
    /// An address cannot be bound, or there is none. Everything is as before.
    pub fn change(&self, settings: &Settings) -> io::Result<()> {
        let wanted = wanted(settings)?;
        let mut open = self.open.lock();
        let is_wanted = |open: &Open| wanted.iter().any(|(address, _)| *address == open.address);
        let missing: Vec<_> =
            wanted.iter().filter(|(address, _)| open.iter().all(|open| open.address != *address)).copied().collect();
        let opened = bind_all(&missing, self.backlog).and_then(|bound| self.accept(bound));
        let opened = match opened {
            Ok(opened) if opened.is_empty() && !wanted.is_empty() && !open.iter().any(is_wanted) => {
                return Err(nowhere());
            }
            // An address for all interfaces excludes the others of its port, which must be closed first.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let unwanted: Vec<Open> = open.extract_if(.., |open| !is_wanted(open)).collect();
                let gone: Vec<_> = unwanted.iter().map(|open| (open.address, false)).collect();
                unwanted.into_iter().for_each(Open::close);
                let opened = bind_all(&missing, self.backlog).and_then(|bound| self.accept(bound));
                if opened.is_err() {
                    match bind_all(&gone, self.backlog).and_then(|bound| self.accept(bound)) {
                        Ok(again) => open.extend(again),
                        Err(error) => {
                            logging::warning(format_args!("Could not listen again where the server did: {error}"));
                        }
                    }
                }
                opened?
            }
            opened => opened?,
        };
        open.extract_if(.., |open| !is_wanted(open)).for_each(Open::close);
        open.extend(opened);
        Ok(())
    }

    /// Begins to accept at all of these sockets, or at none.
    fn accept(&self, bound: Vec<Bound>) -> io::Result<Vec<Open>> {
        let _inside = self.runtime.enter();
        let ready = bound.into_iter().map(|(address, socket)| {
            let listener = TcpListener::from_std(socket.try_clone()?)?;
            Ok((address, socket, listener))
        });
        let ready: Vec<_> = ready.collect::<io::Result<_>>()?;
        let open = |(address, socket, listener)| {
            let accepting = self.runtime.spawn(accept_tcp(listener, self.dealer.clone())).abort_handle();
            Open { address, socket, accepting }
        };
        Ok(ready.into_iter().map(open).collect())
    }
}

impl Open {
    /// Stops listening at once. The task that accepts is the other owner of the socket and ends when it next runs.
    fn close(self) {
        // A socket that no longer listens need not be stopped.
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
        self.accepting.abort();
    }
}

/// The addresses that the settings ask for, each once, and whether this machine may lack it.
fn wanted(settings: &Settings) -> io::Result<Vec<(SocketAddr, bool)>> {
    let mut wanted: Vec<(SocketAddr, bool)> = Vec::new();
    for text in settings.bind.iter().filter(|_| settings.port != 0) {
        let (optional, host) = match text.strip_prefix('-') {
            Some(host) => (true, host),
            None => (false, text.as_str()),
        };
        let host = match host {
            "*" => "0.0.0.0",
            "::*" => "::",
            other => other,
        };
        let absent = || io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        let found = (host, settings.port).to_socket_addrs().and_then(|mut all| all.next().ok_or_else(absent));
        match found {
            Ok(address) if wanted.iter().any(|(known, _)| *known == address) => {}
            Ok(address) => wanted.push((address, optional)),
            Err(error) if optional && is_absent(&error) => {}
            Err(error) => return Err(named(host, settings.port, &error)),
        }
    }
    Ok(wanted)
}

/// Binds all of these addresses that this machine has, or none.
fn bind_all(wanted: &[(SocketAddr, bool)], backlog: i32) -> io::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for &(address, optional) in wanted {
        match bind(address, backlog) {
            Ok(socket) => bound.push((address, socket)),
            Err(error) if optional && is_absent(&error) => {}
            Err(error) => return Err(named(address.ip(), address.port(), &error)),
        }
    }
    Ok(bound)
}

fn nowhere() -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, "no address of 'bind' is available")
}

fn named(host: impl std::fmt::Display, port: u16, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{host}:{port}: {error}"))
}

/// Whether this machine simply lacks the address or its protocol.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}

fn bind(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}
