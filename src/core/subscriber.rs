//! What makes a connection a subscriber, and how it catches up with messages that its worker has not delivered yet.
//!
//! Messages come as letters to the worker, which delivers them between commands. Where their place among the replies
//! of a connection matters, the connection looks through the unread letters itself: after a command of its own that
//! may have sent it something, and before it leaves a channel.
//!
//! Invariants:
//! - A subscriber receives every message that was published while it was registered, once, in the channel's order,
//!   before the confirmation that it has left the channel.
//! - It counts as [`ClientClass::Pubsub`] exactly while it has subscriptions.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::client::{Client, ClientClass};
use crate::core::message::{LaterBlock, Needs};
use crate::core::{Mail, Server};
use crate::events::channels::{Kind, Name};
use crate::events::invalidation::Invalidation;
use crate::resp::request::OwnedArgs;
use crate::resp::{Output, Reply, Resp};

/// How many names are subscribed to, or left, before other connections get their turn.
pub const NAMES_PER_STEP: usize = 1000;

impl Client {
    /// Whether it has subscriptions.
    #[inline]
    pub fn is_subscriber(&self) -> bool {
        self.record.class() == ClientClass::Pubsub
    }

    /// Whether it may only subscribe, unsubscribe and the like, because in RESP2 a message cannot be told from a reply.
    #[inline]
    pub fn only_listens(&self) -> bool {
        self.resp == Resp::V2 && self.is_subscriber()
    }

    /// How many subscriptions the confirmation of one of this kind tells: shard channels are counted apart.
    pub fn told_count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.subscriptions.len(kind),
            _ => self.subscriptions.len(Kind::Channel) + self.subscriptions.len(Kind::Pattern),
        }
    }

    /// Subscribes, unless it has already.
    pub fn subscribe(&mut self, server: &Server, kind: Kind, name: &[u8]) {
        if self.subscriptions.has(kind, name) {
            return;
        }
        let name = server.channels.subscribe(kind, name, self.record.worker(), self.record.id);
        let bytes = self.subscriptions.add(kind, name);
        self.record.subscribed_bytes.fetch_add(bytes as u64, Relaxed);
        self.record.subscriptions[kind as usize].fetch_add(1, Relaxed);
        self.record.set_class(ClientClass::Pubsub);
    }

    /// Leaves a channel or pattern. Messages that were published before may still be unread: see
    /// [`Client::catch_up`]. Returns whether it was a subscriber.
    pub fn unsubscribe(&mut self, server: &Server, kind: Kind, name: &[u8]) -> bool {
        let Some(bytes) = self.subscriptions.remove(kind, name) else { return false };
        server.channels.unsubscribe(kind, name, self.record.worker(), self.record.id);
        self.record.subscribed_bytes.fetch_sub(bytes as u64, Relaxed);
        self.record.subscriptions[kind as usize].fetch_sub(1, Relaxed);
        if self.subscriptions.is_empty() {
            self.record.set_class(ClientClass::Normal);
        }
        true
    }

    /// Leaves up to `limit` channels and patterns, for a connection that ends or is reset. Returns whether any remain.
    pub fn unsubscribe_some(&mut self, server: &Server, limit: usize) -> bool {
        for kind in Kind::ALL {
            let names: Vec<Name> = self.subscriptions.of(kind).take(limit).cloned().collect();
            for name in &names {
                self.unsubscribe(server, kind, name);
            }
        }
        !self.subscriptions.is_empty()
    }

    /// Catches up if it is a subscriber, tracks keys or watches all commands: before its commands, and after each, so
    /// that messages that it has sent to itself come right behind the reply.
    #[inline]
    pub fn hear(&mut self, server: &Server, out: &mut Output) {
        if self.is_subscriber() || self.caching.is_some() || self.record.monitor.load(Relaxed) {
            self.catch_up(server, out);
        }
        // While its transaction goes on, the reply comes first.
        if !self.late.is_empty() && !self.in_exec {
            out.append(&mut self.late);
        }
    }

    /// Writes what the worker has received for this client and not delivered yet, all in order.
    pub fn catch_up(&mut self, server: &Server, out: &mut Output) {
        let (worker, client, resp) = (self.record.worker(), self.record.id, self.resp);
        if !server.mailboxes.has_unread(worker) {
            return;
        }
        let (is_subscriber, is_monitor) = (self.is_subscriber(), self.record.monitor.load(Relaxed));
        // The users have a lock of their own, which is not taken under that of the letters.
        let user = self.user_by_now(server);
        let knows = |key: &[u8]| user.as_ref().is_some_and(|user| user.may_know(key));
        let mut stale: Vec<Invalidation> = Vec::new();
        let mut missed: Vec<u64> = Vec::new();
        let shown = &mut self.shown;
        let late = if self.in_exec { &mut self.late } else { &mut *out };
        self.mail_seen = server.mailboxes.look(worker, self.mail_seen, |letter| match letter {
            Mail::Publish(published) if published.write_all(client, resp, late) => {
                shown.push(published.message.needs.clone());
            }
            Mail::Push { client: to, bytes, block } if *to == client => {
                late.raw(bytes);
                shown.push(Needs::Block(*block));
            }
            Mail::Shown { client: to, line, block } if *to == client && is_monitor => {
                late.raw(line);
                shown.push(Needs::Block(*block));
            }
            Mail::Redirected(redirected)
                if redirected.to == client && redirected.write(resp, is_subscriber, &knows, late) =>
            {
                shown.push(Needs::Block(redirected.block));
            }
            Mail::Invalidate { clients, it } if clients.contains(&client) => stale.push(it.clone()),
            Mail::InvalidateAll { except, it } if *except != client => stale.push(it.clone()),
            Mail::RedirectMissed { client: to, to: gone } if *to == client => missed.push(*gone),
            _ => {}
        });
        // Telling another connection posts letters, which must wait until the queue is free.
        let mut told = Output::new();
        for it in stale {
            if self.invalidate(server, &it, &mut told) {
                self.shown.push(Needs::Block(it.block));
            }
        }
        for gone in missed {
            self.miss_redirect(gone, &mut told);
        }
        if self.in_exec {
            self.late.append(&mut told);
        } else {
            out.append(&mut told);
        }
    }
}

/// A SUBSCRIBE, an UNSUBSCRIBE or a RESET at work. It may be about a million names, so it works in steps, and others
/// get their turn in between.
#[derive(Debug)]
pub struct Subscribing {
    kind: Kind,
    names: Names,
    /// How many of the given names are done.
    done: usize,
    /// The first word of each confirmation.
    told: &'static [u8],
}

#[derive(Debug)]
enum Names {
    /// Subscribes to these.
    Join(OwnedArgs),
    /// Leaves these.
    Leave(OwnedArgs),
    /// Leaves all of the kind.
    LeaveAll,
    /// Leaves everything, without a word.
    Reset,
}

impl Subscribing {
    /// SUBSCRIBE and its kind.
    pub fn join<'a>(kind: Kind, names: impl Iterator<Item = &'a [u8]>, told: &'static [u8]) -> Self {
        Subscribing { kind, names: Names::Join(OwnedArgs::new(names)), done: 0, told }
    }

    /// UNSUBSCRIBE and its kind: these, or all if there are none.
    pub fn leave<'a>(kind: Kind, names: impl Iterator<Item = &'a [u8]>, told: &'static [u8]) -> Self {
        let names = OwnedArgs::new(names);
        let names = if names.args().is_empty() { Names::LeaveAll } else { Names::Leave(names) };
        Subscribing { kind, names, done: 0, told }
    }

    /// RESET.
    pub fn reset() -> Self {
        Subscribing { kind: Kind::Channel, names: Names::Reset, done: 0, told: b"" }
    }

    /// Whether its end is to be told: RESET.
    pub fn is_reset(&self) -> bool {
        matches!(self.names, Names::Reset)
    }

    /// Goes on with up to `limit` names, and writes their confirmations. Returns whether there are more.
    pub fn step(&mut self, client: &mut Client, server: &Server, limit: usize, out: &mut Output) -> bool {
        let Subscribing { kind, told, .. } = *self;
        let count = |client: &Client| client.told_count(kind) as i64;
        match &self.names {
            Names::Join(names) => {
                let names = names.args();
                let end = self.done.saturating_add(limit).min(names.len());
                for name in (self.done..end).map(|at| names.at(at)) {
                    client.subscribe(server, kind, name);
                    confirm(client.resp, told, Some(name), count(client), out);
                }
                self.done = end;
                end < names.len()
            }
            Names::Leave(names) => {
                let names = names.args();
                let end = self.done.saturating_add(limit).min(names.len());
                let counts: Vec<i64> = (self.done..end)
                    .map(|at| {
                        client.unsubscribe(server, kind, names.at(at));
                        count(client)
                    })
                    .collect();
                // What was published before comes before the confirmation.
                client.catch_up(server, out);
                for (at, count) in (self.done..end).zip(counts) {
                    confirm(client.resp, told, Some(names.at(at)), count, out);
                }
                self.done = end;
                end < names.len()
            }
            Names::LeaveAll => {
                let names: Vec<Name> = client.subscriptions.of(kind).take(limit).cloned().collect();
                if names.is_empty() && self.done == 0 {
                    confirm(client.resp, told, None, count(client), out);
                    return false;
                }
                self.done += names.len();
                let before = count(client);
                for name in &names {
                    client.unsubscribe(server, kind, name);
                }
                client.catch_up(server, out);
                for (name, gone) in names.iter().zip(1..) {
                    confirm(client.resp, told, Some(name), before - gone, out);
                }
                client.subscriptions.len(kind) > 0
            }
            Names::Reset => client.unsubscribe_some(server, limit),
        }
    }
}

/// Confirms one subscription, or the end of one.
fn confirm(resp: Resp, told: &[u8], name: Option<&[u8]>, count: i64, out: &mut Output) {
    let _done = Reply::new(out, resp).pushes(|pushes| {
        pushes.push(3, |confirmation| {
            confirmation.bulk(told);
            match name {
                Some(name) => confirmation.bulk(name),
                None => confirmation.null(),
            }
            confirmation.int(count);
        });
    });
}

/// The block of a running transaction, for which the messages that it has published wait.
pub struct OwnBlock {
    block: Arc<LaterBlock>,
    server: Arc<Server>,
}

impl OwnBlock {
    /// The block of the transaction that has just begun to publish.
    pub fn new(server: &Arc<Server>) -> Self {
        OwnBlock { block: Arc::default(), server: Arc::clone(server) }
    }

    /// What its messages need.
    pub fn needs(&self) -> Needs {
        Needs::Later(Arc::clone(&self.block))
    }
}

impl Drop for OwnBlock {
    /// The transaction has ended, perhaps by a panic: everything that it has logged is in the journal by now.
    fn drop(&mut self) {
        self.block.settle(self.server.store.journal().position());
        for worker in 0..self.server.workers.len() {
            self.server.mailboxes.post(worker, Mail::Settled);
        }
    }
}

impl std::fmt::Debug for OwnBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.block.fmt(f)
    }
}
