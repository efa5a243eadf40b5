//! A client that sends bytes and returns the bytes of each reply.
//!
//! Every read ends after `PATIENCE`: a server that hangs fails the test.

use super::reply::{self, Reply};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long a server may take over one reply before the test calls it hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// A port of 127.0.0.1.
    Port(u16),
    /// A unix socket.
    Unix(PathBuf),
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    received: Vec<u8>,
    taken: usize,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(address: &Address) -> io::Result<Client> {
        let stream = match address {
            Address::Port(port) => return Client::of(TcpStream::connect(("127.0.0.1", *port))?),
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Stream::Unix(stream)
            }
        };
        Ok(Client { stream, received: Vec::new(), taken: 0 })
    }

    /// The client of this connection.
    pub(crate) fn of(stream: TcpStream) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: Stream::Tcp(stream), received: Vec::new(), taken: 0 })
    }

    /// The same connection once more, so that another thread can send.
    pub(crate) fn second_handle(&self) -> Client {
        let stream = match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().expect("a socket can be shared")),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().expect("a socket can be shared")),
        };
        Client { stream, received: Vec::new(), taken: 0 }
    }

    /// Sends raw bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// The bytes of the next reply.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = reply::end(&self.received[self.taken..]) {
                let bytes = self.received[self.taken..self.taken + length].to_vec();
                self.taken += length;
                if self.taken == self.received.len() {
                    self.received.clear();
                    self.taken = 0;
                }
                return Ok(bytes);
            }
            if self.read_more()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// How many replies have arrived that nobody has received; waits for none.
    pub(crate) fn arrived(&mut self) -> usize {
        self.set_nonblocking(true);
        while self.read_more().is_ok_and(|count| count > 0) {}
        self.set_nonblocking(false);
        let (mut count, mut at) = (0, self.taken);
        while let Some(length) = reply::end(&self.received[at..]) {
            (count, at) = (count + 1, at + length);
        }
        count
    }

    fn set_nonblocking(&self, nonblocking: bool) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
        .expect("a socket has modes");
    }

    /// Everything until the server closes. A reset counts as a close.
    pub(crate) fn receive_until_close(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.read_more() {
                Ok(0) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Ok(self.received.split_off(self.taken))
    }

    /// Closes the sending side.
    pub(crate) fn finish_sending(&mut self) {
        // The server may have closed already, which is fine.
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Sends one command and returns the bytes of its reply. An I/O error fails the test.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.try_call(args).unwrap_or_else(|error| {
            panic!("no reply to {}: {error}", show(args));
        })
    }

    /// Sends one command and returns the bytes of its reply.
    pub(crate) fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Vec<u8>> {
        self.send(&encode(args))?;
        self.receive()
    }

    /// Sends a command written as one line, and returns the parsed reply.
    pub(crate) fn line(&mut self, line: &str) -> Reply {
        reply::parse(&self.call(&super::words::split(line)))
    }

    /// As `line`, and an error reply fails the test.
    pub(crate) fn ok(&mut self, line: &str) -> Reply {
        let reply = self.line(line);
        assert!(!reply.is_error(), "{line} => {reply:?}");
        reply
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 65536];
        let count = loop {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut chunk),
                Stream::Unix(stream) => stream.read(&mut chunk),
            };
            // A signal, of a debugger for example.
            if !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
                break read?;
            }
        };
        self.received.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

/// A command as an array of bulk strings.
pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A command for a failure message: escaped, long arguments cut.
pub(crate) fn show<A: AsRef<[u8]>>(args: &[A]) -> String {
    let shown: Vec<String> = args
        .iter()
        .map(|arg| {
            let arg = arg.as_ref();
            let plain = !arg.is_empty() && arg.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
            match arg.len() {
                length if length > 200 => format!("\"{}…\"({length} bytes)", arg[..60].escape_ascii()),
                _ if plain => arg.escape_ascii().to_string(),
                _ => format!("\"{}\"", arg.escape_ascii()),
            }
        })
        .collect();
    shown.join(" ")
}
