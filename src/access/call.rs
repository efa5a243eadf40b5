//! Whether a user may make a call.

use smallvec::SmallVec;

use super::selector::{KeyUse, Selector};
use super::user::User;

/// What a call needs.
#[derive(Debug, Default)]
pub struct Wish<'a> {
    /// The number of its command; `None` for one that everybody may run.
    pub command: Option<usize>,
    /// The argument that stands where a subcommand would.
    pub first_argument: Option<&'a [u8]>,
    /// Its keys.
    pub keys: SmallVec<[Need<'a, KeyUse>; 4]>,
    /// Its channels. A pattern of channels is needed as such.
    pub channels: SmallVec<[Need<'a, bool>; 2]>,
    /// The databases that it uses, by their places.
    pub databases: SmallVec<[(usize, u32); 2]>,
    /// Whether it uses all databases.
    pub all_databases: bool,
}

/// A key or channel of a call.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a, T> {
    /// Its place among the arguments.
    pub place: usize,
    /// Its name.
    pub name: &'a [u8],
    /// How it is used.
    pub how: T,
}

/// Why a call is refused, with the place of the argument at fault. Of several reasons the last is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command.
    Command(usize),
    /// A key.
    Key(usize),
    /// A channel.
    Channel(usize),
    /// A database.
    Database(usize),
}

impl Denied {
    /// The place of the argument at fault.
    pub fn place(self) -> usize {
        let (Denied::Command(place) | Denied::Key(place) | Denied::Channel(place) | Denied::Database(place)) = self;
        place
    }
}

impl Selector {
    fn check(&self, wish: &Wish<'_>) -> Result<(), Denied> {
        if let Some(index) = wish.command
            && !self.allows_command(index, wish.first_argument)
        {
            return Err(Denied::Command(0));
        }
        if wish.all_databases && !self.has_all_databases() {
            return Err(Denied::Database(0));
        }
        for &(place, database) in &wish.databases {
            if !self.allows_database(database) {
                return Err(Denied::Database(place));
            }
        }
        for key in &wish.keys {
            if !self.allows_key(key.name, key.how) {
                return Err(Denied::Key(key.place));
            }
        }
        for channel in &wish.channels {
            if !self.allows_channel(channel.name, channel.how) {
                return Err(Denied::Channel(channel.place));
            }
        }
        Ok(())
    }
}

impl User {
    /// Whether one of the selectors allows all that a call needs.
    ///
    /// # Errors
    /// None does.
    pub fn check(&self, wish: &Wish<'_>) -> Result<(), Denied> {
        let mut denied = Denied::Command(0);
        for selector in self.all_selectors() {
            match selector.check(wish) {
                Ok(()) => return Ok(()),
                Err(reason) => denied = denied.max(reason),
            }
        }
        Err(denied)
    }

    /// Whether one of the selectors allows all that a call needs, and the reading of every key.
    pub fn may_read_all(&self, wish: &Wish<'_>) -> bool {
        let reads = KeyUse { reads: true, writes: false };
        self.all_selectors().any(|selector| selector.check(wish).is_ok() && selector.allows_every_key(reads))
    }

    /// Whether a key's content may be read in a database, by any of the selectors.
    pub fn may_read(&self, database: u32, key: &[u8]) -> bool {
        let reads = KeyUse { reads: true, writes: false };
        self.all_selectors().any(|selector| selector.allows_database(database) && selector.allows_key(key, reads))
    }

    /// Whether a key of this name may be read in some database.
    pub fn may_know(&self, key: &[u8]) -> bool {
        let reads = KeyUse { reads: true, writes: false };
        self.is_unlimited() || self.all_selectors().any(|selector| selector.allows_key(key, reads))
    }

    /// Whether it may listen to a channel, or to a pattern of channels.
    pub fn may_hear(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.all_selectors().any(|selector| selector.allows_channel(channel, is_pattern))
    }
}
