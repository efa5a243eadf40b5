//! The shards that one command, or one transaction, has locked.

use std::time::Duration;

use crate::base::lock::MutexGuard;
use smallvec::SmallVec;

use super::{Busy, Keyspace, Shard};

/// How long a walk waits for a busy shard.
const WALK_PATIENCE: Duration = Duration::from_micros(500);

/// The panic message for a command that asks for a shard that it does not hold.
const UNNAMED_KEY: &str = "a command used a key that its specification does not name";

/// The locks of one command: the shards of its keys, ascending; or, behind the closed gate, any that it needs.
#[derive(Debug)]
pub struct Held<'a> {
    keyspace: &'a Keyspace,
    locks: Locks<'a>,
}

#[derive(Debug)]
enum Locks<'a> {
    /// None, for a command without keys.
    None,
    /// The shard of a command of one key, the common case.
    One(u16, MutexGuard<'a, Shard>),
    /// The shards of other commands, ascending.
    Several { guards: Vec<(u16, MutexGuard<'a, Shard>)>, on_demand: bool },
    /// The shard of a command of one key in a transaction that holds the shards of all its commands.
    LentOne(u16, &'a mut Shard),
    /// The shards of the other commands of such a transaction, ascending.
    Lent(Vec<(u16, &'a mut Shard)>),
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

    /// One shard, unless it stays locked for longer than `patience`.
    ///
    /// # Errors
    /// The shard is busy.
    #[inline]
    pub fn try_one(keyspace: &'a Keyspace, shard: u16, patience: Duration) -> Result<Self, Busy> {
        let guard = keyspace.lock_for(shard, patience).ok_or(Busy::Shard(shard))?;
        Ok(Held { keyspace, locks: Locks::One(shard, guard) })
    }

    /// Several shards: sorts them and locks each once. If one is busy, the others are released again.
    ///
    /// # Errors
    /// This shard stays locked for longer than `patience`.
    pub fn try_several(
        keyspace: &'a Keyspace,
        shards: &mut SmallVec<[u16; 8]>,
        patience: Duration,
    ) -> Result<Self, Busy> {
        shards.sort_unstable();
        shards.dedup();
        let lock = |&shard: &u16| Ok((shard, keyspace.lock_for(shard, patience).ok_or(Busy::Shard(shard))?));
        let guards = shards.iter().map(lock).collect::<Result<_, Busy>>()?;
        Ok(Held { keyspace, locks: Locks::Several { guards, on_demand: false } })
    }

    /// Several shards: sorts them and locks each once.
    pub fn several(keyspace: &'a Keyspace, shards: &mut SmallVec<[u16; 8]>) -> Self {
        shards.sort_unstable();
        shards.dedup();
        let guards = shards.iter().map(|&shard| (shard, keyspace.lock(shard))).collect();
        Held { keyspace, locks: Locks::Several { guards, on_demand: false } }
    }

    /// No shard yet, for a command that needs one after another: see [`Held::walk_to`].
    pub fn walking(keyspace: &'a Keyspace) -> Self {
        Held { keyspace, locks: Locks::Several { guards: Vec::new(), on_demand: false } }
    }

    /// No shard yet, any on demand. The caller is alone behind the gate.
    pub fn on_demand(keyspace: &'a Keyspace) -> Self {
        Held { keyspace, locks: Locks::Several { guards: Vec::new(), on_demand: true } }
    }

    /// Lends these of several shards to one of the commands that share them.
    ///
    /// # Panics
    /// If one of them is not held.
    #[inline]
    pub fn lend(&mut self, shards: impl Iterator<Item = u16>) -> Held<'_> {
        let Locks::Several { guards, on_demand: false } = &mut self.locks else { panic!("{UNNAMED_KEY}") };
        let mut wanted: SmallVec<[u16; 8]> = shards.collect();
        if let [shard] = wanted[..] {
            let at = guards.binary_search_by_key(&shard, |(number, _)| *number).expect(UNNAMED_KEY);
            return Held { keyspace: self.keyspace, locks: Locks::LentOne(shard, &mut guards[at].1) };
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut wanted = wanted.into_iter().peekable();
        let lent = guards
            .iter_mut()
            .filter_map(|(number, guard)| wanted.next_if_eq(number).map(|number| (number, &mut **guard)))
            .collect();
        assert!(wanted.next().is_none(), "{UNNAMED_KEY}");
        Held { keyspace: self.keyspace, locks: Locks::Lent(lent) }
    }

    /// Lends all of several shards.
    ///
    /// # Panics
    /// If these are not several shards.
    pub fn lend_all(&mut self) -> Held<'_> {
        let Locks::Several { guards, on_demand: false } = &mut self.locks else { panic!("{UNNAMED_KEY}") };
        let lent = guards.iter_mut().map(|(number, guard)| (*number, &mut **guard)).collect();
        Held { keyspace: self.keyspace, locks: Locks::Lent(lent) }
    }

    /// Locks one shard more beside several others, if that is possible at once and nobody waits for a key of it.
    /// Trying cannot be part of a deadlock, so the order does not matter. Returns whether the shard is held.
    #[inline]
    pub fn try_hold_more(&mut self, shard: u16) -> bool {
        let Locks::Several { guards, on_demand: false } = &mut self.locks else { return false };
        match guards.binary_search_by_key(&shard, |(number, _)| *number) {
            Ok(_) => true,
            Err(at) => match self.keyspace.try_lock(shard).filter(|guard| guard.waiters.is_empty()) {
                Some(guard) => {
                    guards.insert(at, (shard, guard));
                    true
                }
                None => false,
            },
        }
    }

    /// How many shards are held, if they are several.
    #[inline]
    pub fn count(&self) -> usize {
        match &self.locks {
            Locks::Several { guards, .. } => guards.len(),
            _ => 0,
        }
    }

    /// The shards that are held, if they are several.
    pub fn shards(&self) -> Vec<u16> {
        match &self.locks {
            Locks::Several { guards, .. } => guards.iter().map(|(number, _)| *number).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a held shard has waiters.
    pub fn is_waited_for(&self) -> bool {
        match &self.locks {
            Locks::None => false,
            Locks::One(_, guard) => !guard.waiters.is_empty(),
            Locks::Several { guards, .. } => guards.iter().any(|(_, guard)| !guard.waiters.is_empty()),
            Locks::LentOne(_, shard) => !shard.waiters.is_empty(),
            Locks::Lent(shards) => shards.iter().any(|(_, shard)| !shard.waiters.is_empty()),
        }
    }

    /// Unlocks the held shards and locks one.
    ///
    /// # Errors
    /// It stays locked for longer than `patience`.
    #[inline]
    pub fn hold_one(&mut self, shard: u16, patience: Duration) -> Result<(), Busy> {
        self.locks = Locks::None;
        self.locks = Locks::One(shard, self.keyspace.lock_for(shard, patience).ok_or(Busy::Shard(shard))?);
        Ok(())
    }

    /// The keyspace that the shards are of.
    #[inline]
    pub fn keyspace(&self) -> &'a Keyspace {
        self.keyspace
    }

    /// A locked shard.
    ///
    /// # Panics
    /// If the shard is not held: the command's key specification does not name the key that it uses.
    #[inline]
    pub fn shard(&mut self, shard: u16) -> &mut Shard {
        match &mut self.locks {
            Locks::One(only, guard) => {
                assert!(*only == shard, "{UNNAMED_KEY}");
                guard
            }
            Locks::Several { guards, on_demand } => Self::among(self.keyspace, guards, *on_demand, shard),
            Locks::LentOne(only, held) => {
                assert!(*only == shard, "{UNNAMED_KEY}");
                held
            }
            Locks::Lent(shards) => {
                let at = shards.binary_search_by_key(&shard, |(number, _)| *number).expect(UNNAMED_KEY);
                shards[at].1
            }
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

    /// A shard that has been used and is therefore locked; `None` otherwise.
    #[inline]
    pub fn locked(&self, shard: u16) -> Option<&Shard> {
        match &self.locks {
            Locks::One(only, guard) => (*only == shard).then_some(&**guard),
            Locks::Several { guards, .. } => {
                let at = guards.binary_search_by_key(&shard, |(number, _)| *number).ok()?;
                Some(&guards[at].1)
            }
            Locks::LentOne(only, held) => (*only == shard).then_some(&**held),
            Locks::Lent(shards) => {
                let at = shards.binary_search_by_key(&shard, |(number, _)| *number).ok()?;
                Some(&*shards[at].1)
            }
            Locks::None => None,
        }
    }

    /// Unlocks the held shards and locks the next one of a walk.
    ///
    /// # Errors
    /// It stays locked for longer than a walk waits. Never behind the closed gate.
    pub fn walk_to(&mut self, shard: u16) -> Result<&mut Shard, Busy> {
        self.release();
        let Locks::Several { guards, on_demand } = &mut self.locks else { unreachable!("it was just released") };
        if !*on_demand {
            guards.push((shard, self.keyspace.lock_for(shard, WALK_PATIENCE).ok_or(Busy::Shard(shard))?));
        }
        Ok(Self::among(self.keyspace, guards, *on_demand, shard))
    }

    /// Unlocks everything, for a walk that needs one shard after another.
    pub fn release(&mut self) {
        let on_demand = matches!(self.locks, Locks::Several { on_demand: true, .. });
        self.locks = Locks::Several { guards: Vec::new(), on_demand };
    }
}
