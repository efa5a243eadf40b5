//! Executor, log, fsync thread and snapshots under a scheduler: a seed decides who goes on at every lock, and the
//! simulated power goes at some operation.
//!
//! There is no tokio here. A client waits for its block as a connection does, and is woken by the log's progress.
//! Threads that all wait for each other, locks in a wrong order and lost wake-ups end the run. What the clients saw,
//! and what a recovery finds afterwards, is checked for linearizability.
//!
//! `IRONKEEP_SCHEDULE_SEEDS` says how many seeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::keys::{Call, Keys, KeysModel};
use super::linear::{Checker, End, Op};
use super::testing::{Caller, start};
use crate::base::lock::{Condvar, Mutex};
use crate::base::random::Random;
use crate::base::schedule;
use crate::core::Server;
use crate::durable::saving;
use crate::persist::storage::SimStorage;
use crate::persist::{FsyncPolicy, fsync};

const CLIENTS: usize = 3;
const CALLS: u64 = 6;
/// How many seeds run without `IRONKEEP_SCHEDULE_SEEDS`.
const SEEDS: u64 = 60;

type History = Vec<Op<Call, String>>;

/// Where clients sleep until the log has advanced.
#[derive(Default)]
struct Progress {
    lock: Mutex<()>,
    wake: Condvar,
}

/// What one client may send.
fn some_call(random: &mut Random, unique: u64) -> Call {
    match random.below(7) {
        0 | 1 => Call::of(&format!("INCRBY n {unique}")),
        2 => Call::of(&format!("SET k {unique}")),
        3 => Call::of("GET k"),
        4 => Call::of("MGET a b"),
        5 => Call::of(&format!("MSET a {unique} b {unique}")),
        _ => Call::transaction(&[format!("SET a {unique}"), format!("SET b {unique}")]),
    }
}

/// The reply of the executor to a call, as it stands in the output.
fn execute(caller: &mut Caller, call: &Call) -> String {
    let run = |caller: &mut Caller, line: &str| caller.run_raw(line);
    if !call.transaction {
        return run(caller, &call.commands[0].join(" "));
    }
    run(caller, "MULTI");
    for command in &call.commands {
        run(caller, &command.join(" "));
    }
    run(caller, "EXEC")
}

/// Calls, and after each call waits for the block that covers all that its reply may show.
fn client(server: &Arc<Server>, worker: usize, seed: u64, ticks: &AtomicU64, progress: &Progress) -> History {
    let mut caller = Caller::new(server, worker);
    let mut random = Random::from_seed(seed);
    let log = server.store.log();
    let mut history = History::new();
    for _ in 0..CALLS {
        let began = ticks.fetch_add(1, Ordering::SeqCst);
        let call = some_call(&mut random, began + 1);
        let reply = execute(&mut caller, &call);
        let block = log.journal().position();
        let mut guard = progress.lock.lock();
        let answered = loop {
            // As a connection's flush does.
            drop(guard);
            if log.policy() == FsyncPolicy::Always {
                if block > log.synced() {
                    log.kick();
                }
            } else {
                let _ = log.flush();
            }
            guard = progress.lock.lock();
            if block <= server.store.horizon() {
                break true;
            }
            if log.is_poisoned() {
                break false;
            }
            progress.wake.wait(&mut guard);
        };
        drop(guard);
        let end = match answered && !reply.starts_with("-MISCONF") {
            true => End::Answered(ticks.fetch_add(1, Ordering::SeqCst), reply),
            false => End::Open,
        };
        let over = matches!(end, End::Open);
        history.push(Op { client: worker, call, began, end });
        if over {
            break;
        }
    }
    history
}

/// One seed. Returns how many calls were answered, and whether the power went.
fn run(seed: u64, lies: bool) -> Result<(u64, bool), String> {
    let storage = SimStorage::new();
    let mut random = Random::from_seed(seed);
    let server = start(&storage, seed + 1, CLIENTS, FsyncPolicy::Always).map_err(|error| error.to_string())?;
    if lies {
        storage.lie_about_syncs();
    }
    if random.below(4) > 0 {
        storage.crash_at(storage.operations() + random.below(60));
    }
    // Under other policies, only the process may die.
    let switches = random.below(3) == 0 && !lies;
    let (progress, ticks) = (Arc::new(Progress::default()), AtomicU64::new(0));
    let woken = Arc::clone(&progress);
    server.store.log().on_progress(Box::new(move || {
        drop(woken.lock.lock());
        woken.wake.notify_all();
    }));
    let histories: Vec<Mutex<History>> = (0..CLIENTS).map(|_| Mutex::default()).collect();
    let (running, over) = (AtomicUsize::new(CLIENTS), AtomicBool::new(false));
    let mut threads: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
    for (worker, history) in histories.iter().enumerate() {
        let (server, ticks, progress, running, over) = (&server, &ticks, &progress, &running, &over);
        let seed = random.next_u64();
        threads.push(Box::new(move || {
            *history.lock() = client(server, worker, seed, ticks, progress);
            if running.fetch_sub(1, Ordering::SeqCst) == 1 {
                over.store(true, Ordering::SeqCst);
                server.store.log().signal.stop();
            }
        }));
    }
    let log = server.store.log();
    threads.push(Box::new(|| fsync::run(log)));
    let saves = random.below(3);
    threads.push(Box::new(|| {
        for _ in 0..saves {
            if !over.load(Ordering::SeqCst) {
                // The power may go meanwhile.
                let _ = saving::save_now(&server);
            }
        }
    }));
    if switches {
        threads.push(Box::new(|| {
            for policy in [FsyncPolicy::EverySec, FsyncPolicy::Always, FsyncPolicy::No, FsyncPolicy::Always] {
                schedule::point();
                log.set_policy(policy);
            }
        }));
    }
    schedule::run(seed, threads);
    let mut history: History = histories.into_iter().flat_map(Mutex::into_inner).collect();
    let answered = history.iter().filter(|op| matches!(op.end, End::Answered(..))).count() as u64;
    let died = ticks.fetch_add(1, Ordering::SeqCst);
    for op in &mut history {
        if matches!(op.end, End::Open) {
            op.end = End::Died(died);
        }
    }
    let image = if switches { storage.process_image() } else { storage.recover_image(seed) };
    let after = start(&image, seed + 2, 1, FsyncPolicy::Always).map_err(|error| error.to_string())?;
    let mut looking = Caller::new(&after, 0);
    for look in ["GET n", "GET k", "MGET a b"].map(Call::of) {
        let began = ticks.fetch_add(1, Ordering::SeqCst);
        let reply = execute(&mut looking, &look);
        let end = End::Answered(ticks.fetch_add(1, Ordering::SeqCst), reply);
        history.push(Op { client: usize::MAX, call: look, began, end });
    }
    Checker::<KeysModel>::new(Keys::new()).feed(history)?;
    Ok((answered, storage.crashed()))
}

#[test]
fn in_every_order_nothing_waits_for_ever_and_all_replies_are_explained() {
    let seeds = std::env::var("IRONKEEP_SCHEDULE_SEEDS").map_or(SEEDS, |text| text.parse().expect("a number"));
    let (mut answered, mut crashed) = (0, 0);
    for seed in 0..seeds {
        let (of_seed, power) = run(seed, false).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        answered += of_seed;
        crashed += u64::from(power);
    }
    println!("schedules: {seeds} seeds, {answered} calls answered, {crashed} power cuts, 0 violations");
    assert!(answered > seeds && crashed > seeds / 4, "{answered} {crashed}");
}

/// The planted bug: replies that leave before their sync.
#[test]
fn a_disk_that_lies_about_syncs_is_noticed_by_the_clients() {
    assert!((0..40).any(|seed| run(seed, true).is_err()), "nobody has noticed");
}
