//! Messages that keys have changed, for connections that may have cached them, and what a connection has chosen to
//! hear.
//!
//! ```text
//! RESP3  >2 $10 invalidate *1 $3 key          all keys: >2 $10 invalidate _
//! RESP2  *3 $7 message $20 __redis__:invalidate *1 $3 key          only redirected, to a subscriber
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::tracking::{Readers, Tracker};
use crate::resp::{Output, Reply, Resp};

/// Which keys a connection tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those that it reads.
    Default,
    /// Those that it reads directly after CLIENT CACHING YES.
    OptIn,
    /// Those that it reads, except directly after CLIENT CACHING NO.
    OptOut,
    /// All of its prefixes.
    Broadcast,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Caching {
    /// Which keys it tracks.
    pub mode: Mode,
    /// The connection that is told in its place; 0 for none.
    pub redirect: u64,
    /// Whether that connection was found to be gone.
    pub is_broken: bool,
    /// Whether it is not told of its own changes.
    pub noloop: bool,
    /// Whether CLIENT CACHING was said for the next command or transaction.
    pub was_said: bool,
    /// Its prefixes.
    pub prefixes: BTreeSet<Box<[u8]>>,
}

/// Letters of CLIENT LIST about tracking, as bits.
pub mod letters {
    /// It tracks.
    pub const TRACKING: u8 = 1;
    /// The connection to which it redirects is gone.
    pub const BROKEN: u8 = 2;
    /// It is in broadcasting mode.
    pub const BROADCAST: u8 = 4;
}

/// A key that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleKey {
    /// The key.
    pub key: Box<[u8]>,
    /// The connection whose command has changed it; 0 if it has expired or was evicted.
    pub by: u64,
}

/// Why a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has read these keys.
    Read,
    /// They have a prefix that it tracks.
    Prefix,
    /// All keys are gone.
    Flush,
}

/// That keys have changed.
#[derive(Clone, Debug)]
pub struct Invalidation {
    /// Which keys, ascending.
    pub keys: Arc<[StaleKey]>,
    /// Why this is told.
    pub reason: Reason,
    /// The block of the log that must be safe before it is told.
    pub block: u64,
}

/// An invalidation on its way to the connection to which it is redirected.
#[derive(Debug)]
pub struct Redirected {
    /// That connection.
    pub to: u64,
    /// The connection that tracks.
    pub from: Tracker,
    /// The keys; `None` for all.
    pub keys: Option<Vec<Box<[u8]>>>,
    /// The protocol of the connection that tracks, in which Redis writes that all keys are gone.
    pub resp: Resp,
    /// As in [`Invalidation`].
    pub block: u64,
}

impl Caching {
    /// Whether the keys of a read are to be remembered.
    pub fn remembers(&self) -> bool {
        match self.mode {
            Mode::Default => true,
            Mode::OptIn => self.was_said,
            Mode::OptOut => !self.was_said,
            Mode::Broadcast => false,
        }
    }
}

impl Redirected {
    /// Writes the message to the connection that receives it. A connection of RESP2 that subscribes to nothing is told
    /// nothing, because it would take the message for a reply. Nor is it told of keys that it does not know. Returns
    /// whether something was written.
    pub fn write(&self, resp: Resp, is_subscriber: bool, knows: &dyn Fn(&[u8]) -> bool, out: &mut Output) -> bool {
        let known = |keys: &Vec<Box<[u8]>>| keys.iter().filter(|key| knows(key)).cloned().collect::<Vec<_>>();
        let keys = self.keys.as_ref().map(known);
        if keys.as_ref().is_some_and(Vec::is_empty) {
            return false;
        }
        match resp {
            Resp::V3 => out.raw(b">2\r\n$10\r\ninvalidate\r\n"),
            Resp::V2 if is_subscriber => out.raw(b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n"),
            Resp::V2 => return false,
        }
        match &keys {
            None => drop(Reply::new(out, self.resp).null()),
            Some(keys) => write_keys(keys.iter().map(|key| &**key), keys.len(), out),
        }
        true
    }
}

/// Writes the array of keys of a message.
pub fn write_keys<'a>(keys: impl Iterator<Item = &'a [u8]>, len: usize, out: &mut Output) {
    let mut array = Reply::new(out, Resp::V3).array(len);
    keys.for_each(|key| array.bulk(key));
    array.end();
}

/// A change whose shards are unlocked, or about to be.
#[derive(Debug)]
pub enum Change {
    /// This key, which these connections have read.
    Key(StaleKey, Readers),
    /// All keys are gone.
    Flush,
}

/// Changes that nobody was told of yet.
#[derive(Debug, Default)]
pub struct Untold {
    /// For those who have read the keys, in order.
    pub changes: Vec<Change>,
    /// For those who track prefixes: the keys, each with the connection that has changed it last.
    pub broadcast: BTreeMap<Box<[u8]>, u64>,
    /// The block of the log that must be safe before anybody is told.
    pub block: u64,
}

impl Untold {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.broadcast.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirected_message_is_as_its_receiver_speaks() {
        let from = Tracker { client: 1, worker: 0 };
        let one = |keys, resp| Redirected { to: 2, from, keys, resp, block: 0 };
        let written = |message: &Redirected, resp, is_subscriber| {
            let mut out = Output::new();
            let was_written = message.write(resp, is_subscriber, &|key| key != b"secret", &mut out);
            assert_eq!(was_written, !out.is_empty());
            String::from_utf8_lossy(out.as_bytes()).replace("\r\n", " ")
        };
        let keys = one(Some(vec![b"a"[..].into(), b"b"[..].into()]), Resp::V2);
        assert_eq!(written(&keys, Resp::V3, false), ">2 $10 invalidate *2 $1 a $1 b ");
        assert_eq!(written(&keys, Resp::V2, true), "*3 $7 message $20 __redis__:invalidate *2 $1 a $1 b ");
        assert_eq!(written(&keys, Resp::V2, false), "");
        let some = one(Some(vec![b"a"[..].into(), b"secret"[..].into()]), Resp::V2);
        assert_eq!(written(&some, Resp::V3, false), ">2 $10 invalidate *1 $1 a ");
        assert_eq!(written(&one(Some(vec![b"secret"[..].into()]), Resp::V2), Resp::V3, false), "");
        assert_eq!(written(&one(None, Resp::V2), Resp::V3, true), ">2 $10 invalidate $-1 ");
        assert_eq!(written(&one(None, Resp::V3), Resp::V2, true), "*3 $7 message $20 __redis__:invalidate _ ");
    }
}
