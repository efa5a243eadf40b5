//! What the thread of HTTP and its connections share.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use tokio::sync::Semaphore;

use super::history::History;
use super::status::TypesSeen;
use crate::base::config::Settings;
use crate::core::Server;

/// How many requests may look at keys at once. Others wait for them.
pub(super) const LOOKING_MAX: usize = 8;

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The address of the client.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// How somebody who asks over HTTP becomes a client: gives the other end of a new connection to a worker.
pub type Connect = Box<dyn Fn(Caller) -> io::Result<UnixStream> + Send + Sync>;

/// The server, and the way to its workers, once its data is loaded.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    /// The server.
    pub(super) server: Arc<OnceLock<Arc<Server>>>,
    /// The way to its workers.
    pub(super) connect: Arc<OnceLock<Connect>>,
}

/// What a connection needs to know.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) loaded: Loaded,
    /// The settings of the start, for the time before the data is loaded.
    pub(super) settings: Arc<Settings>,
    /// What TLS offers before that; `None` without TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

impl Shared {
    /// The server, once its data is loaded.
    pub(super) fn server(&self) -> Option<&Arc<Server>> {
        self.loaded.server.get()
    }
}

/// What belongs to the thread of HTTP.
#[derive(Clone)]
pub(super) struct House {
    pub(super) shared: Shared,
    pub(super) history: History,
    pub(super) types: TypesSeen,
    /// Who may look at keys now.
    pub(super) looking: Arc<Semaphore>,
}

impl House {
    pub(super) fn new(shared: Shared) -> House {
        let looking = Arc::new(Semaphore::new(LOOKING_MAX));
        House { shared, history: History::default(), types: TypesSeen::default(), looking }
    }
}
