//! Counters that workers keep without contention and that INFO adds up.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer, or with few and rarely; any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, where the caller is the only writer: no locked instruction.
    #[inline]
    pub fn add_alone(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds, whoever else does.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[$field_doc])* pub $field: Counter,)* }
        impl $name {
            /// Sets all to zero: `CONFIG RESETSTAT`.
            pub fn reset(&self) { $(self.$field.set(0);)* }
        }
    };
}

counters! {
    /// What one worker counts; only it writes.
    WorkerCounters {
        /// Commands run.
        commands,
        /// Reads that found their key.
        hits,
        /// Reads that did not.
        misses,
        /// Keys that had expired.
        expired,
        /// Keys evicted.
        evicted,
        /// Bytes received.
        net_input_bytes,
        /// Bytes sent.
        net_output_bytes,
        /// Reads from sockets that brought something.
        reads,
        /// Writes to sockets.
        writes,
        /// Error replies.
        errors,
        /// Microseconds spent on active expiry.
        expire_cycle_us,
    }
}

counters! {
    /// What one worker counts of one command.
    CommandCounters {
        /// Times it ran.
        calls,
        /// Time it took in all, in nanoseconds.
        nanoseconds,
        /// Times it was refused before it ran.
        rejected,
        /// Times it ran and failed.
        failed,
    }
}

/// Everything that one worker counts, on cache lines of its own.
#[repr(align(128))]
#[derive(Debug)]
pub struct WorkerStats {
    /// The totals.
    pub counters: WorkerCounters,
    /// By [`super::table::Entry::index`].
    pub commands: Box<[CommandCounters]>,
}

impl WorkerStats {
    /// All zero, for a table of so many commands and subcommands.
    pub fn new(commands: usize) -> Self {
        WorkerStats {
            counters: WorkerCounters::default(),
            commands: (0..commands).map(|_| CommandCounters::default()).collect(),
        }
    }
}

counters! {
    /// What happens rarely enough to be counted in one place.
    ServerCounters {
        /// Connections accepted.
        connections,
        /// Connections refused above `maxclients`.
        rejected_connections,
        /// Wrong passwords.
        access_denied_auth,
        /// Connections closed because their query was too long.
        query_buffer_limit_disconnections,
        /// Connections closed because they did not read their replies.
        output_buffer_limit_disconnections,
    }
}
