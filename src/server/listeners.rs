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

use super::acceptor::{Door, accept_tcp};
use super::dealer::Dealer;
use super::handshakes::Handshakes;
use crate::base::config::Settings;
use crate::base::lock::{Mutex, Rank};
use crate::base::logging;

/// The listening sockets of a server that accepts connections.
pub struct Listeners {
    runtime: Handle,
    dealer: Dealer,
    backlog: i32,
    open: Mutex<Opened>,
}

/// What is open.
#[derive(Default)]
struct Opened {
    sockets: Vec<Open>,
    /// The threads of handshakes, once there is a socket for TLS.
    handshakes: Option<Handshakes>,
}

/// A socket at which connections are accepted.
struct Open {
    place: Place,
    socket: std::net::TcpListener,
    accepting: AbortHandle,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    address: SocketAddr,
    /// Whether for TLS.
    tls: bool,
}

/// A socket that listens and does not accept yet.
pub type Bound = (Place, std::net::TcpListener);

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
        let mut opened = Opened::default();
        opened.sockets = accept(&runtime, &dealer, &mut opened.handshakes, bound)?;
        Ok(Listeners { runtime, dealer, backlog, open: Mutex::new(Rank::Listeners, opened) })
    }

    /// Where connections are accepted.
    pub fn addresses(&self) -> Vec<String> {
        let local = |open: &Open| {
            let address = open.socket.local_addr().ok()?;
            Some(if open.place.tls { format!("{address} (TLS)") } else { address.to_string() })
        };
        self.open.lock().sockets.iter().filter_map(local).collect()
    }

    /// From now on, listens where these settings say, and nowhere else. Callable from any thread.
    ///
    /// # Errors
    /// An address cannot be bound, or there is none. Everything is as before.
    pub fn change(&self, settings: &Settings) -> io::Result<()> {
        let wanted = wanted(settings)?;
        let opened = &mut *self.open.lock();
        let (open, handshakes) = (&mut opened.sockets, &mut opened.handshakes);
        let mut bind = |places: &[(Place, bool)]| {
            bind_all(places, self.backlog).and_then(|bound| accept(&self.runtime, &self.dealer, handshakes, bound))
        };
        let is_wanted = |open: &Open| wanted.iter().any(|(place, _)| *place == open.place);
        let missing: Vec<_> =
            wanted.iter().filter(|(place, _)| open.iter().all(|open| open.place != *place)).copied().collect();
        let opened = match bind(&missing) {
            Ok(opened) if opened.is_empty() && !wanted.is_empty() && !open.iter().any(is_wanted) => {
                return Err(nowhere());
            }
            // An address for all interfaces excludes the others of its port, and TLS excludes plain TCP. Those must be
            // closed first.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let unwanted: Vec<Open> = open.extract_if(.., |open| !is_wanted(open)).collect();
                let gone: Vec<_> = unwanted.iter().map(|open| (open.place, false)).collect();
                unwanted.into_iter().for_each(Open::close);
                let opened = bind(&missing);
                if opened.is_err() {
                    match bind(&gone) {
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
}

/// Begins to accept at all of these sockets, or at none.
fn accept(
    runtime: &Handle,
    dealer: &Dealer,
    handshakes: &mut Option<Handshakes>,
    bound: Vec<Bound>,
) -> io::Result<Vec<Open>> {
    let _inside = runtime.enter();
    if bound.iter().any(|(place, _)| place.tls) && handshakes.is_none() {
        *handshakes = Some(Handshakes::begin(dealer)?);
    }
    let ready = bound.into_iter().map(|(place, socket)| {
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        let door = match handshakes.as_ref().filter(|_| place.tls) {
            Some(handshakes) => Door::Tls(handshakes.clone()),
            None => Door::Plain(dealer.clone()),
        };
        Ok((place, socket, listener, door))
    });
    let ready: Vec<_> = ready.collect::<io::Result<_>>()?;
    let open = |(place, socket, listener, door)| {
        let accepting = runtime.spawn(accept_tcp(listener, door)).abort_handle();
        Open { place, socket, accepting }
    };
    Ok(ready.into_iter().map(open).collect())
}

impl Open {
    /// Stops listening at once. The task that accepts is the other owner of the socket and ends when it next runs.
    fn close(self) {
        // A socket that no longer listens need not be stopped.
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
        self.accepting.abort();
    }
}

/// The places that the settings ask for, each once, and whether this machine may lack its address.
fn wanted(settings: &Settings) -> io::Result<Vec<(Place, bool)>> {
    let mut wanted: Vec<(Place, bool)> = Vec::new();
    let ports = [(settings.port, false), (settings.tls_port, true)].into_iter().filter(|(port, _)| *port != 0);
    for ((port, tls), text) in ports.flat_map(|port| settings.bind.iter().map(move |text| (port, text))) {
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
        let found = (host, port).to_socket_addrs().and_then(|mut all| all.next().ok_or_else(absent));
        match found {
            Ok(address) if wanted.iter().any(|(known, _)| *known == Place { address, tls }) => {}
            Ok(address) => wanted.push((Place { address, tls }, optional)),
            Err(error) if optional && is_absent(&error) => {}
            Err(error) => return Err(named(host, port, &error)),
        }
    }
    Ok(wanted)
}

/// Binds all of these addresses that this machine has, or none.
fn bind_all(wanted: &[(Place, bool)], backlog: i32) -> io::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for &(place, optional) in wanted {
        match bind(place.address, backlog) {
            Ok(socket) => bound.push((place, socket)),
            Err(error) if optional && is_absent(&error) => {}
            Err(error) => return Err(named(place.address.ip(), place.address.port(), &error)),
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
