//! Templates: the field names that many small hashes have in common, stored once for all of them.
//!
//! ```text
//! a small hash without expiries    name | value | name | value | …          a listpack
//! the same, of a template          value | value | … | template u16         a listpack, and the number behind it
//! template                         length u8 | name | length u8 | name | …       to find one
//!                                  name | name | …                              a listpack, to put them beside values
//! ```
//!
//! A web application has a million users with the same eight fields. Their names are most of such a hash.
//!
//! Invariants:
//! - A template never changes and is never removed, so a record needs no count of owners, and a reader needs no lock.
//!   What that can cost is bounded by [`TEMPLATES_MAX`] and [`BYTES_MAX`]. When there is no room for another template,
//!   further hashes keep their own names.
//! - Names that few hashes have make no template: their digest must be seen [`Policy::sightings`] times, or a client
//!   must say that it makes many such hashes (HIMPORT).
//! - The numbers mean something in this process only. What leaves it (snapshot, log, DUMP) has names beside values.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize};

use smallvec::SmallVec;

use crate::base::hash::HashSeed;
use crate::base::lock::{Mutex, Rank};
use crate::base::random;
use crate::value::listpack::{Listpack, ListpackBuf};

/// How many templates there may be.
pub const TEMPLATES_MAX: usize = 4096;
/// How many bytes of names they may hold together.
pub const BYTES_MAX: usize = 1 << 20;
/// The most fields of a template, whatever the settings allow.
pub const FIELDS_MAX: usize = 256;
/// How many hashes must have had the same names before these make a template, unless a client announces them.
pub const SIGHTINGS: u64 = 16;
/// What a count of sightings can hold.
pub const SIGHTINGS_MAX: u64 = COUNT;
/// The number of a template, behind the values.
pub(super) const NUMBER_LEN: usize = 2;

/// Places in the index; twice the templates, so that probes are short.
const PLACES: usize = 2 * TEMPLATES_MAX;
/// How far from its own place a template may be.
const PROBES: usize = 16;
/// Digests whose sightings are counted.
const WATCHED: usize = 4096;
/// The part of a watched digest that is the count.
const COUNT: u64 = 0xFF;

/// The names of a hash, in the form of a template.
type Names = SmallVec<[u8; 256]>;

/// See the module.
#[derive(Debug)]
pub struct Template {
    names: Box<[u8]>,
    encoded: Box<[u8]>,
    number: u16,
}

/// All templates of the process.
struct Table {
    templates: [OnceLock<Template>; TEMPLATES_MAX],
    /// How many there are. Changes under `making`.
    len: AtomicUsize,
    bytes: AtomicUsize,
    /// A template's number plus one, near the place of its digest; 0 for none.
    places: [AtomicU16; PLACES],
    /// The digests seen lately, each with a count in its low bits. A race loses a sighting, and nothing else.
    seen: [AtomicU64; WATCHED],
    making: Mutex<()>,
}

static TABLE: Table = Table {
    templates: [const { OnceLock::new() }; TEMPLATES_MAX],
    len: AtomicUsize::new(0),
    bytes: AtomicUsize::new(0),
    places: [const { AtomicU16::new(0) }; PLACES],
    seen: [const { AtomicU64::new(0) }; WATCHED],
    making: Mutex::new(Rank::Register, ()),
};

/// Which hashes take part, and how easily they make a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `hash-min-template-entries`; 0 for no templates.
    pub entries_min: usize,
    /// `hash-max-template-entries`; 0 for as many as a template may have.
    pub entries_max: usize,
    /// How many hashes must have had the same names before these make a template; at most [`SIGHTINGS_MAX`].
    pub sightings: u64,
}

impl Policy {
    /// No hash uses a template.
    pub const NONE: Policy = Policy { entries_min: 0, entries_max: 0, sightings: SIGHTINGS };
    /// Every hash does that can, at once.
    pub(super) const PREPARED: Policy = Policy { entries_min: 1, entries_max: 0, sightings: 1 };

    fn allows(self, fields: usize) -> bool {
        let most = if self.entries_max == 0 { FIELDS_MAX } else { self.entries_max.min(FIELDS_MAX) };
        self.entries_min > 0 && (self.entries_min..=most).contains(&fields)
    }
}

/// How many templates there are, and the memory that they take, in bytes.
pub fn totals() -> (usize, usize) {
    (TABLE.len.load(Relaxed), TABLE.bytes.load(Relaxed))
}

impl Template {
    /// The template of a hash that uses one, and its values. The bytes are those that [`Template::seal`] made.
    #[inline]
    pub(super) fn open(bytes: &[u8]) -> (&'static Template, &[u8]) {
        let (values, number) = bytes.split_last_chunk::<NUMBER_LEN>().expect("a hash of a template has its number");
        let template = TABLE.templates[usize::from(u16::from_le_bytes(*number))].get();
        (template.expect("templates stay"), values)
    }

    /// Appends the number of the template to the values of a hash.
    #[inline]
    pub(super) fn seal(&self, values: &mut Vec<u8>) {
        values.extend_from_slice(&self.number.to_le_bytes());
    }

    /// The template for the names of a small hash without expiries, if it is to use one.
    pub(super) fn of(list: Listpack<'_>, policy: Policy) -> Option<&'static Template> {
        if !policy.allows(list.len() / 2) {
            return None;
        }
        let mut digits = itoa::Buffer::new();
        let mut names = Names::new();
        list.pairs().try_for_each(|(name, _)| add_name(&mut names, name.as_bytes(&mut digits)))?;
        let digest = digest_of(&names);
        TABLE.find(&names, digest).or_else(|| TABLE.admit(&names, digest, policy.sightings))
    }

    /// The template of these names and one more, if there is one and hashes may use it.
    pub(super) fn with(&self, name: &[u8], policy: Policy) -> Option<&'static Template> {
        if !policy.allows(self.len() + 1) {
            return None;
        }
        let mut names = Names::from_slice(&self.names);
        add_name(&mut names, name)?;
        TABLE.find(&names, digest_of(&names))
    }

    /// The template of exactly these names, if there is one and hashes may use it.
    pub(super) fn known<'n>(
        fields: impl ExactSizeIterator<Item = &'n [u8]>,
        policy: Policy,
    ) -> Option<&'static Template> {
        if !policy.allows(fields.len()) {
            return None;
        }
        let mut names = Names::new();
        for name in fields {
            add_name(&mut names, name)?;
        }
        TABLE.find(&names, digest_of(&names))
    }

    /// How many fields it has.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.encoded().len()
    }

    /// The names, in the order of the values.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        names_in(&self.names)
    }

    /// The index of a field.
    #[inline]
    pub(super) fn position(&self, field: &[u8]) -> Option<usize> {
        self.names().position(|name| name == field)
    }

    /// The values of a hash, with their names beside them again.
    pub(super) fn expand(&self, values: Listpack<'_>) -> ListpackBuf {
        let pairs = self.encoded().encoded().zip(values.encoded());
        ListpackBuf::of_encoded(pairs.flat_map(<[&[u8]; 2]>::from), self.expanded_len(values))
    }

    /// The bytes that [`Template::expand`] makes.
    pub(super) fn expanded_len(&self, values: Listpack<'_>) -> usize {
        values.encoded_len() + self.encoded.len() - Listpack::EMPTY.encoded_len()
    }

    fn encoded(&self) -> Listpack<'_> {
        Listpack::trusted(&self.encoded)
    }
}

/// The values of a listpack of names and values.
pub(super) fn values_of(list: Listpack<'_>) -> ListpackBuf {
    ListpackBuf::of_encoded(list.encoded().skip(1).step_by(2), list.encoded_len())
}

/// Adds a name to those of a template, unless it is too long.
#[inline]
fn add_name(names: &mut Names, name: &[u8]) -> Option<()> {
    let len = u8::try_from(name.len()).ok()?;
    names.reserve(1 + name.len());
    names.push(len);
    names.extend_from_slice(name);
    Some(())
}

/// The names in the form of a template, one by one.
fn names_in(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&len, names) = rest.split_first()?;
        let (name, others) = names.split_at_checked(usize::from(len))?;
        rest = others;
        Some(name)
    })
}

/// The digest of names. Its key is of this process, so that no client can choose names that collide.
fn digest_of(names: &[u8]) -> u64 {
    static KEY: OnceLock<HashSeed> = OnceLock::new();
    KEY.get_or_init(|| HashSeed(random::os_bytes())).hash(names)
}

impl Table {
    fn places(digest: u64) -> impl Iterator<Item = usize> {
        (0..PROBES).map(move |probe| (digest as usize).wrapping_add(probe) % PLACES)
    }

    fn find(&self, names: &[u8], digest: u64) -> Option<&Template> {
        for at in Table::places(digest) {
            let number = self.places[at].load(Acquire).checked_sub(1)?;
            let found = self.templates[usize::from(number)].get().filter(|template| *template.names == *names);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Counts a sighting of names that have no template, and makes one at the last.
    fn admit(&self, names: &[u8], digest: u64, sightings: u64) -> Option<&Template> {
        let seen = &self.seen[(digest >> 32) as usize % WATCHED];
        let known = seen.load(Relaxed);
        let count = if known & !COUNT == digest & !COUNT { (known & COUNT) + 1 } else { 1 };
        if count < sightings.min(SIGHTINGS_MAX) {
            seen.store(digest & !COUNT | count, Relaxed);
            return None;
        }
        // If there is no room, the next try is as many sightings away: not every hash may wait for the lock.
        seen.store(digest & !COUNT, Relaxed);
        if self.len.load(Relaxed) == TEMPLATES_MAX {
            return None;
        }
        self.make(names, digest)
    }

    #[cold]
    fn make(&self, names: &[u8], digest: u64) -> Option<&Template> {
        let _making = self.making.lock();
        // Another thread may have made it meanwhile.
        if let Some(found) = self.find(names, digest) {
            return Some(found);
        }
        let number = self.len.load(Relaxed);
        let mut encoded = ListpackBuf::new();
        encoded.extend(names_in(names));
        let bytes = self.bytes.load(Relaxed) + names.len() + encoded.encoded_len() + size_of::<Template>();
        let place = Table::places(digest).find(|at| self.places[*at].load(Relaxed) == 0)?;
        if number == TEMPLATES_MAX || bytes > BYTES_MAX {
            return None;
        }
        let template = Template { names: names.into(), encoded: encoded.as_bytes().into(), number: number as u16 };
        let template = self.templates[number].get_or_init(|| template);
        self.places[place].store(number as u16 + 1, Release);
        self.len.store(number + 1, Relaxed);
        self.bytes.store(bytes, Relaxed);
        Some(template)
    }
}
