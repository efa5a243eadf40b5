//! Makes snapshots: SAVE, BGSAVE, BGREWRITEAOF, save points and the compaction of the log are one act.
//!
//! ```text
//! cut: close the gate ─ freeze ─ take the log's buffers ─ open the gate      (all cores stand still: < 1 ms)
//! serialise shard by shard from the frozen view ─ commit: sync, rename, switch the manifest, drop the old log
//! ```
//!
//! One snapshot is made at a time, on its own thread. No command waits for it except those that ask to. Once the
//! server is shutting down, none is begun and a running one is abandoned; [`save_and_stay_closed`] makes the last
//! one, if one is due. A reload (`durable::reload`) takes the turn of a snapshot. However large a value is, at most
//! one piece of it is in memory a second time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::base::latency::Event;
use crate::base::lock::MutexGuard;
use crate::base::progress::{Display, Unit, watched};
use tokio::sync::oneshot;

use crate::base::{clock, logging};
use crate::core::Server;
use crate::core::server::{SavePurpose, Saving, SavingState};
use crate::durable::disk;
use crate::durable::pace::Pace;
use crate::keyspace::{Buried, Closed, Directory, Frozen, SHARDS, ValueRef};
use crate::persist::{ChunkWriter, CommitSummary, Cut, PersistError, Retention, SnapshotWriter, WireGrave, WireValue};
use crate::value::codec;

/// How much of a value is encoded before it goes to the file, in bytes.
const BODY_BYTES: usize = if cfg!(test) { 1 << 8 } else { 1 << 18 };

/// How long all workers wait for one that continues to execute before they are released: at first, and at most after
/// failed attempts.
const PATIENCE_MIN: Duration = Duration::from_micros(200);
const PATIENCE_MAX: Duration = Duration::from_millis(5);
/// How often is looked whether all is loaded.
const LOADING_LOOK: Duration = Duration::from_millis(10);

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// The snapshot has begun.
    Started,
    /// Another one is running. This one follows it.
    Scheduled,
    /// Another one is running, for this purpose. Nothing was started.
    Busy(SavePurpose),
}

/// Begins a snapshot. If one is running and `schedule` is set, the new one follows it.
///
/// `done` receives the result. It is dropped if nothing was started.
pub fn request(
    server: &Arc<Server>,
    purpose: SavePurpose,
    schedule: bool,
    done: Option<oneshot::Sender<Result<(), String>>>,
) -> Requested {
    let mut state = server.saving.state.lock();
    if server.saving.ending.load(Relaxed) {
        return Requested::Busy(purpose);
    }
    if let Some((running, _)) = state.running {
        if !schedule {
            return Requested::Busy(running);
        }
        state.scheduled = Some(purpose);
        return Requested::Scheduled;
    }
    state.running = Some((purpose, clock::now_ms()));
    state.waiting.extend(done);
    drop(state);
    server.saving.last_try_ms.store(clock::now_ms(), Relaxed);
    let shared = Arc::clone(server);
    let spawned = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| snapshot(&shared, None)));
        let outcome = outcome.unwrap_or_else(|_| Err("the snapshot thread panicked".into()));
        finish(&shared, purpose, outcome);
    });
    if let Err(error) = spawned {
        finish(server, purpose, Err(error.to_string()));
    }
    Requested::Started
}

/// Waits until no snapshot is running, and prevents new ones until [`end_turn`]: one for this purpose counts as
/// running. Returns false if the server is shutting down.
pub fn wait_for_turn(server: &Server, purpose: SavePurpose) -> bool {
    const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(1);
    loop {
        let mut state = server.saving.state.lock();
        if server.saving.ending.load(Relaxed) {
            return false;
        }
        if state.running.is_none() {
            state.running = Some((purpose, clock::now_ms()));
            return true;
        }
        drop(state);
        std::thread::sleep(ASKED_AGAIN_AFTER);
    }
}

/// Allows the next snapshot to begin.
pub fn end_turn(server: &Arc<Server>) {
    begin_next(server, server.saving.state.lock());
}

/// Switches the log on, and returns when it counts. It is kept from a snapshot that is made here, in its turn, and
/// counts once that snapshot is committed.
///
/// # Errors
/// The text of the failure. The log is then off.
pub fn begin_log(server: &Arc<Server>) -> Result<(), String> {
    if server.store.log().is_active() {
        return Ok(());
    }
    if !wait_for_turn(server, SavePurpose::Rewrite) {
        return Err("the server is ending".into());
    }
    server.saving.last_try_ms.store(clock::now_ms(), Relaxed);
    server.store.keep_log();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| snapshot(server, None)));
    let outcome = outcome.unwrap_or_else(|_| Err("the snapshot panicked".into()));
    if outcome.is_err() {
        // The first error is reported.
        let _ = server.store.turn_log_off();
    }
    let running = server.saving.state.lock().running;
    record(&server.saving, SavePurpose::Rewrite, running, &outcome);
    end_turn(server);
    outcome
}

/// Records the result of a snapshot that [`save_and_stay_closed`] made in its own turn.
pub fn record_save(server: &Server, outcome: &Result<(), String>) {
    let running = server.saving.state.lock().running;
    record(&server.saving, SavePurpose::Save, running, outcome);
}

/// Makes a snapshot on this thread and returns with the gate closed, from the snapshot's instant on, so that nothing
/// is acknowledged that is not in it. Used for the last snapshot, in its own turn.
///
/// # Errors
/// The text of the failure. The gate is closed nevertheless.
pub fn save_and_stay_closed(server: &Server) -> (Result<(), String>, Closed<'_>) {
    let mut closed = None;
    let outcome = snapshot(server, Some(&mut closed));
    (outcome, closed.unwrap_or_else(|| server.gate.close()))
}

/// Makes a snapshot on this thread while the server continues.
#[cfg(test)]
pub fn save_now(server: &Server) -> Result<(), String> {
    snapshot(server, None)
}

/// Makes a snapshot on this thread, in a turn of its own: see [`wait_for_turn`].
///
/// # Errors
/// The text of the failure.
pub fn save_in_turn(server: &Server) -> Result<CommitSummary, String> {
    commit_snapshot(server, None)
}

/// Cuts the log in a turn of its own, and freezes nothing. The caller abandons the cut.
///
/// # Errors
/// The text of the failure.
pub fn cut_log(server: &Server) -> Result<Cut, String> {
    let mut patience = PATIENCE_MIN;
    let cut = server.store.cut(
        || {
            wait_until_loaded(server);
            server.gate.wait_for_slow();
        },
        |take| {
            let closed = server.gate.try_close(patience);
            patience = (patience * 2).min(PATIENCE_MAX);
            let _closed = closed?;
            take();
            Some(())
        },
    );
    cut.map(|((), cut)| cut).map_err(|error| error.to_string())
}

fn snapshot<'a>(server: &'a Server, last: Option<&mut Option<Closed<'a>>>) -> Result<(), String> {
    commit_snapshot(server, last).map(drop)
}

/// Waits until no shard is left to be loaded: it would not be in a snapshot.
fn wait_until_loaded(server: &Server) {
    while server.keyspace.is_loading() {
        std::thread::sleep(LOADING_LOOK);
    }
}

/// Makes a snapshot. If it is the last one, leaves the closed gate in `last`.
///
/// With a damaged shard there is none: it would lack that shard, and what the shard may be rebuilt from would go.
fn commit_snapshot<'a>(server: &'a Server, mut last: Option<&mut Option<Closed<'a>>>) -> Result<CommitSummary, String> {
    wait_until_loaded(server);
    if let Some((_, what)) = server.keyspace.first_damage() {
        return Err(format!("no snapshot is made over damage: {what}"));
    }
    let started = clock::monotonic_us();
    let store = &server.store;
    let may_be_given_up = last.is_none();
    let lacked_room = &server.saving.disk.snapshot_lacked_room;
    // What heals the log, what gives back room on a full disk, and what ends the server is tried all the same: the need
    // is an estimate.
    if may_be_given_up && !store.log().is_poisoned() && !store.log().lacks_room() {
        disk::check_room(server).inspect_err(|_| lacked_room.store(true, Relaxed))?;
    }
    let memory = disk::memory_of_keys(server);
    let mut patience = PATIENCE_MIN;
    let stays_closed = Cell::new(false);
    let wait = || {
        if !stays_closed.get() {
            server.gate.wait_for_slow();
        }
    };
    let frozen_and_cut = store.cut(wait, |take| {
        // If the log fails at its cut, it is cut again, behind the closed gate if that must stay closed.
        let stayed_closed = last.as_mut().and_then(|last| last.take());
        let closed = stayed_closed.or_else(|| server.gate.try_close(patience));
        patience = (patience * 2).min(PATIENCE_MAX);
        let closed = closed?;
        let stopped = clock::monotonic_us();
        let frozen = server.keyspace.freeze(&closed);
        server.saving.held_shards.store(SHARDS, Relaxed);
        let changes = server.saving.changes.load(Relaxed);
        server.saving.progress.begin(server.keyspace.counts().filled().map(|(_, census)| census.keys as u64).sum());
        take();
        let stopped_us = clock::monotonic_us() - stopped;
        server.latency.note(Event::SnapshotFreeze, stopped_us.saturating_mul(1000));
        server.service.freeze_us.record(stopped_us);
        if let Some(last) = &mut last {
            **last = Some(closed);
            stays_closed.set(true);
        }
        Some((frozen, changes, stopped_us))
    });
    let holding = Holding(server);
    let ((mut frozen, changes, stopped_us), cut) = frozen_and_cut.map_err(|error| error.to_string())?;
    let work = || write(server, &mut frozen, &cut, may_be_given_up);
    let written = watched(&server.saving.progress, ("Snapshot", Unit::Things("keys")), Display::Log, work);
    // Dropped without counting as freed: no key was removed on its account.
    drop(frozen);
    drop(holding);
    match written {
        Ok(finished) => {
            let summary = store.commit(cut, finished, retention(server)).map_err(|error| failed(server, &error))?;
            lacked_room.store(false, Relaxed);
            disk::note_snapshot(server, &summary, memory);
            server.saving.changes.fetch_sub(changes, Relaxed);
            let flushed = &server.saving.flushed_changes;
            flushed.store(flushed.load(Relaxed).saturating_sub(changes), Relaxed);
            report(&summary, stopped_us, clock::monotonic_us() - started);
            Ok(summary)
        }
        Err(error) => {
            server.saving.flushed_changes.store(0, Relaxed);
            store.abandon(cut);
            Err(error)
        }
    }
}

/// The text of a failure. Notes whether it is one for want of room.
fn failed(server: &Server, error: &PersistError) -> String {
    server.saving.disk.snapshot_lacked_room.store(error.is_full(), Relaxed);
    error.to_string()
}

/// Which of the replaced generations stay.
fn retention(server: &Server) -> Retention {
    let settings = server.config.settings();
    Retention {
        count: settings.keep_generations as usize,
        age_ms: settings.keep_generations_age * 1000,
        bytes: settings.keep_generations_bytes,
    }
}

/// A snapshot that may hold shards, until this is dropped.
struct Holding<'a>(&'a Server);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.saving.held_shards.store(0, Relaxed);
        self.0.saving.progress.end();
    }
}

fn report(summary: &CommitSummary, stopped_us: u64, all_us: u64) {
    logging::notice(format_args!(
        "DB saved on disk: {} keys, {} bytes in {} ({:.3} seconds; commands stood still for {:.3} ms)",
        summary.entries,
        summary.bytes,
        summary.snapshot,
        all_us as f64 / 1e6,
        stopped_us as f64 / 1e3,
    ));
}

fn write(
    server: &Server,
    frozen: &mut Frozen,
    cut: &Cut,
    may_be_given_up: bool,
) -> Result<crate::persist::FinishedSnapshot, String> {
    let text = |error: PersistError| failed(server, &error);
    let settings = server.config.settings();
    let (compress, pace) =
        (settings.rdbcompression, Pace::by(&server.config, |settings| settings.rdb_key_save_delay_us));
    let mut writer = server.store.snapshot_writer(cut).map_err(text)?;
    let mut body = Vec::new();
    let libraries = frozen.libraries().iter().map(|library| (&*library.name, &*library.code));
    writer.libraries(compress, libraries).map_err(text)?;
    write_graves(frozen, &mut writer, compress, pace, &mut body).map_err(text)?;
    drop(frozen.release_graves());
    for shard in 0..SHARDS {
        if may_be_given_up && server.saving.ending.load(Relaxed) {
            return Err("given up, for the server is ending".into());
        }
        let fill = |chunk: &mut ChunkWriter<'_>| {
            frozen.shard(shard).for_each(|(db, directory)| push_directory(chunk, db, &[], directory, pace, &mut body));
        };
        writer.chunk(shard as u16, compress, fill).map_err(text)?;
        server.saving.progress.add(frozen.shard(shard).map(|(_, directory)| directory.len() as u64).sum());
        drop(frozen.release_shard(shard));
        server.saving.held_shards.store(SHARDS - 1 - shard, Relaxed);
    }
    writer.finish().map_err(text)
}

/// Writes what can be undone of flushes.
fn write_graves(
    frozen: &Frozen,
    writer: &mut SnapshotWriter,
    compress: bool,
    pace: Pace<'_>,
    body: &mut Vec<u8>,
) -> Result<(), PersistError> {
    let listed = frozen.graves().iter().map(|grave| WireGrave {
        id: grave.id,
        only: grave.only,
        at_ms: grave.at_ms,
        until_ms: grave.until_ms,
        bytes: grave.bytes,
    });
    writer.graves(compress, &listed.collect::<Vec<_>>())?;
    let mut of_shards: Vec<Vec<(u64, &Buried)>> = vec![Vec::new(); frozen.shards()];
    for grave in frozen.graves() {
        grave.buried.iter().for_each(|buried| of_shards[usize::from(buried.shard)].push((grave.id, buried)));
    }
    for (shard, all) in of_shards.iter().enumerate().filter(|(_, all)| !all.is_empty()) {
        writer.buried(shard as u16, compress, |chunk| {
            for (id, buried) in all {
                push_directory(chunk, buried.db, &id.to_le_bytes(), &buried.directory, pace, body);
            }
        })?;
    }
    Ok(())
}

/// Adds the keys of a database, each behind a prefix. `body` is a reused buffer for the bytes of a value.
fn push_directory(
    chunk: &mut ChunkWriter<'_>,
    db: u32,
    prefix: &[u8],
    directory: &Directory,
    pace: Pace<'_>,
    body: &mut Vec<u8>,
) {
    let mut prefixed = Vec::new();
    for entry in directory.iter() {
        pace.pause();
        let (expiry, access) = (entry.expiry(), Some(entry.access()));
        let key = if prefix.is_empty() {
            entry.key()
        } else {
            prefixed.clear();
            prefixed.extend_from_slice(prefix);
            prefixed.extend_from_slice(entry.key());
            &prefixed
        };
        let value = entry.value();
        if directory.is_blessed_entry(entry) {
            chunk.bless_next();
        }
        match &value {
            ValueRef::Int(number) => chunk.push(db, key, expiry, access, WireValue::Int(*number)),
            ValueRef::Str(bytes) | ValueRef::Raw(bytes) => {
                chunk.push(db, key, expiry, access, WireValue::Bytes(bytes));
            }
            ValueRef::Packed(..)
            | ValueRef::List(_)
            | ValueRef::Set(_)
            | ValueRef::Hash(_)
            | ValueRef::Zset(_)
            | ValueRef::Stream(_) => {
                // What does not fit is only counted, and is encoded again for the file.
                let mut spilled = 0;
                let Some(tag) = encode_to(value, body, &mut |bytes| spilled += bytes.len() as u64) else { continue };
                if spilled == 0 {
                    chunk.push(db, key, expiry, access, WireValue::Collection(tag, body));
                    continue;
                }
                let len = spilled + body.len() as u64;
                chunk.push_in_parts(db, key, expiry, access, (tag, len), |put| {
                    encode_to(entry.value(), body, put);
                    put(body);
                });
            }
        }
    }
}

/// Encodes a collection into a buffer of bounded size. `spill` receives everything before the part that stays in the
/// buffer.
fn encode_to(value: ValueRef<'_>, body: &mut Vec<u8>, spill: &mut dyn FnMut(&[u8])) -> Option<u8> {
    body.clear();
    codec::encode_in_steps(value, body, &mut |body| {
        if body.len() >= BODY_BYTES {
            spill(body);
            body.clear();
        }
    })
}

/// Records the result of a snapshot, tells those who wait for it, and begins the next one if it is scheduled.
fn finish(server: &Arc<Server>, purpose: SavePurpose, outcome: Result<(), String>) {
    let mut state = server.saving.state.lock();
    record(&server.saving, purpose, state.running, &outcome);
    for waiting in state.waiting.drain(..) {
        // The client may be gone.
        let _ = waiting.send(outcome.clone());
    }
    begin_next(server, state);
}

fn begin_next(server: &Arc<Server>, mut state: MutexGuard<'_, SavingState>) {
    state.running = None;
    let next = state.scheduled.take();
    drop(state);
    if let Some(next) = next {
        request(server, next, false, None);
    }
}

fn record(saving: &Saving, purpose: SavePurpose, running: Option<(SavePurpose, i64)>, outcome: &Result<(), String>) {
    let now = clock::now_ms();
    let (ok, took) = match purpose {
        SavePurpose::Save => (&saving.last_save_ok, &saving.last_save_seconds),
        SavePurpose::Rewrite => (&saving.last_rewrite_ok, &saving.last_rewrite_seconds),
    };
    let given_up = outcome.is_err() && saving.ending.load(Relaxed);
    if !given_up {
        ok.store(outcome.is_ok(), Relaxed);
    }
    took.store(running.map_or(0, |(_, since)| (now - since) / 1000), Relaxed);
    count(saving, purpose, outcome.is_ok());
    match outcome {
        // Either purpose leaves a good snapshot behind.
        Ok(()) => {
            saving.last_save.store(now / 1000, Relaxed);
            saving.last_save_ok.store(true, Relaxed);
        }
        Err(error) => logging::warning(format_args!("Snapshot failed: {error}")),
    }
}

fn count(saving: &Saving, purpose: SavePurpose, ok: bool) {
    match (purpose, ok) {
        (SavePurpose::Save, true) => drop(saving.saves.fetch_add(1, Relaxed)),
        (SavePurpose::Save, false) => {}
        (SavePurpose::Rewrite, true) => {
            saving.rewrites.fetch_add(1, Relaxed);
            saving.rewrite_failures.store(0, Relaxed);
        }
        (SavePurpose::Rewrite, false) => drop(saving.rewrite_failures.fetch_add(1, Relaxed)),
    }
}
