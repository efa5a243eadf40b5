//! The bytes of a connection to a server: plain, or under TLS.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::arguments::Arguments;
use crate::base::tls;

/// The flag and the options of a tool that asks servers.
pub(super) const TLS: &str = "--tls";
pub(super) const CA_CERT: &str = "--cacert";
pub(super) const CERT: &str = "--cert";
pub(super) const KEY: &str = "--key";

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection. Its clones share it.
#[derive(Clone)]
pub(super) struct Link(Rc<RefCell<Stream>>);

impl Link {
    /// Connects as the options say. Each step may take so long.
    ///
    /// # Errors
    /// In words, with the address or the file.
    pub(super) fn connect(address: &str, args: &Arguments, patience: Duration) -> Result<Link, String> {
        let failed = |error: io::Error| format!("{address}: {error}");
        let path = |name| args.value(name).ok().map(Path::new);
        let tls = args.has(TLS);
        if !tls && [CA_CERT, CERT, KEY].into_iter().any(|name| path(name).is_some()) {
            return Err(format!("{CA_CERT}, {CERT} and {KEY} need {TLS}"));
        }
        let own = match (path(CERT), path(KEY)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(format!("{CERT} and {KEY} belong together: one of them is missing")),
        };
        let config = tls.then(|| tls::client(path(CA_CERT), own)).transpose()?;
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(patience)).map_err(failed)?;
        stream.set_write_timeout(Some(patience)).map_err(failed)?;
        let stream = match config {
            None => Stream::Plain(stream),
            Some(config) => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|error| format!("{address}: {error}"))?;
                let client = ClientConnection::new(config, name).map_err(|error| format!("{address}: {error}"))?;
                let mut stream = StreamOwned::new(client, stream);
                // A refusal is told here, and not with the first request.
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).map_err(failed)?;
                }
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Link(Rc::new(RefCell::new(stream))))
    }
}

impl Read for Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Stream::Plain(stream) => stream.read(into),
            Stream::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut *self.0.borrow_mut() {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
