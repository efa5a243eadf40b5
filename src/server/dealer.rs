//! Deals accepted connections to the workers in service, round robin, or refuses them.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::base::clock;
use crate::core::Server;
use crate::core::client::{ClientRecord, Labels};
use crate::core::mailbox::{Accepted, Mail};
use crate::http::Caller;
use crate::server::connection::Connection;
use crate::server::tls_stream::{self, TlsStream};

/// At `maxclients`, a new connection waits for a place this often and this long before it is refused: a connection
/// that its client has closed keeps its place until its worker notices.
const PLACE_TRIES: usize = 20;
const PLACE_PAUSE: Duration = Duration::from_millis(2);
/// How many may wait for a place; more are refused at once.
const WAITING_MAX: usize = 64;
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
/// What it takes beside that under TLS: the state of the library, and its buffer for what arrives.
const TLS_BYTES: u64 = size_of::<TlsStream>() as u64 + 8192;

/// The workers to which connections are dealt.
#[derive(Clone, Debug)]
pub struct Dealer {
    server: Arc<Server>,
    /// How many wait for a place, over all clones.
    waiting: Arc<AtomicUsize>,
}

impl Dealer {
    /// A dealer to the workers of a server.
    pub fn new(server: Arc<Server>) -> Self {
        Dealer { server, waiting: Arc::default() }
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Whether there is no place for one connection more, which has priority or has not.
    fn is_full(&self, has_priority: bool) -> bool {
        let (settings, clients) = (self.server.config.settings(), &self.server.clients);
        if clients.len() >= settings.maxclients {
            return true;
        }
        // Those with priority may take the places of others, too. The reserved ones are theirs alone.
        let reserves = !has_priority && !settings.priority_subnets.is_empty();
        reserves && clients.len_without_priority() >= settings.maxclients.saturating_sub(settings.maxclients_reserved)
    }

    /// Whether a peer is in one of `priority-subnets`. That of a unix socket has no address.
    fn has_priority(&self, peer: &str) -> bool {
        let settings = self.server.config.settings();
        let is_inside = |peer: SocketAddr| settings.priority_subnets.contain(peer.ip());
        !settings.priority_subnets.is_empty() && peer.parse().is_ok_and(is_inside)
    }

    /// Deals a connection, or refuses it. At `maxclients` it does so after a short wait, which delays no other
    /// connection.
    pub fn take(&self, socket: Accepted, peer: String, local: String, is_remote: bool) {
        let has_priority = self.has_priority(&peer);
        if !self.is_full(has_priority) || self.waiting.load(Relaxed) >= WAITING_MAX {
            return self.deal(socket, ClientRecord { peer, local, ..ClientRecord::default() }, is_remote);
        }
        self.waiting.fetch_add(1, Relaxed);
        let dealer = self.clone();
        tokio::spawn(async move {
            for _ in 0..PLACE_TRIES {
                tokio::time::sleep(PLACE_PAUSE).await;
                if !dealer.is_full(has_priority) {
                    break;
                }
            }
            dealer.waiting.fetch_sub(1, Relaxed);
            dealer.deal(socket, ClientRecord { peer, local, ..ClientRecord::default() }, is_remote);
        });
    }

    /// A connection for somebody who looks at keys over HTTP; gives the other end of it. It is refused, or not, as one
    /// from the same address to `port` would be.
    ///
    /// # Errors
    /// The system has no more sockets.
    pub fn observe(&self, caller: Caller) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let is_remote = !caller.peer.ip().to_canonical().is_loopback();
        let (peer, local) = (caller.peer.to_string(), caller.local.to_string());
        let record = ClientRecord { peer, local, observes: true, ..ClientRecord::default() };
        self.deal(Accepted::Unix(theirs), record, is_remote);
        Ok(ours)
    }

    /// Deals a connection of which this much is known, or refuses it.
    fn deal(&self, socket: Accepted, known: ClientRecord, is_remote: bool) {
        let server = Arc::clone(&self.server);
        let settings = server.config.settings();
        let has_priority = self.has_priority(&known.peer);
        let refusal: Option<&[u8]> = if self.is_full(has_priority) {
            if has_priority {
                server.counters.rejected_priority_connections.add(1);
            }
            Some(b"-ERR max number of clients reached\r\n")
        } else if is_remote && settings.protected_mode && server.users.default_user().needs_no_password() {
            Some(PROTECTED_MODE)
        } else {
            None
        };
        if let Some(text) = refusal {
            server.counters.rejected_connections.add(1);
            return refuse(socket, text);
        }
        server.counters.connections.add(1);
        let (fd, unix_socket, more_bytes) = match &socket {
            Accepted::Tcp(socket) => (socket.as_raw_fd(), false, 0),
            Accepted::Unix(socket) => (socket.as_raw_fd(), !known.observes, 0),
            Accepted::Tls(secured) => (secured.socket.as_raw_fd(), false, TLS_BYTES),
        };
        let user = match &socket {
            Accepted::Tls(secured) => secured.user.as_ref().map(|user| user.name().to_owned()),
            Accepted::Tcp(_) | Accepted::Unix(_) => None,
        };
        let user = user.unwrap_or_default();
        let now = clock::now_ms() as u64;
        let worker = server.roster.deal();
        let record = server.clients.register(ClientRecord {
            served_by: worker.into(),
            fd,
            unix_socket,
            has_priority,
            created_ms: now,
            own_bytes: OWN_BYTES + more_bytes,
            active_ms: now.into(),
            labels: Labels { user, ..Labels::default() }.into(),
            ..known
        });
        server.mailboxes.post(worker, Mail::Connection { socket, record });
    }
}

/// Sends the reason, as far as the socket takes it, and closes.
fn refuse(socket: Accepted, text: &[u8]) {
    // A client that does not read misses the reason. The connection closes either way.
    let _ = match socket {
        Accepted::Tcp(mut socket) => socket.write(text),
        Accepted::Unix(mut socket) => socket.write(text),
        Accepted::Tls(mut secured) => return tls_stream::refuse(&mut secured, text),
    };
}
