//! Intset: a sorted set of integers, all of one width, exactly as Redis lays it out.
//!
//! ```text
//! width u32: 2, 4 or 8 | count u32 | signed integer of that width × count, ascending     little endian
//! ```
//!
//! Invariants:
//! - The bytes are those of Redis: DUMP emits them unchanged, and RESTORE accepts them once [`Intset::parse`] has
//!   checked each.
//! - Each integer occurs once. The width fits all of them. It grows with the first integer that needs more and does
//!   not shrink when that one is removed, as in Redis.
//! - Reading allocates nothing and stays within the bytes, whatever they are.

const HEADER_LEN: usize = 8;
/// The narrowest width and no integers.
const EMPTY: [u8; HEADER_LEN] = [2, 0, 0, 0, 0, 0, 0, 0];

/// The bytes that an integer needs in an intset.
#[inline]
fn width_of(value: i64) -> usize {
    match value {
        -0x8000..=0x7FFF => 2,
        -0x8000_0000..=0x7FFF_FFFF => 4,
        _ => 8,
    }
}

/// Reads one integer; `None` if the slot does not have one of the three widths.
#[inline]
fn decode(slot: &[u8]) -> Option<i64> {
    match *slot {
        [a, b] => Some(i64::from(i16::from_le_bytes([a, b]))),
        [a, b, c, d] => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
        [a, b, c, d, e, f, g, h] => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

/// A read-only view of bytes that are known to be an intset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intset<'a>(&'a [u8]);

impl<'a> Intset<'a> {
    /// The intset without integers.
    pub const EMPTY: Intset<'static> = Intset(&EMPTY);

    /// Checks every byte. `None` unless the width is one of the three, the length fits the count, and the integers
    /// ascend. An empty intset is valid here, although no key may hold one.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let width = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        let count = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
        let body = bytes.get(HEADER_LEN..)?;
        if !matches!(width, 2 | 4 | 8) || Some(body.len()) != count.checked_mul(width) {
            return None;
        }
        let set = Intset(bytes);
        set.iter().is_sorted_by(|one, two| one < two).then_some(set)
    }

    /// Takes bytes that this module made or has parsed, without checking them again. Other bytes show wrong or
    /// missing integers.
    #[inline]
    pub fn trusted(bytes: &'a [u8]) -> Self {
        debug_assert!(Intset::parse(bytes).is_some(), "no intset: {bytes:?}");
        Intset(bytes)
    }

    /// The bytes themselves.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The integers' bytes.
    #[inline]
    fn body(self) -> &'a [u8] {
        self.0.get(HEADER_LEN..).unwrap_or(&[])
    }

    /// The width of an integer in bytes; never 0, so that it can be a divisor.
    #[inline]
    fn width(self) -> usize {
        self.0.first().map_or(2, |width| usize::from(*width).max(1))
    }

    /// How many integers it has.
    #[inline]
    pub fn len(self) -> usize {
        self.body().len() / self.width()
    }

    /// Whether it has no integer.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.body().is_empty()
    }

    /// The integer of an index, in ascending order.
    #[inline]
    pub fn get(self, index: usize) -> Option<i64> {
        let at = index.checked_mul(self.width())?;
        decode(self.body().get(at..at.checked_add(self.width())?)?)
    }

    /// Whether it has this integer.
    #[inline]
    pub fn contains(self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// The index of an integer, or the index at which it would be inserted.
    pub fn search(self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        // A value that the width cannot hold is outside the range of the present ones.
        if width_of(value) > self.width() {
            return Err(if value < 0 { low } else { high });
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle) {
                Some(own) if own < value => low = middle + 1,
                Some(own) if own == value => return Ok(middle),
                _ => high = middle,
            }
        }
        Err(low)
    }

    /// The smallest integer.
    #[inline]
    pub fn min(self) -> Option<i64> {
        self.get(0)
    }

    /// The largest integer.
    #[inline]
    pub fn max(self) -> Option<i64> {
        self.get(self.len().checked_sub(1)?)
    }

    /// All integers, ascending; iterable from either end.
    #[inline]
    pub fn iter(self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + Clone + 'a {
        self.body().chunks_exact(self.width()).map(|slot| decode(slot).unwrap_or_default())
    }

    /// Panics if the bytes are not an intset.
    pub fn check_invariants(self) {
        assert!(Intset::parse(self.0).is_some(), "no intset: {:?}", self.0);
    }
}

/// An intset to edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntsetBuf(Vec<u8>);

impl Default for IntsetBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Intset<'_>> for IntsetBuf {
    fn from(set: Intset<'_>) -> Self {
        IntsetBuf(set.0.to_vec())
    }
}

impl IntsetBuf {
    /// An intset without integers.
    pub fn new() -> Self {
        IntsetBuf(EMPTY.to_vec())
    }

    /// Takes bytes as [`Intset::trusted`] does.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        debug_assert!(Intset::parse(&bytes).is_some(), "no intset: {bytes:?}");
        IntsetBuf(bytes)
    }

    /// The bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }

    /// A view to read.
    #[inline]
    pub fn as_intset(&self) -> Intset<'_> {
        Intset(&self.0)
    }

    /// The bytes themselves.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many integers it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.as_intset().len()
    }

    /// Whether it has no integer.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.as_intset().is_empty()
    }

    /// Whether it has this integer.
    #[inline]
    pub fn contains(&self, value: i64) -> bool {
        self.as_intset().contains(value)
    }

    /// Adds an integer; `false` if it was there already.
    pub fn insert(&mut self, value: i64) -> bool {
        let Err(index) = self.as_intset().search(value) else { return false };
        assert!(self.len() < u32::MAX as usize, "an intset beyond its count field");
        if width_of(value) > self.as_intset().width() {
            self.widen(width_of(value));
        }
        let width = self.as_intset().width();
        let (at, len) = (HEADER_LEN + index * width, self.0.len());
        self.0.resize(len + width, 0);
        self.0.copy_within(at..len, at + width);
        self.0[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        self.set_count();
        true
    }

    /// Removes an integer; `false` if it was not there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(index) = self.as_intset().search(value) else { return false };
        self.remove_at(index).is_some()
    }

    /// Removes the integer of an index, and returns it.
    pub fn remove_at(&mut self, index: usize) -> Option<i64> {
        let value = self.as_intset().get(index)?;
        let width = self.as_intset().width();
        let at = HEADER_LEN + index * width;
        self.0.drain(at..at + width);
        self.set_count();
        Some(value)
    }

    /// Panics if the bytes are not an intset.
    pub fn check_invariants(&self) {
        self.as_intset().check_invariants();
    }

    /// Gives every integer a greater width.
    fn widen(&mut self, width: usize) {
        let old = self.as_intset();
        let mut bytes = Vec::with_capacity(HEADER_LEN + (old.len() + 1) * width);
        bytes.extend_from_slice(&(width as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for value in old.iter() {
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        self.0 = bytes;
        self.set_count();
    }

    #[inline]
    fn set_count(&mut self) {
        let count = self.len() as u32;
        self.0[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
    }
}

#[cfg(test)]
#[path = "intset_tests.rs"]
mod tests;
