//! How a connection is told that keys have changed which it may have cached: CLIENT TRACKING.
//!
//! ```text
//! change ── Invalidate ──▶ the worker of the reader ─┬─ the connection itself
//!                                                    └─ REDIRECT: Redirected ──▶ the worker of that connection
//!                                                          RedirectMissed ◀── it is gone
//! ```
//!
//! The state of a connection is used by its own worker alone. Whether it still tracks, to whom it redirects, and which
//! protocol a receiver speaks is looked at where and when the message is written.
//!
//! Invariants:
//! - Nobody is told the name of a key that its user may not read by now: neither who tracks prefixes, nor who receives
//!   what another connection tracks.
//! - If an invalidation cannot be delivered because the connection to which it is redirected is gone, the connection
//!   that tracks is told so.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::client::ClientRecord;
use crate::core::{Client, Mail, Server};
use crate::events::invalidation::{Caching, Invalidation, Mode, Reason, Redirected, StaleKey, letters, write_keys};
use crate::events::tracking::Tracker;
use crate::resp::{Output, Reply, Resp};

impl Server {
    /// Tells these connections, which may have cached keys, that the keys have changed; all but `except`.
    pub fn invalidate(&self, readers: &[Tracker], except: u64, it: &Invalidation) {
        for worker in 0..self.workers.len() {
            let is_there = |reader: &&Tracker| reader.worker == worker && reader.client != except;
            let clients: Box<[u64]> = readers.iter().filter(is_there).map(|reader| reader.client).collect();
            if !clients.is_empty() {
                self.mailboxes.post(worker, Mail::Invalidate { clients, it: it.clone() });
            }
        }
    }

    /// Tells all connections that track keys, except one, that all keys are gone.
    pub fn invalidate_all(&self, except: u64, block: u64) {
        let it = Invalidation { keys: [].into(), reason: Reason::Flush, block };
        for worker in 0..self.workers.len() {
            self.mailboxes.post(worker, Mail::InvalidateAll { except, it: it.clone() });
        }
    }

    /// Forgets keys, at most so many, until the table of tracked keys is within `tracking-table-max-keys`. Their
    /// readers are told, because they would not hear of the next change.
    pub fn limit_tracking(&self, at_most: usize) {
        for _ in 0..self.tracking.excess().min(at_most) {
            let Some((key, readers)) = self.tracking.take_any() else { return };
            let keys = Arc::from([StaleKey { key, by: 0 }]);
            self.invalidate(&readers, 0, &Invalidation { keys, reason: Reason::Read, block: 0 });
        }
    }

    /// Forgets a connection that tracks keys.
    pub fn end_tracking(&self, client: &ClientRecord) {
        if client.tracking.swap(0, Relaxed) != 0 {
            self.tracking.leave(client.id, |any| self.keyspace.observe(any));
            client.prefix_bytes.store(0, Relaxed);
        }
    }
}

/// What a tracked prefix takes, about, in bytes, beside its text:
const PREFIX_BYTES: usize = 170;
/// that is kept for the connection, for its end, and to be found by keys.
const PREFIX_COPIES: usize = 3;

impl Client {
    /// Begins to track, or changes how. The prefixes are added to those that it has.
    pub fn track(&mut self, server: &Server, mode: Mode, redirect: u64, noloop: bool, prefixes: &[&[u8]]) {
        let (id, worker) = (self.record.id, self.record.worker());
        let before = self.caching.take();
        let was_said = before.as_ref().is_some_and(|caching| caching.was_said);
        let mut all = before.map(|caching| caching.prefixes).unwrap_or_default();
        let every_key: &[&[u8]] = &[b""];
        let wanted = match mode {
            Mode::Broadcast if prefixes.is_empty() => every_key,
            _ => prefixes,
        };
        let new: Vec<&[u8]> = wanted.iter().copied().filter(|prefix| all.insert((*prefix).into())).collect();
        server.tracking.join(Tracker { client: id, worker }, &new, |any| server.keyspace.observe(any));
        let taken = new.iter().map(|prefix| PREFIX_BYTES + PREFIX_COPIES * prefix.len()).sum::<usize>();
        self.record.prefix_bytes.fetch_add(taken as u64, Relaxed);
        let broadcast = if mode == Mode::Broadcast { letters::BROADCAST } else { 0 };
        self.record.tracking.store(letters::TRACKING | broadcast, Relaxed);
        self.record.redirect.store(redirect, Relaxed);
        let caching = Caching { mode, redirect, is_broken: false, noloop, was_said, prefixes: all };
        self.caching = Some(Box::new(caching));
    }

    /// Tracks no more.
    pub fn track_nothing(&mut self, server: &Server) {
        if self.caching.take().is_some() {
            server.end_tracking(&self.record);
        }
    }

    /// Whether the keys that it reads are to be remembered.
    #[inline]
    pub fn remembers_reads(&self) -> bool {
        self.caching.as_ref().is_some_and(|caching| caching.remembers())
    }

    /// Whether CLIENT CACHING was said for the next command.
    #[inline]
    pub fn has_said_caching(&self) -> bool {
        self.caching.as_ref().is_some_and(|caching| caching.was_said)
    }

    /// Ends what CLIENT CACHING has said for one command, or for one transaction. `is_kept` is true of a command that
    /// does not count.
    #[inline]
    pub fn end_caching(&mut self, is_kept: bool) {
        if let Some(caching) = &mut self.caching
            && caching.was_said
            && !is_kept
            && self.transaction.is_none()
            && !self.in_exec
        {
            caching.was_said = false;
        }
    }

    /// Writes that keys have changed, or passes that on to the connection to which it redirects. Returns whether
    /// something was written.
    pub fn invalidate(&mut self, server: &Server, it: &Invalidation, out: &mut Output) -> bool {
        let id = self.record.id;
        let Some(caching) = &self.caching else { return false };
        let is_meant = match it.reason {
            Reason::Read => caching.mode != Mode::Broadcast,
            Reason::Prefix => caching.mode == Mode::Broadcast,
            Reason::Flush => true,
        };
        if !is_meant {
            return false;
        }
        let is_own = |stale: &&StaleKey| caching.noloop && stale.by == id;
        let mut keys: Vec<&[u8]> = it.keys.iter().filter(|stale| !is_own(stale)).map(|stale| &*stale.key).collect();
        if it.reason == Reason::Prefix {
            let user = self.user_by_now(server);
            keys.retain(|key| user.as_ref().is_some_and(|user| user.may_know(key)));
        }
        if keys.is_empty() && it.reason != Reason::Flush {
            return false;
        }
        if caching.redirect != 0 {
            return self.redirect(server, it, &keys, out);
        }
        if self.resp == Resp::V2 {
            return false;
        }
        out.raw(b">2\r\n$10\r\ninvalidate\r\n");
        match it.reason {
            Reason::Flush => drop(Reply::new(out, self.resp).null()),
            _ => write_keys(keys.iter().copied(), keys.len(), out),
        }
        true
    }

    fn redirect(&mut self, server: &Server, it: &Invalidation, keys: &[&[u8]], out: &mut Output) -> bool {
        let to = self.caching.as_ref().map_or(0, |caching| caching.redirect);
        let from = Tracker { client: self.record.id, worker: self.record.worker() };
        let keys = (it.reason != Reason::Flush).then(|| keys.iter().map(|key| (*key).into()).collect());
        let redirected = Redirected { to, from, keys, resp: self.resp, block: it.block };
        if to == from.client {
            return redirected.write(self.resp, self.is_subscriber(), &|_| true, out);
        }
        match server.clients.get(to) {
            Some(record) => {
                server.mailboxes.post(record.worker(), Mail::Redirected(Box::new(redirected)));
                false
            }
            None => self.miss_redirect(to, out),
        }
    }

    /// Writes what another connection tracks. Returns whether something was written.
    pub fn take_redirected(&self, server: &Server, redirected: &Redirected, out: &mut Output) -> bool {
        let user = self.user_by_now(server);
        let knows = |key: &[u8]| user.as_ref().is_some_and(|user| user.may_know(key));
        redirected.write(self.resp, self.is_subscriber(), &knows, out)
    }

    /// Notes, and writes, that the connection to which it redirects is gone. Returns whether something was written.
    pub fn miss_redirect(&mut self, to: u64, out: &mut Output) -> bool {
        let Some(caching) = self.caching.as_mut().filter(|caching| caching.redirect == to) else { return false };
        caching.is_broken = true;
        self.record.tracking.fetch_or(letters::BROKEN, Relaxed);
        if self.resp == Resp::V2 {
            return false;
        }
        out.raw(format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{to}\r\n").as_bytes());
        true
    }
}
