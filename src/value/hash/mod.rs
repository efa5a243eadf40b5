//! Hashes: fields with values, and an optional expiry for each field.
//!
//! ```text
//! small: a listpack     field | value | field | value | …
//!        the same with  field | value | expiry | …       expiry in Unix ms, 0 for none; ascending, none last
//!        expiries
//!        of a template  value | value | …                the names are elsewhere, see `template`
//! large: a map          field → value, expiry
//! ```
//!
//! Invariants:
//! - A field occurs once. A small hash is within the limits and becomes large when it outgrows them. A large one
//!   never becomes small again.
//! - The listpacks are Redis' bytes. The first expiry creates the form with expiries, which then stays.
//! - Nothing here removes a field because of the time. Readers pass the time and do not see expired fields. Before
//!   editing, the caller removes the expired fields that it names.

mod canonical;
mod edit;
mod large;
mod packed;
pub mod template;
#[cfg(test)]
mod template_tests;
#[cfg(test)]
mod tests;

pub use canonical::canonical;
pub use edit::{HashMut, NewExpiry};
pub use large::Hash;
pub use packed::decode_packed;
pub(super) use packed::{expanded, expanded_len, packed_earliest};

use super::Limits;
use super::collection::{Collection, Finished, Stored};
use super::entry::{BytesRef, EntryRef, HeapMut, Kind, Packing, ValueRef};
use super::listpack::Item;
use packed::Packed;

/// The type of all hashes.
#[derive(Debug)]
pub struct AnyHash;

impl Collection for AnyHash {
    type Ref<'a> = HashRef<'a>;
    type Mut<'a> = HashMut<'a>;

    #[inline]
    fn is(kind: Kind) -> bool {
        matches!(kind, Kind::HashPacked | Kind::HashPackedEx | Kind::HashTemplated | Kind::Hash)
    }

    #[inline]
    fn view(value: ValueRef<'_>) -> Option<HashRef<'_>> {
        Some(match value {
            ValueRef::Packed(packing @ (Packing::Hash | Packing::HashEx | Packing::HashTemplated), bytes) => {
                HashRef::packed(packing, bytes.as_slice())
            }
            ValueRef::Hash(hash) => HashRef::Large(hash),
            _ => return None,
        })
    }

    #[inline]
    fn edit<'a>(stored: Stored<'a>, limits: &Limits) -> Option<HashMut<'a>> {
        Some(match stored {
            Stored::Missing(buffer) => HashMut::empty(buffer, limits),
            Stored::Packed(packing @ (Packing::Hash | Packing::HashEx | Packing::HashTemplated), bytes) => {
                HashMut::packed(packing, bytes, limits)
            }
            Stored::Large(HeapMut::Hash(hash)) => HashMut::large(hash, limits),
            _ => return None,
        })
    }

    #[inline]
    fn finish(edited: HashMut<'_>) -> Finished {
        edited.finish()
    }
}

/// A value of a field.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// An element of a listpack, or a number.
    Item(Item<'a>),
    /// The bytes of a value in a large hash, which a reply may share.
    Bytes(BytesRef<'a>),
}

impl<'a> Value<'a> {
    /// The value as an element.
    #[inline]
    pub fn item(self) -> Item<'a> {
        match self {
            Value::Item(item) => item,
            Value::Bytes(bytes) => Item::Str(bytes.as_slice()),
        }
    }
}

/// A field of a hash.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub name: Item<'a>,
    /// Its value.
    pub value: Value<'a>,
    /// When it expires, in Unix milliseconds.
    pub expiry: Option<u64>,
}

impl<'a> Field<'a> {
    fn of_entry(entry: EntryRef<'a>) -> Field<'a> {
        Field { name: Item::Str(entry.key()), value: value_of(entry), expiry: entry.expiry() }
    }

    #[inline]
    fn is_alive(&self, now: u64) -> bool {
        is_alive(self.expiry, now)
    }
}

#[inline]
fn is_alive(expiry: Option<u64>, now: u64) -> bool {
    expiry.is_none_or(|at| at > now)
}

/// The value of a large hash's field.
#[inline]
fn value_of(entry: EntryRef<'_>) -> Value<'_> {
    match entry.value() {
        ValueRef::Int(number) => Value::Item(Item::Int(number)),
        ValueRef::Str(bytes) | ValueRef::Raw(bytes) => Value::Bytes(bytes),
        _ => unreachable!("the fields of a hash hold strings"),
    }
}

/// A hash, for reading. `now` is the time in Unix milliseconds: fields that have expired by then are not seen. A
/// replay passes 0 and sees everything.
#[derive(Clone, Copy, Debug)]
pub enum HashRef<'a> {
    /// In one listpack, with names or without.
    Small(Small<'a>),
    /// A map.
    Large(&'a Hash),
}

/// A small hash, for reading.
#[derive(Clone, Copy, Debug)]
pub struct Small<'a>(Packed<'a>);

impl<'a> HashRef<'a> {
    #[inline]
    fn packed(packing: Packing, bytes: &'a [u8]) -> HashRef<'a> {
        HashRef::Small(Small(Packed::open(packing, bytes)))
    }

    /// How many fields there are.
    pub fn len(self, now: u64) -> usize {
        let all = self.stored_len();
        if self.earliest_expiry().is_none_or(|at| at > now) {
            return all;
        }
        all - match self {
            HashRef::Small(Small(packed)) => packed.expired(now).count(),
            HashRef::Large(hash) => hash.map().expired_len(now),
        }
    }

    /// How many fields it holds, including expired ones that are not removed yet.
    #[inline]
    pub fn stored_len(self) -> usize {
        match self {
            HashRef::Small(Small(packed)) => packed.len(),
            HashRef::Large(hash) => hash.len(),
        }
    }

    /// A time before which no field expires, in Unix milliseconds; `None` if none ever does.
    #[inline]
    pub fn earliest_expiry(self) -> Option<u64> {
        match self {
            HashRef::Small(Small(packed)) => packed.earliest_expiry(),
            HashRef::Large(hash) => hash.earliest_expiry(),
        }
    }

    /// The value of a field.
    #[inline]
    pub fn get(self, field: &[u8], now: u64) -> Option<Value<'a>> {
        self.get_with_expiry(field, now).map(|(value, _)| value)
    }

    /// The value of a field, and when it expires.
    #[inline]
    pub fn get_with_expiry(self, field: &[u8], now: u64) -> Option<(Value<'a>, Option<u64>)> {
        let (value, expiry) = match self {
            HashRef::Small(Small(packed)) => {
                let (value, expiry) = packed.get(field)?;
                (Value::Item(value), expiry)
            }
            HashRef::Large(hash) => {
                let entry = hash.map().get(field)?;
                (value_of(entry), entry.expiry())
            }
        };
        is_alive(expiry, now).then_some((value, expiry))
    }

    /// Whether there is such a field.
    #[inline]
    pub fn contains(self, field: &[u8], now: u64) -> bool {
        self.get_with_expiry(field, now).is_some()
    }

    /// All fields: those of a small hash in its order, those of a large one in none.
    pub fn iter(self, now: u64) -> impl Iterator<Item = Field<'a>> {
        let (small, large) = match self {
            HashRef::Small(Small(packed)) => (Some(packed.iter()), None),
            HashRef::Large(hash) => (None, Some(hash.map().iter().map(Field::of_entry))),
        };
        let all = small.into_iter().flatten().chain(large.into_iter().flatten());
        all.filter(move |field| field.is_alive(now))
    }

    /// A nearly uniform random field. `random` provides the numbers. `None` if all have expired.
    pub fn random(self, now: u64, random: &mut dyn FnMut() -> u64) -> Option<Field<'a>> {
        const EXPIRED_TRIES: usize = 16;
        let expired = self.earliest_expiry().is_some_and(|at| at <= now);
        match self {
            HashRef::Large(hash) => {
                for _ in 0..EXPIRED_TRIES {
                    let field = hash.map().random(random()).map(Field::of_entry)?;
                    if field.is_alive(now) {
                        return Some(field);
                    }
                }
            }
            HashRef::Small(Small(packed)) if !expired => {
                let at = (u128::from(random()) * packed.len() as u128) >> u64::BITS;
                return packed.nth(at as usize);
            }
            HashRef::Small(_) => {}
        }
        // Some fields, perhaps nearly all, wait to be removed: choose among the others.
        let alive = self.len(now);
        let at = (u128::from(random()) * alive as u128) >> u64::BITS;
        self.iter(now).nth(at as usize)
    }

    /// Visits about `count` fields from a position on. Returns the next position, or `None` at the end. A small hash
    /// is visited as a whole. See [`super::Map::scan`].
    pub fn scan(self, position: u64, count: usize, now: u64, visit: &mut dyn FnMut(Field<'_>)) -> Option<u64> {
        match self {
            HashRef::Small(_) => {
                self.iter(now).for_each(visit);
                None
            }
            HashRef::Large(hash) => hash.map().scan(position, count, &mut |entry| {
                let field = Field::of_entry(entry);
                if field.is_alive(now) {
                    visit(field);
                }
            }),
        }
    }
}
