//! What a directory holds, in numbers.

use super::Directory;

/// How many keys there are, and of which kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All keys.
    pub keys: usize,
    /// Those with an expiry.
    pub volatile: usize,
    /// Those that hold elements with an expiry of their own.
    pub elementwise: usize,
    /// Those that are protected from eviction.
    pub blessed: usize,
    /// Hashes that use a template.
    pub templated: usize,
}

impl Directory {
    /// How many keys there are.
    #[inline]
    pub fn census(&self) -> Census {
        let blessed = self.blessed().map_or(0, Directory::len);
        Census {
            keys: self.len,
            volatile: self.volatile,
            elementwise: self.elementwise,
            blessed,
            templated: self.templated,
        }
    }
}
