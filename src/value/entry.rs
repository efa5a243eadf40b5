//! What one record of a segment holds, and the payloads that live outside it.
//!
//! ```text
//!   0       1      2      3         6            6+klen        6+klen+vlen
//!   ┌───────┬──────┬──────┬─────────┬────────────┬─────────────┬────────────┐
//!   │ flags │ klen │ vlen │ access  │ key        │ value       │ expiry     │
//!   │ u8    │ u8   │ u8   │ u24     │ klen bytes │ vlen bytes  │ u48 or none│
//!   └───────┴──────┴──────┴─────────┴────────────┴─────────────┴────────────┘
//!   flags: bit 0 has an expiry, bit 1 the key is a pointer, bit 2 the value is a pointer,
//!          bits 3..8 the kind
//! ```
//!
//! This layout lives in memory only; it is never persisted. Invariants:
//!
//! - klen and vlen are the lengths *in the record*: 8 where a pointer stands for the bytes.
//! - A pointer was made by `Heap::into_raw` (for a key, of a [`SharedBytes`]) and owns one reference.
//! - An `Int` is always in the record. A `Raw` and a large collection are always pointers. A `Str` and a packed
//!   collection are pointers only when longer than [`INLINE_VALUE_MAX`]. The form of a value thus follows from the
//!   value.
//!
//! A reader never allocates. Records are written only here, into room that the segment has made.

use std::marker::PhantomData;
use std::ops::Deref;

use triomphe::Arc;

pub use super::heap::{Heap, HeapMut, SharedBytes};
pub use super::kind::{Kind, Packing};
use super::{Hash, List, Map, Set, Stream, Zset, hash};
use crate::base::bytes::is_same;

/// The longest string value that lives inside the record.
pub const INLINE_VALUE_MAX: usize = 128;
/// The longest key that lives inside the record.
pub const INLINE_KEY_MAX: usize = 200;
/// The largest value of the access field (LRU clock, or LFU minutes and counter).
pub const ACCESS_MAX: u32 = (1 << 24) - 1;
/// The largest expiry that a record can hold, in unix milliseconds (the year 10889).
pub const EXPIRY_MAX: u64 = (1 << 48) - 1;

pub(super) const HEAD_LEN: usize = 6;
pub(super) const EXPIRY_LEN: usize = 6;
pub(super) const POINTER_LEN: usize = 8;
pub(super) const FLAG_EXPIRY: u8 = 1;
pub(super) const FLAG_KEY_SPILLED: u8 = 2;
pub(super) const FLAG_VALUE_SPILLED: u8 = 4;
pub(super) const KIND_SHIFT: u32 = 3;

/// A value to be stored.
#[derive(Debug)]
pub enum NewValue<'a> {
    /// An integer.
    Int(i64),
    /// Bytes to copy: into the record if they are short, else into a sealed payload.
    Bytes(&'a [u8]),
    /// Bytes that are already sealed (short ones are still copied into the record).
    Shared(SharedBytes),
    /// A growable string.
    Raw(Vec<u8>),
    /// A small collection: its bytes are copied, as those of a string are.
    Packed(Packing, &'a [u8]),
    /// A payload taken from another record.
    Heap(Heap),
}

/// The form of a value inside the record, ready to be copied there.
pub(super) struct Body<'a> {
    pub(super) kind: Kind,
    pub(super) form: Form<'a>,
}

pub(super) enum Form<'a> {
    Int(i64),
    Inline(&'a [u8]),
    Spilled(*const ()),
}

impl Body<'_> {
    /// The value's length in the record; at most `INLINE_VALUE_MAX`.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match &self.form {
            Form::Int(_) => size_of::<i64>(),
            Form::Inline(bytes) => bytes.len(),
            Form::Spilled(_) => POINTER_LEN,
        }
    }

    #[inline]
    pub(super) fn is_spilled(&self) -> bool {
        matches!(self.form, Form::Spilled(_))
    }

    #[inline]
    pub(super) fn flags(&self) -> u8 {
        let spilled = if self.is_spilled() { FLAG_VALUE_SPILLED } else { 0 };
        (self.kind as u8) << KIND_SHIFT | spilled
    }
}

impl NewValue<'_> {
    /// A lower bound of the expiries of this collection's elements; `None` if none expires.
    #[inline]
    pub fn expiry(&self) -> Option<u64> {
        match self {
            NewValue::Packed(Packing::HashEx, bytes) => hash::packed_earliest(bytes),
            NewValue::Heap(Heap::Packed(Packing::HashEx, bytes)) => hash::packed_earliest(bytes),
            NewValue::Heap(Heap::Hash(hash)) => hash.earliest_expiry(),
            _ => None,
        }
    }

    /// Whether it is a hash that uses a template.
    #[inline]
    pub(super) fn is_templated(&self) -> bool {
        let (NewValue::Packed(packing, _) | NewValue::Heap(Heap::Packed(packing, _))) = self else { return false };
        *packing == Packing::HashTemplated
    }

    /// Calls `store` with the form that the record will hold.
    ///
    /// A reference held by a pointer form passes to the caller that stores it.
    #[inline]
    pub(super) fn with_body<R>(self, store: impl FnOnce(Body<'_>) -> R) -> R {
        let shared = match self {
            NewValue::Int(number) => return store(Body { kind: Kind::Int, form: Form::Int(number) }),
            NewValue::Bytes(bytes) if bytes.len() <= INLINE_VALUE_MAX => {
                return store(Body { kind: Kind::Str, form: Form::Inline(bytes) });
            }
            NewValue::Bytes(bytes) => SharedBytes::new(bytes),
            NewValue::Shared(bytes) | NewValue::Heap(Heap::Str(bytes)) => bytes,
            NewValue::Raw(bytes) => return store(Body::spilled(Heap::Raw(Arc::new(bytes)))),
            NewValue::Packed(packing, bytes) if bytes.len() <= INLINE_VALUE_MAX => {
                return store(Body { kind: packing.kind(), form: Form::Inline(bytes) });
            }
            NewValue::Packed(packing, bytes) => {
                return store(Body::spilled(Heap::Packed(packing, SharedBytes::new(bytes))));
            }
            NewValue::Heap(Heap::Packed(packing, bytes)) if bytes.len() <= INLINE_VALUE_MAX => {
                return store(Body { kind: packing.kind(), form: Form::Inline(&bytes) });
            }
            NewValue::Heap(heap) => return store(Body::spilled(heap)),
        };
        if shared.len() <= INLINE_VALUE_MAX {
            store(Body { kind: Kind::Str, form: Form::Inline(&shared) })
        } else {
            store(Body::spilled(Heap::Str(shared)))
        }
    }
}

impl Body<'_> {
    fn spilled(heap: Heap) -> Body<'static> {
        Body { kind: heap.kind(), form: Form::Spilled(heap.into_raw()) }
    }
}

/// The bytes of a stored string.
#[derive(Clone, Copy)]
pub struct BytesRef<'a> {
    bytes: &'a [u8],
    sealed: *const (),
}

impl<'a> BytesRef<'a> {
    /// The bytes, for as long as the store is borrowed.
    #[inline]
    pub fn as_slice(&self) -> &'a [u8] {
        self.bytes
    }

    /// A new reference to the bytes of a sealed payload, so that a large reply is sent without a copy. `None` for
    /// bytes in the record and for growable ones.
    #[inline]
    pub fn share(&self) -> Option<SharedBytes> {
        if self.sealed.is_null() {
            return None;
        }
        // SAFETY: a non-null `sealed` is the pointer of a sealed payload whose record is borrowed
        // for `'a`, so its reference is alive.
        match unsafe { Heap::clone_raw(Kind::Str, self.sealed) } {
            Heap::Str(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl Deref for BytesRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl std::fmt::Debug for BytesRef<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "\"{}\"", self.bytes.escape_ascii())
    }
}

/// A stored value, borrowed.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// An integer; `OBJECT ENCODING` says `int`.
    Int(i64),
    /// A sealed string: `embstr` up to 44 bytes, else `raw`.
    Str(BytesRef<'a>),
    /// A growable string: always `raw`.
    Raw(BytesRef<'a>),
    /// A small collection.
    Packed(Packing, BytesRef<'a>),
    /// A large list.
    List(&'a List),
    /// A large set.
    Set(&'a Set),
    /// A large hash.
    Hash(&'a Hash),
    /// A large sorted set.
    Zset(&'a Zset),
    /// A stream.
    Stream(&'a Stream),
}

impl<'a> ValueRef<'a> {
    /// The map of a large collection that has one.
    #[inline]
    pub fn map(&self) -> Option<&'a Map> {
        match self {
            ValueRef::Set(set) => Some(set.map()),
            ValueRef::Hash(hash) => Some(hash.map()),
            ValueRef::Zset(zset) => Some(zset.map()),
            _ => None,
        }
    }
}

/// One stored key with its value, borrowed from its segment.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    record: *const u8,
    segment: PhantomData<&'a [u8]>,
}

impl<'a> EntryRef<'a> {
    /// # Safety
    /// `record` points at a whole record as drawn above, unchanged and alive for `'a`.
    #[inline]
    pub(super) unsafe fn new(record: *const u8) -> EntryRef<'a> {
        EntryRef { record, segment: PhantomData }
    }

    /// Where the record starts.
    #[inline]
    pub(super) fn record(&self) -> *const u8 {
        self.record
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        debug_assert!(at < HEAD_LEN);
        // SAFETY: every record has its `HEAD_LEN` first bytes.
        unsafe { self.record.add(at).read() }
    }

    #[inline]
    pub(super) fn flags(&self) -> u8 {
        self.byte(0)
    }

    #[inline]
    pub(super) fn key_len(&self) -> usize {
        usize::from(self.byte(1))
    }

    #[inline]
    pub(super) fn value_len(&self) -> usize {
        usize::from(self.byte(2))
    }

    /// The length of the whole record.
    #[inline]
    pub(super) fn len(&self) -> usize {
        let expiry = if self.flags() & FLAG_EXPIRY != 0 { EXPIRY_LEN } else { 0 };
        HEAD_LEN + self.key_len() + self.value_len() + expiry
    }

    /// How many counted pointers the record holds.
    #[inline]
    pub(super) fn spills(&self) -> u32 {
        (self.flags() & (FLAG_KEY_SPILLED | FLAG_VALUE_SPILLED)).count_ones()
    }

    /// `len` bytes of the record.
    #[inline]
    fn slice(&self, at: usize, len: usize) -> &'a [u8] {
        debug_assert!(at + len <= self.len());
        // SAFETY: `at + len` lies inside the record, which is alive for `'a`; private callers only
        // pass the fields of the drawing.
        unsafe { std::slice::from_raw_parts(self.record.add(at), len) }
    }

    #[inline]
    fn pointer(&self, at: usize) -> *const () {
        debug_assert!(at + POINTER_LEN <= self.len());
        // SAFETY: private callers ask only where the flags say that a pointer stands.
        unsafe { self.record.add(at).cast::<*const ()>().read_unaligned() }
    }

    #[inline]
    pub(super) fn key_pointer(&self) -> Option<*const ()> {
        (self.flags() & FLAG_KEY_SPILLED != 0).then(|| self.pointer(HEAD_LEN))
    }

    #[inline]
    pub(super) fn value_pointer(&self) -> Option<*const ()> {
        (self.flags() & FLAG_VALUE_SPILLED != 0).then(|| self.pointer(HEAD_LEN + self.key_len()))
    }

    /// The pointers to sealed bytes, each with its offset in the record: that of the key, and that of a value of
    /// sealed bytes.
    pub(super) fn string_pointers(&self) -> impl Iterator<Item = (usize, *const ())> {
        let is_string = self.kind() == Kind::Str || self.kind().packing().is_some();
        let value = self.value_pointer().filter(|_| is_string).map(|raw| (HEAD_LEN + self.key_len(), raw));
        self.key_pointer().map(|raw| (HEAD_LEN, raw)).into_iter().chain(value)
    }

    /// Whether the record is of this key.
    #[inline]
    pub(super) fn key_is(&self, key: &[u8]) -> bool {
        if key.len() <= INLINE_KEY_MAX {
            self.key_len() == key.len()
                && self.flags() & FLAG_KEY_SPILLED == 0
                && is_same(self.slice(HEAD_LEN, key.len()), key)
        } else {
            self.flags() & FLAG_KEY_SPILLED != 0 && self.key() == key
        }
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        match self.key_pointer() {
            // SAFETY: the pointer's reference belongs to the record, which is alive for `'a`.
            Some(raw) => unsafe { SharedBytes::peek(raw) },
            None => self.slice(HEAD_LEN, self.key_len()),
        }
    }

    /// What the value is.
    #[inline]
    pub fn kind(&self) -> Kind {
        Kind::of_tag(self.flags() >> KIND_SHIFT)
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> ValueRef<'a> {
        let at = HEAD_LEN + self.key_len();
        match self.kind() {
            Kind::Int => {
                let mut word = [0; 8];
                word.copy_from_slice(self.slice(at, 8));
                ValueRef::Int(i64::from_le_bytes(word))
            }
            Kind::Str => ValueRef::Str(self.sealed_bytes(at)),
            Kind::Raw => {
                let raw = self.pointer(at).cast::<Vec<u8>>();
                // SAFETY: a `Raw` is always the pointer of an `Arc<Vec<u8>>`, which points at the
                // vector; the record that owns the reference is alive for `'a`.
                let bytes = unsafe { (*raw).as_slice() };
                ValueRef::Raw(BytesRef { bytes, sealed: std::ptr::null() })
            }
            kind => match kind.packing() {
                Some(packing) => ValueRef::Packed(packing, self.sealed_bytes(at)),
                None => self.large_value(kind, at),
            },
        }
    }

    /// The bytes of a value that is sealed: in the record, or behind a pointer.
    #[inline]
    fn sealed_bytes(&self, at: usize) -> BytesRef<'a> {
        match self.value_pointer() {
            None => BytesRef { bytes: self.slice(at, self.value_len()), sealed: std::ptr::null() },
            Some(sealed) => {
                // SAFETY: a spilled `Str` or packed collection is a `SharedBytes`, owned by a record alive
                // for `'a`.
                let bytes = unsafe { SharedBytes::peek(sealed) };
                BytesRef { bytes, sealed }
            }
        }
    }

    fn large_value(&self, kind: Kind, at: usize) -> ValueRef<'a> {
        let raw = self.pointer(at);
        // SAFETY: a large collection is always the pointer of an `Arc` of its type, which points at the
        // collection; the record that owns the reference is alive for `'a`.
        unsafe {
            match kind {
                Kind::List => ValueRef::List(&*raw.cast()),
                Kind::Set => ValueRef::Set(&*raw.cast()),
                Kind::Hash => ValueRef::Hash(&*raw.cast()),
                Kind::Zset => ValueRef::Zset(&*raw.cast()),
                Kind::Stream => ValueRef::Stream(&*raw.cast()),
                _ => unreachable!("all other kinds are bytes or a number"),
            }
        }
    }

    /// The value, ready to be stored elsewhere (RENAME, COPY). A payload is shared, not copied.
    pub fn to_new_value(&self) -> NewValue<'a> {
        match self.heap() {
            Some(heap) => NewValue::Heap(heap),
            None => match self.value() {
                ValueRef::Int(number) => NewValue::Int(number),
                ValueRef::Packed(packing, bytes) => NewValue::Packed(packing, bytes.as_slice()),
                ValueRef::Str(bytes) | ValueRef::Raw(bytes) => NewValue::Bytes(bytes.as_slice()),
                _ => unreachable!("a large collection has a payload"),
            },
        }
    }

    /// A new reference to the payload, if the value is outside the record.
    pub fn heap(&self) -> Option<Heap> {
        let raw = self.value_pointer()?;
        // SAFETY: the pointer is of a payload of the record's kind; its reference is alive.
        Some(unsafe { Heap::clone_raw(self.kind(), raw) })
    }

    /// When the key expires, in unix milliseconds.
    #[inline]
    pub fn expiry(&self) -> Option<u64> {
        if self.flags() & FLAG_EXPIRY == 0 {
            return None;
        }
        let mut word = [0; 8];
        let at = HEAD_LEN + self.key_len() + self.value_len();
        word[..EXPIRY_LEN].copy_from_slice(self.slice(at, EXPIRY_LEN));
        Some(u64::from_le_bytes(word))
    }

    /// A lower bound of the expiries of the collection's elements, in unix milliseconds; `None` if none expires, or
    /// the value is not a collection.
    #[inline]
    pub fn value_expiry(&self) -> Option<u64> {
        match self.kind() {
            Kind::HashPackedEx | Kind::Hash => match self.value() {
                ValueRef::Packed(_, bytes) => hash::packed_earliest(&bytes),
                ValueRef::Hash(hash) => hash.earliest_expiry(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The 24-bit access field: LRU clock, or LFU minutes and counter.
    #[inline]
    pub fn access(&self) -> u32 {
        u32::from_le_bytes([self.byte(3), self.byte(4), self.byte(5), 0])
    }

    /// An estimate of the memory that the entry takes, in bytes: record, slot and payloads.
    pub fn memory(&self) -> usize {
        let key = match self.key_pointer() {
            Some(_) => self.key().len() + 2 * size_of::<usize>(),
            None => 0,
        };
        self.len() + super::segment::SLOT_LEN + key + self.heap().map_or(0, |heap| heap.bytes())
    }
}

impl std::fmt::Debug for EntryRef<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "\"{}\" = {:?}", self.key().escape_ascii(), self.value())?;
        match self.expiry() {
            Some(at) => write!(out, " until {at}"),
            None => Ok(()),
        }
    }
}

/// The length of a record with these fields.
#[inline]
pub(super) fn record_len(key_len: usize, value_len: usize, expiry: Option<u64>) -> usize {
    HEAD_LEN + key_len + value_len + if expiry.is_some() { EXPIRY_LEN } else { 0 }
}

/// Writes all of a record except its key.
///
/// # Safety
/// `record` has room for `record_len(key_len, body.len(), expiry)` bytes, which nothing reads now.
#[inline]
pub(super) unsafe fn write_head_and_value(
    record: *mut u8,
    flags: u8,
    key_len: usize,
    body: &Body<'_>,
    expiry: Option<u64>,
    access: u32,
) {
    debug_assert!(key_len <= INLINE_KEY_MAX && body.len() <= INLINE_VALUE_MAX);
    let value_len = body.len();
    // SAFETY: every write lies inside the record's length, which the caller vouches for.
    unsafe {
        record.write(flags | if expiry.is_some() { FLAG_EXPIRY } else { 0 });
        record.add(1).write(key_len as u8);
        record.add(2).write(value_len as u8);
        write_access(record, access);
        let value = record.add(HEAD_LEN + key_len);
        match body.form {
            Form::Int(number) => value.cast::<[u8; 8]>().write(number.to_le_bytes()),
            Form::Inline(bytes) => value.copy_from_nonoverlapping(bytes.as_ptr(), value_len),
            Form::Spilled(raw) => value.cast::<*const ()>().write_unaligned(raw),
        }
        if let Some(expiry) = expiry {
            write_expiry(value.add(value_len), expiry);
        }
    }
}

/// # Safety
/// `record` is the start of a record, and nothing reads it now.
#[inline]
pub(super) unsafe fn write_access(record: *mut u8, access: u32) {
    let [low, middle, high, _] = access.min(ACCESS_MAX).to_le_bytes();
    // SAFETY: bytes 3 to 5 of every record are the access field.
    unsafe { record.add(3).cast::<[u8; 3]>().write([low, middle, high]) }
}

/// # Safety
/// Six bytes at `place` may be written.
#[inline]
pub(super) unsafe fn write_expiry(place: *mut u8, expiry: u64) {
    let word = expiry.min(EXPIRY_MAX).to_le_bytes();
    // SAFETY: as the caller promises.
    unsafe { place.copy_from_nonoverlapping(word.as_ptr(), EXPIRY_LEN) }
}

/// Takes one more reference for each pointer of a record, on behalf of a copy of it.
///
/// # Safety
/// The record is alive.
pub(super) unsafe fn clone_pointers(entry: EntryRef<'_>) {
    if let Some(raw) = entry.key_pointer() {
        // SAFETY: a spilled key is a sealed payload, whose reference the record owns.
        let _ = unsafe { Heap::clone_raw(Kind::Str, raw) }.into_raw();
    }
    if let Some(raw) = entry.value_pointer() {
        // SAFETY: a spilled value is a payload of the record's kind.
        let _ = unsafe { Heap::clone_raw(entry.kind(), raw) }.into_raw();
    }
}

/// Drops the references that a record owns.
///
/// # Safety
/// The record is not used again.
pub(super) unsafe fn drop_pointers(entry: EntryRef<'_>) {
    if let Some(raw) = entry.key_pointer() {
        // SAFETY: the record owns the reference, and gives it up here.
        drop(unsafe { SharedBytes::from_raw(raw) });
    }
    if let Some(raw) = entry.value_pointer() {
        // SAFETY: the same.
        drop(unsafe { Heap::from_raw(entry.kind(), raw) });
    }
}
