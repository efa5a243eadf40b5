//! A TCP connection under TLS, behind the same calls as a plain one.
//!
//! Invariants:
//! - Little is encrypted ahead of the socket: at most [`ENCRYPTED_MAX_BYTES`] wait in it, all else in the outbox, where
//!   the limits of the outbox apply.
//! - Little is decrypted ahead of its reader: at most one record. What else was read by then waits as it came.
//! - A connection says that it ends, so that its client can tell an end from a cut.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::core::mailbox::Secured;

/// How much is encrypted while the socket takes nothing, in bytes.
pub const ENCRYPTED_MAX_BYTES: usize = 64 * 1024;
/// How much is read from the socket at once, in bytes,
const READ_BYTES: usize = 32 * 1024;
/// and how much while the reader has little room.
const READ_LITTLE_BYTES: usize = 4096;
/// More than one record takes, in bytes.
const RECORD_MAX_BYTES: usize = 18 * 1024;

/// See the module.
pub struct TlsStream {
    /// `None` once it was taken apart.
    open: Option<Open>,
    /// How many decrypted bytes wait for their reader.
    decrypted: usize,
    /// What was read and is not decrypted yet.
    unread: Vec<u8>,
    /// Whether the peer has said that it sends no more.
    ended: bool,
}

struct Open {
    socket: TcpStream,
    tls: ServerConnection,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let socket = self.open.as_ref().map(|open| &open.socket);
        f.debug_struct("TlsStream").field("socket", &socket).finish_non_exhaustive()
    }
}

/// The socket as TLS reads and writes it, without waiting.
pub struct Wire<'a>(pub &'a TcpStream);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsStream {
    /// Registers the socket with the runtime of this thread.
    ///
    /// # Errors
    /// Those of the system.
    pub fn register(secured: Secured) -> io::Result<TlsStream> {
        let Secured { socket, mut tls, user: _, unread } = secured;
        // Commands may have come with the end of the handshake.
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        Ok(TlsStream {
            open: Some(Open { socket: TcpStream::from_std(socket)?, tls }),
            decrypted: state.plaintext_bytes_to_read(),
            unread,
            ended: state.peer_has_closed(),
        })
    }

    /// Takes the socket from the runtime of this thread, for that of another one. Its client notices nothing.
    ///
    /// # Errors
    /// Those of the system. The connection is then gone.
    pub fn deregister(mut self) -> io::Result<Secured> {
        let Open { socket, tls } = self.open.take().ok_or(io::ErrorKind::NotConnected)?;
        let unread = std::mem::take(&mut self.unread);
        Ok(Secured { socket: socket.into_std()?, tls, user: None, unread })
    }

    fn open(&mut self) -> &mut Open {
        self.open.as_mut().expect("it is taken apart by its last call")
    }

    fn socket(&self) -> &TcpStream {
        &self.open.as_ref().expect("it is taken apart by its last call").socket
    }

    /// As [`Stream::poll_read`](super::socket::Stream::poll_read).
    ///
    /// # Errors
    /// Those of the system; the peer breaks the protocol.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.decrypted > 0 {
                return Poll::Ready(self.take_decrypted(buffer));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if !self.unread.is_empty() {
                let unread = std::mem::take(&mut self.unread);
                self.decrypt(&unread, buffer)?;
            } else {
                let most = match buffer.remaining() {
                    room if room >= READ_LITTLE_BYTES + RECORD_MAX_BYTES => READ_BYTES.min(room - RECORD_MAX_BYTES),
                    _ => READ_LITTLE_BYTES,
                };
                let mut space = [MaybeUninit::uninit(); READ_BYTES];
                let mut arrived = ReadBuf::uninit(&mut space[..most]);
                ready!(Pin::new(&mut self.open().socket).poll_read(cx, &mut arrived))?;
                if arrived.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                self.decrypt(arrived.filled(), buffer)?;
            }
            if !buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Decrypts what has arrived into the reader's buffer. What does not fit waits.
    fn decrypt(&mut self, mut arrived: &[u8], buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        while !arrived.is_empty() {
            if self.decrypted > 0 {
                self.unread.extend_from_slice(arrived);
                break;
            }
            if self.open().tls.read_tls(&mut arrived)? == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let state = self.open().tls.process_new_packets();
            if self.open().tls.wants_write() {
                // An alert, or the answer to a new key. What the socket does not take leaves before the next reply.
                let _ = self.flush();
            }
            let state = state.map_err(io::Error::other)?;
            self.ended = state.peer_has_closed();
            self.decrypted = state.plaintext_bytes_to_read();
            if self.decrypted > 0 && buffer.remaining() > 0 {
                self.take_decrypted(buffer)?;
            }
        }
        Ok(())
    }

    fn take_decrypted(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        while self.decrypted > 0 && buffer.remaining() > 0 {
            let taken = self.open().tls.reader().read(buffer.initialize_unfilled())?;
            buffer.advance(taken);
            self.decrypted -= taken;
        }
        Ok(())
    }

    /// As [`Stream::poll_read_ready`](super::socket::Stream::poll_read_ready).
    ///
    /// # Errors
    /// Those of the system.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.decrypted > 0 || !self.unread.is_empty() || self.ended {
            return Poll::Ready(Ok(()));
        }
        self.socket().poll_read_ready(cx)
    }

    /// As [`Stream::poll_write_ready`](super::socket::Stream::poll_write_ready).
    ///
    /// # Errors
    /// Those of the system.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_write_ready(cx)
    }

    /// As [`Stream::try_write`](super::socket::Stream::try_write).
    ///
    /// # Errors
    /// Those of the system; `WouldBlock` if nothing is taken.
    pub fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        let taken = match slices {
            [one] => self.open().tls.writer().write(one)?,
            many => self.open().tls.writer().write_vectored(many)?,
        };
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if taken == 0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    /// As [`Stream::flush`](super::socket::Stream::flush).
    ///
    /// # Errors
    /// Those of the system; `WouldBlock` if the socket does not take everything.
    pub fn flush(&mut self) -> io::Result<()> {
        let Open { socket, tls } = self.open();
        while tls.wants_write() {
            match tls.write_tls(&mut Wire(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sends the reason for which a secured connection is refused, as far as the socket takes it.
pub fn refuse(secured: &mut Secured, text: &[u8]) {
    // A client that does not read misses the reason. The connection closes either way.
    let _ = secured.tls.writer().write(text);
    secured.tls.send_close_notify();
    while secured.tls.wants_write() && secured.tls.write_tls(&mut secured.socket).is_ok() {}
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // One that was taken apart goes on elsewhere.
        let Some(open) = &mut self.open else { return };
        open.tls.send_close_notify();
        // A client that does not read misses it.
        let _ = self.flush();
    }
}
