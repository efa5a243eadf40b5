//! Which keys are used most: the session of HOTKEYS START, as in Redis 8.6, and the windows of `hotkeys-top-k`, as in
//! Valkey 9.2.
//!
//! Each worker counts in summaries of its own, and a reader adds them up. A summary keeps a fixed number of keys
//! (Space-Saving): a key that is not among them replaces the least one and takes over its count as its error.
//!
//! Invariants:
//! - While neither form is on, [`Hook::Hotkeys`] is not set, and no command comes here.
//! - Memory is bounded by [`SLOTS_PER_KEY`] times the number of keys that are asked for, of at most
//!   [`KEY_BYTES_MAX`] each, a worker. Longer keys are not counted.
//! - The lock of the state comes before those of the workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::config::Settings;
use crate::base::lock::{Mutex, Rank};
use crate::base::per_worker::PerWorker;
use crate::base::random;
use crate::base::slot::{self, SLOTS};
use crate::core::hooks::{Hook, Hooks};
use crate::keyspace::Key;

/// How many keys a summary keeps for each one that is shown.
pub const SLOTS_PER_KEY: usize = 10;
/// The longest key that is counted.
pub const KEY_BYTES_MAX: usize = 4096;

/// A key and what was counted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its database.
    pub db: u32,
    /// The key.
    pub key: Vec<u8>,
    /// The count.
    pub count: u64,
    /// The part of the count that may belong to others.
    pub error: u64,
}

/// The keys with the highest counts, approximately.
#[derive(Debug)]
pub(super) struct Summary {
    capacity: usize,
    places: HashMap<(u32, u64), usize>,
    /// Each key with the hash by which it is found.
    entries: Vec<(u64, Counted)>,
    /// Everything that was counted.
    total: u64,
}

impl Summary {
    pub(super) fn new(capacity: usize) -> Summary {
        Summary { capacity: capacity.max(1), places: HashMap::new(), entries: Vec::new(), total: 0 }
    }

    pub(super) fn add(&mut self, db: u32, (key, hash): (&[u8], u64), count: u64) {
        self.total += count;
        if let Some(&at) = self.places.get(&(db, hash)) {
            self.entries[at].1.count += count;
            return;
        }
        let mut counted = Counted { db, key: key.to_vec(), count, error: 0 };
        if self.entries.len() < self.capacity {
            self.places.insert((db, hash), self.entries.len());
            self.entries.push((hash, counted));
            return;
        }
        let least = self.entries.iter().enumerate().min_by_key(|(_, (_, entry))| entry.count);
        let at = least.map_or(0, |(at, _)| at);
        let (old_hash, old) = &self.entries[at];
        self.places.remove(&(old.db, *old_hash));
        counted.error = old.count;
        counted.count += old.count;
        self.places.insert((db, hash), at);
        self.entries[at] = (hash, counted);
    }

    fn bytes(&self) -> usize {
        let keys: usize = self.entries.iter().map(|(_, entry)| entry.key.capacity()).sum();
        keys + self.entries.capacity() * size_of::<(u64, Counted)>() + self.places.capacity() * 32
    }
}

/// The highest counts of all summaries together, at most `most`, highest first.
pub(super) fn merged<'a>(summaries: impl Iterator<Item = &'a Summary>, most: usize) -> Vec<Counted> {
    let mut all: HashMap<(u32, u64), Counted> = HashMap::new();
    for (hash, entry) in summaries.flat_map(|summary| &summary.entries) {
        all.entry((entry.db, *hash))
            .and_modify(|sum| {
                sum.count += entry.count;
                sum.error += entry.error;
            })
            .or_insert_with(|| entry.clone());
    }
    let mut all: Vec<Counted> = all.into_values().filter(|entry| entry.count > 0).collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.db, &a.key).cmp(&(b.db, &b.key))));
    all.truncate(most);
    all
}

/// A set of slots of cluster clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSet(Box<[bool; SLOTS]>);

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet(Box::new([false; SLOTS]))
    }
}

impl SlotSet {
    /// Adds a slot. Returns false if it was there, or if there is no such slot.
    pub fn insert(&mut self, slot: u16) -> bool {
        self.0.get_mut(usize::from(slot)).is_some_and(|present| !std::mem::replace(present, true))
    }

    /// Whether a slot is there.
    pub fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot)).copied().unwrap_or(false)
    }

    /// The slots as ranges, first and last, ascending.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in (0..SLOTS as u16).filter(|slot| self.contains(*slot)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }
}

/// Time and bytes of some commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Their time, in nanoseconds.
    pub time_ns: u64,
    /// The bytes of their requests and replies.
    pub net_bytes: u64,
}

impl Cost {
    fn add(&mut self, used: &Used<'_>) {
        self.time_ns += used.took_ns;
        self.net_bytes += used.net_bytes;
    }

    fn sum(costs: impl Iterator<Item = Cost>) -> Cost {
        costs.fold(Cost::default(), |sum, cost| Cost {
            time_ns: sum.time_ns + cost.time_ns,
            net_bytes: sum.net_bytes + cost.net_bytes,
        })
    }

    /// Their time in microseconds, rounded up.
    pub fn time_us(self) -> u64 {
        self.time_ns.div_ceil(1000)
    }
}

/// What HOTKEYS START asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Count the time that commands take.
    pub cpu: bool,
    /// Count the bytes of requests and replies.
    pub net: bool,
    /// How many keys to show.
    pub count: usize,
    /// Stop after this many milliseconds; 0 for never.
    pub duration_ms: u64,
    /// Look at one of this many commands.
    pub sample_ratio: u64,
    /// Count keys of these slots alone.
    pub slots: Option<Arc<SlotSet>>,
}

/// The session of HOTKEYS START.
#[derive(Clone, Debug)]
struct Session {
    wish: Wish,
    started_ms: i64,
    /// Microseconds of processor time of the process by then: by itself, and in the kernel.
    started_cpu_us: (u64, u64),
    /// How long it ran, in milliseconds, once it has stopped.
    stopped_after_ms: Option<u64>,
}

/// What HOTKEYS GET tells of a session.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// What was asked for.
    pub wish: Wish,
    /// Whether it still counts.
    pub is_active: bool,
    /// When it began, Unix ms.
    pub started_ms: i64,
    /// How long it has run.
    pub duration_ms: u64,
    /// Processor time of the process when it began, in microseconds: by itself, and in the kernel.
    pub started_cpu_us: (u64, u64),
    /// What all commands with keys cost,
    pub all: Cost,
    /// of these, those whose keys are in the slots that were asked for,
    pub selected: Cost,
    /// and of these, those that were looked at.
    pub sampled: Cost,
    /// The bytes that were counted for keys.
    pub net_bytes_of_keys: u64,
    /// The keys that took the most time, in microseconds.
    pub by_time_us: Vec<Counted>,
    /// The keys with the most bytes.
    pub by_net_bytes: Vec<Counted>,
    /// The memory of all that.
    pub memory: usize,
    /// The time that counting took, in milliseconds.
    pub counting_ms: u64,
}

/// The directives of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    top_k: usize,
    sampled_percent: u64,
    length: Duration,
}

/// The last whole window.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    /// Its keys; the counts are of what was sampled.
    pub keys: Vec<Counted>,
    /// The percentage of accesses that was sampled.
    pub sampled_percent: u64,
    /// How long it was.
    pub length: Duration,
    /// How many accesses were sampled.
    pub samples: u64,
}

impl Frozen {
    /// How often a second a key was used.
    pub fn per_second(&self, counted: &Counted) -> u64 {
        let (us, percent) = (self.length.as_micros(), u128::from(self.sampled_percent));
        if us == 0 || percent == 0 {
            return 0;
        }
        // The true count is between the count and what is left of it without its error.
        let twice = u128::from(2 * counted.count - counted.error.min(counted.count));
        let divisor = 2 * percent * us;
        ((twice * 100 * 1_000_000 + divisor / 2) / divisor) as u64
    }
}

/// What is on.
#[derive(Debug)]
struct State {
    session: Option<Session>,
    windows: Option<Windows>,
    window_began: Instant,
    frozen: Frozen,
}

/// What one worker counts.
#[derive(Debug, Default)]
struct Part {
    session: Option<PartOfSession>,
    window: Option<(Windows, Summary)>,
}

#[derive(Debug)]
struct PartOfSession {
    sample_ratio: u64,
    slots: Option<Arc<SlotSet>>,
    is_active: bool,
    by_time_ns: Option<Summary>,
    by_net_bytes: Option<Summary>,
    all: Cost,
    selected: Cost,
    sampled: Cost,
    counting: Duration,
}

fn part(worker: usize) -> Mutex<Part> {
    Mutex::indexed(Rank::Register, worker as u32 + 1, Part::default())
}

impl PartOfSession {
    /// That of a session which begins.
    fn of(wish: &Wish) -> PartOfSession {
        let summary = |wanted: bool| wanted.then(|| Summary::new(wish.count * SLOTS_PER_KEY));
        PartOfSession {
            sample_ratio: wish.sample_ratio,
            slots: wish.slots.clone(),
            is_active: true,
            by_time_ns: summary(wish.cpu),
            by_net_bytes: summary(wish.net),
            all: Cost::default(),
            selected: Cost::default(),
            sampled: Cost::default(),
            counting: Duration::ZERO,
        }
    }
}

/// A command that ran.
#[derive(Debug)]
pub struct Used<'a> {
    /// Its keys.
    pub keys: &'a [Key<'a>],
    /// The database.
    pub db: u32,
    /// How long it took.
    pub took_ns: u64,
    /// The bytes of its request and its reply.
    pub net_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Hotkeys {
    state: Mutex<State>,
    parts: PerWorker<Mutex<Part>>,
}

impl Hotkeys {
    /// Nothing is counted.
    pub fn new(workers: usize) -> Hotkeys {
        let state = State { session: None, windows: None, window_began: Instant::now(), frozen: Frozen::default() };
        Hotkeys { state: Mutex::new(Rank::Register, state), parts: PerWorker::new(workers, part) }
    }

    /// Adds the part of one worker more, unless there can be no more. It counts whatever is counted just now.
    pub fn add_worker(&self) {
        let state = self.state.lock();
        let session = state.session.as_ref().map(|session| {
            let is_active = session.stopped_after_ms.is_none();
            PartOfSession { is_active, ..PartOfSession::of(&session.wish) }
        });
        let window = state.windows.map(|windows| (windows, Summary::new(windows.top_k)));
        let new = part(self.parts.len());
        *new.lock() = Part { session, window };
        let _ = self.parts.add(new);
    }

    /// Counts the keys of a command that a worker has run.
    pub fn count(&self, worker: usize, used: &Used<'_>) {
        let &Used { keys, net_bytes, .. } = used;
        let (true, Some(part)) = (!keys.is_empty(), self.parts.get(worker)) else { return };
        let mut part = part.lock();
        let named = || keys.iter().filter(|key| key.bytes.len() <= KEY_BYTES_MAX).map(|key| (key.bytes, key.hash));
        if let Some(session) = part.session.as_mut().filter(|session| session.is_active) {
            let begun = Instant::now();
            session.all.add(used);
            // All keys of a command are in one slot.
            let is_selected = session.slots.as_ref().is_none_or(|slots| slots.contains(slot::of_key(keys[0].bytes)));
            if is_selected {
                session.selected.add(used);
            }
            let ratio = session.sample_ratio;
            if is_selected && (ratio <= 1 || random::with(|random| random.next_u64() % ratio == 0)) {
                session.sampled.add(used);
                let each = keys.len() as u64;
                let figures = [(&mut session.by_time_ns, used.took_ns), (&mut session.by_net_bytes, net_bytes)];
                for (summary, figure) in figures {
                    let Some(summary) = summary else { continue };
                    named().for_each(|key| summary.add(0, key, figure / each));
                }
            }
            session.counting += begun.elapsed();
        }
        if let Some((windows, summary)) = &mut part.window {
            let percent = windows.sampled_percent;
            for key in named() {
                if percent >= 100 || random::with(|random| random.next_u64() % 100 < percent) {
                    summary.add(used.db, key, 1);
                }
            }
        }
    }

    /// Begins a session. Returns false if one is running.
    pub fn start(&self, wish: Wish, now_ms: i64, cpu_us: (u64, u64), hooks: &Hooks) -> bool {
        let mut state = self.state.lock();
        self.stop_when_due(&mut state, now_ms, hooks);
        if state.session.as_ref().is_some_and(|session| session.stopped_after_ms.is_none()) {
            return false;
        }
        for part in &self.parts {
            part.lock().session = Some(PartOfSession::of(&wish));
        }
        let (started_ms, started_cpu_us) = (now_ms, cpu_us);
        state.session = Some(Session { wish, started_ms, started_cpu_us, stopped_after_ms: None });
        set_hook(&state, hooks);
        true
    }

    /// Ends the session, whose figures stay. Returns false if none is running.
    pub fn stop(&self, now_ms: i64, hooks: &Hooks) -> bool {
        let mut state = self.state.lock();
        self.stop_when_due(&mut state, now_ms, hooks);
        self.stop_at(&mut state, now_ms, hooks)
    }

    fn stop_at(&self, state: &mut State, now_ms: i64, hooks: &Hooks) -> bool {
        let running = state.session.as_mut().filter(|session| session.stopped_after_ms.is_none());
        let Some(session) = running else { return false };
        session.stopped_after_ms = Some((now_ms - session.started_ms).max(0) as u64);
        for part in &self.parts {
            if let Some(session) = &mut part.lock().session {
                session.is_active = false;
            }
        }
        set_hook(state, hooks);
        true
    }

    /// Stops a session whose time is over.
    fn stop_when_due(&self, state: &mut State, now_ms: i64, hooks: &Hooks) {
        let ends = state.session.as_ref().filter(|session| session.wish.duration_ms > 0);
        let ends = ends.map(|session| session.started_ms.saturating_add_unsigned(session.wish.duration_ms));
        if let Some(end) = ends.filter(|end| *end <= now_ms) {
            self.stop_at(state, end, hooks);
        }
    }

    /// Forgets everything. Returns false, and does nothing, if a session is running.
    pub fn reset(&self, now_ms: i64, hooks: &Hooks) -> bool {
        let mut state = self.state.lock();
        self.stop_when_due(&mut state, now_ms, hooks);
        if state.session.as_ref().is_some_and(|session| session.stopped_after_ms.is_none()) {
            return false;
        }
        state.session = None;
        (state.frozen, state.window_began) = (Frozen::default(), Instant::now());
        for part in &self.parts {
            let mut part = part.lock();
            part.session = None;
            if let Some((windows, summary)) = &mut part.window {
                *summary = Summary::new(windows.top_k);
            }
        }
        true
    }

    /// Follows the directives of windows. The last whole window stays, unless windows are switched off.
    pub fn follow(&self, settings: &Settings, hooks: &Hooks) {
        let windows = (settings.hotkeys_top_k > 0).then(|| Windows {
            top_k: settings.hotkeys_top_k,
            sampled_percent: settings.hotkeys_sampling_percentage,
            length: Duration::from_secs(settings.hotkeys_window_seconds),
        });
        let mut state = self.state.lock();
        if state.windows == windows {
            return;
        }
        (state.windows, state.window_began) = (windows, Instant::now());
        if windows.is_none() {
            state.frozen = Frozen::default();
        }
        for part in &self.parts {
            part.lock().window = windows.map(|windows| (windows, Summary::new(windows.top_k)));
        }
        set_hook(&state, hooks);
    }

    /// Ends what is due at these times: a session, a window.
    pub fn tick(&self, now_ms: i64, now: Instant, hooks: &Hooks) {
        let mut state = self.state.lock();
        self.stop_when_due(&mut state, now_ms, hooks);
        let Some(windows) = state.windows else { return };
        let length = now.saturating_duration_since(state.window_began);
        if length < windows.length {
            return;
        }
        state.window_began = now;
        let mut summaries = Vec::new();
        for part in &self.parts {
            if let Some((_, summary)) = &mut part.lock().window {
                summaries.push(std::mem::replace(summary, Summary::new(windows.top_k)));
            }
        }
        state.frozen = match length > 2 * windows.length {
            // It tells nothing of the last seconds.
            true => Frozen::default(),
            false => Frozen {
                keys: merged(summaries.iter(), windows.top_k),
                sampled_percent: windows.sampled_percent,
                length,
                samples: summaries.iter().map(|summary| summary.total).sum(),
            },
        };
    }

    /// The session that was started last, if it was not reset.
    pub fn session(&self, now_ms: i64) -> Option<SessionReport> {
        let state = self.state.lock();
        let session = state.session.clone()?;
        let parts: Vec<_> = self.parts.iter().map(|part| part.lock()).collect();
        let parts: Vec<&PartOfSession> = parts.iter().filter_map(|part| part.session.as_ref()).collect();
        let summaries = || parts.iter().flat_map(|part| [&part.by_time_ns, &part.by_net_bytes]).flatten();
        let count = session.wish.count;
        let mut by_time_us = merged(parts.iter().filter_map(|part| part.by_time_ns.as_ref()), count);
        by_time_us.iter_mut().for_each(|entry| entry.count = entry.count.div_ceil(1000));
        let by_net = || parts.iter().filter_map(|part| part.by_net_bytes.as_ref());
        Some(SessionReport {
            is_active: session.stopped_after_ms.is_none(),
            started_ms: session.started_ms,
            duration_ms: session.stopped_after_ms.unwrap_or((now_ms - session.started_ms).max(0) as u64),
            started_cpu_us: session.started_cpu_us,
            all: Cost::sum(parts.iter().map(|part| part.all)),
            selected: Cost::sum(parts.iter().map(|part| part.selected)),
            sampled: Cost::sum(parts.iter().map(|part| part.sampled)),
            net_bytes_of_keys: by_net().map(|summary| summary.total).sum(),
            by_time_us,
            by_net_bytes: merged(by_net(), count),
            memory: summaries().map(Summary::bytes).sum(),
            counting_ms: parts.iter().map(|part| part.counting).sum::<Duration>().as_millis() as u64,
            wish: session.wish,
        })
    }

    /// The last whole window; `None` while `hotkeys-top-k` is 0.
    pub fn window(&self) -> Option<Frozen> {
        let state = self.state.lock();
        state.windows.map(|_| state.frozen.clone())
    }
}

fn set_hook(state: &State, hooks: &Hooks) {
    let is_active = state.session.as_ref().is_some_and(|session| session.stopped_after_ms.is_none());
    hooks.set(Hook::Hotkeys, is_active || state.windows.is_some());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_keeps_the_heavy_keys_and_bounds_its_errors() {
        let mut summary = Summary::new(8);
        for round in 0..1000_u64 {
            summary.add(0, (b"hot", 1), 1);
            summary.add(0, (b"warm", 2), u64::from(round % 2 == 0));
            summary.add(0, (format!("cold:{round}").as_bytes(), 100 + round), 1);
            assert!(summary.entries.len() <= 8 && summary.places.len() == summary.entries.len());
        }
        let top = merged([&summary].into_iter(), 2);
        assert_eq!(top.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [&b"hot"[..], b"warm"]);
        assert_eq!((top[0].count, top[0].error), (1000, 0));
        assert_eq!(summary.total, 2500);
    }

    #[test]
    fn workers_add_up_and_databases_are_apart() {
        let (mut one, mut other) = (Summary::new(4), Summary::new(4));
        one.add(0, (b"a", 1), 5);
        other.add(0, (b"a", 1), 7);
        other.add(1, (b"a", 1), 3);
        let top = merged([&one, &other].into_iter(), 9);
        assert_eq!(top.iter().map(|entry| (entry.db, entry.count)).collect::<Vec<_>>(), [(0, 12), (1, 3)]);
    }

    #[test]
    fn a_worker_that_is_added_counts_what_is_counted() {
        let (hotkeys, hooks) = (Hotkeys::new(1), Hooks::default());
        let wish = Wish { cpu: true, net: false, count: 4, duration_ms: 0, sample_ratio: 1, slots: None };
        assert!(hotkeys.start(wish, 1, (0, 0), &hooks));
        hotkeys.add_worker();
        let keys = [Key { bytes: b"a", hash: 1 }];
        hotkeys.count(1, &Used { keys: &keys, db: 0, took_ns: 5000, net_bytes: 0 });
        let session = hotkeys.session(2).expect("it runs");
        assert_eq!(session.by_time_us.iter().map(|entry| entry.count).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_rate_is_the_middle_of_what_it_may_be() {
        let frozen = Frozen { sampled_percent: 50, length: Duration::from_secs(2), ..Frozen::default() };
        let counted = |count, error| Counted { db: 0, key: Vec::new(), count, error };
        assert_eq!(frozen.per_second(&counted(100, 0)), 100);
        assert_eq!(frozen.per_second(&counted(100, 100)), 50);
        assert_eq!(Frozen::default().per_second(&counted(100, 0)), 0);
    }
}
