//! A shop as tutorials build it, end to end: Express, node-redis, express-session and connect-redis on Ironkeep.
//! A visitor in Chromium and many others use it, through `kill -9` of the store and a restart of the shop.
//!
//! `app/drive.mjs` is the visitors and says what shall happen when; this file makes it happen. `tests/run` installs
//! what is needed; without it this test fails and says so.

#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::program::Program;
use support::server::{Recipe, Server, free_port};

/// The folder of the shop.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shop/app");
    assert!(folder.join("node_modules").exists(), "{} lacks node_modules: start with `tests/run`", folder.display());
    folder
}

/// Starts the shop; gives it and its address.
fn open_shop(store: &Server, port: u16, home: &Path) -> (Program, String) {
    let mut command = Command::new("node");
    command.current_dir(folder()).arg("shop.mjs");
    command.env("REDIS_URL", format!("redis://127.0.0.1:{}", store.port())).env("PORT", port.to_string());
    command.env("SHOP_DATABASE", home.join("shop.sqlite")).env("SHOP_ADMIN_KEY", "shopkeeper");
    // No window ends while the test runs.
    command.env("SHOP_LIMIT", "100").env("SHOP_LIMIT_SECONDS", "86400");
    // It says a lot while its store is away.
    let log = File::options().create(true).append(true).open(home.join("shop.log")).expect("a log");
    let mut shop = Program::start(command.stderr(log));
    let said = shop.line().expect("the shop listens");
    let address = said.strip_prefix("listening on ").unwrap_or_else(|| panic!("the shop said {said}")).to_owned();
    (shop, address)
}

fn a_day_in_the_shop(workers: &str) {
    let recipe = Recipe::under_test().with("save", "").with("appendonly", "yes").with("io-threads", workers);
    let mut store = recipe.start();
    // Screenshots and the shop's log stay there for whoever wants to see them.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shop-{workers}"));
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).expect("a folder");
    let port = free_port();
    let mut shop = None;
    let mut visitors = Program::start(Command::new("node").current_dir(folder()).arg("drive.mjs").arg(&home));
    loop {
        let wish = visitors.line().expect("the visitors say that all was fine");
        let answer = match wish.as_str() {
            "app start" | "app restart" => {
                // The old one ends first: it holds the port.
                drop(shop.take());
                let (program, address) = open_shop(&store, port, &home);
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
