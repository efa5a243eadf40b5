//! The shards that one command has locked.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::{Keyspace, Shard};

/// The locks of one command: the shards of its keys, ascending; or, behind a closed gate, whichever it
/// comes to need.
#[derive(Debug)]
pub struct Held<'a> {
    keyspace: &'a Keyspace,
    /// The only shard of most commands.
    only: Option<(u16, MutexGuard<'a, Shard>)>,
    /// The shards of the others.
    several: Vec<(u16, MutexGuard<'a, Shard>)>,
    on_demand: bool,
}

impl<'a> Held<'a> {
    /// No shard: a command without keys.
    pub fn none(keyspace: &'a Keyspace) -> Self {
        Held { keyspace, only: None, several: Vec::new(), on_demand: false }
    }

    /// One shard.
    #[inline]
    pub fn one(keyspace: &'a Keyspace, shard: u16) -> Self {
        Held { keyspace, only: Some((shard, keyspace.lock(shard))), several: Vec::new(), on_demand: false }
    }

    /// Several shards; sorts them and locks each once.
    pub fn several(keyspace: &'a Keyspace, shards: &mut SmallVec<[u16; 8]>) -> Self {
        shards.sort_unstable();
        shards.dedup();
        let several = shards.iter().map(|&shard| (shard, keyspace.lock(shard))).collect();
        Held { keyspace, only: None, several, on_demand: false }
    }

    /// No shard yet, any on demand. The caller is alone behind the gate, or will need one at a time and
    /// calls [`Held::release`] in between.
    pub fn on_demand(keyspace: &'a Keyspace) -> Self {
        Held { keyspace, only: None, several: Vec::new(), on_demand: true }
    }

    /// The keyspace that the shards are of.
    pub fn keyspace(&self) -> &'a Keyspace {
        self.keyspace
    }

    /// A locked shard.
    ///
    /// # Panics
    /// If the shard is not held: the command's key specification does not name the key it came to use.
    #[inline]
    pub fn shard(&mut self, shard: u16) -> &mut Shard {
        match &mut self.only {
            Some((only, guard)) if *only == shard => guard,
            _ => Self::among_several(self.keyspace, &mut self.several, self.on_demand, shard),
        }
    }

    fn among_several<'b>(
        keyspace: &'a Keyspace,
        several: &'b mut Vec<(u16, MutexGuard<'a, Shard>)>,
        on_demand: bool,
        shard: u16,
    ) -> &'b mut Shard {
        let at = match several.binary_search_by_key(&shard, |(number, _)| *number) {
            Ok(at) => at,
            Err(at) => {
                assert!(on_demand, "a command used a key that its specification does not name");
                several.insert(at, (shard, keyspace.lock(shard)));
                at
            }
        };
        &mut several[at].1
    }

    /// A shard that has been used, and so is locked; `None` if it is not.
    #[inline]
    pub fn locked(&self, shard: u16) -> Option<&Shard> {
        if let Some((only, guard)) = &self.only
            && *only == shard
        {
            return Some(guard);
        }
        let at = self.several.binary_search_by_key(&shard, |(number, _)| *number).ok()?;
        Some(&self.several[at].1)
    }

    /// Unlocks everything, for a walk that needs one shard after the other.
    pub fn release(&mut self) {
        self.only = None;
        self.several.clear();
    }
}
