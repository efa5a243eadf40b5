//! CLIENT PAUSE: commands of clients stand still for a while, all of them or those that write.
//!
//! Invariants:
//! - [`Hook::Pause`] is set while there is a pause, and perhaps a moment longer.
//! - A pause that follows another one before its end makes it longer and stricter, never shorter nor milder.

use crate::base::lock::Mutex;
use crate::core::hooks::{Hook, Hooks};

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    /// Commands that write, and those whose effect reaches replicas.
    Writes,
    /// Every command.
    All,
}

/// The current pause, if any.
#[derive(Debug, Default)]
pub struct Pause {
    /// What stands still, and until when, Unix ms.
    current: Mutex<Option<(Paused, i64)>>,
}

impl Pause {
    /// Pauses until a time, Unix ms, or longer if that was decided before.
    pub fn begin(&self, what: Paused, until: i64, now: i64, hooks: &Hooks) {
        let mut current = self.current.lock();
        let (what, until) = match *current {
            Some((earlier, earlier_until)) if earlier_until > now => (earlier.max(what), earlier_until.max(until)),
            _ => (what, until),
        };
        *current = Some((what, until));
        hooks.set(Hook::Pause, true);
    }

    /// Ends the pause. Returns whether there was one.
    pub fn end(&self, hooks: &Hooks) -> bool {
        let mut current = self.current.lock();
        hooks.set(Hook::Pause, false);
        current.take().is_some()
    }

    /// What stands still now, and for how many milliseconds more. A pause whose time is over ends.
    pub fn now(&self, now: i64, hooks: &Hooks) -> Option<(Paused, i64)> {
        let mut current = self.current.lock();
        match *current {
            Some((what, until)) if until > now => Some((what, until - now)),
            Some(_) => {
                *current = None;
                hooks.set(Hook::Pause, false);
                None
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_pause_makes_an_earlier_one_longer_and_stricter_only() {
        let (pause, hooks) = (Pause::default(), Hooks::default());
        assert_eq!(pause.now(0, &hooks), None);
        pause.begin(Paused::All, 100, 0, &hooks);
        pause.begin(Paused::Writes, 50, 10, &hooks);
        assert_eq!(pause.now(20, &hooks), Some((Paused::All, 80)));
        pause.begin(Paused::Writes, 150, 30, &hooks);
        assert_eq!(pause.now(100, &hooks), Some((Paused::All, 50)));
        assert!(hooks.load().has(Hook::Pause));
        assert_eq!(pause.now(150, &hooks), None);
        assert!(!hooks.load().has(Hook::Pause));
        pause.begin(Paused::All, 200, 150, &hooks);
        pause.begin(Paused::Writes, 300, 200, &hooks);
        assert_eq!(pause.now(210, &hooks), Some((Paused::Writes, 90)), "the stricter one was over");
        assert!(pause.end(&hooks));
        assert!(!pause.end(&hooks) && !hooks.load().has(Hook::Pause));
    }
}
