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
use crate::resp::reply::Mark;
use crate::resp::{Output, Reply};

impl Group<'_> {
    /// Begins the work, if any, that the command whose reply starts at `begin` has deferred. Its replies leave when
    /// that is done, with the missing ones filled in. The commands of a transaction leave this to EXEC.
    pub(super) fn begin_deferred(&mut self, begin: Mark, client: &mut Client, out: &mut Output) {
        if client.deferred.is_empty() || client.in_exec {
            return;
        }
        debug_assert!(self.closed.is_none() && self.inside.is_none(), "it may wait for whoever closes the gate");
        let cut = |Deferred { work, resp, place }| (work, resp, out.split_off(place));
        let mut pieces: Vec<_> = client.deferred.drain(..).rev().map(cut).collect();
        let mut reply = out.split_off(begin);
        let (done, outcome) = oneshot::channel();
        let server = Arc::clone(self.server);
        let spawned = std::thread::Builder::new().name("deferred".into()).spawn(move || {
            while let Some((work, resp, mut rest)) = pieces.pop() {
                let mark = reply.mark();
                let outcome = catch_unwind(AssertUnwindSafe(|| work(&server, Reply::new(&mut reply, resp))));
                if let Err(error) = outcome.unwrap_or(Err(CommandError::Internal(Remains::Unknown))) {
                    reply.truncate(mark);
                    error_reply(&server, &error, &mut reply);
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
