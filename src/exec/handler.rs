//! Ends a handler: everything it did stands, or nothing does.
//!
//! Invariants:
//! - A handler that returns an error or panics leaves no change that the log does not hold. Its caller cuts off the
//!   partial reply.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::logging;
use crate::core::error::Remains;
use crate::core::stats::CommandCounters;
use crate::core::table::CommandEntry;
use crate::core::{Call, CommandError, Outcome, Server};
use crate::resp::reply::Mark;
use crate::resp::{Output, Reply};

/// Runs a handler so that either everything that it did stands, or nothing.
#[inline]
pub(super) fn run_handler(
    handler: fn(&mut Call<'_>, Reply<'_>) -> Outcome,
    call: &mut Call<'_>,
    reply: Reply<'_>,
) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| handler(call, reply))) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failure(Ok(error), call)),
        Err(panic) => Err(failure(Err(panic), call)),
    }
}

/// Replies with an error to a command that ran, replacing its output behind the mark.
#[cold]
pub(super) fn fail(server: &Server, counters: &CommandCounters, error: &CommandError, mark: Mark, out: &mut Output) {
    out.truncate(mark);
    counters.failed.add_alone(1);
    error_reply(server, error, out);
}

/// Counts an error and replies with it.
pub(super) fn error_reply(server: &Server, error: &CommandError, out: &mut Output) {
    let text = error.wire();
    if !matches!(error, CommandError::Counted(_)) {
        server.count_error(&text, false);
    }
    out.error_bytes(&text);
}

/// Rolls back a handler that ended with an error or a panic. Returns the error for the client.
#[cold]
pub(super) fn failure(failed: Result<CommandError, Box<dyn Any + Send>>, call: &mut Call<'_>) -> CommandError {
    let panic = match failed {
        Ok(error) => {
            call.db.roll_back();
            return error;
        }
        Err(panic) => panic,
    };
    let unit = call.db.unit();
    let stands = unit.command_has_changed() && !unit.is_undoable();
    if !stands {
        call.db.roll_back();
        return internal_error(call.entry, Remains::Nothing, &*panic);
    }
    // One key was changed as the last step: the change stands, so the log must hold it. What the command has recorded
    // may end in the middle of a record.
    let keys = call.keys();
    call.db.log_states_instead(keys);
    internal_error(call.entry, Remains::Change, &*panic)
}

/// Reports a bug of ours that stopped a command.
#[cold]
pub(super) fn internal_error(entry: &CommandEntry, remains: Remains, panic: &(dyn Any + Send)) -> CommandError {
    let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let what = what.unwrap_or("no message");
    logging::warning(format_args!("BUG: the command '{}' panicked{}: {what}", entry.full_name, ending(remains)));
    CommandError::Internal(remains)
}

/// The outcome of a command that panicked, for the operator's log.
fn ending(remains: Remains) -> &'static str {
    match remains {
        Remains::Nothing => " and was undone",
        Remains::Change => "; its key stays as it was by then, in the log too",
        Remains::Unknown => " and was stopped where it was",
    }
}
