//! `daemonize yes`: the server continues in the background, detached from its terminal.
//!
//! The program starts itself again with the same arguments instead of forking, because a process with threads cannot
//! fork safely. The child's standard input is one end of a socket pair, on which it reports that it is ready. The
//! parent waits for that and exits. If the child ends first, its messages have gone to the parent's standard error,
//! and the parent ends with the child's code.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use crate::base::restart::DETACHED;

/// Whether this process was started by [`detach`].
pub fn is_detached() -> bool {
    std::env::var_os(DETACHED).is_some()
}

/// Starts the child, and waits until it is ready or has failed.
///
/// # Errors
/// The child cannot be started.
pub fn detach() -> io::Result<ExitCode> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(DETACHED, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
    let mut child = command.spawn()?;
    // Our copy of the child's end must be closed, or the child's death would not show as the end of the stream.
    drop(command);
    if ours.read(&mut [0])? == 1 {
        return Ok(ExitCode::SUCCESS);
    }
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.filter(|code| *code != 0).unwrap_or(1)))
}

/// Leaves the terminal's session, whose signals are not for the child.
///
/// # Errors
/// Those of the system.
pub fn leave_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Tells the parent that the server is ready, and detaches from the terminal.
///
/// # Errors
/// Those of the system.
pub fn ready() -> io::Result<()> {
    let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // A killed parent is not a reason to end.
    let _ = rustix::io::write(rustix::stdio::stdin(), b"R");
    rustix::stdio::dup2_stdin(&nowhere)?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(())
}
