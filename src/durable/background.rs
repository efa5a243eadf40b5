//! Loads the keyspace while the server serves.
//!
//! What the log says of each shard is a list of places in each segment, from the segment's index or from reading it
//! (`persist/places.rs`). A shard is loaded with nothing but its chunk and its lists, into a keyspace of its own, and
//! installed as a whole. Shards that somebody waits for come first, the others in order, on all cores.
//!
//! - FLUSHALL forgets what the log has said before it, and the snapshot; one that could be undone does so once it can
//!   no more. FLUSHDB, SWAPDB and UNFLUSH concern a shard at a time.
//! - A RENAME or COPY between two shards ties them: they are loaded together, in the order of the log.
//! - Whoever wants a record of an encrypted log opens its block, which has records of many shards. So shards are loaded
//!   several at a time, in one pass along the log, that opens each block once.
//! - A shard that turns out to be damaged is left out, with those that are tied to it: commands that need it are
//!   answered by an error, and no snapshot is made. Nothing wrong is served, and nothing on the disk is removed.

use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};

use crate::base::progress::{Display, Unit, watched};
use crate::base::{clock, logging};
use crate::core::{Hook, Server};
use crate::durable::loading::{self, refused};
use crate::durable::pace::Pace;
use crate::exec::{Replayer, replay};
use crate::keyspace::graveyard::unite;
use crate::keyspace::{Buried, Grave, Graveyard, Keyspace, SHARDS, shard_of};
use crate::persist::index::Places;
use crate::persist::snapshot::SnapshotReader;
use crate::persist::verbs::{Undoable, Verb};
use crate::persist::{Chunk, Effect, PersistError, Position, Record, Recovery, WireGrave, position};
use crate::value::Limits;

/// What is to be loaded, by shard.
pub struct Plan {
    /// The barriers of the log that concern keys, in order.
    barriers: Vec<Barrier>,
    /// The group of each shard, named by one of its shards.
    groups: Groups,
    /// The sequence number of each shard's last record.
    sequences: Vec<u64>,
    /// Where the log counts from: the last FLUSHALL.
    from: Place,
    /// Whether the snapshot counts.
    with_snapshot: bool,
    /// The flushes that the snapshot knows, without their keys.
    listed: Vec<WireGrave>,
    /// Where the log will be forgotten up to, if a flush of all databases is not undone, the oldest first.
    markers: Vec<Marker>,
    /// Records of the log, for the report.
    records: u64,
    /// One more than the highest database that the log, or a flush of the snapshot, speaks of.
    databases: u32,
}

/// How many shards are loaded at a time if the log is encrypted and long.
const TOGETHER_MAX: u64 = 64;
/// How many times a thread does so, so that whoever comes first is served soon,
const SMALL_PASSES: usize = 2;
/// and how many are loaded at a time then: with fewer passes all are loaded sooner.
const TOGETHER_LATER: usize = 256;
/// For each so many bytes of an encrypted log, one more shard is loaded at a time: a short one is soon read again.
const TOGETHER_BYTES: u64 = if cfg!(test) { 512 } else { 256 << 10 };
/// How many chunks of a snapshot are looked at to see which databases it has.
const SAMPLES: usize = 8;

/// A flush of all databases in the log: what lies behind it.
struct Marker {
    /// Its number.
    id: u64,
    /// Where it is.
    place: Place,
    /// How many barriers there were, that one included.
    barriers: usize,
    /// The groups behind it.
    groups: Groups,
}

/// The most markers at a time.
const MARKERS_MAX: usize = 16;

/// A place in the log among its barriers: a segment, and how many barriers of that came before.
type Place = (usize, u64);

/// A barrier that concerns keys.
struct Barrier {
    place: Place,
    position: Position,
    /// The shard whose group it concerns, or all.
    of: Option<u16>,
}

/// Which shards are tied to each other.
struct Groups(Vec<u16>);

impl Groups {
    fn new() -> Groups {
        Groups((0..SHARDS as u16).collect())
    }

    fn of(&self, mut shard: u16) -> u16 {
        while self.0[usize::from(shard)] != shard {
            shard = self.0[usize::from(shard)];
        }
        shard
    }

    fn tie(&mut self, one: u16, other: u16) {
        let (one, other) = (self.of(one), self.of(other));
        self.0[usize::from(one.max(other))] = one.min(other);
    }

    /// The shards of some groups, ascending.
    fn members(&self, groups: &[u16]) -> Vec<u16> {
        (0..SHARDS as u16).filter(|&shard| groups.contains(&self.of(shard))).collect()
    }
}

impl Plan {
    /// Reads the barriers of the log. The libraries of functions are loaded on the way. `None` if the store can only be
    /// loaded as a whole: parts of its log are of format version 1, or concern every shard.
    ///
    /// # Errors
    /// A segment is damaged where its barriers are, or has records of a database that there is not.
    pub fn of(recovery: &Recovery, keyspace: &Keyspace, limits: Limits) -> Result<Option<Plan>, PersistError> {
        if !recovery.has_positions() {
            return Ok(None);
        }
        let mut plan = Plan {
            barriers: Vec::new(),
            groups: Groups::new(),
            sequences: vec![0; SHARDS],
            from: (0, 0),
            with_snapshot: true,
            listed: recovery.graves()?,
            markers: Vec::new(),
            records: 0,
            databases: 1,
        };
        plan.databases = plan.listed.iter().filter_map(|grave| grave.only).max().map_or(1, |db| db.saturating_add(1));
        let (mut replayer, mut records) = (Replayer::new(limits), recovery.records());
        for segment in 0..recovery.segment_count() {
            let databases = recovery.databases_in(segment)?;
            loading::check_databases(keyspace, databases)?;
            plan.databases = plan.databases.max(databases);
            for shard in 0..SHARDS as u16 {
                if let Some((records, last)) = recovery.count_in(segment, shard)? {
                    plan.records += records;
                    plan.sequences[usize::from(shard)] = last;
                }
            }
            for (offset, nth) in recovery.barriers_in(segment)? {
                let position = position(segment, offset);
                let record = records.at(position)?;
                plan.records += 1;
                if !plan.note_barrier((segment, nth), position, &record, keyspace, &mut replayer)? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(plan))
    }

    /// Notes a barrier. False if it concerns every shard at once.
    fn note_barrier(
        &mut self,
        place: Place,
        position: Position,
        record: &Record<'_>,
        keyspace: &Keyspace,
        replayer: &mut Replayer,
    ) -> Result<bool, PersistError> {
        match verb(record) {
            Some(Verb::FlushAll) => {
                self.barriers.clear();
                self.groups = Groups::new();
                self.markers.clear();
                (self.from, self.with_snapshot) = (place, false);
                keyspace.graveyard().take_all();
            }
            Some(Verb::FlushDb) => self.barriers.push(Barrier { place, position, of: None }),
            Some(Verb::SwapDbs { one, other }) => {
                self.barriers.push(Barrier { place, position, of: None });
                self.databases = self.databases.max(one.max(other).saturating_add(1));
                keyspace.graveyard().swap(one, other);
            }
            Some(Verb::Bury { .. } | Verb::Unbury { .. } | Verb::ForgetBuried { .. }) => {
                self.barriers.push(Barrier { place, position, of: None });
                self.pass_flush(place, record, &mut keyspace.graveyard())?;
            }
            Some(Verb::Transfer { source, to_db, destination, .. }) => {
                self.databases = self.databases.max(to_db.saturating_add(1));
                let [source, destination] = [source, destination].map(|key| shard_of(keyspace.seed().hash(key)));
                self.tie(source, destination);
                self.barriers.push(Barrier { place, position, of: Some(source) });
            }
            Some(Verb::SetLibrary { .. } | Verb::DropLibrary(_) | Verb::DropLibraries) => {
                replay(keyspace, replayer, record).map_err(refused)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Notes a barrier of flushes. The graveyard holds those that can be undone then, without their keys.
    fn pass_flush(&mut self, place: Place, record: &Record<'_>, yard: &mut Graveyard) -> Result<(), PersistError> {
        match verb(record) {
            Some(Verb::Bury { all, flush }) => {
                if yard.graves().iter().any(|grave| grave.id >= flush.id) {
                    return Err(refused("BURY: the number of an earlier flush".into()));
                }
                yard.announce(empty_grave(record.db, all, flush));
                if all && self.markers.len() < MARKERS_MAX {
                    let (barriers, groups) = (self.barriers.len(), Groups::new());
                    self.markers.push(Marker { id: flush.id, place, barriers, groups });
                }
            }
            Some(Verb::Unbury { id, .. }) => {
                if yard.take(id).is_none() {
                    return Err(refused("UNBURY: there is no such flush".into()));
                }
                // What came before it is there again, and so before each later flush.
                self.markers.retain(|marker| marker.id < id);
            }
            Some(Verb::ForgetBuried { id }) => {
                yard.take(id);
                let oldest = yard.graves().first().map_or(u64::MAX, |grave| grave.id);
                if let Some(at) = self.markers.iter().rposition(|marker| marker.id < oldest) {
                    let marker = self.markers.drain(..=at).next_back();
                    marker.into_iter().for_each(|marker| self.forget_before(&marker));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets all that came before a flush that cannot be undone any more.
    fn forget_before(&mut self, marker: &Marker) {
        self.markers.iter_mut().for_each(|later| later.barriers -= marker.barriers);
        self.barriers.drain(..marker.barriers);
        self.groups = Groups(marker.groups.0.clone());
        (self.from, self.with_snapshot) = (marker.place, false);
    }

    fn tie(&mut self, one: u16, other: u16) {
        self.groups.tie(one, other);
        self.markers.iter_mut().for_each(|marker| marker.groups.tie(one, other));
    }

    /// Whether there is database 0 alone, as far as the log and a few chunks of the snapshot tell. If others have keys
    /// nevertheless, their shards cannot be loaded into a keyspace of one database.
    pub fn has_first_database_alone(&self, recovery: &Recovery) -> bool {
        let Some(snapshot) = recovery.snapshot().filter(|_| self.with_snapshot && self.databases == 1) else {
            return self.databases == 1;
        };
        let filled: Vec<u16> = (0..SHARDS as u16).filter(|&shard| snapshot.stored_bytes(shard) > 0).collect();
        let samples = filled.iter().step_by(filled.len().div_ceil(SAMPLES).max(1));
        // What is damaged tells nothing, and will be met again.
        let chunks = samples.flat_map(|&shard| [recovery.shard_chunk(shard), recovery.buried(shard)]);
        let is_first = |chunk: Chunk<'_>| !chunk.iter().any(|entry| entry.is_ok_and(|entry| entry.db != 0));
        chunks.filter_map(|chunk| chunk.ok().flatten()).all(is_first)
    }

    /// How many shards are best loaded at a time.
    fn together(recovery: &Recovery) -> usize {
        (recovery.encrypted_bytes() / TOGETHER_BYTES).clamp(1, TOGETHER_MAX) as usize
    }

    /// Loads groups of shards. Returns how many keys their chunks held, and the flushes that can be undone.
    fn load(&self, groups: &[u16], job: &Job<'_>) -> Result<(u64, Vec<Grave>), PersistError> {
        let (members, staged) = (self.groups.members(groups), job.staged);
        let (mut keys, mut graves) = (0, Vec::new());
        if self.with_snapshot {
            let empty = |listed: &WireGrave| {
                let flush = Undoable { id: listed.id, at_ms: listed.at_ms, until_ms: listed.until_ms };
                empty_grave(listed.only.unwrap_or_default(), listed.only.is_none(), flush)
            };
            graves.extend(self.listed.iter().map(empty));
            for &shard in &members {
                keys += loading::load_shard(staged, job.recovery, &job.limits, shard, job.pace)?;
                for (id, buried) in loading::load_buried(staged, job.recovery, &job.limits, shard, job.pace)? {
                    let grave: Option<&mut Grave> = graves.iter_mut().find(|grave| grave.id == id);
                    grave
                        .ok_or_else(|| refused("the snapshot has keys of an unknown flush".into()))?
                        .buried
                        .push(buried);
                }
            }
        }
        self.replay(groups, &members, job, &mut graves)?;
        for &shard in &members {
            staged.lock(shard).sequence = self.sequences[usize::from(shard)];
        }
        Ok((keys, graves))
    }

    /// Applies what the log says of groups of shards.
    fn replay(
        &self,
        groups: &[u16],
        members: &[u16],
        job: &Job<'_>,
        graves: &mut Vec<Grave>,
    ) -> Result<(), PersistError> {
        let (mut replayer, mut records) = (Replayer::new(job.limits), job.recovery.records());
        let concerns = |barrier: &&Barrier| barrier.of.is_none_or(|shard| groups.contains(&self.groups.of(shard)));
        let mut barriers = self.barriers.iter().filter(concerns).peekable();
        for segment in self.from.0..job.recovery.segment_count() {
            let places = members.iter().map(|&shard| Ok(job.recovery.places(segment, shard)?.peekable()));
            let mut lists = places.collect::<Result<Vec<_>, PersistError>>()?;
            loop {
                let next = lists.iter_mut().filter_map(|list| list.peek().map(|(_, passed)| *passed)).min();
                let barrier = barriers.peek().filter(|barrier| barrier.place.0 == segment);
                let Some(passed) = next.into_iter().chain(barrier.map(|barrier| barrier.place.1)).min() else { break };
                if let Some(barrier) = barriers.next_if(|barrier| barrier.place == (segment, passed)) {
                    let record = records.at(barrier.position)?;
                    Self::apply_barrier(&record, members, job, &mut replayer, graves)?;
                }
                let counts = (segment, passed) >= self.from;
                let first = |list: &mut Peekable<Places<'_>>| list.peek().filter(|(_, at)| *at == passed).copied();
                while let Some((offset, _)) = lists.iter_mut().filter_map(first).min() {
                    let end = records.same_block(position(segment, offset))?;
                    for list in &mut lists {
                        while let Some((offset, _)) = list.next_if(|(at, barriers)| *barriers == passed && *at < end) {
                            if counts {
                                job.pace.pause();
                                let record = records.at(position(segment, offset))?;
                                loading::apply(job.staged, &mut replayer, &record)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies a barrier to a group of shards that it concerns, and to what flushes took out of them.
    fn apply_barrier(
        record: &Record<'_>,
        members: &[u16],
        job: &Job<'_>,
        replayer: &mut Replayer,
        graves: &mut Vec<Grave>,
    ) -> Result<(), PersistError> {
        let staged = job.staged;
        match verb(record) {
            Some(Verb::FlushDb) => members.iter().for_each(|&shard| {
                staged.lock(shard).replace_directory(record.db, None);
            }),
            Some(Verb::SwapDbs { one, other }) => {
                if one.max(other) >= staged.databases() {
                    return Err(refused("SWAPDB: a database beyond the `databases` directive".into()));
                }
                members.iter().for_each(|&shard| staged.lock(shard).swap(one, other));
                graves.iter_mut().for_each(|grave| grave.swap(one, other));
            }
            Some(Verb::Bury { all, flush }) => {
                let mut grave = empty_grave(record.db, all, flush);
                grave.buried = take_out(staged, members, &grave);
                graves.push(grave);
            }
            Some(Verb::Unbury { id, replaces }) => {
                let Some(at) = graves.iter().position(|grave| grave.id == id) else {
                    return Err(refused("UNBURY: there is no such flush".into()));
                };
                let grave = graves.remove(at);
                if replaces {
                    drop(take_out(staged, members, &grave));
                }
                for Buried { shard, db, directory } in grave.buried {
                    let mut shard = staged.lock(shard);
                    let united = match shard.put_directory(db, None) {
                        Some(newer) => unite(newer, directory),
                        None => directory,
                    };
                    shard.put_directory(db, Some(united));
                }
            }
            Some(Verb::ForgetBuried { id }) => graves.retain(|grave| grave.id != id),
            Some(Verb::Transfer { .. }) => loading::apply(staged, replayer, record)?,
            _ => return Err(refused("a barrier has changed since it was read".into())),
        }
        Ok(())
    }
}

/// Loads a store a few shards at a time, into a keyspace of the caller's own, and drops them again: no more of them are
/// in memory. `goes_on` is asked before each time, with the bytes of the chunks. Returns how many keys the store holds;
/// `None` if it was ended.
///
/// # Errors
/// Any damage.
pub fn load_in_turn(
    (recovery, plan): (&Recovery, &Plan),
    staged: &Keyspace,
    limits: Limits,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Option<u64>, PersistError> {
    let job = Job { recovery, staged, limits, pace: Pace::default() };
    let mut keys = 0;
    let all: Vec<u16> = (0..SHARDS as u16).filter(|&shard| plan.groups.of(shard) == shard).collect();
    // They take memory beside the keys that are served.
    for groups in all.chunks(Plan::together(recovery).div_ceil(8)) {
        let members = plan.groups.members(groups);
        let chunk = |snapshot: &SnapshotReader| members.iter().map(|&shard| snapshot.stored_bytes(shard)).sum();
        if !goes_on(recovery.snapshot().map_or(0, chunk)) {
            return Ok(None);
        }
        plan.load(groups, &job)?;
        for shard in members {
            keys += loading::drop_shard(staged, shard);
        }
    }
    Ok(Some(keys))
}

/// A flush that the log or the snapshot tells of, without its keys.
fn empty_grave(db: u32, all: bool, Undoable { id, at_ms, until_ms }: Undoable) -> Grave {
    Grave { id, at_ms, until_ms, bytes: 0, only: (!all).then_some(db), buried: Vec::new() }
}

/// Takes the databases of a flush out of these shards.
fn take_out(staged: &Keyspace, members: &[u16], grave: &Grave) -> Vec<Buried> {
    let mut taken = Vec::new();
    for &number in members {
        let mut shard = staged.lock(number);
        let filled: Vec<u32> = shard.databases().map(|(db, _)| db).filter(|&db| grave.covers(db)).collect();
        for db in filled {
            let directory = shard.replace_directory(db, None).filter(|directory| !directory.is_empty());
            taken.extend(directory.map(|directory| Buried { shard: number, db, directory }));
        }
    }
    taken
}

fn verb<'a>(record: &Record<'a>) -> Option<Verb<'a>> {
    match record.effect {
        Effect::Verb(encoded) => Some(encoded.verb()),
        Effect::Words(_) => None,
    }
}

/// What the loading threads share.
struct Job<'a> {
    recovery: &'a Recovery,
    staged: &'a Keyspace,
    limits: Limits,
    pace: Pace<'a>,
}

/// Takes all shards from the server's keyspace, which is empty, and loads them on threads of their own. The server does
/// not serve yet.
pub fn start(server: Arc<Server>, recovery: Recovery, plan: Plan, limits: Limits) {
    let started = clock::monotonic_us();
    server.keyspace.begin_loading();
    server.gate.begin_loading();
    server.loading.begin(recovery.snapshot().map_or(0, SnapshotReader::chunk_bytes) + recovery.summary().log_bytes);
    let staged = Keyspace::new(server.keyspace.databases(), server.keyspace.seed());
    let work = Arc::new(Work {
        server,
        recovery,
        plan,
        staged,
        limits,
        taken: (0..SHARDS).map(|_| AtomicBool::new(false)).collect(),
        next: AtomicU16::new(0),
        keys: AtomicU64::new(0),
        left: AtomicUsize::new(SHARDS),
        started,
    });
    for number in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        let own = Arc::clone(&work);
        let thread = std::thread::Builder::new().name(format!("loader-{number}")).spawn(move || match number {
            0 => watched(&own.server.loading, ("Loading", Unit::Bytes), Display::Log, || own.run()),
            _ => own.run(),
        });
        if thread.is_err() && number == 0 {
            // The server cannot do without.
            work.run();
        }
    }
}

struct Work {
    server: Arc<Server>,
    recovery: Recovery,
    plan: Plan,
    staged: Keyspace,
    limits: Limits,
    /// Which groups somebody loads or has loaded.
    taken: Box<[AtomicBool]>,
    next: AtomicU16,
    keys: AtomicU64,
    /// Shards that are not installed.
    left: AtomicUsize,
    started: u64,
}

impl Work {
    fn run(&self) {
        match catch_unwind(AssertUnwindSafe(|| self.load_all())) {
            Ok(()) => {}
            Err(_) => {
                logging::warning(format_args!("The data cannot be loaded, the server ends: the loader has panicked"));
                std::process::exit(1);
            }
        }
    }

    fn load_all(&self) {
        let pace = Pace::by(&self.server.config, |settings| settings.key_load_delay_us);
        let job = Job { recovery: &self.recovery, staged: &self.staged, limits: self.limits, pace };
        let together = Plan::together(&self.recovery);
        for pass in 0.. {
            let is_later = together == TOGETHER_MAX as usize && pass >= SMALL_PASSES;
            let together = if is_later { TOGETHER_LATER } else { together };
            let groups: Vec<u16> = std::iter::from_fn(|| self.next_group()).take(together).collect();
            if groups.is_empty() {
                return;
            }
            self.load_groups(&groups, &job);
        }
    }

    fn load_groups(&self, groups: &[u16], job: &Job<'_>) {
        let members = self.plan.groups.members(groups);
        match self.plan.load(groups, job) {
            // Whose damage is it?
            Err(_) if groups.len() > 1 => {
                self.clear(&members);
                return groups.iter().for_each(|&group| self.load_groups(&[group], job));
            }
            loaded => match loaded.and_then(|(keys, graves)| self.add(graves).map(|()| keys)) {
                Ok(keys) => {
                    self.keys.fetch_add(keys, Relaxed);
                    members.iter().for_each(|&shard| self.server.keyspace.install(shard, &self.staged));
                    self.server.saving.loaded_keys.fetch_add(keys, Relaxed);
                }
                Err(error) => self.leave_out(&members, &error),
            },
        }
        let chunks = |snapshot: &SnapshotReader| members.iter().map(|&shard| snapshot.stored_bytes(shard)).sum();
        let log = self.recovery.summary().log_bytes * members.len() as u64 / SHARDS as u64;
        self.server.loading.add(self.recovery.snapshot().map_or(0, chunks) + log);
        // The last one sees what the others have installed.
        if self.left.fetch_sub(members.len(), AcqRel) == members.len() {
            self.finish();
        }
    }

    /// Adds the keys of flushes that can be undone to those of other shards.
    fn add(&self, graves: Vec<Grave>) -> Result<(), PersistError> {
        for Grave { id, buried, .. } in graves {
            if !self.server.keyspace.graveyard().add(id, buried) {
                return Err(refused("a flush has changed since it was read".into()));
            }
        }
        Ok(())
    }

    /// Drops what was loaded of shards that are not installed.
    fn clear(&self, members: &[u16]) {
        members.iter().for_each(|&shard| {
            loading::drop_shard(&self.staged, shard);
        });
    }

    /// Leaves out shards that cannot be loaded: one of them is damaged, and the others are tied to it.
    fn leave_out(&self, members: &[u16], error: &PersistError) {
        self.clear(members);
        let shards = match members {
            [only] => format!("shard {only} of {SHARDS}"),
            [first, tied @ ..] => format!("shard {first} of {SHARDS} and {} tied to it", tied.len()),
            [] => return,
        };
        let what: Arc<str> = format!("{shards} cannot be loaded: {error}; see 'ironkeep repair'").into();
        members.iter().for_each(|&shard| self.server.keyspace.note_damage(shard, &what));
        // Before the gate can be closed: see `Group::close`.
        self.server.hooks.set(Hook::Damage, true);
        logging::warning(format_args!("Damage in the data: commands on some keys are answered by an error: {what}"));
    }

    /// A group that nobody has taken: one with a shard that somebody waits for, else the next.
    fn next_group(&self) -> Option<u16> {
        let take = |shard: u16| {
            let group = self.plan.groups.of(shard);
            (!self.taken[usize::from(group)].swap(true, Relaxed)).then_some(group)
        };
        loop {
            while let Some(shard) = self.server.keyspace.next_wanted() {
                if let Some(group) = take(shard) {
                    return Some(group);
                }
            }
            let shard = self.next.fetch_add(1, Relaxed);
            if usize::from(shard) >= SHARDS {
                // What others still load is theirs.
                self.next.store(SHARDS as u16, Relaxed);
                return None;
            }
            if let Some(group) = take(shard) {
                return Some(group);
            }
        }
    }

    fn finish(&self) {
        self.server.keyspace.graveyard().drop_empty();
        self.server.keyspace.end_loading();
        self.server.gate.end_loading();
        self.server.store.index_the_rest(&self.recovery);
        self.server.loading.end();
        let seconds = (clock::monotonic_us() - self.started) as f64 / 1e6;
        logging::notice(format_args!(
            "DB loaded from disk beside the clients: {seconds:.3} seconds; {} keys of the snapshot, {} records of the log",
            self.keys.load(Relaxed),
            self.plan.records,
        ));
    }
}
