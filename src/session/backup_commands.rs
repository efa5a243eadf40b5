//! BACKUP: makes a copy of the store while the server runs; see `durable::backup`.

use tokio::sync::oneshot;

use crate::core::help::help;
use crate::core::{Arity, Command, Flags, Handler, Outcome, SessionCall, Wait, flags};
use crate::durable::backup;
use crate::resp::Reply;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&BACKUP];

static BACKUP: Command = Command {
    name: "BACKUP",
    arity: Arity::AtLeast(2),
    flags: Flags(0),
    handler: Handler::Container(&[&ABORT, &CLEANUP, &HELP, &LIST, &SEAL, &START, &STATUS, &VERIFY]),
    complexity: "Depends on subcommand.",
    summary: "Commands that make a backup while the server runs.",
    ..SUBCOMMAND
};

/// What the subcommands share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::ADMIN.or(flags::NOSCRIPT).or(flags::NO_ASYNC_LOADING),
    since: "8.10.0",
    group: "server",
    ..Command::DEFAULT
};

static START: Command = Command {
    name: "START",
    handler: Handler::Session(|call, reply| backup::start(call.server).map(|()| reply.ok())),
    complexity: "O(1); the snapshot is made in the background.",
    summary: "Begins a backup with a snapshot.",
    ..SUBCOMMAND
};

static SEAL: Command = Command {
    name: "SEAL",
    flags: SUBCOMMAND.flags.or(flags::NO_MULTI),
    handler: Handler::Session(seal),
    complexity: "O(N) with the bytes of the backup, which are checked; other connections go on.",
    summary: "Completes the backup with what was logged since its snapshot, and waits for it.",
    ..SUBCOMMAND
};

fn seal(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (done, outcome) = oneshot::channel();
    backup::seal(call.server, done)?;
    call.client.wait = Some(Wait::Reload(outcome));
    Ok(reply.withheld())
}

static LIST: Command = Command {
    name: "LIST",
    handler: Handler::Session(list),
    complexity: "O(N) with the number of files.",
    summary: "The files of the backup so far, with their absolute paths.",
    ..SUBCOMMAND
};

fn list(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let files = backup::state(call.server).files;
    let mut items = reply.array(files.len());
    files.iter().for_each(|file| items.bulk(std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str())));
    Ok(items.done())
}

static STATUS: Command = Command {
    name: "STATUS",
    handler: Handler::Session(status),
    summary: "How far the backup is, and since when.",
    ..SUBCOMMAND
};

fn status(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let backup = backup::state(call.server);
    let mut fields = reply.map(11);
    fields.bulk(b"state");
    fields.bulk(backup.phase.name().as_bytes());
    fields.bulk(b"error");
    fields.bulk(backup.error.as_bytes());
    fields.bulk(b"start_time");
    fields.int(backup.start_time);
    fields.bulk(b"end_time");
    fields.int(backup.end_time);
    let (verification, sending) = (backup.verification, backup.sending);
    fields.bulk(b"bytes");
    fields.int(backup.bytes as i64);
    fields.bulk(b"verification");
    fields.bulk(verification.outcome.name().as_bytes());
    fields.bulk(b"verified_keys");
    fields.int(verification.keys as i64);
    fields.bulk(b"verified_bytes");
    fields.int(verification.bytes as i64);
    fields.bulk(b"command");
    fields.bulk(sending.outcome.name().as_bytes());
    fields.bulk(b"command_attempts");
    fields.int(sending.attempts as i64);
    fields.bulk(b"command_exit_code");
    fields.int(sending.exit_code);
    Ok(fields.done())
}

static VERIFY: Command = Command {
    name: "VERIFY",
    flags: SEAL.flags,
    handler: Handler::Session(verify),
    complexity: "O(N) with the bytes of the backup; other connections go on.",
    summary: "Reads the sealed backup and loads it, a shard at a time, and waits for it.",
    since: "ironkeep-0.1.0",
    ..SUBCOMMAND
};

fn verify(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (done, outcome) = oneshot::channel();
    backup::verify_again(call.server, done)?;
    call.client.wait = Some(Wait::Reload(outcome));
    Ok(reply.withheld())
}

static ABORT: Command = Command {
    name: "ABORT",
    handler: Handler::Session(|call, reply| backup::abort(call.server).map(|()| reply.ok())),
    summary: "Gives up the backup in progress.",
    ..SUBCOMMAND
};

static CLEANUP: Command = Command {
    name: "CLEANUP",
    flags: SEAL.flags,
    handler: Handler::Session(clean_up),
    complexity: "O(N) with the number of files; other connections go on.",
    summary: "Removes the files of a backup that was sealed or failed.",
    ..SUBCOMMAND
};

fn clean_up(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let (done, outcome) = oneshot::channel();
    backup::clean_up(call.server, done);
    call.client.wait = Some(Wait::Reload(outcome));
    Ok(reply.withheld())
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(backup_help),
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

fn backup_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "BACKUP",
        &[
            "ABORT",
            "    Give up the backup in progress.",
            "CLEANUP",
            "    Remove the files of a backup that was sealed or failed.",
            "LIST",
            "    Return the absolute paths of the backup's files so far.",
            "SEAL",
            "    Complete the backup: a start on it gives the state of this moment.",
            "START",
            "    Begin a backup with a snapshot, in the background.",
            "STATUS",
            "    Return the state of the backup, its error, its times, and what became of it after its seal.",
            "VERIFY",
            "    Read the sealed backup from the disk and load it, a shard at a time.",
        ],
    )
}
