//! Runs work that a command has deferred, on a separate thread and outside the gate, while its connection waits.
//!
//! ```text
//! EXEC, alone behind the gate: *3 ─ +OK ─ (CONFIG SET leaves its work and no reply) ─ +OK
//! gate open:                   *3 ─ +OK ─ reply of the work ─ +OK      leaves as one piece when the work is done
//! ```
//!
//! Several pieces of work from one transaction are done in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::group::Group;
use super::handler::error_reply;
use crate::base::logging;
use crate::core::client::{Client, Deferred};
use crate::core::error::Remains;
use crate::core::{CommandError, Wait};
use crate::resp::Output;
use crate::resp::reply::Mark;

impl Group<'_> {
    /// Begins the work, if any, that the command whose reply starts at `begin` has deferred. Its replies leave when
    /// that is done, with the missing ones filled in. The commands of a transaction leave this to EXEC.
    pub(super) fn begin_deferred(&mut self, begin: Mark, client: &mut Client, out: &mut Output) {
        if client.deferred.is_empty() || client.in_exec {
            return;
        }
        debug_assert!(self.closed.is_none() && self.inside.is_none(), "it may wait for whoever closes the gate");
        let cut = |deferred: Deferred| (deferred.work, out.split_off(deferred.place));
        let mut pieces: Vec<_> = client.deferred.drain(..).rev().map(cut).collect();
        let mut reply = out.split_off(begin);
        let (done, outcome) = oneshot::channel();
        let server = Arc::clone(self.server);
        let spawned = std::thread::Builder::new().name("deferred".into()).spawn(move || {
            while let Some((work, mut rest)) = pieces.pop() {
                let outcome = catch_unwind(AssertUnwindSafe(|| work(&server)));
                match outcome.unwrap_or(Err(CommandError::Internal(Remains::Unknown))) {
                    Ok(()) => reply.raw(b"+OK\r\n"),
                    Err(error) => error_reply(&server, &error, &mut reply),
                }
                reply.append(&mut rest);
            }
            // The client may be gone. Its request is done anyway.
            let _ = done.send(reply);
        });
        if let Err(error) = spawned {
            logging::warning(format_args!("A command is not executed, for there is no thread to do it: {error}"));
        }
        client.wait = Some(Wait::Deferred(outcome));
    }
}
