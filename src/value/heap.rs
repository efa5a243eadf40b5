//! The payloads of values outside their record, each behind one thin, counted pointer.
//!
//! Invariants:
//! - A pointer from `Heap::into_raw` owns one reference. The kind that is stored beside it tells the type.
//! - A shared payload is never changed.

use std::mem::ManuallyDrop;
use std::ops::Deref;

use triomphe::{Arc, ThinArc};

use super::kind::{Kind, Packing};
use super::{Hash, List, Set, Stream, Zset};

/// Immutable bytes behind one thin, counted pointer; a clone costs one increment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedBytes(ThinArc<(), u8>);

impl SharedBytes {
    /// Copies `bytes` into a new allocation.
    pub fn new(bytes: &[u8]) -> SharedBytes {
        SharedBytes(ThinArc::from_header_and_slice((), bytes))
    }

    /// The current number of owners.
    pub fn strong_count(&self) -> usize {
        ThinArc::strong_count(&self.0)
    }

    #[inline]
    pub(super) fn into_raw(self) -> *const () {
        self.0.into_raw().cast()
    }

    /// # Safety
    /// `raw` came from `into_raw`, and the reference it owned passes to the result.
    #[inline]
    pub(super) unsafe fn from_raw(raw: *const ()) -> SharedBytes {
        // SAFETY: the caller hands over the reference that `into_raw` left behind.
        SharedBytes(unsafe { ThinArc::from_raw(raw.cast()) })
    }

    /// The bytes behind a pointer, which keeps its reference.
    ///
    /// # Safety
    /// `raw` came from `into_raw`, and its reference outlives `'a`.
    #[inline]
    pub(super) unsafe fn peek<'a>(raw: *const ()) -> &'a [u8] {
        // SAFETY: the reference stays with its owner (never dropped here), as the caller promises.
        let bytes = ManuallyDrop::new(unsafe { SharedBytes::from_raw(raw) });
        let slice: &[u8] = &bytes;
        // SAFETY: the bytes live on the heap for as long as the owner's reference, which is `'a`.
        unsafe { std::slice::from_raw_parts(slice.as_ptr(), slice.len()) }
    }
}

impl std::borrow::Borrow<[u8]> for SharedBytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0.slice
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for SharedBytes {
    fn from(bytes: &[u8]) -> SharedBytes {
        SharedBytes::new(bytes)
    }
}

/// An owned payload outside the record. There is one variant for each kind that can be a pointer.
///
/// A new kind needs a variant here, and an arm in `kind`, `into_raw`, `from_raw` and `bytes`.
#[derive(Clone, Debug)]
pub enum Heap {
    /// A long sealed string.
    Str(SharedBytes),
    /// A growable string.
    Raw(Arc<Vec<u8>>),
    /// A small collection, too long for the record.
    Packed(Packing, SharedBytes),
    /// A large list.
    List(Arc<List>),
    /// A large set.
    Set(Arc<Set>),
    /// A large hash.
    Hash(Arc<Hash>),
    /// A large sorted set.
    Zset(Arc<Zset>),
    /// A stream.
    Stream(Arc<Stream>),
}

/// A payload that may be changed in place: no frozen view shares it.
#[derive(Debug)]
pub enum HeapMut<'a> {
    /// A growable string.
    Raw(&'a mut Vec<u8>),
    /// A large list.
    List(&'a mut List),
    /// A large set.
    Set(&'a mut Set),
    /// A large hash.
    Hash(&'a mut Hash),
    /// A large sorted set.
    Zset(&'a mut Zset),
    /// A stream.
    Stream(&'a mut Stream),
}

impl Heap {
    /// The kind of value that this payload makes.
    pub fn kind(&self) -> Kind {
        match self {
            Heap::Str(_) => Kind::Str,
            Heap::Raw(_) => Kind::Raw,
            Heap::Packed(packing, _) => packing.kind(),
            Heap::List(_) => Kind::List,
            Heap::Set(_) => Kind::Set,
            Heap::Hash(_) => Kind::Hash,
            Heap::Zset(_) => Kind::Zset,
            Heap::Stream(_) => Kind::Stream,
        }
    }

    /// An estimate of the heap bytes that the payload holds, for `MEMORY USAGE` and for the decision to free it on
    /// another thread.
    pub fn bytes(&self) -> usize {
        match self {
            Heap::Str(bytes) | Heap::Packed(_, bytes) => bytes.len() + 2 * size_of::<usize>(),
            Heap::Raw(bytes) => bytes.capacity() + 4 * size_of::<usize>(),
            Heap::List(list) => list.bytes(),
            Heap::Set(set) => set.bytes(),
            Heap::Hash(hash) => hash.bytes(),
            Heap::Zset(zset) => zset.bytes(),
            Heap::Stream(stream) => stream.bytes(),
        }
    }

    /// Turns the payload into a thin pointer that owns its reference.
    #[inline]
    pub(super) fn into_raw(self) -> *const () {
        match self {
            Heap::Str(bytes) | Heap::Packed(_, bytes) => bytes.into_raw(),
            Heap::Raw(bytes) => Arc::into_raw(bytes).cast(),
            Heap::List(list) => Arc::into_raw(list).cast(),
            Heap::Set(set) => Arc::into_raw(set).cast(),
            Heap::Hash(hash) => Arc::into_raw(hash).cast(),
            Heap::Zset(zset) => Arc::into_raw(zset).cast(),
            Heap::Stream(stream) => Arc::into_raw(stream).cast(),
        }
    }

    /// # Safety
    /// `raw` came from `into_raw` of a payload of this `kind`; its reference passes to the result.
    #[inline]
    pub(super) unsafe fn from_raw(kind: Kind, raw: *const ()) -> Heap {
        if let Some(packing) = kind.packing() {
            // SAFETY: as the caller promises.
            return Heap::Packed(packing, unsafe { SharedBytes::from_raw(raw) });
        }
        // SAFETY: as the caller promises: the kind says what was given up for the pointer.
        unsafe {
            match kind {
                Kind::Str => Heap::Str(SharedBytes::from_raw(raw)),
                Kind::Raw => Heap::Raw(Arc::from_raw(raw.cast())),
                Kind::List => Heap::List(Arc::from_raw(raw.cast())),
                Kind::Set => Heap::Set(Arc::from_raw(raw.cast())),
                Kind::Hash => Heap::Hash(Arc::from_raw(raw.cast())),
                Kind::Zset => Heap::Zset(Arc::from_raw(raw.cast())),
                Kind::Stream => Heap::Stream(Arc::from_raw(raw.cast())),
                _ => unreachable!("an integer is never a pointer"),
            }
        }
    }

    /// Takes one more reference to the payload behind `raw`.
    ///
    /// # Safety
    /// `raw` came from `into_raw` of a payload of this `kind`, and its reference is alive.
    #[inline]
    pub(super) unsafe fn clone_raw(kind: Kind, raw: *const ()) -> Heap {
        // SAFETY: the owner's reference is only looked at: `ManuallyDrop` never gives it back.
        let owner = ManuallyDrop::new(unsafe { Heap::from_raw(kind, raw) });
        Heap::clone(&owner)
    }
}
