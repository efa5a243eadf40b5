//! What kinds of values there are.

/// What a value is. The numbers are the tags in the record; at most 32 fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A string that is the decimal form of an `i64`.
    Int = 0,
    /// A string, sealed: it is replaced, never changed in place.
    Str = 1,
    /// A string that was changed in place, and so has room to grow.
    Raw = 2,
    /// A list in one listpack.
    ListPacked = 3,
    /// A set of integers in one intset.
    SetInts = 4,
    /// A set in one listpack.
    SetPacked = 5,
    /// A hash in one listpack: field, value, field, value.
    HashPacked = 6,
    /// A hash with expiring fields in one listpack: field, value, expiry in Unix ms or 0, and so on.
    HashPackedEx = 7,
    /// A sorted set in one listpack: member, score, by score and then member.
    ZsetPacked = 8,
    /// A large list.
    List = 9,
    /// A large set.
    Set = 10,
    /// A large hash.
    Hash = 11,
    /// A large sorted set.
    Zset = 12,
    /// A stream.
    Stream = 13,
    /// A hash whose names are those of a template: values in one listpack, and the number of the template.
    HashTemplated = 14,
}

/// The kinds by their tags.
const KINDS: [Kind; 15] = [
    Kind::Int,
    Kind::Str,
    Kind::Raw,
    Kind::ListPacked,
    Kind::SetInts,
    Kind::SetPacked,
    Kind::HashPacked,
    Kind::HashPackedEx,
    Kind::ZsetPacked,
    Kind::List,
    Kind::Set,
    Kind::Hash,
    Kind::Zset,
    Kind::Stream,
    Kind::HashTemplated,
];

impl Kind {
    #[inline]
    pub(super) fn of_tag(tag: u8) -> Kind {
        KINDS[usize::from(tag)]
    }

    /// The type of the value, as `TYPE` names it.
    pub fn type_name(self) -> &'static str {
        match self {
            Kind::Int | Kind::Str | Kind::Raw => "string",
            Kind::ListPacked | Kind::List => "list",
            Kind::SetInts | Kind::SetPacked | Kind::Set => "set",
            Kind::HashPacked | Kind::HashPackedEx | Kind::HashTemplated | Kind::Hash => "hash",
            Kind::ZsetPacked | Kind::Zset => "zset",
            Kind::Stream => "stream",
        }
    }

    /// Whether it is a large collection that has a [`Map`](super::Map).
    #[inline]
    pub fn has_map(self) -> bool {
        matches!(self, Kind::Set | Kind::Hash | Kind::Zset)
    }

    /// How the bytes of a small collection are packed; `None` for other kinds.
    #[inline]
    pub fn packing(self) -> Option<Packing> {
        Some(match self {
            Kind::ListPacked => Packing::List,
            Kind::SetInts => Packing::SetInts,
            Kind::SetPacked => Packing::Set,
            Kind::HashPacked => Packing::Hash,
            Kind::HashPackedEx => Packing::HashEx,
            Kind::HashTemplated => Packing::HashTemplated,
            Kind::ZsetPacked => Packing::Zset,
            _ => return None,
        })
    }
}

/// How a small collection is packed into bytes: see the kinds of the same names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// [`Kind::ListPacked`].
    List,
    /// [`Kind::SetInts`].
    SetInts,
    /// [`Kind::SetPacked`].
    Set,
    /// [`Kind::HashPacked`].
    Hash,
    /// [`Kind::HashPackedEx`].
    HashEx,
    /// [`Kind::HashTemplated`].
    HashTemplated,
    /// [`Kind::ZsetPacked`].
    Zset,
}

impl Packing {
    /// The kind of value that it makes.
    #[inline]
    pub fn kind(self) -> Kind {
        match self {
            Packing::List => Kind::ListPacked,
            Packing::SetInts => Kind::SetInts,
            Packing::Set => Kind::SetPacked,
            Packing::Hash => Kind::HashPacked,
            Packing::HashEx => Kind::HashPackedEx,
            Packing::HashTemplated => Kind::HashTemplated,
            Packing::Zset => Kind::ZsetPacked,
        }
    }
}
