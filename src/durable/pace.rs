//! `key-load-delay` and `rdb-key-save-delay`: loading and saving slowed down, for tests of what happens meanwhile.
//!
//! A test holds loading or saving open with a long delay and ends that by `CONFIG SET`, so a pause is slept in parts,
//! and the setting is looked at in between.

use std::thread::sleep;
use std::time::Duration;

use crate::base::config::{Config, Settings};
use crate::base::random;

/// How long is slept before the setting is looked at again.
const PART: Duration = Duration::from_millis(10);

/// Reads the microseconds of one delay.
type Setting = fn(&Settings) -> i64;

/// A pause for each key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace<'a> {
    us: i64,
    /// Where the number comes from, if it may change meanwhile.
    setting: Option<(&'a Config, Setting)>,
}

impl<'a> Pace<'a> {
    /// A pause of `us` microseconds; if the number is negative, of one microsecond after every `-us` keys on average.
    pub fn of(us: i64) -> Pace<'static> {
        Pace { us, setting: None }
    }

    /// The same with the number of a setting, which may change. What begins without a pause goes on without any.
    pub fn by(config: &'a Config, setting: Setting) -> Pace<'a> {
        Pace { us: setting(&config.settings()), setting: Some((config, setting)) }
    }

    fn us(self) -> i64 {
        match self.setting {
            Some((config, setting)) if self.us != 0 => setting(&config.settings()),
            _ => self.us,
        }
    }

    /// Call it for each key.
    pub fn pause(self) {
        let us = self.us();
        let pause = match us {
            0 => return,
            every @ ..0 => u64::from(random::with(|random| random.next_u64()).is_multiple_of(every.unsigned_abs())),
            us => us.unsigned_abs(),
        };
        let mut left = Duration::from_micros(pause);
        while !left.is_zero() {
            let part = left.min(PART);
            sleep(part);
            left -= part;
            if !left.is_zero() && self.us() != us {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The delay used to be read once, at the beginning.
    #[test]
    fn a_pause_ends_when_the_setting_is_changed() {
        let config = Config::from_text(b"key-load-delay 2000000000").expect("a directive");
        std::thread::scope(|scope| {
            let pausing = scope.spawn(|| Pace::by(&config, |settings| settings.key_load_delay_us).pause());
            config.set(&[(b"key-load-delay", b"0")], true, |_, _, _| Ok(())).expect("it may change");
            pausing.join().expect("it ends");
        });
        Pace::by(&config, |settings| settings.key_load_delay_us).pause();
    }
}
