//! The page of the HTTP endpoint as people use it: in Chromium, against a server under load, by mouse and by keyboard,
//! in light and dark, on a desk and on a telephone, through a `kill -9` of the server.
//!
//! `app/drive.mjs` is the visitor and says what shall happen when; this file makes it happen. `tests/run` installs
//! what is needed; without it this test fails and says so.

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use support::SetOnDrop;
use support::client::{Client, encode};
use support::program::Program;
use support::server::{Recipe, free_port};

/// Names that a page would run, or be broken by, if it took them for more than text.
const HOSTILE: [&str; 4] = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror='window.pwned=2'>",
    "\"><svg onload=window.pwned=3>",
    "gnp.\u{202e}exe\u{0}\r\n<b>bold</b>",
];

fn fill(client: &mut Client) {
    for name in HOSTILE {
        client.call(&["HSET", &format!("hostile:{name}"), name, name]);
    }
    // More than one scan finds.
    for number in 0..1500 {
        client.call(&["SET", &format!("page:{number}"), "v"]);
    }
    for number in 0..300 {
        client.call(&["RPUSH", "long-list", &format!("element {number}")]);
        client.call(&["ZADD", "board", &number.to_string(), &format!("player {number}")]);
        client.call(&["XADD", "events", "*", "kind", "visit", "number", &number.to_string()]);
        client.call(&["SADD", "tags", &format!("tag {number}")]);
    }
    client.call(&["SET", &"long-name".repeat(40), &"long value ".repeat(4000)]);
    client.call(&["SELECT", "1"]);
    client.call(&["SET", "elsewhere", "in database 1"]);
    client.call(&["ACL", "SETUSER", "guest", "on", ">welcome", "~page:1*", "+@read", "+select"]);
    client.call(&["SAVE"]);
}

/// Keeps a server busy, through its end and its next start.
fn load(server: &support::client::Address, is_over: &AtomicBool) {
    let mut number = 0_u32;
    while !is_over.load(Relaxed) {
        let Ok(mut client) = Client::connect(server) else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        while !is_over.load(Relaxed) {
            number += 1;
            let key = format!("load:{}", number % 5000);
            let calls: [&[&str]; 5] = [
                &["SET", &key, "some value", "PX", "2000"],
                &["GET", &key],
                &["GET", "missing"],
                &["HINCRBY", "counters", &key, "1"],
                &["LPUSH", "wrong:list", "v"],
            ];
            let bytes: Vec<u8> = calls.iter().flat_map(|call| encode(call)).collect();
            if client.send(&bytes).is_err() || calls.iter().any(|_| client.receive().is_err()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn the_page_shows_a_server_under_load() {
    let http = free_port();
    let recipe = Recipe::under_test().with("io-threads", "2").with("save", "").with("http-bind", "127.0.0.1");
    let recipe = recipe.with("http-port", &http.to_string()).with("http-browse", "read");
    let mut server = recipe.with("slowlog-log-slower-than", "1000").with("appendfsync", "everysec").start();
    fill(&mut server.client());
    let address = server.address().clone();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load(&address, &is_over));
        // The load ends with the visit, however that ends.
        let ends = SetOnDrop(&is_over);
        visit(http, "under-load").command(&mut server);
        drop(ends);
    });
}

/// Who may see figures alone is told so, and sees no name of a key and no argument.
#[test]
fn the_page_shows_figures_alone_to_whom_data_is_closed() {
    let http = free_port();
    let recipe = Recipe::under_test().with("io-threads", "2").with("save", "").with("http-bind", "127.0.0.1");
    let recipe = recipe.with("http-port", &http.to_string()).with("http-token", "a-token");
    let mut server = recipe.with("slowlog-log-slower-than", "0").start();
    let mut client = server.client();
    for number in 0..100 {
        client.call(&["SET", &format!("secret:{number}"), "secret"]);
    }
    visit(http, "closed").command(&mut server);
}

/// Sends a visitor to the page at this port.
fn visit(port: u16, wish: &str) -> Program {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/app");
    assert!(folder.join("node_modules").exists(), "{} lacks node_modules: start with `tests/run`", folder.display());
    // Screenshots stay there for whoever wants to see them.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&home).expect("a folder");
    let mut visitor = Command::new("node");
    visitor.current_dir(&folder).arg("drive.mjs").arg(format!("http://127.0.0.1:{port}")).arg(&home).arg(wish);
    Program::start(&mut visitor)
}
