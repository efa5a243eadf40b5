//! The access field of an entry: when it was last used, or how often.
//!
//! 24 bits, as in Redis. Under an LRU policy (and under none) they are a clock of seconds that wraps
//! after 194 days; under an LRM policy only writes set it. Under an LFU policy the upper 16 are minutes
//! of the last decay and the lower 8 a logarithmic counter.

/// The bits of an access field.
pub const ACCESS_MASK: u32 = (1 << 24) - 1;
/// The counter of a new key under LFU.
const LFU_INITIAL: u32 = 5;

/// How access fields are kept: `maxmemory-policy`, its parameters, and the time. Fixed for a command.
#[derive(Clone, Copy, Debug)]
pub struct AccessClock {
    /// Seconds of the wall clock.
    pub seconds: u64,
    /// `Some` under an LFU policy.
    pub lfu: Option<Lfu>,
    /// Whether only writes count as a use: under an LRM policy.
    pub lrm: bool,
}

/// The parameters of the frequency counter.
#[derive(Clone, Copy, Debug)]
pub struct Lfu {
    /// `lfu-log-factor`: the larger, the slower the counter saturates.
    pub log_factor: u32,
    /// `lfu-decay-time`, in minutes per step of the counter; 0 means no decay.
    pub decay_minutes: u32,
}

impl AccessClock {
    /// The access field of an entry created now.
    #[inline]
    pub fn fresh(&self) -> u32 {
        match self.lfu {
            None => self.seconds as u32 & ACCESS_MASK,
            Some(_) => self.minutes() << 8 | LFU_INITIAL,
        }
    }

    /// The access field of an entry that is read now. `random` feeds the probabilistic counter.
    #[inline]
    pub fn touched(&self, field: u32, random: impl FnOnce() -> u32) -> u32 {
        if self.lrm {
            return field;
        }
        self.written(field, random)
    }

    /// The access field of an entry that is written now.
    #[inline]
    pub fn written(&self, field: u32, random: impl FnOnce() -> u32) -> u32 {
        let Some(lfu) = self.lfu else { return self.fresh() };
        let counter = self.decayed(field, lfu);
        let base = counter.saturating_sub(LFU_INITIAL);
        // One use in (base × factor + 1) raises the counter.
        let grows = counter < 255 && random().is_multiple_of(base * lfu.log_factor + 1);
        self.minutes() << 8 | (counter + u32::from(grows))
    }

    /// The seconds since the entry was last used.
    pub fn idle_seconds(&self, field: u32) -> u64 {
        u64::from((self.seconds as u32).wrapping_sub(field) & ACCESS_MASK)
    }

    /// The access field of an entry last used that many seconds ago; `None` under an LFU policy.
    pub fn idle_for(&self, seconds: u64) -> Option<u32> {
        let ago = seconds.min(u64::from(ACCESS_MASK)) as u32;
        self.lfu.is_none().then(|| (self.seconds as u32).wrapping_sub(ago) & ACCESS_MASK)
    }

    /// The access field of an entry with this frequency counter; `None` without an LFU policy.
    pub fn used_as_often(&self, frequency: u32) -> Option<u32> {
        self.lfu.is_some().then(|| self.minutes() << 8 | frequency.min(255))
    }

    /// The frequency counter, decayed to now; 0 without an LFU policy.
    pub fn frequency(&self, field: u32) -> u32 {
        self.lfu.map_or(0, |lfu| self.decayed(field, lfu))
    }

    fn minutes(&self) -> u32 {
        (self.seconds / 60) as u32 & 0xFFFF
    }

    fn decayed(&self, field: u32, lfu: Lfu) -> u32 {
        let elapsed = self.minutes().wrapping_sub(field >> 8) & 0xFFFF;
        let steps = elapsed.checked_div(lfu.decay_minutes).unwrap_or(0);
        (field & 0xFF).saturating_sub(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_right_across_the_wrap_of_the_clock() {
        let at = |seconds| AccessClock { seconds, lfu: None, lrm: false };
        let field = at((1 << 24) * 100 - 10).fresh();
        assert_eq!(at((1 << 24) * 100 + 15).idle_seconds(field), 25);
    }

    #[test]
    fn under_lrm_only_a_write_is_a_use() {
        let at = |seconds| AccessClock { seconds, lfu: None, lrm: true };
        let field = at(100).fresh();
        assert_eq!(at(150).idle_seconds(at(150).touched(field, || 0)), 50);
        assert_eq!(at(150).idle_seconds(at(150).written(field, || 0)), 0);
    }

    #[test]
    fn the_counter_grows_ever_more_slowly_and_decays_with_time() {
        let lfu = Lfu { log_factor: 10, decay_minutes: 1 };
        let mut clock = AccessClock { seconds: 6_000_000, lfu: Some(lfu), lrm: false };
        let mut field = clock.fresh();
        assert_eq!(clock.frequency(field), 5);
        field = clock.touched(field, || 0);
        assert_eq!(clock.frequency(field), 6);
        assert_eq!(clock.frequency(clock.touched(field, || 1)), 6, "one use in eleven counts");
        clock.seconds += 4 * 60;
        assert_eq!(clock.frequency(field), 2);
        clock.seconds += 400 * 60;
        assert_eq!(clock.frequency(field), 0);
        for _ in 0..300 {
            field = clock.touched(field, || 0);
        }
        assert_eq!(clock.frequency(field), 255);
    }
}
