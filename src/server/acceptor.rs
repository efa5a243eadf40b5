//! Accepts connections and deals them to the workers, round robin.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, UnixListener};

use crate::base::{clock, logging};
use crate::core::Server;
use crate::core::client::{ClientRecord, Labels};
use crate::core::mailbox::{Accepted, Mail};
use crate::server::connection::Connection;

/// At `maxclients`, a new connection waits for a place this often and this long before it is refused: a connection
/// that its client has closed keeps its place until its worker notices.
const PLACE_TRIES: usize = 20;
const PLACE_PAUSE: Duration = Duration::from_millis(2);
/// How many may wait for a place; more are refused at once.
const WAITING_MAX: usize = 64;
/// How long to rest when the system has no descriptor or memory for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

const PROTECTED_MODE: &[u8] = b"-DENIED Redis is running in protected mode because protected mode is enabled and no \
password is set for the default user. In this mode connections are only accepted from the loopback interface. If you \
want to connect from external computers to Redis you may adopt one of the following solutions: 1) Just disable \
protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis \
from the same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do \
so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by \
editing the Redis configuration file, and setting the protected mode option to 'no', and then restarting the server. \
3) If you started the server manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a \
an authentication password for the default user. NOTE: You only need to do one of the above things in order for the \
server to start accepting connections from the outside.\r\n";

/// What a connection takes that has nothing to do, in bytes.
const OWN_BYTES: u64 = (size_of::<Connection>() + size_of::<ClientRecord>()) as u64;

/// The workers to which connections are dealt.
#[derive(Clone, Debug)]
pub struct Dealer {
    server: Arc<Server>,
    next: usize,
    /// How many wait for a place, over all clones.
    waiting: Arc<AtomicUsize>,
}

impl Dealer {
    /// A dealer to the workers of a server.
    pub fn new(server: Arc<Server>) -> Self {
        Dealer { server, next: 0, waiting: Arc::default() }
    }

    fn is_full(&self) -> bool {
        self.server.clients.len() >= self.server.config.settings().maxclients
    }

    /// Deals a connection, or refuses it. At `maxclients` it does so after a short wait, which delays no other
    /// connection.
    fn take(&mut self, socket: Accepted, peer: String, local: String, is_remote: bool) {
        if !self.is_full() || self.waiting.load(Relaxed) >= WAITING_MAX {
            return self.deal(socket, peer, local, is_remote);
        }
        self.waiting.fetch_add(1, Relaxed);
        let mut dealer = self.clone();
        tokio::spawn(async move {
            for _ in 0..PLACE_TRIES {
                tokio::time::sleep(PLACE_PAUSE).await;
                if !dealer.is_full() {
                    break;
                }
            }
            dealer.waiting.fetch_sub(1, Relaxed);
            dealer.deal(socket, peer, local, is_remote);
        });
    }

    fn deal(&mut self, socket: Accepted, peer: String, local: String, is_remote: bool) {
        let server = Arc::clone(&self.server);
        let settings = server.config.settings();
        let refusal: Option<&[u8]> = if self.is_full() {
            Some(b"-ERR max number of clients reached\r\n")
        } else if is_remote && settings.protected_mode && server.users.default_user().is_open() {
            Some(PROTECTED_MODE)
        } else {
            None
        };
        if let Some(text) = refusal {
            server.counters.rejected_connections.add(1);
            return refuse(socket, text);
        }
        server.counters.connections.add(1);
        let (fd, unix_socket) = match &socket {
            Accepted::Tcp(socket) => (socket.as_raw_fd(), false),
            Accepted::Unix(socket) => (socket.as_raw_fd(), true),
        };
        let now = clock::now_ms() as u64;
        self.next = (self.next + 1) % server.gate.workers();
        let record = server.clients.register(ClientRecord {
            worker: self.next,
            peer,
            local,
            fd,
            unix_socket,
            created_ms: now,
            own_bytes: OWN_BYTES,
            active_ms: now.into(),
            labels: Labels { user: "default".into(), ..Labels::default() }.into(),
            ..ClientRecord::default()
        });
        server.mailboxes.post(self.next, Mail::Connection { socket, record });
    }
}

/// Sends the reason, as far as the socket takes it, and closes.
fn refuse(socket: Accepted, text: &[u8]) {
    // A client that does not read misses the reason. The connection closes either way.
    let _ = match socket {
        Accepted::Tcp(mut socket) => socket.write(text),
        Accepted::Unix(mut socket) => socket.write(text),
    };
}

/// Opens the unix socket and replaces one that a crashed server left behind. It gets these permissions unless they
/// are 0, and this group unless its name is empty.
///
/// # Errors
/// Those of the system.
pub fn listen_unix(path: &Path, mode: u32, group: &str) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(path)?;
    if !group.is_empty() {
        std::os::unix::fs::chown(path, None, Some(group_id(group)?))?;
    }
    if mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(listener)
}

/// The number of a group, given its name.
fn group_id(name: &str) -> io::Result<u32> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("unixsocketgroup: there is no group '{name}'"));
    Ok(nix::unistd::Group::from_name(name)?.ok_or_else(unknown)?.gid.as_raw())
}

/// Accepts TCP connections until its task is ended.
pub async fn accept_tcp(listener: TcpListener, mut dealer: Dealer) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let local = stream.local_addr();
                let Ok(socket) = prepare_tcp(stream, &dealer.server) else { continue };
                let local = local.map(|address| address.to_string()).unwrap_or_default();
                dealer.take(Accepted::Tcp(socket), peer.to_string(), local, is_remote(&peer));
            }
            // It no longer listens.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            Err(error) => pause_if_exhausted(&error).await,
        }
    }
}

/// Whether the peer is on another machine.
fn is_remote(peer: &SocketAddr) -> bool {
    !peer.ip().to_canonical().is_loopback()
}

fn prepare_tcp(stream: tokio::net::TcpStream, server: &Server) -> io::Result<std::net::TcpStream> {
    let socket = stream.into_std()?;
    socket.set_nodelay(true)?;
    let seconds = server.config.settings().tcp_keepalive_seconds;
    if seconds > 0 {
        let interval = Duration::from_secs((seconds / 3).max(1));
        let keepalive =
            TcpKeepalive::new().with_time(Duration::from_secs(seconds)).with_interval(interval).with_retries(3);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    }
    Ok(socket)
}

/// Accepts connections of the unix socket for ever.
pub async fn accept_unix(listener: UnixListener, path: String, mut dealer: Dealer) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(socket) = stream.into_std() else { continue };
                dealer.take(Accepted::Unix(socket), format!("{path}:0"), format!("{path}:0"), false);
            }
            Err(error) => pause_if_exhausted(&error).await,
        }
    }
}

async fn pause_if_exhausted(error: &io::Error) {
    let exhausted = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM));
    if exhausted {
        logging::warning(format_args!("Accepting client connection: {error}"));
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}
