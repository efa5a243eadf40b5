//! The whole path over seeds: commands of many clients, executor, log, snapshots and recovery on a hostile disk.
//!
//! A seed chooses everything: whether the store is encrypted; which client does what and when the log is flushed and
//! synced; which operation of the disk fails, by its number or by its kind, once or for a while; when the disk is full
//! and when it has room again; when the process dies or the power goes, what a power cut leaves, and the same again
//! during recovery.
//!
//! One thread runs all clients, so the order of their commands is known, and with it every state that the keyspace has
//! had. After a crash the recovered state must be one of them, whole, and
//! - not older than the last command of any client that was acknowledged under the policy, or synced;
//! - not newer than what was sent;
//! - with every expiry at its absolute time, and each transaction and script entire or not at all, because states are
//!   taken between them.
//!
//! At the end, replaying the log and loading a snapshot both give the live keyspace.
//!
//! `IRONKEEP_SIM_SEEDS` says how many seeds, `IRONKEEP_SIM_FIRST` with which they begin. A failure prints its seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::testing::{Caller, Dump, random_command, start_in_segments, state};
use crate::base::random::Random;
use crate::core::Server;
use crate::durable::saving;
use crate::exec::PATIENCE;
use crate::exec::testing::{content, with_args};
use crate::persist::FsyncPolicy;
use crate::persist::crypt::tests::{encrypt, encrypt_no_more};
use crate::persist::storage::SimStorage;
use crate::persist::storage::sim::{Fault, Kind};
use crate::resp::Output;

const CLIENTS: usize = 5;
const WORKERS: usize = 3;
const LIVES: u64 = 3;
/// The number of a life that serves while it loads.
const LOADED_BESIDE: u64 = 90;
/// How many seeds run without `IRONKEEP_SIM_SEEDS`.
const SEEDS: u64 = 200;
/// Room that the log keeps for a full disk, in bytes.
const KEPT: u64 = 4000;

/// What all seeds have seen.
#[derive(Default)]
struct Tally {
    lives: AtomicU64,
    commands: AtomicU64,
    power_cuts: AtomicU64,
    deaths: AtomicU64,
    faults: AtomicU64,
    healed: AtomicU64,
    /// Full disks on which the log lived on what it had kept.
    full: AtomicU64,
    /// Crashes after which a suffix that was not acknowledged was gone.
    suffixes: AtomicU64,
    /// Starts that a crash or an error ended.
    starts_ended: AtomicU64,
}

/// A server with its clients, and all states that it has had.
struct World<'t> {
    seed: u64,
    random: Random,
    policy: FsyncPolicy,
    storage: SimStorage,
    server: Arc<Server>,
    callers: Vec<Caller>,
    /// After the start, and after each command or transaction.
    states: Vec<Dump>,
    /// The block that covers each state.
    blocks: Vec<u64>,
    /// A state that a snapshot has made durable.
    saved: usize,
    tally: &'t Tally,
}

impl<'t> World<'t> {
    /// Starts on the disk. The recovered state must be among `allowed`. None: the crash or the error that was planned
    /// has ended the start.
    fn start(seed: u64, life: u64, storage: &SimStorage, allowed: &[Dump], tally: &'t Tally) -> Option<World<'t>> {
        let policy = [FsyncPolicy::Always, FsyncPolicy::EverySec, FsyncPolicy::No][seed as usize % 3];
        // Some end their segments often.
        let segment_bytes = [700, 3000, 64 << 20][(seed / 3) as usize % 3];
        let serves = life == LOADED_BESIDE;
        let server = match start_in_segments(storage, seed * 100 + life + 1, WORKERS, policy, segment_bytes, serves) {
            Ok(server) => server,
            Err(error) => {
                let text = error.to_string();
                assert!(storage.crashed() || text.contains("os error"), "life {life}: {text}");
                tally.starts_ended.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        };
        let found = state(&server);
        let at = allowed.iter().rposition(|state| *state == found);
        let at = at.unwrap_or_else(|| panic!("life {life}: {found:?} is none of {} states", allowed.len()));
        tally.suffixes.fetch_add(u64::from(at + 1 < allowed.len()), Ordering::Relaxed);
        tally.lives.fetch_add(1, Ordering::Relaxed);
        server.store.log().keep_room(KEPT);
        let callers = (0..CLIENTS).map(|client| Caller::new(&server, client % WORKERS)).collect();
        let blocks = vec![server.store.journal().position()];
        let random = Random::from_seed(seed ^ life << 32);
        let storage = storage.clone();
        Some(World { seed, random, policy, storage, server, callers, states: vec![found], blocks, saved: 0, tally })
    }

    fn note(&mut self) {
        self.states.push(content(&self.server.keyspace));
        self.blocks.push(self.server.store.journal().position());
    }

    /// The oldest state that a crash may leave: whatever is acknowledged or synced is kept.
    fn floor(&self, power: bool) -> usize {
        let log = self.server.store.log();
        let kept = if power { log.synced() } else { self.server.store.horizon().max(log.synced()) };
        let covered = self.blocks.iter().rposition(|block| *block <= kept);
        covered.unwrap_or(0).max(self.saved)
    }

    /// One client does something.
    fn act(&mut self) {
        self.tally.commands.fetch_add(1, Ordering::Relaxed);
        let client = self.random.below(CLIENTS as u64) as usize;
        match self.random.below(10) {
            0 => {
                let mut lines = vec!["MULTI".to_owned()];
                lines.extend((0..3).map(|_| random_command(&mut self.random, "k")));
                lines.push("EXEC".to_owned());
                for line in lines {
                    self.callers[client].run(&line);
                }
            }
            1 => {
                let (from, to) = (self.random.below(9), self.random.below(9));
                let text = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1], 'PXAT', ARGV[2]) \
                            if ARGV[3] == '0' then error('no') end return 1";
                let words = ["EVAL", text, "2", &format!("k{from}"), &format!("k{to}")].map(str::to_owned);
                let arguments = [self.random.below(99), 33_177_117_420_000, self.random.below(3)];
                let words: Vec<Vec<u8>> = words
                    .into_iter()
                    .chain(arguments.map(|argument| argument.to_string()))
                    .map(String::into_bytes)
                    .collect();
                let caller = &mut self.callers[client];
                let mut out = Output::new();
                with_args(&words, |args| {
                    while caller.executor.run(&mut caller.client, &[args], &mut out, PATIENCE).parked.is_some() {}
                });
                caller.client.wait = None;
                while let Some(mut script) = caller.executor.take_suspended() {
                    script.resume(Some(&mut caller.client));
                    caller.executor.after_slice(script);
                }
            }
            _ => {
                let line = random_command(&mut self.random, "k");
                self.callers[client].run(&line);
            }
        }
        self.note();
    }

    /// What the threads beside the clients do: flush, sync, sweep, save.
    fn go_on(&mut self) {
        let log = Arc::clone(self.server.store.log());
        match self.random.below(16) {
            0..6 => drop(log.flush()),
            6..10 if self.policy == FsyncPolicy::Always => drop(log.sync_now()),
            // Once a second is seldom.
            6 if self.policy == FsyncPolicy::EverySec => drop(log.sync_now()),
            10 => {
                self.callers[0].executor.sweep_expired(100);
                self.callers[1].executor.relocate(|_| true);
                self.note();
            }
            11 => self.save(),
            12 | 13 => log.tend(),
            14 => log.keep_room(KEPT),
            _ => {}
        }
    }

    fn save(&mut self) {
        if saving::save_now(&self.server).is_ok() {
            self.saved = self.states.len() - 1;
        }
    }

    /// Plans what the disk will do in this life.
    fn plan(&mut self) {
        plan(&self.storage, &mut self.random, self.tally);
    }

    /// Acts until the crash, or for some time.
    fn live(&mut self) {
        for _ in 0..10 + self.random.below(20) {
            if self.storage.crashed() {
                return;
            }
            self.act();
            self.go_on();
        }
        let is_full = self.server.store.log().lacks_room() && !self.server.store.log().is_poisoned();
        self.tally.full.fetch_add(u64::from(is_full), Ordering::Relaxed);
        if self.random.below(2) == 0 || self.storage.crashed() {
            return;
        }
        // The disk works again. A snapshot heals whatever has happened, unless the power goes just then.
        self.storage.repair();
        let was_poisoned = self.server.store.log().is_poisoned();
        self.save();
        if self.storage.crashed() {
            return;
        }
        assert_eq!(self.server.store.log().poisoned(), None, "the log has not healed");
        self.server.store.log().keep_room(KEPT);
        assert!(!self.server.store.log().lacks_room(), "there is room again");
        self.tally.healed.fetch_add(u64::from(was_poisoned), Ordering::Relaxed);
        for _ in 0..4 {
            self.act();
            self.go_on();
        }
    }

    /// Ends this life. Returns what it leaves, and the states that the next one may find.
    fn crash(mut self, power: bool) -> (SimStorage, Vec<Dump>) {
        let floor = self.floor(power);
        let image = match power {
            true => self.storage.recover_image(self.random.next_u64()),
            false => self.storage.process_image(),
        };
        let count = if power { &self.tally.power_cuts } else { &self.tally.deaths };
        count.fetch_add(1, Ordering::Relaxed);
        (image, self.states.split_off(floor))
    }

    /// The log replays to the live keyspace, and so does a snapshot load.
    fn check_reloads(&mut self) {
        self.server.store.log().sync_now().expect("a healthy disk");
        let live = [state(&self.server)];
        for what in [LIVES + 1, LOADED_BESIDE, LIVES + 2, LOADED_BESIDE] {
            World::start(self.seed, what, &self.storage.process_image(), &live, self.tally).expect("a healthy disk");
            if what == LOADED_BESIDE {
                saving::save_now(&self.server).expect("a healthy disk");
            }
        }
    }
}

/// Plans a crash, and perhaps an error of some kind.
fn plan(storage: &SimStorage, random: &mut Random, tally: &Tally) {
    let now = storage.operations();
    if random.below(3) > 0 {
        storage.crash_at(now + random.below(120));
    }
    let fault = [Fault::Io, Fault::NoSpace, Fault::ShortWrite][random.below(3) as usize];
    tally.faults.fetch_add(1, Ordering::Relaxed);
    match random.below(6) {
        0 => storage.fail_at(now + random.below(100), fault),
        1 => storage.fail_from(now + random.below(100), fault),
        2 | 3 => {
            let kind = Kind::ALL[random.below(Kind::ALL.len() as u64) as usize];
            let first = random.below(8);
            storage.fail_kind(kind, first..first + 1 + random.below(3), fault);
        }
        4 => storage.limit(Some(storage.used() + random.below(3000))),
        _ => drop(tally.faults.fetch_sub(1, Ordering::Relaxed)),
    }
}

/// A whole seed: lives, crashes, and a healthy end.
fn run(seed: u64, lies: bool, tally: &Tally) {
    match seed / 9 % 2 {
        0 => encrypt_no_more(),
        _ => encrypt("1", true),
    }
    let mut random = Random::from_seed(seed);
    let mut storage = SimStorage::new();
    let mut allowed = vec![Dump::new()];
    // What the page cache alone holds survives the process, and then no power cut.
    let mut power = true;
    for life in 0..LIVES {
        if lies {
            storage.lie_about_syncs();
        } else if random.below(2) == 0 {
            // The start itself is in danger, several times if need be.
            plan(&storage, &mut random, tally);
        }
        let Some(mut world) = World::start(seed, life, &storage, &allowed, tally) else {
            storage = match power && random.below(2) > 0 {
                true => storage.recover_image(random.next_u64()),
                false => storage.process_image(),
            };
            continue;
        };
        world.plan();
        world.live();
        power = random.below(3) > 0;
        (storage, allowed) = world.crash(power);
    }
    let Some(mut world) = World::start(seed, LIVES, &storage, &allowed, tally) else { panic!("a healthy disk") };
    for _ in 0..5 {
        world.act();
    }
    world.check_reloads();
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn over_many_seeds_nothing_acknowledged_is_lost_and_nothing_else_appears() {
    let (first, seeds) = (number("IRONKEEP_SIM_FIRST", 0), number("IRONKEEP_SIM_SEEDS", SEEDS));
    let (next, tally) = (AtomicU64::new(first), Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, false, &tally)));
                    outcome.unwrap_or_else(|_| panic!("failed: IRONKEEP_SIM_FIRST={seed} IRONKEEP_SIM_SEEDS=1"));
                }
            });
        }
    });
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "simulation: {seeds} seeds, {} lives, {} commands, {} power cuts, {} deaths of the process, {} planned faults, \
         {} healed logs, {} full disks lived on, {} starts ended by a crash or an error, {} unacknowledged suffixes lost, 0 violations",
        count(&tally.lives),
        count(&tally.commands),
        count(&tally.power_cuts),
        count(&tally.deaths),
        count(&tally.faults),
        count(&tally.healed),
        count(&tally.full),
        count(&tally.starts_ended),
        count(&tally.suffixes),
    );
    if seeds >= SEEDS {
        assert!(
            count(&tally.full) > 0
                && count(&tally.healed) > 0
                && count(&tally.suffixes) > 0
                && count(&tally.starts_ended) > 0
        );
    }
}

/// A disk that claims to have synced, and has not: some seed must notice.
#[test]
fn a_disk_that_lies_about_syncs_is_noticed() {
    let lied = |seed: u64| std::panic::catch_unwind(|| run(seed * 3, true, &Tally::default())).is_err();
    assert!((0..60).any(lied), "nobody has noticed");
}
