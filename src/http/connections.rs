//! Connections of HTTP: accepted, encrypted, served, and closed when they are too many or too slow.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::house::{Caller, House, Shared};
use super::routes;
use crate::base::logging;

/// The most connections. One more closes the oldest.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a request may take to arrive, and a connection may be idle.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// After this time a connection ends behind its next reply,
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// and this much later in any case.
const ENDING_MAX: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes, and the most that waits to be written before the client reads.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// The most headers of a request.
const HEADERS_MAX: usize = 64;
/// How long nothing is accepted once the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The open connections, the oldest first.
type Open = Rc<RefCell<VecDeque<AbortHandle>>>;

/// Accepts at these sockets for as long as the process lives.
pub(super) async fn serve(listeners: Vec<TcpListener>, shared: Shared) {
    let (tasks, open) = (LocalSet::new(), Open::default());
    let house = House::new(shared);
    tasks.spawn_local(house.history.clone().follow(Arc::clone(&house.shared.loaded.server)));
    for listener in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(tasks.spawn_local(accept(listener, house.clone(), Rc::clone(&open)))),
            Err(error) => logging::warning(format_args!("HTTP: a socket cannot be used: {error}")),
        }
    }
    tasks.await;
}

async fn accept(listener: tokio::net::TcpListener, house: House, open: Open) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let task = tokio::task::spawn_local(converse(stream, house.clone()));
        let mut open = open.borrow_mut();
        open.retain(|task| !task.is_finished());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(task.abort_handle());
    }
}

/// Serves one connection to its end.
async fn converse(stream: TcpStream, house: House) {
    // Without it, a reply may wait for a confirmation of the one before.
    let _ = stream.set_nodelay(true);
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let (shared, caller) = (&house.shared, Caller { peer, local });
    if !shared.settings.http_tls {
        return exchange(TokioIo::new(stream), house, caller).await;
    }
    let loaded = shared.server().map(|server| server.tls.current());
    let config = match loaded {
        Some(offer) => offer.map(|offer| Arc::clone(&offer.config)),
        None => shared.tls.clone(),
    };
    let Some(config) = config else { return };
    if let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, TlsAcceptor::from(config).accept(stream)).await {
        exchange(TokioIo::new(stream), house, caller).await;
    }
}

async fn exchange<I>(io: I, house: House, caller: Caller)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let answer = service_fn(|request| {
        let house = house.clone();
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&request, &house, caller).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_MAX)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, answer);
    let mut connection = pin!(connection);
    // A client that breaks the protocol has been told, or is gone.
    if timeout(CONNECTION_MAX, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(ENDING_MAX, connection).await;
    }
}
