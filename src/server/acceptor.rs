//! Accepts connections. Plain ones go to the dealer, those at `tls-port` to a handshake first.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, UnixListener};

use super::dealer::Dealer;
use super::handshakes::Handshakes;
use crate::base::logging;
use crate::core::Server;
use crate::core::mailbox::Accepted;

/// How long to rest when the system has no descriptor or memory for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

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

/// Where accepted TCP connections go.
#[derive(Clone, Debug)]
pub enum Door {
    /// To the workers.
    Plain(Dealer),
    /// To a TLS handshake, and from there to the workers.
    Tls(Handshakes),
}

/// Accepts TCP connections until its task is ended.
pub async fn accept_tcp(listener: TcpListener, mut door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let local = stream.local_addr();
                let server = match &door {
                    Door::Plain(dealer) => dealer.server(),
                    Door::Tls(handshakes) => handshakes.server(),
                };
                let Ok(socket) = prepare_tcp(stream, server) else { continue };
                let local = local.map(|address| address.to_string()).unwrap_or_default();
                let is_remote = is_remote(&peer);
                match &mut door {
                    Door::Plain(dealer) => dealer.take(Accepted::Tcp(socket), peer.to_string(), local, is_remote),
                    Door::Tls(handshakes) => handshakes.take(socket, peer.to_string(), local, is_remote),
                }
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
pub async fn accept_unix(listener: UnixListener, path: String, dealer: Dealer) {
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
