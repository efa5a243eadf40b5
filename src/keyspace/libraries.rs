//! The libraries of functions: a part of what is stored, beside the keys. FLUSHALL leaves them alone.
//!
//! ```text
//! Libraries ─ Arc<Library> by name: its text, and what its functions are called, may do and are said to do
//!           └ functions by name, in lower case
//! ```
//!
//! All libraries together are one shared value, which is replaced as a whole. So a frozen view, the way back of a
//! transaction, and a call that is running each hold the one that they began with.
//!
//! Invariants:
//! - The text is what is stored. What is known of the functions comes from running it, in `script`. A library that
//!   came from the disk has no functions until then.
//! - The case of a function's name does not matter in a call, and that of a library's name does, as in Redis.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What a script or a function says about itself. A script without a first line of this form says nothing, and then
/// what it may do is decided command by command.
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

/// Something that calls have shown. It is no part of what is stored, and says nothing of whether two are equal.
#[derive(Debug, Default)]
pub struct Shown(AtomicBool);

impl Shown {
    /// Notes that it is so, for good.
    pub fn note(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it is so.
    #[inline]
    pub fn is_so(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Clone for Shown {
    fn clone(&self) -> Self {
        Shown(AtomicBool::new(self.is_so()))
    }
}

impl PartialEq for Shown {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Shown {}

/// One function of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: Box<[u8]>,
    /// What its author says of it.
    pub description: Option<Box<[u8]>>,
    /// What it may do.
    pub flags: ScriptFlags,
    /// It needs more than its declared keys.
    pub runs_alone: Shown,
}

/// One library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its text.
    pub code: Box<[u8]>,
    /// Its functions, in the order in which the text registers them.
    pub functions: Vec<Function>,
    /// Its functions leave something for the calls that follow.
    pub keeps_state: Shown,
}

impl Library {
    /// One of whose functions nothing is known yet.
    pub fn unread(name: &[u8], code: &[u8]) -> Library {
        Library { name: name.into(), code: code.into(), functions: Vec::new(), keeps_state: Shown::default() }
    }
}

/// All libraries.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    by_name: BTreeMap<Box<[u8]>, Arc<Library>>,
    /// The functions of all libraries: which one of which.
    functions: HashMap<Vec<u8>, (Arc<Library>, usize)>,
    code_bytes: usize,
}

impl Libraries {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many functions they have.
    pub fn functions_count(&self) -> usize {
        self.by_name.values().map(|library| library.functions.len()).sum()
    }

    /// The bytes of their texts.
    pub fn code_bytes(&self) -> usize {
        self.code_bytes
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Library>> {
        self.by_name.values()
    }

    /// The library of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Library>> {
        self.by_name.get(name)
    }

    /// The function of this name: which one of which library.
    pub fn function(&self, name: &[u8]) -> Option<(&Arc<Library>, usize)> {
        let (library, at) = self.functions.get(&name.to_ascii_lowercase())?;
        Some((library, *at))
    }

    /// Adds a library, in the place of one of the same name.
    pub fn insert(&mut self, library: Arc<Library>) {
        self.remove(&library.name);
        self.code_bytes += library.code.len();
        for (at, function) in library.functions.iter().enumerate() {
            self.functions.insert(function.name.to_ascii_lowercase(), (Arc::clone(&library), at));
        }
        self.by_name.insert(library.name.clone(), library);
    }

    /// Removes a library. False if there is none of this name.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(library) = self.by_name.remove(name) else { return false };
        self.code_bytes -= library.code.len();
        self.functions.retain(|_, (of, _)| !Arc::ptr_eq(of, &library));
        true
    }
}

impl PartialEq for Libraries {
    fn eq(&self, other: &Self) -> bool {
        self.by_name == other.by_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, functions: &[&str]) -> Arc<Library> {
        let function = |name: &&str| Function {
            name: name.as_bytes().into(),
            description: None,
            flags: ScriptFlags::default(),
            runs_alone: Shown::default(),
        };
        let functions = functions.iter().map(function).collect();
        Arc::new(Library { functions, ..Library::unread(name.as_bytes(), b"12345") })
    }

    #[test]
    fn functions_are_found_whatever_their_case_and_go_with_their_library() {
        let mut all = Libraries::default();
        all.insert(library("a", &["One", "two"]));
        all.insert(library("b", &["three"]));
        assert_eq!(all.function(b"oNE").map(|(of, at)| (&*of.name, at)), Some((&b"a"[..], 0)));
        assert_eq!((all.len(), all.functions_count(), all.code_bytes()), (2, 3, 10));
        all.insert(library("a", &["four"]));
        assert!(all.function(b"one").is_none() && all.function(b"two").is_none());
        assert_eq!((all.len(), all.functions_count(), all.code_bytes()), (2, 2, 10));
        assert!(all.get(b"A").is_none(), "the case of a library's name matters");
        assert!(all.remove(b"a") && !all.remove(b"a"));
        assert!(all.function(b"four").is_none() && all.function(b"three").is_some());
        assert_eq!(all.code_bytes(), 5);
    }
}
