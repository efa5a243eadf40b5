//! Where a value in an RDB file ends: walks over it by the drawing in `rdb`, and takes its bytes as they are.
//!
//! Only lengths are looked at; what the value means is for `rdb::decode`.

use super::source::{Fault, Source, Taken};
use crate::persist::rdb::{Dialect, code};

/// The marks inside a value of a module.
mod module {
    pub(super) const END: u64 = 0;
    pub(super) const SIGNED: u64 = 1;
    pub(super) const UNSIGNED: u64 = 2;
    pub(super) const FLOAT: u64 = 3;
    pub(super) const DOUBLE: u64 = 4;
    pub(super) const STRING: u64 = 5;
}

/// A source whose bytes are kept as they are taken, or dropped.
pub(super) struct Taking<'a> {
    pub(super) source: &'a mut Source,
    pub(super) into: Option<&'a mut Vec<u8>>,
}

impl Taking<'_> {
    fn byte(&mut self) -> Taken<u8> {
        let byte = self.source.byte()?;
        if let Some(into) = &mut self.into {
            into.push(byte);
        }
        Ok(byte)
    }

    fn copy(&mut self, len: u64) -> Taken<()> {
        self.source.copy(len, self.into.as_deref_mut())
    }

    fn array<const N: usize>(&mut self) -> Taken<[u8; N]> {
        let bytes = self.source.array()?;
        if let Some(into) = &mut self.into {
            into.extend_from_slice(&bytes);
        }
        Ok(bytes)
    }

    /// A length, or the number of a special encoding.
    fn any_length(&mut self) -> Taken<Result<u64, u8>> {
        let first = self.byte()?;
        Ok(Ok(match first >> 6 {
            0 => u64::from(first),
            1 => u64::from(first & 0x3F) << 8 | u64::from(self.byte()?),
            2 if first == 0x80 => u64::from(u32::from_be_bytes(self.array()?)),
            2 if first == 0x81 => u64::from_be_bytes(self.array()?),
            2 => return Err(Fault::Wrong("unknown form of a length")),
            _ => return Ok(Err(first & 0x3F)),
        }))
    }

    pub(super) fn length(&mut self) -> Taken<u64> {
        self.any_length()?.map_err(|_| Fault::Wrong("a special encoding in place of a length"))
    }

    pub(super) fn lengths(&mut self, count: usize) -> Taken<()> {
        (0..count).try_for_each(|_| self.length().map(drop))
    }

    pub(super) fn string(&mut self) -> Taken<()> {
        let len = match self.any_length()? {
            Ok(len) => len,
            Err(0) => 1,
            Err(1) => 2,
            Err(2) => 4,
            Err(3) => {
                let packed = self.length()?;
                self.length()?;
                packed
            }
            Err(_) => return Err(Fault::Wrong("unknown encoding of a string")),
        };
        self.copy(len)
    }

    /// A count, and so many items.
    fn each(&mut self, mut item: impl FnMut(&mut Self) -> Taken<()>) -> Taken<()> {
        for _ in 0..self.length()? {
            item(self)?;
        }
        Ok(())
    }

    /// A value of this type.
    pub(super) fn value(&mut self, kind: u8, dialect: Dialect) -> Taken<()> {
        match (kind, dialect) {
            (code::STRING, _) => self.string(),
            (code::LIST | code::SET | code::LIST_QUICKLIST, _) => self.each(Self::string),
            (code::ZSET, _) => self.each(|it| it.string().and_then(|()| it.digits())),
            (code::ZSET_2, _) => self.each(|it| it.string().and_then(|()| it.copy(8))),
            (code::HASH, _) => self.each(|it| it.string().and_then(|()| it.string())),
            (
                code::HASH_ZIPMAP
                | code::LIST_ZIPLIST
                | code::SET_INTSET
                | code::ZSET_ZIPLIST
                | code::HASH_ZIPLIST
                | code::HASH_LISTPACK
                | code::ZSET_LISTPACK
                | code::SET_LISTPACK,
                _,
            ) => self.string(),
            (code::LIST_QUICKLIST_2, _) => self.each(|it| it.length().and_then(|_| it.string())),
            (code::STREAM_LISTPACKS, _) => self.stream(1),
            (code::STREAM_LISTPACKS_2, _) => self.stream(2),
            (code::STREAM_LISTPACKS_3, _) => self.stream(3),
            (code::STREAM_LISTPACKS_4, Dialect::Redis) => self.stream(4),
            (code::STREAM_LISTPACKS_5, Dialect::Redis) => self.stream(5),
            (code::VALKEY_HASH_2, Dialect::Valkey) => {
                self.each(|it| it.string().and_then(|()| it.string()).and_then(|()| it.copy(8)))
            }
            (code::HASH_METADATA_PRE_GA, Dialect::Redis) => self.volatile_hash(),
            (code::HASH_LISTPACK_EX_PRE_GA, Dialect::Redis) => self.string(),
            (code::HASH_METADATA, Dialect::Redis) => self.copy(8).and_then(|()| self.volatile_hash()),
            (code::HASH_LISTPACK_EX, Dialect::Redis) => self.copy(8).and_then(|()| self.string()),
            _ => Err(Fault::Wrong("a value of a type that is not known")),
        }
    }

    fn digits(&mut self) -> Taken<()> {
        match self.byte()? {
            253..=255 => Ok(()),
            len => self.copy(u64::from(len)),
        }
    }

    fn volatile_hash(&mut self) -> Taken<()> {
        self.each(|it| it.length().and_then(|_| it.string()).and_then(|()| it.string()))
    }

    fn stream(&mut self, version: u8) -> Taken<()> {
        self.each(|it| it.string().and_then(|()| it.string()))?;
        // Entries and the last id; then the first id, the highest deleted one, and how many were added.
        self.lengths(3)?;
        self.lengths(if version >= 2 { 5 } else { 0 })?;
        self.each(|it| it.group(version))?;
        if version >= 4 {
            self.lengths(2)?;
            self.each(|it| {
                it.string()?;
                it.each(|it| it.string().and_then(|()| it.lengths(2)))
            })?;
            self.lengths(2)?;
        }
        Ok(())
    }

    fn group(&mut self, version: u8) -> Taken<()> {
        self.string()?;
        self.lengths(if version >= 2 { 3 } else { 2 })?;
        self.each(|it| it.copy(16 + 8).and_then(|()| it.lengths(1)))?;
        self.each(|it| {
            it.string()?;
            it.copy(if version >= 3 { 16 } else { 8 })?;
            it.each(|it| it.copy(16))
        })?;
        if version >= 5 { self.each(|it| it.copy(16)) } else { Ok(()) }
    }

    /// The rest of a value of a module, after its number.
    pub(super) fn module(&mut self) -> Taken<()> {
        loop {
            match self.length()? {
                module::END => return Ok(()),
                module::SIGNED | module::UNSIGNED => self.lengths(1)?,
                module::FLOAT => self.copy(4)?,
                module::DOUBLE => self.copy(8)?,
                module::STRING => self.string()?,
                _ => return Err(Fault::Wrong("an unknown mark in a value of a module")),
            }
        }
    }
}
