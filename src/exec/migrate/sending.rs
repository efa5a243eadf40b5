//! Begins to send what MIGRATE has read, on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::target;
use crate::base::logging;
use crate::core::client::Client;
use crate::core::error::Remains;
use crate::core::migration::{Kept, Order, Outgoing, Sent};
use crate::core::waiting::{Migrating, Watched};
use crate::core::{Call, CommandError, Server, Wait};
use crate::resp::request::OwnedArgs;

/// How many may send at once: each has a thread, and its payloads in memory.
const RUNNING_MAX: usize = 32;
const TOO_MANY: CommandError = CommandError::Text("ERR Too many MIGRATE commands are running, try again later");
const NO_THREAD: CommandError = CommandError::Text("ERR There is no thread to send the keys, check server logs");

/// How many send.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// One of those who send.
struct Running;

impl Running {
    fn begin() -> Option<Running> {
        // Dropped, and so uncounted, if there are too many.
        let (earlier, running) = (RUNNING.fetch_add(1, Relaxed), Running);
        (earlier < RUNNING_MAX).then_some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
    }
}

/// Begins to send keys, which are still locked. The connection waits.
pub(in crate::exec) fn begin(server: &Arc<Server>, call: &mut Call<'_>, order: Box<Order>, client: &mut Client) {
    let db = call.db.index();
    let watch = |outgoing: &Outgoing| {
        let key = server.keyspace.key(&outgoing.key);
        let version = call.db.held().shard(key.shard()).watched.watch(db, key.bytes);
        Kept { key: key.bytes.into(), hash: key.hash, version, expiry: outgoing.expiry }
    };
    let keys = order.keys.iter().map(watch).collect();
    // The removal needs no password, so none is kept.
    let is_secret = |at: usize| call.entry.command.secrets.is_some_and(|is_secret| is_secret(call.args, at));
    let words = call.args.from(0).enumerate().map(|(at, word)| if is_secret(at) { &b"(redacted)"[..] } else { word });
    let (done, sent) = oneshot::channel();
    client.said_secret |= order.login.is_some();
    client.wait = Some(Wait::Migration(Box::new(Migrating {
        args: OwnedArgs::new(words),
        copies: order.copies,
        watched: Watched { server: Arc::clone(server), db, keys },
        sent,
    })));
    let failed = |error| Sent { error: Some(error), ..Sent::default() };
    let Some(running) = Running::begin() else {
        let _ = done.send(failed(TOO_MANY));
        return;
    };
    let word: &[u8] = if server.cluster.is_some() { b"RESTORE-ASKING" } else { b"RESTORE" };
    let spawned = std::thread::Builder::new().name("migrate".into()).spawn(move || {
        let sent = catch_unwind(AssertUnwindSafe(|| target::send(*order, word, &|| done.is_closed())));
        drop(running);
        // The client may be gone. Its keys stay.
        let _ = done.send(sent.unwrap_or_else(|_| failed(CommandError::Internal(Remains::Unknown))));
    });
    if let Err(error) = spawned {
        logging::warning(format_args!("No key is sent by MIGRATE, for there is no thread to do it: {error}"));
        if let Some(Wait::Migration(migrating)) = &mut client.wait {
            let (done, sent) = oneshot::channel();
            let _ = done.send(failed(NO_THREAD));
            migrating.sent = sent;
        }
    }
}
