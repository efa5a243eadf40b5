//! A connected socket: TCP, unix, or TCP under TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls_stream::TlsStream;
use crate::core::mailbox::Accepted;

/// A socket of this thread's runtime.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TCP under TLS.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Registers the socket with the runtime of this thread.
    ///
    /// # Errors
    /// Those of the system.
    pub fn register(accepted: Accepted) -> io::Result<Stream> {
        Ok(match accepted {
            Accepted::Tcp(socket) => Stream::Tcp(TcpStream::from_std(socket)?),
            Accepted::Unix(socket) => Stream::Unix(UnixStream::from_std(socket)?),
            Accepted::Tls(secured) => Stream::Tls(Box::new(TlsStream::register(*secured)?)),
        })
    }

    /// Takes the socket from the runtime of this thread, for that of another one.
    ///
    /// # Errors
    /// Those of the system. The connection is then gone.
    pub fn deregister(self) -> io::Result<Accepted> {
        Ok(match self {
            Stream::Tcp(stream) => Accepted::Tcp(stream.into_std()?),
            Stream::Unix(stream) => Accepted::Unix(stream.into_std()?),
            Stream::Tls(stream) => Accepted::Tls(Box::new(stream.deregister()?)),
        })
    }

    /// Reads what has arrived; clears the readiness if that was all, so that no further call is needed to
    /// find that out.
    ///
    /// # Errors
    /// Those of the system.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Whether there may be something to read.
    ///
    /// # Errors
    /// Those of the system.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
            Stream::Tls(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Whether the socket may take more.
    ///
    /// # Errors
    /// Those of the system.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_write_ready(cx),
            Stream::Unix(stream) => stream.poll_write_ready(cx),
            Stream::Tls(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Writes as much as is taken now. Under TLS, that is encrypted and may wait for the socket: see [`Stream::flush`].
    ///
    /// # Errors
    /// Those of the system; `WouldBlock` if nothing is taken.
    pub fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Stream::Tcp(stream), [one]) => stream.try_write(one),
            (Stream::Unix(stream), [one]) => stream.try_write(one),
            (Stream::Tcp(stream), many) => stream.try_write_vectored(many),
            (Stream::Unix(stream), many) => stream.try_write_vectored(many),
            (Stream::Tls(stream), slices) => stream.try_write(slices),
        }
    }

    /// Sends what was taken and waits for the socket.
    ///
    /// # Errors
    /// Those of the system; `WouldBlock` if the socket does not take all of it.
    #[inline]
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
