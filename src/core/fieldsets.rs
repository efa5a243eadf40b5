//! The fieldsets of a connection: lists of field names, prepared once, from which HIMPORT makes hashes.
//!
//! Invariants:
//! - The fields of a set are all different. They stand in the order in which a hash gets them: short names first, and
//!   equally long ones by their bytes, as in Redis.
//! - What they take is counted, and bounded by whoever prepares them.

use std::collections::HashMap;

/// What a fieldset takes besides its names, about, in bytes.
const FIELDSET_BYTES: usize = 96;
/// What a field takes besides its name, about, in bytes.
const FIELD_BYTES: usize = size_of::<(Box<[u8]>, usize)>() + 16;

/// One fieldset: each field with the place of its value among the values of a call.
#[derive(Clone, Debug)]
pub struct Fieldset {
    fields: Vec<(Box<[u8]>, usize)>,
    bytes: usize,
}

/// All fieldsets of a connection, by name.
#[derive(Clone, Debug, Default)]
pub struct Fieldsets {
    by_name: HashMap<Box<[u8]>, Fieldset>,
    bytes: usize,
}

impl Fieldset {
    /// The fields of a set with this name; `None` if one is named twice.
    pub fn new<'a>(name: &[u8], fields: impl Iterator<Item = &'a [u8]>) -> Option<Fieldset> {
        let mut fields: Vec<(Box<[u8]>, usize)> = fields.enumerate().map(|(at, field)| (field.into(), at)).collect();
        fields.sort_unstable_by(|(one, _), (other, _)| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
        let names: usize = fields.iter().map(|(field, _)| field.len() + FIELD_BYTES).sum();
        let is_unique = fields.windows(2).all(|pair| pair[0].0 != pair[1].0);
        is_unique.then(|| Fieldset { fields, bytes: names + name.len() + FIELDSET_BYTES })
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields, each with the place of its value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], usize)> + Clone {
        self.fields.iter().map(|(field, at)| (&**field, *at))
    }

    /// The memory that it takes with its name, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Fieldsets {
    /// The fieldset of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Fieldset> {
        self.by_name.get(name)
    }

    /// Keeps a fieldset, in the place of one of the same name.
    pub fn put(&mut self, name: &[u8], fieldset: Fieldset) {
        self.bytes += fieldset.bytes;
        if let Some(old) = self.by_name.insert(name.into(), fieldset) {
            self.bytes -= old.bytes;
        }
    }

    /// Drops the fieldset of this name. Returns whether there was one.
    pub fn discard(&mut self, name: &[u8]) -> bool {
        let old = self.by_name.remove(name);
        self.bytes -= old.as_ref().map_or(0, Fieldset::bytes);
        old.is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The memory that they take, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
