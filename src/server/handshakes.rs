//! TLS handshakes: between the acceptor and the workers, on threads of their own.
//!
//! ```text
//! acceptor ── socket ──▶ a thread of handshakes ── secured connection ──▶ the dealer ──▶ a worker
//!                          │ too slow, too long, or the oldest of too many: closed
//! ```
//!
//! A signature takes up to milliseconds, which no command should wait for. Until its handshake is done, a connection is
//! in no list, has no client record, and costs little: a socket, and memory only once it has sent something.
//!
//! Invariants:
//! - A handshake takes at most `HANDSHAKE_TIME_MAX` and `HANDSHAKE_MAX_BYTES`.
//! - At most [`HALF_OPEN_MAX`] are not done. One more takes the place of the oldest, so that clients who stall keep
//!   nobody out.
//! - Descriptors for them are reserved beside those of clients: see `server::limits`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, LocalSet};

use super::dealer::Dealer;
use super::tls_stream::{ENCRYPTED_MAX_BYTES, Wire};
use crate::access::User;
use crate::base::tls::{Offer, user_names};
use crate::base::{clock, logging};
use crate::core::client::ClientRecord;
use crate::core::mailbox::{Accepted, Secured};
use crate::core::{Hook, Server};

/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How much a client may send for it, in bytes. Its chain of certificates is the largest part.
const HANDSHAKE_MAX_BYTES: usize = 128 * 1024;
/// How many may be unfinished at once, over all threads.
pub const HALF_OPEN_MAX: usize = 1024;
/// How many failed handshakes are logged a second; the others are counted.
const LOGGED_A_SECOND: u32 = 10;

/// A connection whose handshake is to be done.
struct Incoming {
    socket: std::net::TcpStream,
    peer: String,
    local: String,
    is_remote: bool,
    offer: Arc<Offer>,
}

/// The threads that do handshakes.
#[derive(Clone, Debug)]
pub struct Handshakes {
    server: Arc<Server>,
    threads: Vec<UnboundedSender<Incoming>>,
    next: usize,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Handshakes {
    /// Starts the threads: one for each four workers.
    ///
    /// # Errors
    /// Those of the system.
    pub fn begin(dealer: &Dealer) -> io::Result<Handshakes> {
        let server = Arc::clone(dealer.server());
        let count = (server.gate.workers() / 4).clamp(1, 8);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, incoming) = unbounded_channel();
            let dealer = dealer.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
            let run = move || LocalSet::new().block_on(&runtime, receive(incoming, dealer, HALF_OPEN_MAX / count));
            std::thread::Builder::new().name(format!("handshakes-{number}")).spawn(run)?;
            threads.push(sender);
        }
        Ok(Handshakes { server, threads, next: 0 })
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Does the handshake of an accepted connection, and deals it.
    pub fn take(&mut self, socket: std::net::TcpStream, peer: String, local: String, is_remote: bool) {
        // Without an offer, TLS has just been switched off.
        let Some(offer) = self.server.tls.current() else { return };
        self.next = (self.next + 1) % self.threads.len();
        // A thread ends with the process alone.
        let _ = self.threads[self.next].send(Incoming { socket, peer, local, is_remote, offer });
    }
}

/// The unfinished handshakes of a thread.
struct HalfOpen {
    by_number: RefCell<BTreeMap<u64, AbortHandle>>,
    failures: Failures,
}

/// Takes a handshake out of the list, however it ends.
struct Listed {
    half_open: Rc<HalfOpen>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.half_open.by_number.borrow_mut().remove(&self.number);
    }
}

/// Begins handshakes as connections come in.
async fn receive(mut incoming: UnboundedReceiver<Incoming>, dealer: Dealer, most: usize) {
    let half_open = Rc::new(HalfOpen { by_number: RefCell::default(), failures: Failures::default() });
    let mut number = 0;
    while let Some(next) = incoming.recv().await {
        number += 1;
        let listed = Listed { half_open: Rc::clone(&half_open), number };
        let task = tokio::task::spawn_local(finish(next, dealer.clone(), listed)).abort_handle();
        let mut all = half_open.by_number.borrow_mut();
        all.insert(number, task);
        let oldest = if all.len() > most { all.pop_first() } else { None };
        drop(all);
        if let Some((_, oldest)) = oldest {
            oldest.abort();
            half_open.failures.report(format_args!("too many unfinished TLS handshakes: the oldest is closed"));
        }
    }
}

/// Does a handshake, and deals the connection.
async fn finish(incoming: Incoming, dealer: Dealer, listed: Listed) {
    let Incoming { socket, peer, local, is_remote, offer } = incoming;
    let outcome = match tokio::time::timeout(HANDSHAKE_TIME_MAX, shake_hands(socket, &offer)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")),
    };
    match outcome {
        Ok((socket, tls)) => {
            let user = named_user(dealer.server(), &tls, &offer, &peer);
            dealer.take(
                Accepted::Tls(Box::new(Secured { socket, tls, user, unread: Vec::new() })),
                peer,
                local,
                is_remote,
            );
        }
        // Health checks and port scanners do this.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            logging::verbose(format_args!(
                "A client left before its TLS handshake was done (addr={peer} laddr={local})"
            ));
        }
        Err(error) => {
            let failed = format_args!("Error accepting a client connection: {error} (addr={peer} laddr={local})");
            listed.half_open.failures.report(failed);
        }
    }
}

/// Does a handshake with the client at this socket.
async fn shake_hands(
    socket: std::net::TcpStream,
    offer: &Offer,
) -> io::Result<(std::net::TcpStream, ServerConnection)> {
    let socket = TcpStream::from_std(socket)?;
    // Who sends nothing costs nothing more.
    socket.readable().await?;
    let mut tls = ServerConnection::new(Arc::clone(&offer.config)).map_err(io::Error::other)?;
    tls.set_buffer_limit(Some(ENCRYPTED_MAX_BYTES));
    let mut received = 0;
    loop {
        while tls.wants_write() {
            match tls.write_tls(&mut Wire(&socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        if !tls.is_handshaking() {
            return Ok((socket.into_std()?, tls));
        }
        match tls.read_tls(&mut Wire(&socket)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => received += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable().await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        if received > HANDSHAKE_MAX_BYTES {
            return Err(io::Error::other("the TLS handshake is too long"));
        }
        if let Err(error) = tls.process_new_packets() {
            // The alert says why, as far as the socket takes it.
            let _ = tls.write_tls(&mut Wire(&socket));
            return Err(io::Error::other(error));
        }
        // A client who sends much must not keep the others waiting.
        tokio::task::yield_now().await;
    }
}

/// The user whom the client's certificate names, if `tls-auth-clients-user` asks for that and there is one.
fn named_user(server: &Server, tls: &ServerConnection, offer: &Offer, peer: &str) -> Option<Arc<User>> {
    let certificate = tls.peer_certificates()?.first()?;
    let names = user_names(certificate, offer.user_field);
    let user = names.iter().find_map(|name| server.users.enabled(name.as_bytes()));
    if let Some(name) = names.first().filter(|_| server.hooks.load().has(Hook::Audit)) {
        let name = user.as_ref().map_or(name.as_bytes(), |user| user.name());
        let client = ClientRecord { peer: peer.to_owned(), ..ClientRecord::default() };
        server.audit.note_login(&client, name, "certificate", user.is_some());
    }
    match &user {
        Some(user) => {
            logging::verbose(format_args!("TLS: {peer} is authenticated as {}", String::from_utf8_lossy(user.name())))
        }
        None if !names.is_empty() => {
            server.counters.access_denied_tls_cert.add(1);
            logging::verbose(format_args!("TLS: the certificate of {peer} names no user that may log in"));
        }
        None => {}
    }
    user
}

/// Reports failed handshakes, so many a second.
#[derive(Default)]
struct Failures {
    second: Cell<u64>,
    logged: Cell<u32>,
    unlogged: Cell<u64>,
}

impl Failures {
    fn report(&self, what: std::fmt::Arguments<'_>) {
        let second = clock::monotonic_us() / 1_000_000;
        if self.second.replace(second) != second {
            self.logged.set(0);
            match self.unlogged.take() {
                0 => {}
                more => logging::warning(format_args!("{more} more TLS handshakes failed")),
            }
        }
        if self.logged.get() < LOGGED_A_SECOND {
            self.logged.set(self.logged.get() + 1);
            logging::warning(what);
        } else {
            self.unlogged.set(self.unlogged.get() + 1);
        }
    }
}

/// Reads the files of the running server's certificates again, when `tls-auto-reload-interval` says so. Runs for ever.
pub async fn reload(server: Arc<Server>) {
    let mut waited = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let settings = server.config.settings();
        let interval = settings.tls_auto_reload_interval_seconds;
        waited += 1;
        if !settings.uses_tls() || interval == 0 || waited < interval {
            continue;
        }
        waited = 0;
        let server = Arc::clone(&server);
        let reloaded = tokio::task::spawn_blocking(move || {
            let _changing = server.config.changing();
            server.tls.reload(&server.config.settings())
        });
        match reloaded.await {
            Ok(Ok(true)) => logging::notice(format_args!("TLS materials reloaded successfully")),
            Ok(Ok(false)) => {}
            Ok(Err(problem)) => logging::warning(format_args!("{problem}. The TLS certificates stay as they are.")),
            Err(error) => logging::warning(format_args!("BUG: reloading the TLS certificates: {error}")),
        }
    }
}
