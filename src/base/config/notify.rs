//! The classes of keyspace notifications: the letters of `notify-keyspace-events`.

/// A set of event classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyFlags(u32);

/// Letter and bit, in the order in which they are written.
const LETTERS: [(u8, NotifyFlags); 14] = [
    (b'g', NotifyFlags::GENERIC),
    (b'$', NotifyFlags::STRING),
    (b'l', NotifyFlags::LIST),
    (b's', NotifyFlags::SET),
    (b'h', NotifyFlags::HASH),
    (b'z', NotifyFlags::ZSET),
    (b'x', NotifyFlags::EXPIRED),
    (b'e', NotifyFlags::EVICTED),
    (b't', NotifyFlags::STREAM),
    (b'd', NotifyFlags::MODULE),
    (b'K', NotifyFlags::KEYSPACE),
    (b'E', NotifyFlags::KEYEVENT),
    (b'm', NotifyFlags::KEY_MISS),
    (b'n', NotifyFlags::NEW),
];

impl NotifyFlags {
    /// `K`: publish to `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: NotifyFlags = NotifyFlags(1 << 0);
    /// `E`: publish to `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: NotifyFlags = NotifyFlags(1 << 1);
    /// `g`: DEL, EXPIRE, RENAME …
    pub const GENERIC: NotifyFlags = NotifyFlags(1 << 2);
    /// `$`: strings.
    pub const STRING: NotifyFlags = NotifyFlags(1 << 3);
    /// `l`: lists.
    pub const LIST: NotifyFlags = NotifyFlags(1 << 4);
    /// `s`: sets.
    pub const SET: NotifyFlags = NotifyFlags(1 << 5);
    /// `h`: hashes.
    pub const HASH: NotifyFlags = NotifyFlags(1 << 6);
    /// `z`: sorted sets.
    pub const ZSET: NotifyFlags = NotifyFlags(1 << 7);
    /// `x`: keys that expired.
    pub const EXPIRED: NotifyFlags = NotifyFlags(1 << 8);
    /// `e`: keys evicted for memory.
    pub const EVICTED: NotifyFlags = NotifyFlags(1 << 9);
    /// `t`: streams.
    pub const STREAM: NotifyFlags = NotifyFlags(1 << 10);
    /// `m`: reads of keys that do not exist; not part of `A`.
    pub const KEY_MISS: NotifyFlags = NotifyFlags(1 << 11);
    /// `d`: modules; never happens here.
    pub const MODULE: NotifyFlags = NotifyFlags(1 << 13);
    /// `n`: new keys; not part of `A`.
    pub const NEW: NotifyFlags = NotifyFlags(1 << 14);
    /// `A`: every class of events except misses and new keys.
    pub const ALL: NotifyFlags = NotifyFlags(0x27fc);

    /// No class at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all classes of `other` are in this set.
    pub const fn contains(self, other: NotifyFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn or(self, other: NotifyFlags) -> NotifyFlags {
        NotifyFlags(self.0 | other.0)
    }

    /// Parses the letters; `None` if one is unknown.
    pub fn parse(letters: &[u8]) -> Option<NotifyFlags> {
        letters.iter().try_fold(NotifyFlags::default(), |flags, letter| {
            if *letter == b'A' {
                return Some(flags.or(NotifyFlags::ALL));
            }
            let (_, flag) = LETTERS.iter().find(|(known, _)| known == letter)?;
            Some(flags.or(*flag))
        })
    }

    /// The letters, `A` standing for all of its classes.
    pub fn letters(self) -> String {
        let all = self.contains(NotifyFlags::ALL);
        let mut letters = String::from(if all { "A" } else { "" });
        for (letter, flag) in LETTERS {
            if self.contains(flag) && !(all && NotifyFlags::ALL.contains(flag)) {
                letters.push(char::from(letter));
            }
        }
        letters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_as_redis_reports_them() {
        for (given, reported) in
            [("", ""), ("KEA", "AKE"), ("gK", "gK"), ("KEg$lshzxetd", "AKE"), ("xE", "xE"), ("Amn", "Amn")]
        {
            let flags = NotifyFlags::parse(given.as_bytes()).expect("known letters");
            assert_eq!(flags.letters(), reported);
            assert_eq!(NotifyFlags::parse(reported.as_bytes()), Some(flags));
        }
        assert_eq!(NotifyFlags::parse(b"KEq"), None);
        assert!(!NotifyFlags::ALL.contains(NotifyFlags::KEY_MISS));
    }
}
