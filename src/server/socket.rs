//! A connected socket, TCP or unix.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::core::mailbox::Accepted;

/// A socket of this thread's runtime.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
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
        }
    }

    /// Writes as much as the socket takes now.
    ///
    /// # Errors
    /// Those of the system; `WouldBlock` if it takes nothing.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Stream::Tcp(stream), [one]) => stream.try_write(one),
            (Stream::Unix(stream), [one]) => stream.try_write(one),
            (Stream::Tcp(stream), many) => stream.try_write_vectored(many),
            (Stream::Unix(stream), many) => stream.try_write_vectored(many),
        }
    }
}
