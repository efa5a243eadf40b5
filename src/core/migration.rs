//! MIGRATE: what is to be sent to another server, and what has become of it.
//!
//! ```text
//! worker   keys locked: payloads and expiries read, keys watched ─ unlock ─ the connection waits
//! thread   connect ─ AUTH, SELECT, INFO ─ RESTORE of each key ─ replies
//! worker   keys locked: each key that the target has taken is removed, if nothing has changed it ─ unlock ─ reply
//! ```
//!
//! Invariants:
//! - A key is removed only if the target has acknowledged it, and its version is that of the moment when it was read.
//!   The value alone would not do: whoever sends a key to itself, or to a server that sends it back, finds the same
//!   value in a key that is not the one that was sent.
//! - Nobody but the thread waits for the network.

use std::fmt;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::core::CommandError;

/// What is to be sent, and where.
pub struct Order {
    /// A name or an address.
    pub host: Box<[u8]>,
    /// As the client gave it.
    pub port: Box<[u8]>,
    /// With what to log in, if at all.
    pub login: Option<Login>,
    /// The database there.
    pub db: i64,
    /// For connecting, and for each request and reply.
    pub timeout: Duration,
    /// Whether the keys stay here.
    pub copies: bool,
    /// Whether keys there are replaced.
    pub replaces: bool,
    /// The keys, in the order in which they are sent.
    pub keys: Vec<Outgoing>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// A user, unless it is the default one, and a password.
#[derive(Debug)]
pub struct Login {
    /// The user.
    pub user: Option<Secret>,
    /// The password.
    pub password: Secret,
}

/// A key that is to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Its name.
    pub key: Box<[u8]>,
    /// When it expires, Unix ms.
    pub expiry: Option<i64>,
    /// Its value, as DUMP gives it.
    pub payload: Vec<u8>,
}

/// What has become of the keys.
#[derive(Debug, Default)]
pub struct Sent {
    /// The places of those that the target has taken.
    pub taken: Vec<usize>,
    /// The first error.
    pub error: Option<CommandError>,
}

/// A key as it was when it was read.
#[derive(Debug)]
pub struct Kept {
    /// Its name.
    pub key: Box<[u8]>,
    /// The name's hash.
    pub hash: u64,
    /// Its version.
    pub version: u64,
    /// When it expires, Unix ms.
    pub expiry: Option<i64>,
}
