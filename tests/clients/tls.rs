//! The clients that people use, over TLS and with a certificate of their own.

use std::process::Command;

use redis::{Commands, TlsCertificates};

use crate::support::certificates::Certificates;
use crate::support::server::{Recipe, Server, free_port};
use crate::{folder, node, python, run};

/// A server that lets in clients with a certificate alone; its certificates, with `client` among them; its port.
fn start() -> (Server, Certificates, u16) {
    let certificates = Certificates::new();
    certificates.issue("client", "ca", "somebody");
    let port = free_port();
    let recipe = certificates.serve(Recipe::under_test().with("io-threads", "2"), port);
    (recipe.start(), certificates, port)
}

/// Runs a script with the port, the authority, and the certificate and key of the client.
fn use_it(mut command: Command, certificates: &Certificates) {
    run(command.args(["ca.crt", "client.crt", "client.key"].map(|name| certificates.path(name))));
}

#[test]
fn node_redis_and_ioredis() {
    let (_server, certificates, port) = start();
    // Checks that what it needs is installed.
    let mut command = Command::new(node("tls.mjs", port, "").get_program());
    command.arg(folder("node").join("tls.mjs")).arg(port.to_string());
    use_it(command, &certificates);
}

#[test]
fn redis_py() {
    let (_server, certificates, port) = start();
    let mut command = Command::new(python("tls.py", port, "").get_program());
    command.arg(folder("python").join("tls.py")).arg(port.to_string());
    use_it(command, &certificates);
}

#[test]
fn redis_rs() {
    let (_server, certificates, port) = start();
    let file = |name: &str| std::fs::read(certificates.path(name)).expect("the file");
    let identity = redis::ClientTlsConfig { client_cert: file("client.crt"), client_key: file("client.key") };
    let open = |identity| {
        let tls = TlsCertificates { client_tls: identity, root_cert: Some(file("ca.crt")) };
        redis::Client::build_with_tls(format!("rediss://localhost:{port}/3"), tls).expect("a valid address")
    };
    let mut connection = open(Some(identity)).get_connection().expect("it gets in");
    connection.set::<_, _, ()>("large", vec![7_u8; 3_000_000]).expect("SET");
    assert_eq!(connection.get::<_, Vec<u8>>("large").expect("GET"), vec![7; 3_000_000]);
    let mut pipe = redis::pipe();
    for _ in 0..1000 {
        pipe.incr("counter", 1);
    }
    let counts: Vec<i64> = pipe.query(&mut connection).expect("a pipeline");
    assert_eq!(counts, (1..=1000).collect::<Vec<_>>());
    let stranger = open(None).get_connection().and_then(|mut connection| connection.get::<_, Option<i64>>("counter"));
    assert!(stranger.is_err(), "{stranger:?}");
}

#[test]
fn redis_cli() {
    let (_server, certificates, port) = start();
    let cli = |more: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["--tls", "--cacert"]).arg(certificates.path("ca.crt")).args(["-p", &port.to_string()]).args(more);
        command.output().expect("start these tests with `tests/run`")
    };
    let (crt, key) = (certificates.text("client.crt"), certificates.text("client.key"));
    let output = cli(&["--cert", &crt, "--key", &key, "SET", "k", "v"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "OK\n");
    let output = cli(&["--cert", &crt, "--key", &key, "--tls-ciphersuites", "TLS_AES_128_GCM_SHA256", "GET", "k"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "v\n");
    let output = cli(&["GET", "k"]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains('v'), "without a certificate");
}
