//! The figures of the scrub.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use crate::base::progress::Progress;

/// What the scrub does, and what it has found.
#[derive(Debug)]
pub struct Scrub {
    /// Whether a pass is being made.
    pub is_running: AtomicBool,
    /// The bytes of the pass that is being made.
    pub progress: Progress,
    /// When the last pass was begun, or the server started, Unix ms.
    pub begun_ms: AtomicI64,
    /// When the last whole pass ended, Unix seconds; 0 for none.
    pub last_time: AtomicI64,
    /// Whole passes.
    pub passes: AtomicU64,
    /// Bytes read in all passes.
    pub bytes: AtomicU64,
    /// Faults found in all passes.
    pub faults: AtomicU64,
}

impl Default for Scrub {
    fn default() -> Self {
        Scrub {
            is_running: AtomicBool::new(false),
            progress: Progress::default(),
            begun_ms: AtomicI64::new(crate::base::clock::now_ms()),
            last_time: AtomicI64::new(0),
            passes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        }
    }
}
