//! Starts servers in their own directories and ends them: in order, with a signal, or with `kill -9`.
//!
//! - The server's output goes to `server.log` beside its data and is shown when a start fails.
//! - Dropping a `Server` kills it: no test leaves a process behind.

use super::client::{Address, Client};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to start or to exit.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which program to run, with which arguments. `start` gives a running server.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    program: Vec<String>,
    arguments: Vec<String>,
    unix: bool,
}

impl Recipe {
    /// The server under test, with its defaults.
    pub(crate) fn under_test() -> Recipe {
        let program = match std::env::var("IRONKEEP_TEST_SERVER") {
            Ok(line) => line.split_whitespace().map(str::to_owned).collect(),
            Err(_) => vec![env!("CARGO_BIN_EXE_ironkeep").to_owned()],
        };
        Recipe { program, arguments: Vec::new(), unix: false }
    }

    /// Another program, with its arguments divided by spaces.
    pub(crate) fn of(line: &str) -> Recipe {
        let program = line.split_whitespace().map(str::to_owned).collect();
        Recipe { program, arguments: Vec::new(), unix: false }
    }

    /// True when `IRONKEEP_TEST_SERVER` puts another program in Ironkeep's place.
    pub(crate) fn is_stand_in() -> bool {
        std::env::var_os("IRONKEEP_TEST_SERVER").is_some()
    }

    /// The genuine redis-server, in memory only. Fails the test when it is not installed.
    pub(crate) fn reference() -> Recipe {
        let program = std::env::var("IRONKEEP_TEST_REFERENCE").unwrap_or_else(|_| "redis-server".to_owned());
        let program: Vec<String> = program.split_whitespace().map(str::to_owned).collect();
        let found = Command::new(&program[0]).args(&program[1..]).arg("--version").stdout(Stdio::null()).status();
        assert!(
            found.is_ok_and(|status| status.success()),
            "`{}` cannot be run. These tests compare Ironkeep with a genuine redis-server: \
             start them with `tests/run`, which installs what they need",
            program.join(" ")
        );
        let arguments = ["--save", "", "--appendonly", "no"].map(str::to_owned).to_vec();
        Recipe { program, arguments, unix: false }
    }

    /// A newer server than the reference, if `IRONKEEP_TEST_PEER` names one. It keeps a log, as Ironkeep does,
    /// because WAITAOF shows it.
    pub(crate) fn peer() -> Option<Recipe> {
        let program = std::env::var("IRONKEEP_TEST_PEER").ok()?;
        let arguments = ["--save", "", "--appendonly", "yes"].map(str::to_owned).to_vec();
        Some(Recipe { program: program.split_whitespace().map(str::to_owned).collect(), arguments, unix: false })
    }

    /// Adds a directive: `with("io-threads", "2")`.
    pub(crate) fn with(mut self, directive: &str, value: &str) -> Recipe {
        self.arguments.push(format!("--{directive}"));
        self.arguments.push(value.to_owned());
        self
    }

    /// Adds a directive of several words.
    pub(crate) fn with_words(mut self, directive: &str, words: &[&str]) -> Recipe {
        self.arguments.push(format!("--{directive}"));
        self.arguments.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// No file may grow beyond this many blocks of `ulimit -f`: half a KiB or one, depending on the shell. The limit
    /// is a soft one, which [`Server::lift_file_size_limit`] removes.
    pub(crate) fn with_file_size_limit(self, blocks: u32) -> Recipe {
        self.through_shell(&format!("ulimit -S -f {blocks}; exec \"$0\" \"$@\""))
    }

    /// No file may grow beyond this: to the server it looks like a full disk.
    pub(crate) fn with_file_limit_kib(self, kib: u64) -> Recipe {
        self.through_shell(&format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\""))
    }

    /// Starts the program through a shell: `"$0"` with `"$@"`.
    pub(crate) fn through_shell(mut self, script: &str) -> Recipe {
        let shell = ["bash", "-c", script].map(str::to_owned);
        self.program = shell.into_iter().chain(self.program).collect();
        self
    }

    /// Listens on a unix socket, and clients use it.
    pub(crate) fn on_unix_socket(mut self) -> Recipe {
        self.unix = true;
        self
    }

    /// Starts in a new directory and waits for the first PONG.
    pub(crate) fn start(self) -> Server {
        let home = tempfile::tempdir().expect("a temporary directory");
        let directory = home.path().to_owned();
        self.start_as(directory, Some(home))
    }

    /// Starts in an existing directory, which stays when the server ends.
    pub(crate) fn start_in(self, directory: &Path) -> Server {
        self.start_as(directory.to_owned(), None)
    }

    fn start_as(self, directory: PathBuf, home: Option<tempfile::TempDir>) -> Server {
        let mut server =
            Server { recipe: self, home, directory, port: 0, child: None, address: Address::Port(0), exit: None };
        server.start_again();
        server
    }

    /// The command line for a directory and port.
    pub(crate) fn command(&self, directory: &Path, port: u16) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(directory);
        if self.unix {
            command.arg("--unixsocket").arg(directory.join("socket"));
        }
        command.args(&self.arguments).stdin(Stdio::null());
        command
    }
}

/// A running server, or one that was ended and can be started again on its data.
#[derive(Debug)]
pub(crate) struct Server {
    recipe: Recipe,
    // Held for its Drop: the directory goes with the server.
    home: Option<tempfile::TempDir>,
    directory: PathBuf,
    port: u16,
    child: Option<Child>,
    address: Address,
    exit: Option<ExitStatus>,
}

impl Server {
    /// A new connection; failure fails the test.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address).unwrap_or_else(|error| panic!("connect: {error}\n{}", self.log()))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("the server is running").id()
    }

    /// Lets files grow again.
    pub(crate) fn lift_file_size_limit(&self) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let id = Pid::from_child(self.child.as_ref().expect("the server is running"));
        prlimit(Some(id), Resource::Fsize, Rlimit { current: None, maximum: None }).expect("a limit that may rise");
    }

    /// Its recipe.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Replaces the recipe for the next start.
    pub(crate) fn set_recipe(&mut self, recipe: Recipe) {
        self.recipe = recipe;
    }

    /// Everything the server printed so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }

    /// Starts on the directory as it is, and waits for the first PONG.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "the server is still running");
        // Another process may take the free port between our check and the server's bind.
        for _ in 0..5 {
            self.port = free_port();
            self.spawn();
            if self.wait_until_ready() {
                return;
            }
        }
        panic!("the server did not start:\n{}", self.log());
    }

    /// Starts again where clients look for it. Another process may hold the port for a moment: it is waited for.
    pub(crate) fn start_again_on_its_port(&mut self) {
        assert!(self.child.is_none(), "the server is still running");
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.spawn();
            if self.wait_until_ready() {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("the server did not start:\n{}", self.log());
    }

    fn spawn(&mut self) {
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("server.log"))
            .expect("the log can be opened");
        let errors = output.try_clone().expect("a second handle of the log");
        let mut command = self.recipe.command(&self.directory, self.port);
        command.stdout(output).stderr(errors);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        self.address = match self.recipe.unix {
            true => Address::Unix(self.directory.join("socket")),
            false => Address::Port(self.port),
        };
    }

    /// False when the process exited before it answered.
    fn wait_until_ready(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let child = self.child.as_mut().expect("just started");
            if child.try_wait().expect("the child can be waited for").is_some() {
                self.child = None;
                return false;
            }
            if let Ok(mut client) = Client::connect(&self.address) {
                let reply = client.try_call(&["PING"]).unwrap_or_default();
                // One that asks for a password is up, too.
                if reply.starts_with(b"+PONG") || reply.starts_with(b"-NOAUTH") {
                    // The server closes last, so that this client is in no list and in no count any more.
                    client.finish_sending();
                    client.receive_until_close().unwrap_or_else(|error| panic!("no end: {error}\n{}", self.log()));
                    return true;
                }
            }
            sleep(Duration::from_millis(5));
        }
        panic!("the server did not answer:\n{}", self.log());
    }

    /// `kill -9`: nothing is saved and nothing is logged.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            self.exit = Some(child.wait().expect("the child can be waited for"));
        }
    }

    /// Asks with SIGTERM and waits for the exit.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(self.child.as_ref().expect("the server is running"));
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("the signal can be sent");
        self.wait_for_exit()
    }

    /// Waits for a server that was told to end.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server is running");
        let status = wait(&mut child).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        self.exit = Some(status);
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("last lines of the server's log:");
            tail.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
    }
}

/// Waits for a process; kills it and fails when it takes too long.
pub(crate) fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::other("the process did not end"))
}

/// A port that was free a moment ago and that no other test of this process has received.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        if GIVEN.lock().expect("nobody panics with it").insert(port) {
            return port;
        }
    }
}
