//! What the path of a command must check besides the command: one word of the server, loaded once per group.
//!
//! Invariants:
//! - A bit is set only by the state that it represents, when that changes.
//! - While no relevant bit is set, plain reads take their short path and quick commands share the timing of their
//!   group. No hook costs them more than this one word.

use std::sync::atomic::{AtomicU32, Ordering};

/// A condition under which the path of a command has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Users are limited: there are others than the default user, or that one may not do everything, or needs a
    /// password.
    Access = 1,
    /// Every command is timed individually, for the slow log.
    Slowlog = 2,
    /// Commands of clients are paused: CLIENT PAUSE.
    Pause = 4,
    /// A script has been running for longer than `busy-reply-threshold`.
    Busy = 1024,
    /// A connection watches all commands: MONITOR.
    Monitor = 16,
    /// Cluster clients are served: the keys of a call, or of a transaction, must be in one slot.
    Cluster = 64,
    /// The keys that commands use are counted: HOTKEYS.
    Hotkeys = 32,
    /// What the commands of each slot cost is counted.
    SlotUsage = 128,
    /// The audit log is on.
    Audit = 2048,
    /// The audit log may mean commands that only read.
    AuditReads = 4096,
    /// What keys cost is sampled: `key-statistics`.
    KeyStats = 8192,
    /// A shard could not be loaded.
    Damage = 16384,
}

/// The hooks that were set at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct HookSet(u32);

impl HookSet {
    /// Whether something looks at each command, so that none may take the short path of reads.
    #[inline]
    pub fn sees_each_command(self) -> bool {
        let timed = Hook::Slowlog as u32 | Hook::Hotkeys as u32 | Hook::SlotUsage as u32;
        self.0 & (timed | Hook::Monitor as u32 | Hook::AuditReads as u32) != 0
    }

    /// Whether each command is timed by itself.
    #[inline]
    pub fn times_each_command(self) -> bool {
        self.0 & (Hook::Slowlog as u32 | Hook::Hotkeys as u32 | Hook::SlotUsage as u32) != 0
    }

    /// Adds this hook if it is among those of later.
    pub fn learn(&mut self, hook: Hook, later: HookSet) {
        self.0 |= later.0 & hook as u32;
    }

    /// All but one.
    pub fn without(self, hook: Hook) -> HookSet {
        HookSet(self.0 & !(hook as u32))
    }

    /// Whether this hook is among them.
    #[inline]
    pub fn has(self, hook: Hook) -> bool {
        self.0 & hook as u32 != 0
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Hooks(AtomicU32);

impl Hooks {
    /// The hooks that are set now.
    #[inline]
    pub fn load(&self) -> HookSet {
        HookSet(self.0.load(Ordering::Relaxed))
    }

    /// Sets or clears one.
    pub fn set(&self, hook: Hook, on: bool) {
        match on {
            true => self.0.fetch_or(hook as u32, Ordering::Relaxed),
            false => self.0.fetch_and(!(hook as u32), Ordering::Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_is_a_bit_of_its_own() {
        let hooks = Hooks::default();
        hooks.set(Hook::Slowlog, true);
        assert!(hooks.load().has(Hook::Slowlog) && !hooks.load().has(Hook::Access));
        hooks.set(Hook::Access, true);
        hooks.set(Hook::Slowlog, false);
        assert!(!hooks.load().has(Hook::Slowlog) && hooks.load().has(Hook::Access));
    }
}
