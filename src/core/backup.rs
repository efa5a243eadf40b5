//! The state of BACKUP: which backup is being made, and what has become of the last one.

use std::path::PathBuf;

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has looked at the directory since the start.
    Unknown,
    /// There is none.
    Idle,
    /// Its snapshot waits for another one.
    Pending,
    /// Its snapshot is being made.
    Snapshotting,
    /// It has its snapshot, and what is logged belongs to it.
    Incrementing {
        /// The number of the snapshot.
        snapshot: u64,
    },
    /// It is complete.
    Sealed,
    /// It came to nothing.
    Failed,
}

impl Phase {
    /// Its name, as BACKUP STATUS gives it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Unknown | Phase::Idle => "idle",
            Phase::Pending => "pending",
            Phase::Snapshotting => "snapshotting",
            Phase::Incrementing { .. } => "incrementing",
            Phase::Sealed => "sealed",
            Phase::Failed => "failed",
        }
    }

    /// Whether a backup is being made.
    pub fn is_in_progress(self) -> bool {
        matches!(self, Phase::Pending | Phase::Snapshotting | Phase::Incrementing { .. })
    }
}

/// How something has gone that is done with a sealed backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was not begun.
    #[default]
    None,
    /// It runs.
    Running,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
}

impl Outcome {
    /// Its name in replies.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::None => "none",
            Outcome::Running => "running",
            Outcome::Done => "ok",
            Outcome::Failed => "failed",
        }
    }
}

/// The check of a backup.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verification {
    /// How it went.
    pub outcome: Outcome,
    /// How many keys it found.
    pub keys: u64,
    /// How many bytes it read.
    pub bytes: u64,
}

/// What has become of `backup-command`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sending {
    /// How it went.
    pub outcome: Outcome,
    /// How often it was tried.
    pub attempts: u64,
    /// The last exit code; -1 if there is none.
    pub exit_code: i64,
}

/// A backup.
#[derive(Clone, Debug)]
pub struct Backup {
    /// How far it is.
    pub phase: Phase,
    /// Counts the backups, so that a thread knows its own.
    pub number: u64,
    /// Whether a thread is sealing it.
    pub is_sealing: bool,
    /// Why it failed; empty if it did not.
    pub error: String,
    /// When it was begun, Unix seconds; 0 if there is none.
    pub start_time: i64,
    /// When it was sealed or failed, Unix seconds; 0 if it was not.
    pub end_time: i64,
    /// Its files so far.
    pub files: Vec<PathBuf>,
    /// How large they are together, in bytes; 0 before the seal.
    pub bytes: u64,
    /// Whether it can be loaded.
    pub verification: Verification,
    /// Whether it was sent away.
    pub sending: Sending,
}

impl Backup {
    /// Whether something is done with it that needs its files.
    pub fn is_in_use(&self) -> bool {
        [self.verification.outcome, self.sending.outcome].contains(&Outcome::Running)
    }
}

impl Default for Backup {
    fn default() -> Self {
        Backup {
            phase: Phase::Unknown,
            number: 0,
            is_sealing: false,
            error: String::new(),
            start_time: 0,
            end_time: 0,
            files: Vec::new(),
            bytes: 0,
            verification: Verification::default(),
            sending: Sending { exit_code: -1, ..Sending::default() },
        }
    }
}
