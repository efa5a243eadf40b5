//! The classes of keyspace notifications: the letters of `notify-keyspace-events`.

/// A set of event classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyFlags(u32);

/// Letter and bit, in the order in which they are written.
const LETTERS: [(u8, NotifyFlags); 21] = [
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
    (b'a', NotifyFlags::ARRAY),
    (b'n', NotifyFlags::NEW),
    (b'o', NotifyFlags::OVERWRITTEN),
    (b'c', NotifyFlags::TYPE_CHANGED),
    (b'K', NotifyFlags::KEYSPACE),
    (b'E', NotifyFlags::KEYEVENT),
    (b'm', NotifyFlags::KEY_MISS),
    (b'S', NotifyFlags::SUBKEYSPACE),
    (b'T', NotifyFlags::SUBKEYEVENT),
    (b'I', NotifyFlags::SUBKEYSPACEITEM),
    (b'V', NotifyFlags::SUBKEYSPACEEVENT),
];

/// The classes that `A` stood for before there was `a`. With them, `A` is written.
const ALL_WRITTEN: NotifyFlags = NotifyFlags(NotifyFlags::ALL.0 & !NotifyFlags::ARRAY.0);

impl NotifyFlags {
    /// No class.
    pub const NONE: NotifyFlags = NotifyFlags(0);
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
    /// `o`: keys that are overwritten as a whole; not part of `A`.
    pub const OVERWRITTEN: NotifyFlags = NotifyFlags(1 << 15);
    /// `c`: keys that are overwritten by another type; not part of `A`.
    pub const TYPE_CHANGED: NotifyFlags = NotifyFlags(1 << 16);
    /// `a`: arrays; there are none here.
    pub const ARRAY: NotifyFlags = NotifyFlags(1 << 17);
    /// `S`: publish to `__subkeyspace@<db>__:<key>`.
    pub const SUBKEYSPACE: NotifyFlags = NotifyFlags(1 << 19);
    /// `T`: publish to `__subkeyevent@<db>__:<event>`.
    pub const SUBKEYEVENT: NotifyFlags = NotifyFlags(1 << 20);
    /// `I`: publish to `__subkeyspaceitem@<db>__:<key>\n<field>`.
    pub const SUBKEYSPACEITEM: NotifyFlags = NotifyFlags(1 << 21);
    /// `V`: publish to `__subkeyspaceevent@<db>__:<event>|<key>`.
    pub const SUBKEYSPACEEVENT: NotifyFlags = NotifyFlags(1 << 22);
    /// `A`: every class of events except those that say that they are not part of it.
    pub const ALL: NotifyFlags = NotifyFlags(0x27fc | NotifyFlags::ARRAY.0);
    /// What is told of a key that is replaced as a whole.
    pub const REPLACING: NotifyFlags = NotifyFlags(NotifyFlags::OVERWRITTEN.0 | NotifyFlags::TYPE_CHANGED.0);
    /// The channels of fields.
    const SUBKEY_CHANNELS: NotifyFlags = NotifyFlags(0xf << 19);
    /// All channels: without any, no event is published.
    const CHANNELS: NotifyFlags = NotifyFlags(NotifyFlags::SUBKEY_CHANNELS.0 | 0b11);

    /// What is to be published: nothing if there is no channel for it.
    pub const fn effective(self) -> NotifyFlags {
        if self.is_any_of(NotifyFlags::CHANNELS) { self } else { NotifyFlags::NONE }
    }

    /// Whether events of these classes are published with the fields that they concern.
    pub const fn has_fields(self) -> bool {
        self.is_any_of(NotifyFlags::SUBKEY_CHANNELS)
    }

    /// No class at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all classes of `other` are in this set.
    pub const fn contains(self, other: NotifyFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any class of `other` is in this set.
    pub const fn is_any_of(self, other: NotifyFlags) -> bool {
        self.0 & other.0 != 0
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
        let all = self.contains(ALL_WRITTEN);
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
        for (given, reported) in [
            ("", ""),
            ("KEA", "AKE"),
            ("gK", "gK"),
            ("KEg$lshzxetd", "AKE"),
            ("KEg$lshzxetda", "AKE"),
            ("xE", "xE"),
            ("Emx", "xEm"),
            ("Kn", "nK"),
            ("nKg", "gnK"),
            ("VITShcoK", "hocKSTIV"),
        ] {
            let flags = NotifyFlags::parse(given.as_bytes()).expect("known letters");
            assert_eq!(flags.letters(), reported);
            let again = NotifyFlags::parse(reported.as_bytes()).expect("known letters");
            assert_eq!(again.letters(), reported);
        }
        // Redis forgets them beside A, and CONFIG REWRITE then loses them.
        assert_eq!(NotifyFlags::parse(b"KAncom").map(NotifyFlags::letters).as_deref(), Some("AnocKm"));
        assert_eq!(NotifyFlags::parse(b"KEq"), None);
        for class in [NotifyFlags::KEY_MISS, NotifyFlags::NEW, NotifyFlags::OVERWRITTEN, NotifyFlags::TYPE_CHANGED] {
            assert!(!NotifyFlags::ALL.contains(class));
        }
    }

    #[test]
    fn without_a_channel_nothing_is_published() {
        for (letters, is_any) in [("Amn", false), ("K", true), ("Eg", true), ("Sh", true), ("V", true), ("", false)] {
            let flags = NotifyFlags::parse(letters.as_bytes()).expect("known letters");
            assert_eq!(!flags.effective().is_empty(), is_any, "{letters}");
        }
    }
}
