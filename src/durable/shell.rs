//! Runs a command of the operator: the one way to do that.
//!
//! The shell runs it, in a process group of its own, without input. It has a limited time, and what it prints is read
//! by a thread of its own, so that nothing that it or a child of it does can hold up the server for longer. When it is
//! given up, the whole group is killed.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// What a command has come to.
#[derive(Debug)]
pub struct Ended<T> {
    /// How it ended.
    pub status: ExitStatus,
    /// What `read` has made of its output; `None` if the output did not end in time, because a child that it has left
    /// behind holds it open.
    pub output: Option<T>,
}

/// A command for the shell, in which `$1` and so on are `args`.
pub fn command(text: &str, args: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text, "sh"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    command
}

/// Runs it. `read` reads what it prints, on another thread, and must bound what it keeps. `goes_on` is asked again and
/// again; if it returns false, the command is given up.
///
/// # Errors
/// It cannot be started, has not ended in time, or is given up.
pub fn run<T: Send + 'static>(
    mut command: Command,
    time: Duration,
    goes_on: impl Fn() -> bool,
    read: impl FnOnce(ChildStdout) -> T + Send + 'static,
) -> Result<Ended<T>, String> {
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let kill = |child: &mut std::process::Child| {
        if let Some(group) = Pid::from_raw(child.id() as i32) {
            // It may have gone by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
    };
    let output = child.stdout.take().expect("its output is a pipe");
    let (send, outcome) = channel();
    // Nobody may be there any more to take it.
    std::thread::spawn(move || drop(send.send(read(output))));
    let deadline = Instant::now() + time;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if !goes_on() => {
                kill(&mut child);
                return Err("it was given up".into());
            }
            None if Instant::now() > deadline => {
                kill(&mut child);
                return Err(format!("it has not ended within {} s", time.as_secs()));
            }
            None => std::thread::sleep(LOOK),
        }
    };
    // A child that it has left behind may hold its output open.
    let mut output = outcome.recv_timeout(LOOK).ok();
    while output.is_none() && status.success() && Instant::now() < deadline && goes_on() {
        output = outcome.recv_timeout(LOOK).ok();
    }
    if output.is_none() {
        kill(&mut child);
        // What it has printed ends now.
        output = outcome.recv_timeout(LOOK * 10).ok().filter(|_| !status.success());
    }
    Ok(Ended { status, output })
}
