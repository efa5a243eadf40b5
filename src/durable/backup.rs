//! BACKUP: a copy of the store in a directory of its own, made while the server runs.
//!
//! ```text
//! START  a snapshot, pinned and linked into the directory      idle ─ pending ─ snapshotting ─ incrementing
//! …      other snapshots come and go; the log since the pinned one stays
//! SEAL   cut the log, link its segments, check all, MANIFEST   ─ sealed: a start on it gives the state of this moment
//! then   read it from the disk and load it (`verify`)          ─ failed, and marked, if it is damaged
//! then   `backup-command` (`sending`)
//! ```
//!
//! Invariants:
//! - The directory becomes a store with its last file, MANIFEST. Until then it is only files.
//! - A linked file is never written again: a segment with another name is not recycled.
//! - One backup is made at a time. A snapshot or a seal takes the turn of a snapshot.
//! - What is done after the seal is done in the background, and ends when the backup is removed.
//! - Without a log, or behind a gap in it, SEAL makes another snapshot: what is sealed is always this moment.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::encryption::encryption;
use super::saving;
use super::sending::Parcel;
use super::verify::{Step, Verified, verify};
use crate::base::{clock, logging};
use crate::core::backup::{Backup, Outcome, Phase, Sending, Verification};
use crate::core::server::SavePurpose;
use crate::core::{CommandError, Server};
use crate::persist::examine::Fault;
use crate::persist::format::{DAMAGED, MANIFEST, is_own_name, snapshot_name};
use crate::persist::storage::Storage;

const NOT_IDLE: CommandError =
    CommandError::Text("ERR There is a backup already. Use BACKUP STATUS, and BACKUP CLEANUP to remove it");
const NOT_EMPTY: CommandError = CommandError::Text("ERR The backup directory is not empty");
const NOT_INCREMENTING: CommandError =
    CommandError::Text("ERR BACKUP SEAL is only allowed once the snapshot of BACKUP START is complete");
const NOT_RUNNING: CommandError = CommandError::Text("ERR There is no backup in progress");
const NOT_SEALED: CommandError = CommandError::Text("ERR There is no sealed backup to verify");
const IN_USE: CommandError = CommandError::Text("ERR The backup is being verified or sent away");
const NOT_ENDED: CommandError = CommandError::Text("ERR There is no sealed or failed backup to remove");

fn failed(what: impl std::fmt::Display) -> CommandError {
    CommandError::err(format_args!("The backup failed: {what}"))
}

/// The longest pause of a verification, after which is looked whether it goes on.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// A verification pauses after so long, for as long.
const WORK: Duration = Duration::from_millis(20);
/// What loading takes of memory, for each byte in a snapshot.
const MEMORY_PER_BYTE: u64 = 4;
/// How much of the mark of a damaged backup is read, in bytes.
const MARK_MAX: usize = 4096;

/// The directory of backups, made when it is missing.
fn directory(server: &Server) -> Result<Arc<dyn Storage>, String> {
    let name = server.config.settings().backupdirname.clone();
    let made = server.store.storage().subdirectory(&name);
    made.map_err(|error| format!("backupdirname {name}: {error}"))
}

/// The state of the backup. The first look after a start finds what an earlier run has left.
pub fn state(server: &Server) -> Backup {
    if server.backup.lock().phase == Phase::Unknown {
        let found = found(server);
        let mut backup = server.backup.lock();
        if backup.phase == Phase::Unknown {
            *backup = found;
        }
    }
    server.backup.lock().clone()
}

/// What an earlier run has left in the directory. Nothing is made for it.
fn found(server: &Server) -> Backup {
    let name = server.config.settings().backupdirname.clone();
    let mut backup = Backup { phase: Phase::Idle, ..Backup::default() };
    let is_there = server.store.storage().exists(&name).unwrap_or(false);
    let Some(dir) = is_there.then(|| directory(server).ok()).flatten() else { return backup };
    let names = dir.list().unwrap_or_default();
    backup.files = names.iter().filter(|name| is_own_name(name)).map(|name| dir.path(name)).collect();
    if backup.files.is_empty() {
        return backup;
    }
    backup.end_time = clock::now_ms() / 1000;
    backup.phase = if names.iter().any(|name| name == MANIFEST) { Phase::Sealed } else { Phase::Failed };
    if backup.phase == Phase::Failed {
        backup.error = "the server ended before the backup was sealed".to_owned();
    }
    backup.bytes = bytes_of(&*dir);
    if names.iter().any(|name| name == DAMAGED) {
        let mut mark = vec![0; MARK_MAX];
        let read = dir.reader(DAMAGED).and_then(|reader| reader.read_at(0, &mut mark));
        mark.truncate(read.unwrap_or(0));
        backup.phase = Phase::Failed;
        backup.verification.outcome = Outcome::Failed;
        backup.error = String::from_utf8_lossy(&mark).trim().to_owned();
    }
    backup
}

/// The bytes of all files of a backup.
fn bytes_of(dir: &dyn Storage) -> u64 {
    let names = dir.list().unwrap_or_default();
    let len = |name: &String| dir.reader(name).and_then(|reader| reader.len()).ok();
    names.iter().filter(|name| is_own_name(name)).filter_map(len).sum()
}

/// BACKUP START. The snapshot is made on a thread of its own.
///
/// # Errors
/// There is a backup, or the directory is not empty.
pub fn start(server: &Arc<Server>) -> Result<(), CommandError> {
    if state(server).phase != Phase::Idle {
        return Err(NOT_IDLE);
    }
    let dir = directory(server).map_err(failed)?;
    if !dir.list().map_err(failed)?.is_empty() {
        return Err(NOT_EMPTY);
    }
    let number = {
        let mut backup = server.backup.lock();
        if backup.phase != Phase::Idle {
            return Err(NOT_IDLE);
        }
        let number = backup.number + 1;
        *backup = Backup { phase: Phase::Pending, number, start_time: clock::now_ms() / 1000, ..Backup::default() };
        number
    };
    let shared = Arc::clone(server);
    let spawned = std::thread::Builder::new().name("backup".into()).spawn(move || {
        let outcome = in_turn(&shared, || take_snapshot(&shared, number, &*dir));
        if let Err(error) = outcome {
            fail(&shared, number, error);
        }
    });
    spawned.map(drop).map_err(|error| {
        fail(server, number, error.to_string());
        failed(error)
    })
}

/// Does something in the turn of a snapshot.
fn in_turn<T>(server: &Arc<Server>, act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    if !saving::wait_for_turn(server, SavePurpose::Save) {
        return Err("the server is ending".into());
    }
    let outcome = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err("the backup panicked".into()));
    saving::end_turn(server);
    outcome
}

/// Changes the backup of this number, unless it has ended meanwhile.
fn change(server: &Server, number: u64, change: impl FnOnce(&mut Backup)) -> Result<(), String> {
    let mut backup = server.backup.lock();
    if backup.number != number || !backup.phase.is_in_progress() {
        return Err("it was aborted".into());
    }
    change(&mut backup);
    Ok(())
}

fn take_snapshot(server: &Server, number: u64, dir: &dyn Storage) -> Result<(), String> {
    change(server, number, |backup| backup.phase = Phase::Snapshotting)?;
    let snapshot = saving::save_in_turn(server)?.number;
    // Until the turn ends, nothing replaces it.
    server.store.pin(Some(snapshot));
    let path = dir.path(&snapshot_name(snapshot));
    let shared = server.store.share_snapshot(snapshot, dir).map_err(|error| error.to_string());
    let shared = shared.and_then(|()| {
        change(server, number, |backup| {
            backup.phase = Phase::Incrementing { snapshot };
            backup.files = vec![path];
        })
    });
    if shared.is_err() {
        server.store.pin(None);
    }
    shared
}

fn fail(server: &Server, number: u64, error: String) {
    let noted = change(server, number, |backup| {
        backup.phase = Phase::Failed;
        backup.end_time = clock::now_ms() / 1000;
        backup.error.clone_from(&error);
    });
    if noted.is_ok() {
        server.store.pin(None);
        logging::warning(format_args!("The backup failed: {error}"));
    }
}

/// BACKUP SEAL, on a thread of its own. `done` receives the result.
///
/// # Errors
/// There is no backup whose snapshot is complete.
pub fn seal(server: &Arc<Server>, done: oneshot::Sender<Result<(), CommandError>>) -> Result<(), CommandError> {
    state(server);
    let (number, snapshot) = {
        let mut backup = server.backup.lock();
        let Phase::Incrementing { snapshot } = backup.phase else { return Err(NOT_INCREMENTING) };
        if std::mem::replace(&mut backup.is_sealing, true) {
            return Err(NOT_INCREMENTING);
        }
        (backup.number, snapshot)
    };
    let shared = Arc::clone(server);
    let spawned = std::thread::Builder::new().name("backup".into()).spawn(move || {
        let outcome = in_turn(&shared, || seal_in_turn(&shared, number, snapshot));
        if let Err(error) = &outcome {
            fail(&shared, number, error.clone());
        }
        let is_sealed = outcome.is_ok();
        // The client may be gone.
        let _ = done.send(outcome.map_err(failed));
        if is_sealed {
            after_the_seal(&shared, number);
        }
    });
    spawned.map(drop).map_err(|error| {
        fail(server, number, error.to_string());
        failed(error)
    })
}

fn seal_in_turn(server: &Server, number: u64, snapshot: u64) -> Result<(), String> {
    change(server, number, |_| ())?;
    let dir = directory(server)?;
    let has_log = server.store.log().is_active() && !server.store.log().is_poisoned();
    let from_log = has_log.then(|| seal_by_log(server, snapshot, &dir));
    match from_log {
        Some(Ok(())) => {}
        why => {
            if let Some(Err(error)) = why {
                logging::notice(format_args!("The backup is sealed by another snapshot: {error}"));
            }
            remove_files(&*dir)?;
            let snapshot = saving::save_in_turn(server)?.number;
            server.store.pin(Some(snapshot));
            server.store.share_snapshot(snapshot, &*dir).map_err(|error| error.to_string())?;
            server.store.copy_snapshot_alone(snapshot, &dir).map_err(|error| error.to_string())?;
        }
    }
    let names = dir.list().map_err(|error| error.to_string())?;
    let (bytes, settings) = (bytes_of(&*dir), server.config.settings());
    change(server, number, |backup| {
        backup.phase = Phase::Sealed;
        backup.end_time = clock::now_ms() / 1000;
        backup.files = names.iter().map(|name| dir.path(name)).collect();
        backup.bytes = bytes;
        // Nobody removes it before the thread has come to that.
        backup.verification.outcome = if settings.backup_verify { Outcome::Running } else { Outcome::None };
    })?;
    server.store.pin(None);
    logging::notice(format_args!("The backup in {} is complete", dir.path("").display()));
    Ok(())
}

/// Seals it with the log since its snapshot.
fn seal_by_log(server: &Server, snapshot: u64, dir: &Arc<dyn Storage>) -> Result<(), String> {
    let cut = saving::cut_log(server)?;
    let sealed = server.store.seal_backup(snapshot, &cut, dir).map_err(|error| error.to_string());
    server.store.abandon(cut);
    sealed
}

/// Verifies a backup and sends it away, as far as that is configured. On a thread that nobody waits for.
fn after_the_seal(server: &Server, number: u64) {
    // Whatever else runs comes first.
    let _ = rustix::process::setpriority_process(None, 19);
    let settings = server.config.settings();
    if settings.backup_verify && !verify_now(server, number).is_ok_and(|()| has_verified(server, number)) {
        return;
    }
    if !settings.backup_command.is_empty() {
        send_now(server, number);
    }
}

fn has_verified(server: &Server, number: u64) -> bool {
    let backup = server.backup.lock();
    backup.number == number && backup.verification.outcome == Outcome::Done
}

/// Whether a sealed backup is still there, and the server does not end.
fn is_there(server: &Server, number: u64) -> bool {
    let backup = server.backup.lock();
    backup.number == number && backup.phase == Phase::Sealed && !server.saving.ending.load(Relaxed)
}

/// Changes a sealed backup, unless it has gone meanwhile.
fn note(server: &Server, number: u64, change: impl FnOnce(&mut Backup)) {
    let mut backup = server.backup.lock();
    if backup.number == number && backup.phase == Phase::Sealed {
        change(&mut backup);
    }
}

/// Verifies a sealed backup on this thread.
///
/// # Errors
/// What is wrong with it, in words.
fn verify_now(server: &Server, number: u64) -> Result<(), String> {
    note(server, number, |backup| backup.verification.outcome = Outcome::Running);
    let dir = directory(server)?;
    let verified = catch_unwind(AssertUnwindSafe(|| verify_at_ease(server, number, &dir)));
    server.memory.set_passing(0);
    server.saving.verification.end();
    let verified = verified.unwrap_or_else(|_| {
        let what = "the verification panicked".to_owned();
        Err(Fault { file: dir.path(""), offset: None, block: None, what, is_damage: false })
    });
    if !is_there(server, number) {
        return Err("it was removed meanwhile, or the server is ending".into());
    }
    match verified {
        Ok(found) => {
            let outcome = if found.is_some() { Outcome::Done } else { Outcome::None };
            let Verified { keys, bytes } = found.unwrap_or_default();
            note(server, number, |backup| backup.verification = Verification { outcome, keys, bytes });
            logging::notice(format_args!("The backup is verified: it can be loaded and holds {keys} keys"));
            Ok(())
        }
        Err(fault) => {
            let at = fault.offset.map_or(String::new(), |offset| format!(" at offset {offset}"));
            let text = format!("{}{at}: {}", fault.file.display(), fault.what);
            logging::warning(format_args!("The backup is damaged, make another one: {text}"));
            mark(&*dir, &text);
            note(server, number, |backup| {
                backup.verification.outcome = Outcome::Failed;
                backup.error.clone_from(&text);
                backup.phase = Phase::Failed;
            });
            Err(text)
        }
    }
}

/// Verifies, and pauses as long as it works.
fn verify_at_ease(server: &Server, number: u64, dir: &Arc<dyn Storage>) -> Result<Option<Verified>, Fault> {
    let settings = server.config.settings();
    let limits = |seed| crate::exec::limits_of(&settings, seed);
    let (mut since, mut loading) = (Instant::now(), 0);
    verify(dir, encryption(&settings).as_ref(), limits, |step| {
        let worked = since.elapsed();
        if worked >= WORK {
            // A large shard is not paid for in one piece.
            let mut left = worked;
            while !left.is_zero() && is_there(server, number) {
                std::thread::sleep(left.min(PAUSE_MAX));
                left = left.saturating_sub(PAUSE_MAX);
            }
            since = Instant::now();
        }
        match step {
            Step::Begin(total) => server.saving.verification.begin(total),
            Step::Read(bytes) => server.saving.verification.add(bytes),
            Step::Load { chunk, log } => {
                server.saving.verification.add(std::mem::replace(&mut loading, chunk));
                server.memory.set_passing(chunk.saturating_mul(MEMORY_PER_BYTE).saturating_add(log));
            }
        }
        is_there(server, number)
    })
}

/// Leaves word of the damage beside the files.
fn mark(dir: &dyn Storage, text: &str) {
    let write = || {
        if dir.exists(DAMAGED)? {
            dir.remove(DAMAGED)?;
        }
        let file = dir.create(DAMAGED)?;
        file.append(format!("{text}\n").as_bytes())?;
        file.sync_data()?;
        dir.sync_dir()
    };
    if let Err(error) = write() {
        logging::warning(format_args!("The backup is damaged, and cannot be marked as such: {error}"));
    }
}

/// Has `backup-command` send a sealed backup away.
fn send_now(server: &Server, number: u64) {
    let Ok(dir) = directory(server) else { return };
    let (settings, backup) = (server.config.settings(), server.backup.lock().clone());
    let directory = dir.path("");
    let parcel = Parcel {
        directory: &directory,
        id: backup.end_time.to_string(),
        bytes: backup.bytes,
        command: &settings.backup_command,
        time: Duration::from_secs(settings.backup_command_timeout),
        attempts_max: settings.backup_command_attempts,
    };
    let mut last = Sending::default();
    let sent = parcel.send(
        || is_there(server, number),
        |sending| {
            last = sending;
            note(server, number, |backup| backup.sending = sending);
        },
    );
    last.outcome = match sent {
        Some(true) => Outcome::Done,
        Some(false) => Outcome::Failed,
        None => Outcome::None,
    };
    note(server, number, |backup| backup.sending = last);
    if sent == Some(true) {
        logging::notice(format_args!("The backup is sent away by backup-command, attempt {}", last.attempts));
    }
}

/// BACKUP VERIFY, on a thread of its own. `done` receives the result.
///
/// # Errors
/// There is no sealed backup, or something is done with it.
pub fn verify_again(server: &Arc<Server>, done: oneshot::Sender<Result<(), CommandError>>) -> Result<(), CommandError> {
    state(server);
    let number = {
        let mut backup = server.backup.lock();
        if backup.phase != Phase::Sealed {
            return Err(NOT_SEALED);
        }
        if backup.is_in_use() {
            return Err(IN_USE);
        }
        backup.verification.outcome = Outcome::Running;
        backup.number
    };
    let shared = Arc::clone(server);
    let spawned = std::thread::Builder::new().name("backup".into()).spawn(move || {
        let _ = rustix::process::setpriority_process(None, 19);
        // The client may be gone.
        let _ = done.send(verify_now(&shared, number).map_err(failed));
    });
    spawned.map(drop).map_err(|error| {
        note(server, number, |backup| backup.verification.outcome = Outcome::None);
        failed(error)
    })
}

/// BACKUP ABORT.
///
/// # Errors
/// None is in progress.
pub fn abort(server: &Server) -> Result<(), CommandError> {
    state(server);
    let mut backup = server.backup.lock();
    if !backup.phase.is_in_progress() {
        return Err(NOT_RUNNING);
    }
    backup.phase = Phase::Failed;
    backup.end_time = clock::now_ms() / 1000;
    backup.error = "aborted by BACKUP ABORT".to_owned();
    drop(backup);
    server.store.pin(None);
    Ok(())
}

/// BACKUP CLEANUP: removes the files of a backup that was sealed or failed, on a thread of its own, because removing a
/// large file takes its time. `done` receives the result.
pub fn clean_up(server: &Arc<Server>, done: oneshot::Sender<Result<(), CommandError>>) {
    let shared = Arc::clone(server);
    let spawned = std::thread::Builder::new().name("backup".into()).spawn(move || {
        let outcome = clean_up_now(&shared);
        if let Err(error) = &outcome {
            logging::warning(format_args!("The backup is not removed: {error}"));
        }
        // The client may be gone.
        let _ = done.send(outcome);
    });
    if let Err(error) = spawned {
        logging::warning(format_args!("The backup is not removed, for there is no thread to do it: {error}"));
    }
}

fn clean_up_now(server: &Server) -> Result<(), CommandError> {
    let backup = state(server);
    if !matches!(backup.phase, Phase::Sealed | Phase::Failed) {
        return Err(NOT_ENDED);
    }
    let dir = directory(server).map_err(failed)?;
    remove_files(&*dir).map_err(failed)?;
    let mut current = server.backup.lock();
    if current.number == backup.number {
        *current = Backup { phase: Phase::Idle, number: backup.number, ..Backup::default() };
    }
    Ok(())
}

/// Removes the files of a backup: MANIFEST first, so that what is left is no store.
fn remove_files(dir: &dyn Storage) -> Result<(), String> {
    let mut names = dir.list().map_err(|error| error.to_string())?;
    names.retain(|name| is_own_name(name));
    names.sort_by_key(|name| name != MANIFEST);
    for name in names {
        dir.remove(&name).map_err(|error| format!("{}: {error}", dir.path(&name).display()))?;
    }
    dir.sync_dir().map_err(|error| error.to_string())
}

/// Removes a sealed backup once `backup-sealed-ttl` is over. Called by the timer.
pub fn tick(server: &Arc<Server>) {
    let seconds = server.config.settings().backup_sealed_ttl as i64;
    if seconds == 0 {
        return;
    }
    let backup = state(server);
    if backup.phase == Phase::Sealed && !backup.is_in_use() && clock::now_ms() / 1000 - backup.end_time >= seconds {
        let (done, _) = oneshot::channel();
        clean_up(server, done);
    }
}
