//! Editing a hash, and the change from one form to the next.

use super::packed::{Layout, Packed};
use super::template::{self, Policy, Template};
use super::{Hash, HashRef, Small};
use crate::base::hash::HashSeed;
use crate::value::Limits;
use crate::value::collection::Finished;
use crate::value::entry::{EXPIRY_MAX, Heap, Packing};
use crate::value::listpack::{self, Item, Listpack, ListpackBuf, Pos, item_size};
use triomphe::Arc;

/// What a value of a small hash may take: only a first guess.
const VALUE_BYTES_ABOUT: usize = 12;

/// The expiry of a field that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewExpiry {
    /// It has none.
    Clear,
    /// It keeps the old one; a new field has none.
    Keep,
    /// It expires at this time, in Unix milliseconds, not 0.
    At(u64),
}

/// A hash, for editing. Expired fields count as fields here: see the module's invariants.
#[derive(Debug)]
pub struct HashMut<'a> {
    form: Form<'a>,
    /// How many names it gained or lost.
    renamed: usize,
    /// Whether it used a template before this edit.
    left_template: bool,
    entries_max: usize,
    value_max: usize,
    templates: Policy,
    seed: HashSeed,
}

#[derive(Debug)]
enum Form<'a> {
    /// A small hash.
    Packed(ListpackBuf, Layout),
    /// A large hash, in place.
    InPlace(&'a mut Hash),
    /// A large hash that is still to be stored.
    Own(Hash),
}

impl<'a> HashMut<'a> {
    fn new(form: Form<'a>, limits: &Limits) -> HashMut<'a> {
        HashMut {
            form,
            renamed: 0,
            left_template: false,
            entries_max: limits.hash_max_listpack_entries,
            value_max: limits.hash_max_listpack_value,
            templates: limits.hash_templates,
            seed: limits.seed,
        }
    }

    /// A hash without fields, which takes over a buffer.
    #[inline]
    pub fn empty(mut buffer: Vec<u8>, limits: &Limits) -> HashMut<'a> {
        buffer.clear();
        buffer.extend_from_slice(Listpack::EMPTY.as_bytes());
        HashMut::packed(Packing::Hash, buffer, limits)
    }

    #[inline]
    pub(super) fn packed(packing: Packing, mut bytes: Vec<u8>, limits: &Limits) -> HashMut<'a> {
        let layout = match packing {
            Packing::HashTemplated => {
                let (template, values) = Template::open(&bytes);
                let len = values.len();
                bytes.truncate(len);
                Layout::Templated(template)
            }
            Packing::HashEx => Layout::Expiring,
            _ => Layout::Plain,
        };
        HashMut::new(Form::Packed(ListpackBuf::from_vec(bytes), layout), limits)
    }

    #[inline]
    pub(super) fn large(hash: &'a mut Hash, limits: &Limits) -> HashMut<'a> {
        HashMut::new(Form::InPlace(hash), limits)
    }

    /// What to store.
    #[inline]
    pub(super) fn finish(self) -> Finished {
        let looks = self.looks();
        match self.form {
            Form::Packed(list, _) if list.is_empty() => Finished::Empty,
            Form::Packed(list, Layout::Expiring) => Finished::Packed(Packing::HashEx, list.into_vec()),
            Form::Packed(list, Layout::Templated(template)) => templated(template, list),
            Form::Packed(list, Layout::Plain) => {
                match looks.then(|| Template::of(list.as_listpack(), self.templates)).flatten() {
                    Some(template) => templated(template, template::values_of(list.as_listpack())),
                    None => Finished::Packed(Packing::Hash, list.into_vec()),
                }
            }
            Form::InPlace(hash) if hash.len() == 0 => Finished::Empty,
            Form::InPlace(_) => Finished::InPlace,
            Form::Own(hash) if hash.len() == 0 => Finished::Empty,
            Form::Own(hash) => Finished::Large(Heap::Hash(Arc::new(hash))),
        }
    }

    /// Whether there may be a template for a hash that has its names beside its values. One that is made field by field
    /// is looked up when it has just enough names. If there is a template for these, it goes on from template to
    /// template. If not, its names are probably no other's, and to look at all of them with each field would cost more
    /// than the field.
    #[inline]
    fn looks(&self) -> bool {
        let enough = self.templates.entries_min;
        let has_just_enough = || matches!(&self.form, Form::Packed(list, _) if list.len() / 2 <= enough);
        self.left_template || self.renamed > 1 || self.renamed == 1 && has_just_enough()
    }

    /// The hash as it is now, to read.
    #[inline]
    pub fn view(&self) -> HashRef<'_> {
        match &self.form {
            Form::Packed(list, layout) => HashRef::Small(Small(Packed { list: list.as_listpack(), layout: *layout })),
            Form::InPlace(hash) => HashRef::Large(hash),
            Form::Own(hash) => HashRef::Large(hash),
        }
    }

    /// Prepares for storing this many fields at once. As in Redis, more fields than a small hash may have make it
    /// large, whether they are new or not.
    pub fn reserve(&mut self, fields: usize) {
        if fields > self.entries_max && matches!(self.form, Form::Packed(..)) {
            self.enlarge(fields);
        }
    }

    /// Says that many hashes with these names are to come: they use a template, if one can be had.
    pub fn expect_more(&mut self) {
        self.templates = Policy::PREPARED;
    }

    /// Stores fields that do not expire. Returns how many are new. The values of a new hash stand without names from
    /// the first if there is a template for it.
    pub fn set_all<'i>(&mut self, fields: impl ExactSizeIterator<Item = (&'i [u8], &'i [u8])> + Clone) -> usize {
        self.reserve(fields.len());
        if let Some(template) = self.known_template(fields.clone()) {
            let mut values = ListpackBuf::with_capacity(VALUE_BYTES_ABOUT * fields.len());
            fields.for_each(|(_, value)| values.push_back(value));
            self.form = Form::Packed(values, Layout::Templated(template));
            return template.len();
        }
        fields.map(|(name, value)| usize::from(self.set(name, value, NewExpiry::Clear))).sum()
    }

    /// The template that a hash without fields will use if it gets these.
    fn known_template<'i>(
        &self,
        mut fields: impl ExactSizeIterator<Item = (&'i [u8], &'i [u8])> + Clone,
    ) -> Option<&'static Template> {
        let Form::Packed(list, Layout::Plain) = &self.form else { return None };
        let names = fields.clone().map(|(name, _)| name);
        const ITEM_OVERHEAD_MAX: usize = 16;
        let mut bytes = 0;
        let is_small = |(name, value): (&[u8], &[u8])| {
            bytes += value.len() + ITEM_OVERHEAD_MAX;
            name.len().max(value.len()) <= self.value_max && bytes < listpack::BYTES_MAX / 2
        };
        (list.is_empty() && fields.all(is_small)).then(|| Template::known(names, self.templates)).flatten()
    }

    /// Stores a field. Returns whether it is new.
    pub fn set<'i>(&mut self, field: &[u8], value: impl Into<Item<'i>>, expiry: NewExpiry) -> bool {
        let value = value.into();
        if self.add_to_template(field, value, expiry) {
            return true;
        }
        self.leave_template(|template| template.position(field).is_none() || matches!(expiry, NewExpiry::At(_)));
        if let Form::Packed(list, layout) = &self.form {
            const EXPIRY_BYTES_MAX: usize = 10;
            let longest = field.len().max(value.text_len());
            let added = longest > self.value_max
                || list.encoded_len() + item_size(field) + item_size(value) + EXPIRY_BYTES_MAX > listpack::BYTES_MAX;
            if added {
                self.enlarge(0);
            } else if matches!((layout, expiry), (Layout::Plain, NewExpiry::At(_))) {
                self.widen();
            }
        }
        let is_new = match &mut self.form {
            Form::Packed(list, layout) => set_packed(list, *layout, field, value, expiry),
            Form::InPlace(hash) => set_large(hash, field, value, expiry),
            Form::Own(hash) => set_large(hash, field, value, expiry),
        };
        self.renamed += usize::from(is_new);
        if is_new && matches!(self.form, Form::Packed(..)) && self.view().stored_len() > self.entries_max {
            self.enlarge(0);
        }
        is_new
    }

    /// Removes a field. Returns whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        self.leave_template(|template| template.position(field).is_some());
        match &mut self.form {
            Form::Packed(list, layout) => {
                let packed = Packed { list: list.as_listpack(), layout: *layout };
                let found = packed.find(field);
                if let Some(pos) = found {
                    let width = packed.width();
                    list.remove(pos, width);
                    self.renamed += 1;
                }
                found.is_some()
            }
            Form::InPlace(hash) => hash.remove(field),
            Form::Own(hash) => hash.remove(field),
        }
    }

    /// Sets the expiry of an existing field (Unix milliseconds, not 0), or clears it.
    pub fn set_expiry(&mut self, field: &[u8], expiry: Option<u64>) {
        let expiry = expiry.map(|at| at.min(EXPIRY_MAX));
        if expiry.is_some() {
            self.leave_template(|_| true);
            self.widen();
        }
        match &mut self.form {
            Form::Packed(_, Layout::Plain | Layout::Templated(_)) => {}
            Form::Packed(list, layout @ Layout::Expiring) => {
                let packed = Packed { list: list.as_listpack(), layout: *layout };
                if let Some(pos) = packed.find(field) {
                    let value = packed.list.iter_from(pos).nth(1).map_or(Vec::new(), Item::to_vec);
                    place(list, Some(pos), field, Item::Str(&value), expiry);
                }
            }
            Form::InPlace(hash) => hash.set_expiry(field, expiry),
            Form::Own(hash) => hash.set_expiry(field, expiry),
        }
    }

    /// Removes at most `limit` expired fields and returns them.
    pub fn remove_expired(&mut self, now: u64, limit: usize) -> Vec<Box<[u8]>> {
        match &mut self.form {
            Form::Packed(list, layout) => {
                let packed = Packed { list: list.as_listpack(), layout: *layout };
                let names = packed.expired(now).take(limit).map(|field| field.name.to_vec().into());
                let removed: Vec<Box<[u8]>> = names.collect();
                if let Some(first) = packed.list.first().filter(|_| !removed.is_empty()) {
                    list.remove(first, 3 * removed.len());
                }
                removed
            }
            Form::InPlace(hash) => hash.remove_expired(now, limit),
            Form::Own(hash) => hash.remove_expired(now, limit),
        }
    }

    /// Adds a field to a hash of a template, if there is a template for what it becomes.
    #[inline]
    fn add_to_template(&mut self, field: &[u8], value: Item<'_>, expiry: NewExpiry) -> bool {
        let Form::Packed(values, layout @ Layout::Templated(_)) = &mut self.form else { return false };
        let Layout::Templated(template) = *layout else { return false };
        let is_small = field.len().max(value.text_len()) <= self.value_max
            && template.len() < self.entries_max
            && values.encoded_len() + item_size(value) <= listpack::BYTES_MAX / 2;
        if !is_small || matches!(expiry, NewExpiry::At(_)) || template.position(field).is_some() {
            return false;
        }
        let Some(longer) = template.with(field, self.templates) else { return false };
        values.push_back(value);
        *layout = Layout::Templated(longer);
        true
    }

    /// Gives a small hash its own names back, if it uses a template that an edit cannot stay with.
    #[inline]
    fn leave_template(&mut self, must_leave: impl FnOnce(&Template) -> bool) {
        if let Form::Packed(list, layout @ Layout::Templated(_)) = &mut self.form
            && let Layout::Templated(template) = *layout
            && must_leave(template)
        {
            (*list, *layout) = (template.expand(list.as_listpack()), Layout::Plain);
            self.left_template = true;
        }
    }

    /// Gives a small hash room for expiries.
    fn widen(&mut self) {
        if let Form::Packed(list, layout @ Layout::Plain) = &mut self.form {
            let mut wide = ListpackBuf::with_capacity(list.encoded_len() * 5 / 4);
            for (field, value) in list.as_listpack().pairs() {
                wide.extend([field, value, Item::Int(0)]);
            }
            (*list, *layout) = (wide, Layout::Expiring);
        }
    }

    /// Makes a small hash large, with room for at least this many fields.
    #[cold]
    fn enlarge(&mut self, fields: usize) {
        if let Form::Packed(list, layout) = &self.form {
            let packed = Packed { list: list.as_listpack(), layout: *layout };
            self.form = Form::Own(Hash::of_fields(packed.len().max(fields), packed.iter(), self.seed));
        }
    }
}

fn set_large(hash: &mut Hash, field: &[u8], value: Item<'_>, expiry: NewExpiry) -> bool {
    let expiry = match expiry {
        NewExpiry::Clear => None,
        NewExpiry::Keep => hash.expiry(field),
        NewExpiry::At(at) => Some(at.min(EXPIRY_MAX)),
    };
    hash.set(field, value, expiry)
}

/// The bytes of a hash that uses a template.
fn templated(template: &Template, values: ListpackBuf) -> Finished {
    let mut bytes = values.into_vec();
    template.seal(&mut bytes);
    Finished::Packed(Packing::HashTemplated, bytes)
}

fn set_packed(list: &mut ListpackBuf, layout: Layout, field: &[u8], value: Item<'_>, expiry: NewExpiry) -> bool {
    let packed = Packed { list: list.as_listpack(), layout };
    let expiring = matches!(layout, Layout::Expiring);
    let Some(pos) = packed.find(field) else {
        if expiring {
            let at = if let NewExpiry::At(at) = expiry { Some(at.min(EXPIRY_MAX)) } else { None };
            place(list, None, field, value, at);
        } else {
            list.extend([Item::Str(field), value]);
        }
        return true;
    };
    if let Layout::Templated(_) = layout {
        list.replace(pos, value);
        return false;
    }
    let mut rest = packed.list.iter_from(pos);
    rest.next();
    let value_pos = rest.front_pos();
    let has_expiry = expiring && rest.nth(1).is_some_and(|at| at != Item::Int(0));
    match (expiry, value_pos) {
        (NewExpiry::At(at), _) => place(list, Some(pos), field, value, Some(at.min(EXPIRY_MAX))),
        (NewExpiry::Clear, _) if has_expiry => place(list, Some(pos), field, value, None),
        (_, Some(value_pos)) => list.replace(value_pos, value),
        (_, None) => unreachable!("a field has a value"),
    }
    false
}

/// Puts a field into a listpack with expiries at the place of its expiry: before fields that do not expire earlier,
/// and at the end if it does not expire. `old` is its previous place.
fn place(list: &mut ListpackBuf, old: Option<Pos>, field: &[u8], value: Item<'_>, expiry: Option<u64>) {
    if let Some(old) = old {
        list.remove(old, 3);
    }
    let Some(at) = expiry else {
        return list.extend([Item::Str(field), value, Item::Int(0)]);
    };
    let later = {
        let mut items = list.as_listpack().iter();
        loop {
            let pos = items.front_pos();
            match items.nth(2) {
                Some(Item::Int(other)) if other != 0 && (other as u64) < at => {}
                Some(_) => break pos,
                None => break None,
            }
        }
    };
    let triple = [Item::Str(field), value, Item::Int(at as i64)];
    match later {
        None => list.extend(triple),
        Some(pos) => triple.into_iter().rev().for_each(|item| {
            list.insert_before(pos, item);
        }),
    }
}
