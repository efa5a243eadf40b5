//! The shards that one command has locked.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::{Keyspace, Shard};

/// What is wrong with a command that asks for a shard that it does not hold.
const UNNAMED_KEY: &str = "a command used a key that its specification does not name";

/// The locks of one command: the shards of its keys, ascending; or, behind a closed gate, whichever it
/// comes to need.
#[derive(Debug)]
pub struct Held<'a> {
    keyspace: &'a Keyspace,
    locks: Locks<'a>,
}

#[derive(Debug)]
enum Locks<'a> {
    /// None: that of a command without keys.
    None,
    /// The shard of a command of one key, as most are.
    One(u16, MutexGuard<'a, Shard>),
    /// Those of the others, ascending.
    Several { guards: Vec<(u16, MutexGuard<'a, Shard>)>, on_demand: bool },
}

impl<'a> Held<'a> {
    /// No shard: a command without keys.
    pub fn none(keyspace: &'a Keyspace) -> Self {
        Held { keyspace, locks: Locks::None }
    }

    /// One shard.
    #[inline]
    pub fn one(keyspace: &'a Keyspace, shard: u16) -> Self {
        Held { keyspace, locks: Locks::One(shard, keyspace.lock(shard)) }
    }

    /// Several shards; sorts them and locks each once.
    pub fn several(keyspace: &'a Keyspace, shards: &mut SmallVec<[u16; 8]>) -> Self {
        shards.sort_unstable();
        shards.dedup();
        let guards = shards.iter().map(|&shard| (shard, keyspace.lock(shard))).collect();
        Held { keyspace, locks: Locks::Several { guards, on_demand: false } }
    }

    /// No shard yet, any on demand. The caller is alone behind the gate, or will need one at a time and
    /// calls [`Held::release`] in between.
    pub fn on_demand(keyspace: &'a Keyspace) -> Self {
        Held { keyspace, locks: Locks::Several { guards: Vec::new(), on_demand: true } }
    }

    /// Unlocks what is held and locks one shard.
    #[inline]
    pub fn hold_one(&mut self, shard: u16) {
        self.locks = Locks::None;
        self.locks = Locks::One(shard, self.keyspace.lock(shard));
    }

    /// The keyspace that the shards are of.
    #[inline]
    pub fn keyspace(&self) -> &'a Keyspace {
        self.keyspace
    }

    /// A locked shard.
    ///
    /// # Panics
    /// If the shard is not held: the command's key specification does not name the key it came to use.
    #[inline]
    pub fn shard(&mut self, shard: u16) -> &mut Shard {
        match &mut self.locks {
            Locks::One(only, guard) => {
                assert!(*only == shard, "{UNNAMED_KEY}");
                guard
            }
            Locks::Several { guards, on_demand } => Self::among(self.keyspace, guards, *on_demand, shard),
            Locks::None => panic!("{UNNAMED_KEY}"),
        }
    }

    fn among<'b>(
        keyspace: &'a Keyspace,
        guards: &'b mut Vec<(u16, MutexGuard<'a, Shard>)>,
        on_demand: bool,
        shard: u16,
    ) -> &'b mut Shard {
        let at = match guards.binary_search_by_key(&shard, |(number, _)| *number) {
            Ok(at) => at,
            Err(at) => {
                assert!(on_demand, "{UNNAMED_KEY}");
                guards.insert(at, (shard, keyspace.lock(shard)));
                at
            }
        };
        &mut guards[at].1
    }

    /// A shard that has been used, and so is locked; `None` if it is not.
    #[inline]
    pub fn locked(&self, shard: u16) -> Option<&Shard> {
        match &self.locks {
            Locks::One(only, guard) => (*only == shard).then_some(&**guard),
            Locks::Several { guards, .. } => {
                let at = guards.binary_search_by_key(&shard, |(number, _)| *number).ok()?;
                Some(&guards[at].1)
            }
            Locks::None => None,
        }
    }

    /// Unlocks everything, for a walk that needs one shard after the other.
    pub fn release(&mut self) {
        let on_demand = matches!(self.locks, Locks::Several { on_demand: true, .. });
        self.locks = Locks::Several { guards: Vec::new(), on_demand };
    }
}
