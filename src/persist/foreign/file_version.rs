//! Versions of RDB files: which types each has, and values in older types.

use std::borrow::Cow;

use crate::base::config::RdbVersionCheck;
use crate::persist::rdb::footer::{self, FOOTER};
use crate::persist::rdb::{
    Dialect, DumpWriter, RdbEntryFields, RdbSink, RdbStreamId, RdbStreamMeta, RdbType, RdbValue, code, decode_dump,
    decode_dump_into, encode_dump,
};

/// The oldest version that is written unless another is asked for: that of Redis 7.0.
pub(super) const VERSION_USUAL: FileVersion = FileVersion(10);
/// A version of RDB files: 6 to 15 of Redis, 80 and 81 of Valkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileVersion(u16);

impl FileVersion {
    /// The last one of Redis that can be written.
    pub(super) const LAST_OF_REDIS: FileVersion = FileVersion(15);

    /// One that can be written.
    pub fn new(number: u16) -> Option<FileVersion> {
        matches!(number, 6..=15 | 80..=81).then_some(FileVersion(number))
    }

    /// The one that a server takes, by what it says of itself (INFO).
    pub fn of_info(info: &str) -> Option<FileVersion> {
        let numbers = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name))?;
            let mut parts = line.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            Some((parts.next()?, parts.next().unwrap_or(0)))
        };
        FileVersion::new(match (numbers("valkey_version:"), numbers("redis_version:")) {
            (Some(version), _) if version >= (9, 0) => 80,
            (Some(_), _) => 11,
            (None, Some(version)) if version >= (7, 4) => 12,
            (None, Some(version)) if version >= (7, 2) => 11,
            (None, Some(version)) if version >= (7, 0) => 10,
            (None, Some(version)) if version >= (5, 0) => 9,
            (None, Some(version)) if version >= (4, 0) => 8,
            (None, Some(_)) => 7,
            (None, None) => return None,
        })
    }

    /// A payload of DUMP for a server that takes this version.
    ///
    /// # Errors
    /// The version has nothing like it.
    pub fn adapt(self, dumped: Vec<u8>) -> Result<Vec<u8>, String> {
        let (body, dialect) = footer::check(&dumped, RdbVersionCheck::Strict).map_err(|error| error.to_string())?;
        let Some((&kind, body)) = body.split_first() else { return Err("it is empty".into()) };
        if has(self, kind, dialect) { Ok(dumped) } else { payload(self, kind, dialect, body) }
    }

    /// Whose version it is.
    pub(super) fn dialect(self) -> Dialect {
        if self.0 >= 80 { Dialect::Valkey } else { Dialect::Redis }
    }

    /// The first bytes of a file.
    pub(super) fn header(self) -> String {
        match self.dialect() {
            Dialect::Redis => format!("REDIS{:04}", self.0),
            Dialect::Valkey => format!("VALKEY{:03}", self.0),
        }
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// The oldest version that has this type.
pub(super) fn version_of(kind: u8, dialect: Dialect) -> u16 {
    match (kind, dialect) {
        (code::VALKEY_HASH_2, Dialect::Valkey) => 80,
        (code::HASH_METADATA_PRE_GA..=code::HASH_LISTPACK_EX, _) => 12,
        (code::STREAM_LISTPACKS_4, _) => 13,
        (code::STREAM_LISTPACKS_5, _) => 14,
        (code::SET_LISTPACK | code::STREAM_LISTPACKS_3, _) => 11,
        (code::HASH_LISTPACK..=code::STREAM_LISTPACKS_2, _) => 10,
        (code::STREAM_LISTPACKS, _) => 9,
        (code::ZSET_2, _) => 8,
        (code::LIST_QUICKLIST, _) => 7,
        _ => 1,
    }
}

/// Whether a file of this version may hold this type. Types above 21 mean one thing to Redis and another to Valkey.
pub(super) fn has(version: FileVersion, kind: u8, dialect: Dialect) -> bool {
    version.0 >= version_of(kind, dialect) && (kind < code::HASH_METADATA_PRE_GA || dialect == version.dialect())
}

/// A payload of a value for a reader of this version.
pub(super) fn payload(version: FileVersion, kind: u8, dialect: Dialect, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut payload = Vec::with_capacity(1 + body.len() + FOOTER);
    payload.push(kind);
    payload.extend_from_slice(body);
    // The oldest version that has the type; a reader refuses those after its own.
    let oldest =
        version_of(kind, dialect).max(if dialect == Dialect::Valkey && kind >= code::VALKEY_HASH_2 { 80 } else { 6 });
    footer::append(&mut payload, oldest);
    if has(version, kind, dialect) {
        return Ok(payload);
    }
    let mut payload = older(version, &payload)?;
    footer::append(&mut payload, version.0);
    Ok(payload)
}

/// Type and value of a payload in types that a version has.
pub(super) fn older(version: FileVersion, payload: &[u8]) -> Result<Vec<u8>, String> {
    let mut older =
        Older { version, kind: code::STRING, count: 0, items: DumpWriter::new(RdbType::String), fault: None };
    decode_dump_into(payload, RdbVersionCheck::Strict, &mut older).map_err(|error| error.to_string())?;
    if older.kind == code::STREAM_LISTPACKS_2 {
        if version.0 < 10 {
            return Err(format!("RDB version {} cannot hold all of a stream", version.0));
        }
        let mut value = decode_dump(payload).map_err(|error| error.to_string())?;
        if let RdbValue::Stream(stream) = &mut value {
            // A reader of this version would not look at it: whoever adds something twice has it twice there.
            stream.meta.idempotency = None;
            if stream.meta.groups.iter().any(|group| !group.released.is_empty()) {
                return Err(format!("RDB version {} has no entries that XNACK has handed back", version.0));
            }
        }
        let mut payload = encode_dump(&value);
        payload.truncate(payload.len() - FOOTER);
        return Ok(payload);
    }
    if older.fault.is_some() && version.dialect() == Dialect::Redis && version.0 >= 12 {
        // The other dialect has a type of its own for them.
        let value = decode_dump(payload).map_err(|error| error.to_string())?;
        let mut payload = encode_dump(&value);
        payload.truncate(payload.len() - FOOTER);
        return Ok(payload);
    }
    if let Some(fault) = older.fault {
        return Err(format!("RDB version {} has no {fault}", version.0));
    }
    let mut out = vec![older.kind];
    if older.kind != code::STRING {
        let mut count = DumpWriter::new(RdbType::String);
        count.length(older.count);
        out.extend_from_slice(&count.into_body());
    }
    out.extend_from_slice(&older.items.into_body());
    Ok(out)
}

/// Writes a value in the plain types, which every version has.
struct Older {
    version: FileVersion,
    kind: u8,
    count: u64,
    items: DumpWriter,
    fault: Option<&'static str>,
}

impl RdbSink for Older {
    fn string(&mut self, value: Cow<'_, [u8]>) {
        self.items.string(&value);
    }

    fn list_item(&mut self, item: &[u8]) {
        (self.kind, self.count) = (code::LIST, self.count + 1);
        self.items.string(item);
    }

    fn set_member(&mut self, member: &[u8]) -> bool {
        (self.kind, self.count) = (code::SET, self.count + 1);
        self.items.string(member);
        true
    }

    fn hash_field(&mut self, field: &[u8], value: &[u8], expiry: Option<u64>) -> bool {
        let is_valkey = self.version.dialect() == Dialect::Valkey;
        self.kind = if is_valkey { code::VALKEY_HASH_2 } else { code::HASH };
        self.count += 1;
        if expiry.is_some() && !is_valkey {
            // From 12 on, the type of the payload is one that the version has.
            self.fault = Some("fields that expire");
        }
        self.items.string(field);
        self.items.string(value);
        if is_valkey {
            self.items.time_ms(expiry);
        }
        true
    }

    fn zset_member(&mut self, member: &[u8], score: f64) -> bool {
        self.kind = if self.version.0 >= 8 { code::ZSET_2 } else { code::ZSET };
        self.count += 1;
        self.items.string(member);
        match self.kind {
            code::ZSET_2 => self.items.double(score),
            _ => self.items.digits(score),
        }
        true
    }

    fn stream_entry(&mut self, _: RdbStreamId, _: RdbEntryFields) {
        self.kind = code::STREAM_LISTPACKS_2;
    }

    fn stream_end(&mut self, _: RdbStreamMeta) {
        self.kind = code::STREAM_LISTPACKS_2;
    }
}
