//! The scripts that the server knows, by the SHA-1 of their text, and the one that runs.
//!
//! Invariant: what `SCRIPT LOAD` put there stays until `SCRIPT FLUSH`. What `EVAL` put there is dropped, oldest use
//! first, when it takes more than its share: a client that puts its arguments into the text fills no memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

use sha1::{Digest, Sha1};

use crate::base::clock;
use crate::base::lock::{Mutex, Rank};

/// How many scripts of `EVAL` are kept, as in Redis 7.4.
const EVALUATED_MAX: usize = 500;
/// And how many bytes of their texts.
const EVALUATED_BYTES_MAX: usize = 32 << 20;

/// What a script says about itself. Without a first line of this form it says nothing, and then what it may do is
/// decided command by command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptFlags {
    /// Whether there is such a line at all.
    pub declared: bool,
    /// `no-writes`: it changes nothing.
    pub no_writes: bool,
    /// `allow-oom`: it runs above `maxmemory`.
    pub allow_oom: bool,
    /// `allow-stale`: it runs on a stale replica.
    pub allow_stale: bool,
    /// `no-cluster`: it does not run in a cluster.
    pub no_cluster: bool,
    /// `allow-cross-slot-keys`: its keys may be in several slots.
    pub allow_cross_slot_keys: bool,
}

impl ScriptFlags {
    /// Sets one flag by its name.
    ///
    /// # Errors
    /// There is no such flag.
    pub fn set(&mut self, word: &[u8]) -> Result<(), Vec<u8>> {
        let flag = match word {
            b"no-writes" => &mut self.no_writes,
            b"allow-oom" => &mut self.allow_oom,
            b"allow-stale" => &mut self.allow_stale,
            b"no-cluster" => &mut self.no_cluster,
            b"allow-cross-slot-keys" => &mut self.allow_cross_slot_keys,
            _ => return Err(word.to_vec()),
        };
        *flag = true;
        Ok(())
    }

    /// The names of the flags that are set, as FUNCTION LIST shows them.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.no_writes, "no-writes"),
            (self.allow_oom, "allow-oom"),
            (self.allow_stale, "allow-stale"),
            (self.no_cluster, "no-cluster"),
            (self.allow_cross_slot_keys, "allow-cross-slot-keys"),
        ];
        all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
    }
}

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
        let digits = digits.map(|digit| digit.to_ascii_lowercase());
        digits.iter().all(|digit| HEX.contains(digit)).then_some(Sha(digits))
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

/// The script that runs just now: there is at most one, because it runs alone.
#[derive(Debug, Default)]
pub struct Running {
    /// Since when, in milliseconds of the monotonic clock; 0 for none.
    since_ms: AtomicI64,
    /// One of the states below. It leaves [`CLEAN`] once, so that a script is either killed or may write.
    state: AtomicU8,
}

/// It may be killed.
const CLEAN: u8 = 0;
/// It may have changed something that would stand if it ended now.
const WRITTEN: u8 = 1;
/// It was asked to end.
const KILLED: u8 = 2;

/// The answer to `SCRIPT KILL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// It will end.
    Done,
    /// There is none.
    NotBusy,
    /// It has written, and what it has written is not taken back.
    Unkillable,
}

impl Running {
    /// A script begins. Returns a guard that ends it.
    pub fn begin(&self) -> RunningGuard<'_> {
        self.state.store(CLEAN, Relaxed);
        self.since_ms.store((clock::monotonic_us() / 1000).max(1) as i64, Relaxed);
        RunningGuard(self)
    }

    /// Whether it was asked to end.
    pub fn is_killed(&self) -> bool {
        self.state.load(Relaxed) == KILLED
    }

    /// It is about to change something, and nothing will take that back. False if it was asked to end before.
    pub fn begin_write(&self) -> bool {
        self.state.compare_exchange(CLEAN, WRITTEN, Relaxed, Relaxed) != Err(KILLED)
    }

    /// How long it has been running, in milliseconds; `None` if there is none.
    pub fn running_ms(&self) -> Option<i64> {
        let since = self.since_ms.load(Relaxed);
        (since > 0).then(|| clock::monotonic_us() as i64 / 1000 - since)
    }

    /// Asks it to end.
    pub fn kill(&self) -> Kill {
        if self.since_ms.load(Relaxed) == 0 {
            return Kill::NotBusy;
        }
        match self.state.compare_exchange(CLEAN, KILLED, Relaxed, Relaxed) {
            Err(WRITTEN) => Kill::Unkillable,
            _ => Kill::Done,
        }
    }
}

/// Ends what [`Running::begin`] began.
#[derive(Debug)]
pub struct RunningGuard<'a>(&'a Running);

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.0.since_ms.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Arc<Script> {
        let body: Box<[u8]> = text.as_bytes().into();
        Arc::new(Script { sha: Sha::of(&body), body, flags: ScriptFlags::default() })
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
