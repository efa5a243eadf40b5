//! Has a command of the operator send a sealed backup away: `backup-command`.
//!
//! It runs beside everything else and holds up nothing. It is tried a few times, has a limited time, and of what it
//! prints the end is kept for the log. A backup that is removed meanwhile ends it.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::ChildStdout;
use std::time::Duration;

use super::shell;
use crate::base::logging;
use crate::core::backup::Sending;

/// How much of its output is kept, in bytes.
const OUTPUT_KEPT: usize = 2000;
/// How long is waited after the first failure; after each other one, twice as long, up to the last.
const WAITS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// How often is looked meanwhile whether it is to go on.
const NAP: Duration = Duration::from_millis(100);

/// What is to be sent, and how.
#[derive(Debug)]
pub struct Parcel<'a> {
    /// The directory of the backup.
    pub directory: &'a Path,
    /// What names it among others.
    pub id: String,
    /// The bytes of its files.
    pub bytes: u64,
    /// `backup-command`.
    pub command: &'a str,
    /// How long it may take.
    pub time: Duration,
    /// How often it is tried.
    pub attempts_max: u64,
}

impl Parcel<'_> {
    /// Tries to send it, until that succeeds or was tried often enough. `note` is told of each attempt. Returns whether
    /// it was sent; `None` if `goes_on` has ended it.
    pub fn send(&self, goes_on: impl Fn() -> bool, mut note: impl FnMut(Sending)) -> Option<bool> {
        let mut sending = Sending { outcome: crate::core::backup::Outcome::Running, attempts: 0, exit_code: -1 };
        let mut wait = *WAITS.start();
        loop {
            sending.attempts += 1;
            note(sending);
            let (why, output) = match self.attempt(&goes_on) {
                Ok(ended) => {
                    sending.exit_code = ended.status.code().map_or(-1, i64::from);
                    if ended.status.success() {
                        note(sending);
                        return Some(true);
                    }
                    (ended.status.to_string(), ended.output.unwrap_or_default())
                }
                Err(why) => {
                    sending.exit_code = -1;
                    (why, String::new())
                }
            };
            note(sending);
            if !goes_on() {
                return None;
            }
            let of = self.attempts_max;
            logging::warning(format_args!(
                "The backup is not sent, attempt {} of {of}: backup-command: {why}: {output}",
                sending.attempts,
            ));
            if sending.attempts >= of {
                return Some(false);
            }
            let mut left = wait;
            while !left.is_zero() {
                if !goes_on() {
                    return None;
                }
                std::thread::sleep(left.min(NAP));
                left = left.saturating_sub(NAP);
            }
            wait = (wait * 2).min(*WAITS.end());
        }
    }

    fn attempt(&self, goes_on: &impl Fn() -> bool) -> Result<shell::Ended<String>, String> {
        // The shell sends both outputs the same way.
        let text = format!("exec 2>&1\n{}", self.command);
        let mut command = shell::command(&text, &[self.directory.as_os_str()]);
        command.env("IRONKEEP_BACKUP_DIR", self.directory);
        command.env("IRONKEEP_BACKUP_ID", OsStr::new(&self.id));
        command.env("IRONKEEP_BACKUP_SIZE", self.bytes.to_string());
        shell::run(command, self.time, goes_on, end_of)
    }
}

/// The end of what a command prints, on one line.
fn end_of(mut output: ChildStdout) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; OUTPUT_KEPT]);
    while let Ok(count @ 1..) = output.read(&mut piece) {
        kept.extend_from_slice(&piece[..count]);
        kept.drain(..kept.len().saturating_sub(OUTPUT_KEPT));
    }
    let text = String::from_utf8_lossy(&kept).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn parcel(command: &str, directory: &Path) -> (Option<bool>, Vec<Sending>) {
        let time = Duration::from_secs(60);
        let parcel = Parcel { directory, id: "7".into(), bytes: 42, command, time, attempts_max: 2 };
        let mut noted = Vec::new();
        (parcel.send(|| true, |sending| noted.push(sending)), noted)
    }

    #[test]
    fn a_command_is_told_what_to_send_and_tried_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        let told = r#"cd "$1" && echo "$IRONKEEP_BACKUP_DIR $IRONKEEP_BACKUP_ID $IRONKEEP_BACKUP_SIZE" > told"#;
        assert_eq!(parcel(told, path).0, Some(true));
        let text = std::fs::read_to_string(path.join("told")).unwrap();
        assert_eq!(text, format!("{} 7 42\n", path.display()));
        // It fails at first.
        let (sent, noted) = parcel(r#"cd "$1" && rm once || { touch once; echo no >&2; exit 3; }"#, path);
        assert_eq!((sent, noted.last().unwrap().attempts, noted.last().unwrap().exit_code), (Some(true), 2, 0));
        assert!(noted.iter().any(|noted| (noted.attempts, noted.exit_code) == (1, 3)));
        let (sent, noted) = parcel("yes no | head -c 10000000; exit 9", path);
        assert_eq!((sent, noted.last().unwrap().attempts, noted.last().unwrap().exit_code), (Some(false), 2, 9));
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("child");
        let name = file.display();
        let command = format!("sleep 600 & echo $! > {name}.new && mv {name}.new {name}; sleep 600");
        let parcel = |ms| Parcel {
            directory: home.path(),
            id: "7".into(),
            bytes: 42,
            command: &command,
            time: Duration::from_millis(ms),
            attempts_max: 1,
        };
        // It is killed before the shell has begun, if that takes longer.
        let has_begun = [200, 2000, 20_000].into_iter().any(|ms| {
            assert_eq!(parcel(ms).send(|| true, |sending| assert_eq!(sending.exit_code, -1)), Some(false));
            file.exists()
        });
        assert!(has_begun, "the shell runs nothing");
        let stat = format!("/proc/{}/stat", std::fs::read_to_string(&file).unwrap().trim());
        // What is dead stays in the list for as long as its parent does not ask.
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let start = Instant::now();
        while lives() {
            assert!(start.elapsed() < Duration::from_secs(60), "its child lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(parcel(200).send(|| false, |_| ()), None);
    }
}
