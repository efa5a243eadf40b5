//! What all types of collection have in common for the code that stores them: a form to read, a form to edit, and
//! what to store when an edit ends.

use super::Limits;
use super::entry::{Heap, HeapMut, Kind, Packing, ValueRef};

/// The value of a key that is about to be edited.
#[derive(Debug)]
pub enum Stored<'a> {
    /// No value, and an empty buffer to begin in.
    Missing(Vec<u8>),
    /// A small collection: a copy of its bytes.
    Packed(Packing, Vec<u8>),
    /// A large collection, in place.
    Large(HeapMut<'a>),
}

/// What to store after an edit.
#[derive(Debug)]
pub enum Finished {
    /// Nothing: the collection is empty, so its key is removed.
    Empty,
    /// Nothing new: the value was edited in place.
    InPlace,
    /// A small collection; the buffer is reused.
    Packed(Packing, Vec<u8>),
    /// A large collection, which has outgrown its small form.
    Large(Heap),
}

/// A type of collection, represented by a type without values.
pub trait Collection {
    /// The collection, for reading.
    type Ref<'a>;
    /// The collection, for editing. It changes its form by itself when necessary.
    type Mut<'a>;

    /// Whether values of this kind are of this type.
    fn is(kind: Kind) -> bool;

    /// The value for reading; `None` if it is of another type.
    fn view(value: ValueRef<'_>) -> Option<Self::Ref<'_>>;

    /// The value for editing; `None` if it is of another type.
    fn edit<'a>(stored: Stored<'a>, limits: &Limits) -> Option<Self::Mut<'a>>;

    /// Ends an edit and says what to store.
    fn finish(edited: Self::Mut<'_>) -> Finished;
}
