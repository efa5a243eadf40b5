//! The endpoint for those who watch the server: figures for Prometheus, health, and the state as JSON, over HTTP.
//!
//! ```text
//! http-port ─ one thread with its own runtime ─ accept ▸ TLS ▸ token ▸ route ─┬─ /         the page for people
//!                                                                            ├─ /healthz  alive
//!                                                                            ├─ /readyz   loaded, log healthy
//!                                                                            ├─ /metrics  Prometheus, OpenMetrics
//!                                                                            ├─ /status   JSON
//!                                                                            ├─ /history  JSON, for plots
//!                                                                            └─ /data/…   keys, by way of a worker
//! ```
//!
//! Invariants:
//! - Nothing here takes the gate, waits for a shard, or runs on the thread of a worker. Who looks at keys does so as a
//!   client, with a user's rights: see [`line`].
//! - Nobody is answered without the token, once there is one. Without a token, only local addresses are listened to.
//! - Connections, requests, and the time of both are bounded. What is too much is closed, the oldest first.
//! - It listens before the data is loaded, so that a long load is seen as alive and not ready.

mod beside_info;
mod browse;
mod connections;
mod exposition;
mod history;
mod house;
mod line;
mod metrics;
mod page;
mod reply;
mod routes;
mod shown;
mod status;

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use rustls::ServerConfig;

pub use house::{Caller, Connect};

use crate::base::config::Settings;
use crate::base::doors::is_public;
use crate::base::logging;
use crate::core::Server;
use house::{Loaded, Shared};

/// The most file descriptors that connections take, and the clients of those who look at keys: two each.
pub const DESCRIPTORS_MAX: usize = connections::CONNECTIONS_MAX + 2 * house::LOOKING_MAX;

/// The endpoint, from before the data is loaded on.
#[derive(Clone, Default)]
pub struct Http(Loaded);

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("is_loaded", &self.0.server.get().is_some()).finish()
    }
}

impl Http {
    /// Listens where `http-bind` and `http-port` say. Does nothing without a port. `tls` is what connections are
    /// offered with `http-tls` until the server is known.
    ///
    /// # Errors
    /// An address cannot be bound, other machines can reach it and there is no token, or the system gives no thread.
    pub fn start(settings: &Arc<Settings>, tls: Option<Arc<ServerConfig>>) -> io::Result<Http> {
        let http = Http::default();
        if settings.http_port == 0 {
            return Ok(http);
        }
        check(settings)?;
        let listeners = bind(settings)?;
        for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
            let scheme = if settings.http_tls { "https" } else { "http" };
            logging::notice(format_args!("Figures and health at {scheme}://{address}"));
        }
        let tls = tls.filter(|_| settings.http_tls);
        let shared = Shared { loaded: http.0.clone(), settings: Arc::clone(settings), tls };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("http".into())
            .spawn(move || runtime.block_on(connections::serve(listeners, shared)))?;
        Ok(http)
    }

    /// From now on, tells of this server: its data is loaded.
    pub fn tell_of(&self, server: &Arc<Server>) {
        // Set once: there is one server.
        let _ = self.0.server.set(Arc::clone(server));
    }

    /// From now on, who may look at keys becomes a client in this way: the workers run.
    pub fn connect_by(&self, connect: Connect) {
        // Set once, as the server.
        let _ = self.0.connect.set(connect);
    }
}

/// Whether these settings are safe enough to listen.
///
/// # Errors
/// Other machines can reach an address, and there is no token.
pub fn check(settings: &Settings) -> io::Result<()> {
    let public = settings.http_bind.iter().find(|address| is_public(address));
    match public.filter(|_| settings.http_port != 0 && settings.http_token.is_empty()) {
        None => Ok(()),
        Some(address) => {
            let problem = format!("http-bind {address} can be reached by other machines: set http-token");
            Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
        }
    }
}

/// Opens the sockets. An address with a leading `-` may be missing.
fn bind(settings: &Settings) -> io::Result<Vec<TcpListener>> {
    let mut bound = Vec::new();
    for address in &settings.http_bind {
        let (is_optional, host) = match address.strip_prefix('-') {
            Some(host) => (true, host),
            None => (false, address.as_str()),
        };
        let host = match host {
            "*" => "0.0.0.0",
            "::*" => "::",
            other => other,
        };
        let open = || -> io::Result<TcpListener> {
            let mut all = (host, settings.http_port).to_socket_addrs()?;
            let absent = || io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
            let place: SocketAddr = all.next().ok_or_else(absent)?;
            let domain = socket2::Domain::for_address(place);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
            if place.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&place.into())?;
            socket.listen(settings.tcp_backlog)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        match open() {
            Ok(listener) => bound.push(listener),
            Err(error) if is_optional && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) => {
                let place = format!("http-bind {host}, http-port {}: {error}", settings.http_port);
                return Err(io::Error::new(error.kind(), place));
            }
        }
    }
    match bound.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "none of the addresses of http-bind is there")),
        false => Ok(bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_addresses_need_no_token() {
        for local in ["127.0.0.1", "-::1", "localhost", "127.8.8.8", "::ffff:127.0.0.1"] {
            assert!(!is_public(local), "{local}");
        }
        for public in ["*", "-*", "0.0.0.0", "::", "10.0.0.1", "example.com", "-2001:db8::1"] {
            assert!(is_public(public), "{public}");
        }
    }
}
