//! The small forms of a hash: reads bytes as fields, and checks those that come from outside.

use std::collections::HashSet;

use super::template::{self, Template};
use super::{Field, Hash, Value};
use crate::value::Limits;
use crate::value::entry::{EXPIRY_MAX, Heap, NewValue, Packing};
use crate::value::heap::SharedBytes;
use crate::value::listpack::{Item, Listpack, ListpackBuf, Pos};
use triomphe::Arc;

/// What the elements of a small hash are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout {
    /// Names and values.
    Plain,
    /// Names, values and expiries; 0 for none.
    Expiring,
    /// The values of a template's names.
    Templated(&'static Template),
}

/// A small hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    pub(super) list: Listpack<'a>,
    pub(super) layout: Layout,
}

impl<'a> Packed<'a> {
    /// The bytes of a record or payload.
    #[inline]
    pub(super) fn open(packing: Packing, bytes: &'a [u8]) -> Packed<'a> {
        match packing {
            Packing::HashTemplated => {
                let (template, values) = Template::open(bytes);
                Packed { list: Listpack::trusted(values), layout: Layout::Templated(template) }
            }
            Packing::HashEx => Packed { list: Listpack::trusted(bytes), layout: Layout::Expiring },
            _ => Packed { list: Listpack::trusted(bytes), layout: Layout::Plain },
        }
    }

    /// How many elements a field takes.
    #[inline]
    pub(super) fn width(self) -> usize {
        match self.layout {
            Layout::Plain => 2,
            Layout::Expiring => 3,
            Layout::Templated(_) => 1,
        }
    }

    #[inline]
    fn template(self) -> Option<&'static Template> {
        if let Layout::Templated(template) = self.layout { Some(template) } else { None }
    }

    #[inline]
    fn is_expiring(self) -> bool {
        matches!(self.layout, Layout::Expiring)
    }

    /// How many fields there are.
    #[inline]
    pub(super) fn len(self) -> usize {
        self.list.len() / self.width()
    }

    /// The position of a field: that of its name, or of its value if the names are elsewhere.
    #[inline]
    pub(super) fn find(self, field: &[u8]) -> Option<Pos> {
        match self.layout {
            Layout::Templated(template) => self.list.seek(template.position(field)? as i64),
            _ => self.list.find(field, self.list.first()?, self.width() - 1),
        }
    }

    /// The value of a field, and when it expires.
    #[inline]
    pub(super) fn get(self, field: &[u8]) -> Option<(Item<'a>, Option<u64>)> {
        let mut rest = self.list.iter_from(self.find(field)?);
        if self.template().is_none() {
            rest.next();
        }
        let value = rest.next()?;
        let expiry = if self.is_expiring() { expiry_of(rest.next()?) } else { None };
        Some((value, expiry))
    }

    /// The fields in their order.
    pub(super) fn iter(self) -> impl Iterator<Item = Field<'a>> {
        let mut items = self.list.iter();
        let mut names = self.template().map(Template::names);
        std::iter::from_fn(move || {
            let name = match &mut names {
                Some(names) => Item::Str(names.next()?),
                None => items.next()?,
            };
            let value = Value::Item(items.next()?);
            let expiry = if self.is_expiring() { expiry_of(items.next()?) } else { None };
            Some(Field { name, value, expiry })
        })
    }

    /// The field of an index.
    pub(super) fn nth(self, index: usize) -> Option<Field<'a>> {
        let mut items = self.list.iter_from(self.list.seek((index * self.width()) as i64)?);
        let name = match self.template() {
            Some(template) => Item::Str(template.names().nth(index)?),
            None => items.next()?,
        };
        let value = Value::Item(items.next()?);
        let expiry = if self.is_expiring() { expiry_of(items.next()?) } else { None };
        Some(Field { name, value, expiry })
    }

    /// The expired fields, which come first.
    pub(super) fn expired(self, now: u64) -> impl Iterator<Item = Field<'a>> {
        self.iter().take_while(move |field| field.expiry.is_some_and(|at| at <= now))
    }

    /// When the first field expires.
    #[inline]
    pub(super) fn earliest_expiry(self) -> Option<u64> {
        if !self.is_expiring() {
            return None;
        }
        self.list.iter().nth(2).and_then(expiry_of)
    }
}

/// When the first field expires, given the listpack of a hash with expiries.
#[inline]
pub(in crate::value) fn packed_earliest(bytes: &[u8]) -> Option<u64> {
    Packed::open(Packing::HashEx, bytes).earliest_expiry()
}

/// An expiry, as stored in a listpack.
#[inline]
fn expiry_of(item: Item<'_>) -> Option<u64> {
    match item {
        Item::Int(at) => u64::try_from(at).ok().filter(|&at| at > 0),
        Item::Str(_) => None,
    }
}

/// Decodes a small hash from bytes of any origin. It becomes large if it exceeds the limits.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_packed<'a>(bytes: &'a [u8], expiring: bool, limits: &Limits) -> Result<NewValue<'a>, &'static str> {
    let list = Listpack::parse(bytes).ok_or("a hash's listpack is malformed")?;
    let packed = Packed { list, layout: if expiring { Layout::Expiring } else { Layout::Plain } };
    if list.is_empty() || !list.len().is_multiple_of(packed.width()) {
        return Err("a hash's listpack has no fields, or not all of one");
    }
    if expiring && !expiries_are_sound(list) {
        return Err("the expiries of a hash's fields are malformed or out of order");
    }
    // Elements are compared by their text: an integer may be stored as a number or as its digits.
    let mut names = HashSet::with_capacity(packed.len());
    if !packed.iter().all(|field| names.insert(field.name.to_vec())) {
        return Err("a hash has a field twice");
    }
    if packed.len() > limits.hash_max_listpack_entries {
        let hash = Hash::of_fields(packed.len(), packed.iter(), limits.seed);
        return Ok(NewValue::Heap(Heap::Hash(Arc::new(hash))));
    }
    if expiring {
        return Ok(NewValue::Packed(Packing::HashEx, bytes));
    }
    Ok(match Template::of(list, limits.hash_templates) {
        Some(template) => {
            let mut values = template::values_of(list).into_vec();
            template.seal(&mut values);
            NewValue::Heap(Heap::Packed(Packing::HashTemplated, SharedBytes::new(&values)))
        }
        None => NewValue::Packed(Packing::Hash, bytes),
    })
}

/// A hash of a template with its names beside its values, as it is persisted.
pub(in crate::value) fn expanded(bytes: &[u8]) -> ListpackBuf {
    let (template, values) = Template::open(bytes);
    template.expand(Listpack::trusted(values))
}

/// The length of [`expanded`], in bytes.
pub(in crate::value) fn expanded_len(bytes: &[u8]) -> usize {
    let (template, values) = Template::open(bytes);
    template.expanded_len(Listpack::trusted(values))
}

/// Whether every third element is an expiry or 0, ascending, with zeros last.
fn expiries_are_sound(list: Listpack<'_>) -> bool {
    let mut last = 0;
    list.iter().skip(2).step_by(3).all(|item| {
        let at = match item {
            Item::Int(0) => u64::MAX,
            Item::Int(at) if at > 0 && at as u64 <= EXPIRY_MAX => at as u64,
            _ => return false,
        };
        let ascends = at >= last;
        last = at;
        ascends
    })
}
