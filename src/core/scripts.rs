//! The scripts that the server knows, by the SHA-1 of their text, and those that run.
//!
//! Invariants:
//! - A script that others need to know of, because it is not over at once, is in the register of those that run.
//! - What `SCRIPT LOAD` put there stays until `SCRIPT FLUSH`. What `EVAL` put there is dropped, oldest use
//!   first, when it takes more than its share: a client that puts its arguments into the text fills no memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use sha1::{Digest, Sha1};

use crate::base::clock;
use crate::base::lock::{Mutex, Rank};
use crate::core::CommandError;
use crate::core::error::{FUNCTION_RUNS, SCRIPT_RUNS};
use crate::core::hooks::{Hook, Hooks};
pub use crate::keyspace::libraries::ScriptFlags;
use crate::keyspace::{Library, SHARDS};

/// How many scripts of `EVAL` are kept, as in Redis 7.4.
const EVALUATED_MAX: usize = 500;
/// And how many bytes of their texts.
const EVALUATED_BYTES_MAX: usize = 32 << 20;

/// 40 hex digits, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha([u8; 40]);

impl Sha {
    /// The digest of a text.
    pub fn of(text: &[u8]) -> Sha {
        let mut digits = [0; 40];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(Sha1::digest(text)) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
        Sha(digits)
    }

    /// The digest that a client names, in either case; `None` if it is none.
    pub fn parse(text: &[u8]) -> Option<Sha> {
        let digits: [u8; 40] = text.try_into().ok()?;
        digits.iter().all(u8::is_ascii_hexdigit).then(|| Sha(digits.map(|digit| digit.to_ascii_lowercase())))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// One script.
#[derive(Debug)]
pub struct Script {
    /// Its name.
    pub sha: Sha,
    /// Its text.
    pub body: Box<[u8]>,
    /// What it says about itself.
    pub flags: ScriptFlags,
    /// A number that no other script has: the machines know it by that.
    pub number: u64,
    /// Whether it was found to need more than its declared keys.
    runs_alone: AtomicBool,
    /// The function that it stands for, and which one of its library that is; `None` for a script.
    pub function: Option<(Arc<Library>, usize)>,
}

impl Script {
    /// A script with this text, which says this about itself.
    pub fn new(sha: Sha, body: Box<[u8]>, flags: ScriptFlags) -> Script {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Relaxed);
        Script { sha, body, flags, number, runs_alone: AtomicBool::new(false), function: None }
    }

    /// What stands for a function of a library. What calls have shown of it is noted there.
    pub fn of_function(library: &Arc<Library>, at: usize) -> Script {
        let flags = library.functions.get(at).map(|function| function.flags).unwrap_or_default();
        let (runs_alone, function) = (AtomicBool::new(false), Some((Arc::clone(library), at)));
        Script { sha: Sha([b'0'; 40]), body: Box::default(), flags, number: u64::MAX, runs_alone, function }
    }

    /// Its name in errors: the SHA-1 of a script, or the name of a function.
    pub fn name(&self) -> Cow<'_, str> {
        match self.function.as_ref().map(|(library, at)| library.functions.get(*at)) {
            None => self.sha.as_str().into(),
            Some(function) => function.map(|function| String::from_utf8_lossy(&function.name)).unwrap_or_default(),
        }
    }

    /// Whether it runs alone from the beginning.
    #[inline]
    pub fn runs_alone(&self) -> bool {
        match &self.function {
            None => self.runs_alone.load(Relaxed),
            Some((library, at)) => {
                library.keeps_state.is_so() || library.functions.get(*at).is_none_or(|one| one.runs_alone.is_so())
            }
        }
    }

    /// Remembers that it needs more than its declared keys.
    pub fn set_runs_alone(&self) {
        match self.function.as_ref().and_then(|(library, at)| library.functions.get(*at)) {
            None => self.runs_alone.store(true, Relaxed),
            Some(function) => function.runs_alone.note(),
        }
    }
}

#[derive(Debug)]
struct Known {
    script: Arc<Script>,
    /// When it was last used, by the count of uses; `None` if it was loaded and is never dropped.
    used: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Scripts {
    known: Mutex<Table>,
    /// Raised by each flush, so that compiled forms are dropped, too.
    generation: AtomicU64,
    /// Scripts that were dropped to make room: `evicted_scripts`.
    pub evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    scripts: HashMap<Sha, Known>,
    uses: u64,
    /// Those that may be dropped, by their last use.
    evaluated: BTreeMap<u64, Sha>,
    evaluated_bytes: usize,
    bytes: usize,
}

impl Default for Scripts {
    fn default() -> Self {
        Scripts {
            known: Mutex::new(Rank::Register, Table::default()),
            generation: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }
}

impl Scripts {
    /// The script of this name.
    pub fn get(&self, sha: &Sha) -> Option<Arc<Script>> {
        let mut table = self.known.lock();
        table.uses += 1;
        let Table { scripts, uses, evaluated, .. } = &mut *table;
        let known = scripts.get_mut(sha)?;
        if let Some(used) = &mut known.used {
            evaluated.remove(used);
            evaluated.insert(*uses, *sha);
            *used = *uses;
        }
        Some(Arc::clone(&known.script))
    }

    /// Whether there is a script of this name.
    pub fn has(&self, sha: &Sha) -> bool {
        self.known.lock().scripts.contains_key(sha)
    }

    /// Adds a script, or keeps the one that is there. `stays` says that it is never dropped, from now on.
    pub fn add(&self, script: Arc<Script>, stays: bool) {
        let mut table = self.known.lock();
        table.uses += 1;
        let (uses, bytes, sha) = (table.uses, script.body.len(), script.sha);
        if let Some(known) = table.scripts.get_mut(&sha) {
            if let Some(used) = known.used.take_if(|_| stays) {
                table.evaluated.remove(&used);
                table.evaluated_bytes -= bytes;
            }
            return;
        }
        table.bytes += bytes;
        if !stays {
            table.evaluated.insert(uses, sha);
            table.evaluated_bytes += bytes;
        }
        table.scripts.insert(script.sha, Known { script, used: (!stays).then_some(uses) });
        let is_over = |table: &Table| {
            let count = table.evaluated.len();
            count > EVALUATED_MAX || (count > 1 && table.evaluated_bytes > EVALUATED_BYTES_MAX)
        };
        while is_over(&table) {
            table.drop_oldest();
            self.evicted.fetch_add(1, Relaxed);
        }
    }

    /// Forgets all scripts.
    pub fn flush(&self) {
        let old = std::mem::take(&mut *self.known.lock());
        self.generation.fetch_add(1, Relaxed);
        drop(old);
    }

    /// A number that is another one after each flush.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// How many scripts there are, and the bytes of their texts.
    pub fn size(&self) -> (usize, usize) {
        let table = self.known.lock();
        (table.scripts.len(), table.bytes)
    }
}

impl Table {
    fn drop_oldest(&mut self) {
        let oldest = self.evaluated.pop_first();
        if let Some(known) = oldest.and_then(|(_, sha)| self.scripts.remove(&sha)) {
            self.evaluated_bytes -= known.script.body.len();
            self.bytes -= known.script.body.len();
        }
    }
}

/// One run of a script, as others see it: SCRIPT KILL, and those who need its keys.
#[derive(Debug, Default)]
pub struct RunningScript {
    /// When it was first looked at, in microseconds of the monotonic clock.
    since_us: AtomicU64,
    /// One of the states below. It leaves [`CLEAN`] once, so that a script is either killed or may write.
    state: AtomicU8,
    /// Whether it has given its worker back.
    paused: AtomicBool,
    /// The call, if it is one of a function, from when it is looked at.
    function: Mutex<Option<Arc<FunctionCall>>>,
}

/// A call of a function, for FUNCTION STATS.
#[derive(Debug, PartialEq, Eq)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// The words of the call.
    pub words: Vec<Box<[u8]>>,
}

/// It may be killed.
const CLEAN: u8 = 0;
/// It may have changed something that would stand if it ended now.
const WRITTEN: u8 = 1;
/// It was asked to end.
const KILLED: u8 = 2;

/// The answer to `SCRIPT KILL` and `FUNCTION KILL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// They will end.
    Done,
    /// There is none.
    NotBusy,
    /// What runs is a function, and a script was asked for, or the other way round.
    OfOtherKind,
    /// It has written, and what it has written is not taken back.
    Unkillable,
}

impl RunningScript {
    /// Begins another run.
    pub fn begin(&self) {
        self.state.store(CLEAN, Relaxed);
    }

    /// The call, if it is one of a function.
    pub fn function(&self) -> Option<Arc<FunctionCall>> {
        self.function.lock().clone()
    }

    fn is_function(&self) -> bool {
        self.function.lock().is_some()
    }

    /// It gives its worker back.
    pub fn note_pause(&self) {
        self.paused.store(true, Relaxed);
    }

    /// Another script begins.
    pub fn forget_pauses(&self) {
        self.paused.store(false, Relaxed);
    }

    /// Whether it has ever given its worker back.
    pub fn has_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    /// Whether it was asked to end.
    #[inline]
    pub fn is_killed(&self) -> bool {
        self.state.load(Relaxed) == KILLED
    }

    /// It is about to change something, and nothing will take that back. False if it was asked to end before.
    pub fn begin_write(&self) -> bool {
        self.state.compare_exchange(CLEAN, WRITTEN, Relaxed, Relaxed) != Err(KILLED)
    }

    /// Asks it to end. False if it has written what is not taken back.
    pub fn kill(&self) -> bool {
        self.state.compare_exchange(CLEAN, KILLED, Relaxed, Relaxed) != Err(WRITTEN)
    }

    /// How long it has been running, in milliseconds.
    pub fn running_ms(&self) -> u64 {
        self.running_us() / 1000
    }

    /// The same in microseconds.
    pub fn running_us(&self) -> u64 {
        clock::monotonic_us().saturating_sub(self.since_us.load(Relaxed))
    }
}

/// The scripts that run just now and have been looked at: those that are not over at once.
#[derive(Debug)]
pub struct RunningScripts {
    all: Mutex<Vec<Arc<RunningScript>>>,
    /// How many of them have run for too long,
    long: AtomicUsize,
    /// and how many of those run alone.
    alone: AtomicUsize,
    /// The shards that the others of those hold, as bits.
    shards: [AtomicU64; SHARDS / 64],
    /// Whether the server ends: no script may go on that can be taken back.
    ending: AtomicBool,
}

impl Default for RunningScripts {
    fn default() -> Self {
        RunningScripts {
            all: Mutex::new(Rank::Register, Vec::new()),
            long: AtomicUsize::new(0),
            alone: AtomicUsize::new(0),
            shards: [const { AtomicU64::new(0) }; SHARDS / 64],
            ending: AtomicBool::new(false),
        }
    }
}

impl RunningScripts {
    /// A script is looked at for the first time, or a call of a function.
    pub fn enter(&self, script: &Arc<RunningScript>, function: Option<FunctionCall>) {
        script.since_us.store(clock::monotonic_us(), Relaxed);
        *script.function.lock() = function.map(Arc::new);
        self.all.lock().push(Arc::clone(script));
    }

    /// It has ended. `held` is what it had been found to hold for too long.
    pub fn leave(&self, script: &Arc<RunningScript>, held: Option<LongHeld<'_>>, hooks: &Hooks) {
        let mut all = self.all.lock();
        all.retain(|other| !Arc::ptr_eq(other, script));
        match held {
            None => return,
            Some(LongHeld::Everything) => {
                self.alone.fetch_sub(1, Relaxed);
            }
            Some(LongHeld::Shards(shards)) => shards.iter().for_each(|shard| self.set(*shard, false)),
        }
        if self.long.fetch_sub(1, Relaxed) == 1 {
            hooks.set(Hook::Busy, false);
        }
    }

    /// One of them has run for too long, and holds this.
    pub fn grow_long(&self, held: LongHeld<'_>, hooks: &Hooks) {
        let _all = self.all.lock();
        match held {
            LongHeld::Everything => drop(self.alone.fetch_add(1, Relaxed)),
            LongHeld::Shards(shards) => shards.iter().for_each(|shard| self.set(*shard, true)),
        }
        self.long.fetch_add(1, Relaxed);
        hooks.set(Hook::Busy, true);
    }

    /// One that has run for too long holds a shard more.
    pub fn hold_more(&self, shard: u16) {
        self.set(shard, true);
    }

    fn set(&self, shard: u16, held: bool) {
        let (word, bit) = (&self.shards[usize::from(shard) / 64], 1 << (shard % 64));
        match held {
            true => word.fetch_or(bit, Relaxed),
            false => word.fetch_and(!bit, Relaxed),
        };
    }

    /// Whether one that has run for too long holds this shard, or everything.
    pub fn is_held(&self, shard: u16) -> bool {
        self.holds_everything() || self.shards[usize::from(shard) / 64].load(Relaxed) & (1 << (shard % 64)) != 0
    }

    /// Whether one has run for too long that is alone.
    pub fn holds_everything(&self) -> bool {
        self.alone.load(Relaxed) > 0
    }

    /// The one that has been running longest.
    pub fn oldest(&self) -> Option<Arc<RunningScript>> {
        self.all.lock().first().cloned()
    }

    /// What a command is told that needs what one of them holds.
    pub fn busy_error(&self) -> CommandError {
        match self.oldest().is_some_and(|script| script.is_function()) {
            true => FUNCTION_RUNS,
            false => SCRIPT_RUNS,
        }
    }

    /// Asks those to end that have run for longer than `long_ms`; if there is none, the one that has run longest. Only
    /// functions are asked, or only scripts.
    pub fn kill(&self, long_ms: u64, functions: bool) -> Kill {
        let running = self.all.lock().clone();
        let all: Vec<_> = running.iter().filter(|script| script.is_function() == functions).collect();
        if all.is_empty() && !running.is_empty() {
            return Kill::OfOtherKind;
        }
        let long = all.iter().take_while(|script| script.running_ms() > long_ms).count();
        // They are in the order in which they began.
        let asked = &all[..long.max(1).min(all.len())];
        let killed = asked.iter().filter(|script| script.kill()).count();
        match (asked.len(), killed) {
            (0, _) => Kill::NotBusy,
            (_, 0) => Kill::Unkillable,
            _ => Kill::Done,
        }
    }

    /// Sets whether the server ends. While it does, scripts end that can be taken back.
    pub fn set_ending(&self, ending: bool) {
        self.ending.store(ending, Relaxed);
    }

    /// Whether the server ends.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }
}

/// What a script holds.
#[derive(Clone, Copy, Debug)]
pub enum LongHeld<'a> {
    /// Everything: it runs alone.
    Everything,
    /// These shards.
    Shards(&'a [u16]),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Arc<Script> {
        let body: Box<[u8]> = text.as_bytes().into();
        Arc::new(Script::new(Sha::of(&body), body, ScriptFlags::default()))
    }

    #[test]
    fn names_are_sha1_in_hex() {
        assert_eq!(Sha::of(b"return 1").as_str(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(Sha::parse(b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB"), Some(Sha::of(b"return 1")));
        assert_eq!(Sha::parse(b"abc"), None);
        assert_eq!(Sha::parse(&[b'g'; 40]), None);
    }

    #[test]
    fn what_was_evaluated_makes_room_and_what_was_loaded_stays() {
        let scripts = Scripts::default();
        scripts.add(script("loaded"), true);
        scripts.add(script("first"), false);
        scripts.add(script("promoted"), false);
        scripts.add(script("promoted"), true);
        for number in 0..EVALUATED_MAX {
            scripts.add(script(&format!("return {number}")), false);
            assert!(scripts.get(&Sha::of(b"return 0")).is_some(), "the first of them is used again and again");
        }
        assert!(scripts.has(&Sha::of(b"loaded")) && scripts.has(&Sha::of(b"promoted")));
        assert!(!scripts.has(&Sha::of(b"first")));
        assert_eq!((scripts.size().0, scripts.evicted.load(Relaxed)), (EVALUATED_MAX + 2, 1));
        scripts.flush();
        assert_eq!((scripts.size(), scripts.generation()), ((0, 0), 1));
    }
}
