//! `key-load-delay` and `rdb-key-save-delay`: loading and saving slowed down, for tests of what happens meanwhile.

use std::thread::sleep;
use std::time::Duration;

use crate::base::random;

/// A pause for each key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    us: i64,
}

impl Pace {
    /// A pause of `us` microseconds; if the number is negative, of one microsecond after every `-us` keys on average.
    pub fn of(us: i64) -> Pace {
        Pace { us }
    }

    /// Call it for each key.
    pub fn pause(self) {
        let us = match self.us {
            0 => return,
            every @ ..0 => u64::from(random::with(|random| random.next_u64()).is_multiple_of(every.unsigned_abs())),
            us => us.unsigned_abs(),
        };
        if us > 0 {
            sleep(Duration::from_micros(us));
        }
    }
}
