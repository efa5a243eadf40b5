//! What all types of collection have in common for those who store them: a form to read, a form to edit, and
//! what is to be stored when an edit ends.

use super::Limits;
use super::entry::{Heap, HeapMut, Kind, Packing, ValueRef};

/// What stands at a key that is about to be edited.
#[derive(Debug)]
pub enum Stored<'a> {
    /// Nothing; with an empty buffer to begin in.
    Missing(Vec<u8>),
    /// A small collection: a copy of its bytes.
    Packed(Packing, Vec<u8>),
    /// A large collection, in its place.
    Large(HeapMut<'a>),
}

/// What is to be stored after an edit.
#[derive(Debug)]
pub enum Finished {
    /// Nothing: the collection is empty, so its key goes.
    Empty,
    /// What was edited in its place.
    InPlace,
    /// A small collection; the buffer is used again.
    Packed(Packing, Vec<u8>),
    /// A large one: it has grown out of its small form.
    Large(Heap),
}

/// A type of collection, named by a type without values.
pub trait Collection {
    /// The collection, for reading.
    type Ref<'a>;
    /// The collection, for editing: it changes its form by itself when it must.
    type Mut<'a>;

    /// Whether values of this kind are of this type.
    fn is(kind: Kind) -> bool;

    /// The value for reading; `None` if it is of another type.
    fn view(value: ValueRef<'_>) -> Option<Self::Ref<'_>>;

    /// The value for editing; `None` if it is of another type.
    fn edit<'a>(stored: Stored<'a>, limits: &Limits) -> Option<Self::Mut<'a>>;

    /// What an edit has come to.
    fn finish(edited: Self::Mut<'_>) -> Finished;
}
