//! A program that uses a server and says what shall happen to it, a line each; it reads a line when that has happened.
//!
//! - `kill` ends the server with `kill -9`, `start` starts it again where it was, `fine` ends the conversation.
//! - Its standard error is the test's own. It is killed with its value.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::server::{Server, wait};

/// A program that is spoken to in lines.
pub(crate) struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts it; failure fails the test.
    pub(crate) fn start(command: &mut Command) -> Program {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child =
            child.unwrap_or_else(|error| panic!("{command:?}: {error}\nstart these tests with `tests/run`"));
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        Program { child, lines }
    }

    /// The next line that it prints; none: it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.lines.next().map(|line| line.expect("text"))
    }

    /// Lines from here on, to be read while the program runs.
    pub(crate) fn lines(&mut self) -> impl Iterator<Item = String> {
        self.lines.by_ref().map(|line| line.expect("text"))
    }

    /// Gives it a line to read.
    pub(crate) fn answer(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its input is a pipe");
        writeln!(input, "{line}").expect("it reads");
    }

    /// Closes its input, so that it ends, and gives what else it prints.
    pub(crate) fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let rest: Vec<String> = self.lines().collect();
        wait(&mut self.child).expect("it ends");
        rest.join("\n")
    }

    /// Does with the server what the program says, until it says that all is fine.
    pub(crate) fn command(mut self, server: &mut Server) {
        loop {
            match self.line().expect("the program says that all is fine").as_str() {
                "kill" => server.kill(),
                "start" => server.start_again_on_its_port(),
                "fine" => return,
                other => panic!("the program said {other}"),
            }
            self.answer("done");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
