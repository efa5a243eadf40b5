//! A shop as tutorials build it, end to end: Express, node-redis, express-session and connect-redis on Ironkeep, used by
//! a visitor in Chromium and by many others, through `kill -9` of the store and a restart of the shop.
//!
//! `app/drive.mjs` is the visitors and says what shall happen when; this file makes it happen. `tests/run` installs what
//! is needed; without it this test fails and says so.

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use support::server::{Recipe, Server, free_port};

/// The folder of the shop.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shop/app");
    assert!(folder.join("node_modules").exists(), "{} lacks node_modules: start with `tests/run`", folder.display());
    folder
}

/// A program of the shop that is killed with this value.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(command: &mut Command) -> Program {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}\nstart this test with `tests/run`"));
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        Program { child, lines }
    }

    /// The next line that it prints; none: it has ended.
    fn line(&mut self) -> Option<String> {
        self.lines.next().map(|line| line.expect("text"))
    }

    fn answer(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its input is a pipe");
        writeln!(input, "{line}").expect("it reads");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the shop; gives it and its address.
fn open_shop(store: &Server, port: u16, database: &Path) -> (Program, String) {
    let mut command = Command::new("node");
    command.current_dir(folder()).arg("shop.mjs");
    command.env("REDIS_URL", format!("redis://127.0.0.1:{}", store.port())).env("PORT", port.to_string());
    command.env("SHOP_DATABASE", database).env("SHOP_ADMIN_KEY", "shopkeeper");
    // No window ends while the test runs.
    command.env("SHOP_LIMIT", "100").env("SHOP_LIMIT_SECONDS", "86400");
    let mut shop = Program::start(&mut command);
    let said = shop.line().expect("the shop listens");
    let address = said.strip_prefix("listening on ").unwrap_or_else(|| panic!("the shop said {said}")).to_owned();
    (shop, address)
}

fn a_day_in_the_shop(workers: &str) {
    let recipe = Recipe::under_test().with("save", "").with("appendonly", "yes").with("io-threads", workers);
    let mut store = recipe.start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let database = home.path().join("shop.sqlite");
    let port = free_port();
    let mut shop = None;
    let mut visitors = Program::start(
        Command::new("node").current_dir(folder()).args(["drive.mjs", env!("CARGO_TARGET_TMPDIR")]),
    );
    loop {
        let wish = visitors.line().expect("the visitors say that all was fine");
        let answer = match wish.as_str() {
            "app start" | "app restart" => {
                // The old one ends first: it holds the port.
                drop(shop.take());
                let (program, address) = open_shop(&store, port, &database);
                shop = Some(program);
                address
            }
            "store kill" => {
                store.kill();
                "done".to_owned()
            }
            "store start" => {
                store.start_again_on_its_port();
                "done".to_owned()
            }
            "fine" => break,
            other => panic!("the visitors said {other}"),
        };
        visitors.answer(&answer);
    }
}

#[test]
fn a_shop_survives_a_crash_of_its_store() {
    a_day_in_the_shop("2");
}

#[test]
fn a_shop_on_four_workers() {
    a_day_in_the_shop("4");
}
