//! `oom-score-adj`: how willingly the kernel ends this process when memory runs out.
//!
//! The score of a process without privileges can only rise. The one that the process began with is kept, for
//! `relative` scores and for going back to it.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const FILE: &str = "/proc/self/oom_score_adj";
const SCORE_MAX: i64 = 1000;

static BASE: OnceLock<i64> = OnceLock::new();
static ADJUSTED: AtomicBool = AtomicBool::new(false);

/// Sets the score by `oom-score-adj` and the first of `oom-score-adj-values`.
///
/// # Errors
/// The kernel refuses it, or has no such scores.
pub fn set(mode: &str, value: i64) -> io::Result<()> {
    if mode == "no" && !ADJUSTED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let base = match BASE.get() {
        Some(base) => *base,
        None => *BASE.get_or_init(|| read().unwrap_or(0)),
    };
    fs::write(FILE, score(mode, value, base).to_string())?;
    ADJUSTED.store(mode != "no", Ordering::Relaxed);
    Ok(())
}

fn read() -> Option<i64> {
    fs::read_to_string(FILE).ok()?.trim().parse().ok()
}

fn score(mode: &str, value: i64, base: i64) -> i64 {
    let score = match mode {
        "no" => base,
        "absolute" => value,
        _ => base + value,
    };
    score.clamp(-SCORE_MAX, SCORE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_relative_or_absolute_and_bounded() {
        for (mode, value, base, wanted) in
            [("no", 5, 7, 7), ("yes", 5, 7, 12), ("relative", -5, 7, 2), ("absolute", 5, 7, 5), ("yes", 2000, 7, 1000)]
        {
            assert_eq!(score(mode, value, base), wanted, "{mode} {value}");
        }
    }
}
