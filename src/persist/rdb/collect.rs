//! Reads a payload of DUMP into an [`RdbValue`].
//!
//! Meant for tests, tools and values known to be small. It allocates every element separately, which can take
//! thousands of times the size of the payload. Code that takes payloads from clients builds the value in an
//! [`RdbSink`] of its own.

use std::borrow::Cow;
use std::collections::HashSet;

use super::decode::{RdbSink, decode_dump_into};
use super::{RdbEntryFields, RdbError, RdbStream, RdbStreamId, RdbStreamMeta, RdbValue};
use crate::base::config::RdbVersionCheck;

/// Reads a payload of DUMP.
pub fn decode_dump(payload: &[u8]) -> Result<RdbValue, RdbError> {
    let mut collector = Collector::default();
    decode_dump_into(payload, RdbVersionCheck::Strict, &mut collector)?;
    collector.value.ok_or(RdbError::Format { at: 0, what: "no value" })
}

/// Collects a value and remembers the names of its members.
#[derive(Default)]
struct Collector {
    value: Option<RdbValue>,
    seen: HashSet<Vec<u8>>,
}

impl Collector {
    /// The value; `empty` if nothing has been collected yet.
    fn begun(&mut self, empty: RdbValue) -> &mut RdbValue {
        self.value.get_or_insert(empty)
    }
}

impl RdbSink for Collector {
    fn string(&mut self, value: Cow<'_, [u8]>) {
        self.value = Some(RdbValue::String(value.into_owned()));
    }

    fn list_item(&mut self, item: &[u8]) {
        if let RdbValue::List(items) = self.begun(RdbValue::List(Vec::new())) {
            items.push(item.to_vec());
        }
    }

    fn set_member(&mut self, member: &[u8]) -> bool {
        if let RdbValue::Set(members) = self.begun(RdbValue::Set(Vec::new())) {
            members.push(member.to_vec());
        }
        self.seen.insert(member.to_vec())
    }

    fn hash_field(&mut self, field: &[u8], value: &[u8], expiry: Option<u64>) -> bool {
        if let RdbValue::Hash(fields) = self.begun(RdbValue::Hash(Vec::new())) {
            fields.push((field.to_vec(), value.to_vec(), expiry));
        }
        self.seen.insert(field.to_vec())
    }

    fn zset_member(&mut self, member: &[u8], score: f64) -> bool {
        if let RdbValue::Zset(members) = self.begun(RdbValue::Zset(Vec::new())) {
            members.push((member.to_vec(), score));
        }
        self.seen.insert(member.to_vec())
    }

    fn stream_entry(&mut self, id: RdbStreamId, fields: RdbEntryFields) {
        if let RdbValue::Stream(stream) = self.begun(RdbValue::Stream(RdbStream::default())) {
            stream.entries.push((id, fields));
        }
    }

    fn stream_end(&mut self, meta: RdbStreamMeta) {
        if let RdbValue::Stream(stream) = self.begun(RdbValue::Stream(RdbStream::default())) {
            stream.meta = meta;
        }
    }
}
