//! TLS: who gets in, and what a connection does under it.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use support::SetOnDrop;
use support::certificates::Certificates;
use support::client::PATIENCE;
use support::server::{Recipe, Server, free_port};

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// A server with TLS, its certificates, and its port for TLS.
struct Secure {
    server: Server,
    certificates: Certificates,
    port: u16,
}

/// Starts a server whose clients need no certificate, unless a directive says so.
fn start(directives: &[(&str, &str)]) -> Secure {
    start_with(Certificates::new(), directives)
}

fn start_with(certificates: Certificates, directives: &[(&str, &str)]) -> Secure {
    let port = free_port();
    let recipe = Recipe::under_test().with("io-threads", "2").with("save", "").with("tls-auth-clients", "no");
    let recipe =
        directives.iter().fold(certificates.serve(recipe, port), |recipe, (name, value)| recipe.with(name, value));
    Secure { server: recipe.start(), certificates, port }
}

impl Secure {
    /// The configuration of a client that trusts the authority, and shows this certificate.
    fn config(&self, certificate: Option<&str>) -> ClientConfig {
        self.config_of(rustls::crypto::ring::default_provider(), rustls::ALL_VERSIONS, certificate)
    }

    fn config_of(
        &self,
        provider: rustls::crypto::CryptoProvider,
        versions: &[&'static rustls::SupportedProtocolVersion],
        certificate: Option<&str>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for authority in ["ca.crt", "other.crt"].map(|name| self.certificates.path(name)) {
            if let Ok(authority) = CertificateDer::from_pem_file(authority) {
                roots.add(authority).expect("an authority");
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(versions).expect("versions").with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let file = |end: &str| self.certificates.path(&format!("{name}.{end}"));
                let chain = vec![CertificateDer::from_pem_file(file("crt")).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        }
    }

    fn connect(&self, config: impl Into<Arc<ClientConfig>>) -> Connection {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).expect("the port listens");
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let name = ServerName::try_from("localhost").expect("a name");
        StreamOwned::new(ClientConnection::new(config.into(), name).expect("a connection"), socket)
    }

    /// A connection that shows this certificate; `None` if the server refuses it.
    fn enter(&self, certificate: Option<&str>) -> Option<Connection> {
        let mut connection = self.connect(self.config(certificate));
        let answer = call(&mut connection, "PING");
        answer.filter(|answer| answer == "+PONG").map(|_| connection)
    }

    /// The reply to a command over plain TCP.
    fn plain(&self, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.server.client().call(words)).into_owned()
    }

    fn serial(&self, connection: &Connection) -> Vec<u8> {
        connection.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }

    fn file(&self, name: &str) -> Vec<u8> {
        CertificateDer::from_pem_file(self.certificates.path(name)).expect("a certificate").to_vec()
    }
}

/// Waits for something that comes sooner or later.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The first line of the reply to an inline command; `None` if the connection ends.
fn call(connection: &mut Connection, line: &str) -> Option<String> {
    connection.write_all(format!("{line}\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).ok()? == 0 {
            return None;
        }
        answer.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

#[test]
fn commands_large_values_and_pipelines_pass() {
    let secure = start(&[("appendfsync", "always")]);
    let mut connection = secure.enter(None).expect("no certificate is needed");
    let value: Vec<u8> = (0..10_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut request = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", value.len()).into_bytes();
    request.extend_from_slice(&value);
    request.extend_from_slice(b"\r\n*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n");
    connection.write_all(&request).expect("the server reads");
    let mut answer = vec![0; 5 + 11 + value.len() + 2];
    connection.read_exact(&mut answer).expect("the reply comes whole");
    assert!(answer.starts_with(b"+OK\r\n$10000000\r\n") && answer[16..].starts_with(&value));
    let many: String = (0..20_000).map(|number| format!("INCRBY counter {number}\r\n")).collect();
    let (_, expected) = (0..20_000_u64)
        .fold((0, String::new()), |(sum, text), number| (sum + number, text + &format!(":{}\r\n", sum + number)));
    connection.write_all(many.as_bytes()).expect("the server reads");
    let mut answer = vec![0; expected.len()];
    connection.read_exact(&mut answer).expect("every reply comes");
    assert!(answer == expected.as_bytes());
    assert_eq!(secure.plain(&["STRLEN", "big"]), ":10000000\r\n");
    let info = secure.plain(&["INFO", "everything"]);
    assert!(info.contains(&format!("listener1:name=tls,bind=127.0.0.1,port={}", secure.port)), "{info}");
    assert!(
        !info.contains("tls_server_cert_serial:none") && info.contains("tls_ca_cert_expires_in_seconds:25"),
        "{info}"
    );
    assert_eq!(call(&mut connection, "QUIT").as_deref(), Some("+OK"));
    assert_eq!(connection.read(&mut [0]).expect("an end that is announced"), 0);
}

#[test]
fn only_certificates_of_the_authority_get_in() {
    let certificates = Certificates::new();
    certificates.issue("client", "ca", "default");
    certificates.authority("other");
    certificates.issue("stranger", "other", "default");
    let secure = start_with(certificates, &[("tls-auth-clients", "yes")]);
    assert!(secure.enter(Some("client")).is_some());
    assert!(secure.enter(Some("stranger")).is_none() && secure.enter(None).is_none());
    assert_eq!(secure.plain(&["CONFIG", "SET", "tls-auth-clients", "optional"]), "+OK\r\n");
    assert!(secure.enter(None).is_some() && secure.enter(Some("client")).is_some());
    assert!(secure.enter(Some("stranger")).is_none());
    assert_eq!(secure.plain(&["CONFIG", "SET", "tls-auth-clients", "no"]), "+OK\r\n");
    assert!(secure.enter(Some("stranger")).is_some(), "nobody looks at it");
    // A directory of authorities.
    let directory = secure.certificates.path("authorities");
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::copy(secure.certificates.path("other.crt"), directory.join("a.pem")).expect("a copy");
    std::fs::write(directory.join("README"), "no certificate").expect("a file");
    let both = ["CONFIG", "SET", "tls-ca-cert-dir", &directory.display().to_string(), "tls-auth-clients", "yes"];
    assert_eq!(secure.plain(&both), "+OK\r\n");
    assert!(secure.enter(Some("stranger")).is_some() && secure.enter(Some("client")).is_some());
    assert!(secure.enter(None).is_none());
}

#[test]
fn a_certificate_may_name_the_user() {
    let certificates = Certificates::new();
    certificates.issue("client", "ca", "default");
    certificates.issue("nobody", "ca", "nobody");
    let directives = [("tls-auth-clients", "yes"), ("requirepass", "secret"), ("tls-auth-clients-user", "CN")];
    let secure = start_with(certificates, &directives);
    assert!(secure.enter(Some("client")).is_some(), "without a password");
    let mut other = secure.connect(secure.config(Some("nobody")));
    assert_eq!(call(&mut other, "PING").as_deref(), Some("-NOAUTH Authentication required."));
    assert_eq!(call(&mut other, "AUTH secret").as_deref(), Some("+OK"));
    let mut admin = secure.server.client();
    admin.call(&["AUTH", "secret"]);
    let info = String::from_utf8_lossy(&admin.call(&["INFO", "stats"])).into_owned();
    assert!(info.contains("acl_access_denied_tls_cert:1"), "{info}");
    assert_eq!(admin.call(&["ACL", "SETUSER", "nobody", "on", "+ping", "+acl|whoami"]), b"+OK\r\n");
    let mut limited = secure.connect(secure.config(Some("nobody")));
    assert_eq!(call(&mut limited, "ACL WHOAMI").as_deref(), Some("$6"), "nobody is a user now");
    assert_eq!(call(&mut limited, "PING").as_deref(), Some("nobody"), "the rest of the reply");
    assert_eq!(call(&mut limited, "GET a").as_deref(), Some("+PONG"));
    let refused = call(&mut limited, "PING").unwrap_or_default();
    assert!(refused.starts_with("-NOPERM User nobody has no permissions to run the 'get' command"), "{refused}");
    admin.call(&["CONFIG", "SET", "tls-auth-clients-user", "URI"]);
    let mut client = secure.connect(secure.config(Some("client")));
    let refused = call(&mut client, "PING");
    assert_eq!(refused.as_deref(), Some("-NOAUTH Authentication required."), "urn:user:default is no user");
}

#[test]
fn versions_suites_and_sessions_are_as_configured() {
    let secure = start(&[("tls-protocols", "TLSv1.2"), ("tls-ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305")]);
    let connection = secure.enter(None).expect("it gets in");
    assert_eq!(connection.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let suite = connection.conn.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256));
    let kinds = |secure: &Secure| {
        let config = Arc::new(secure.config(None));
        let kind = |_| {
            let mut connection = secure.connect(Arc::clone(&config));
            assert_eq!(call(&mut connection, "PING").as_deref(), Some("+PONG"));
            connection.conn.handshake_kind()
        };
        [(); 3].map(kind)
    };
    let (whole, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
    assert_eq!(kinds(&secure), [whole, resumed, resumed]);
    let set = |words: &[&str]| assert_eq!(secure.plain(&[&["CONFIG", "SET"], words].concat()), "+OK\r\n");
    set(&["tls-protocols", "TLSv1.3"]);
    assert_eq!(kinds(&secure), [whole, resumed, resumed]);
    set(&["tls-session-caching", "no"]);
    assert_eq!(kinds(&secure), [whole, whole, whole]);
    for (name, value) in [
        ("tls-protocols", "TLSv1.1"),
        ("tls-ciphersuites", "nosuch"),
        ("tls-cert-file", "/nowhere"),
        ("tls-key-file", ""),
    ] {
        let refused = secure.plain(&["CONFIG", "SET", name, value]);
        let text = "Unable to update TLS configuration. Check server logs.";
        assert_eq!(refused, format!("-ERR CONFIG SET failed (possibly related to argument '{name}') - {text}\r\n"));
    }
    assert!(secure.server.log().contains("RFC 8996") && secure.server.log().contains("/nowhere"));
    assert!(secure.enter(None).is_some());
}

#[test]
fn certificates_are_exchanged_under_load() {
    let secure = start(&[("tls-auto-reload-interval", "1")]);
    let certificates = &secure.certificates;
    certificates.issue("second", "ca", "localhost");
    certificates.issue("third", "ca", "localhost");
    let mut old = secure.enter(None).expect("it gets in");
    let (over, mut serials) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        let ends = SetOnDrop(&over);
        let busy = scope.spawn(|| {
            let mut connection = secure.enter(None).expect("it gets in");
            let mut calls = 0;
            while !over.load(Ordering::SeqCst) {
                assert_eq!(call(&mut connection, &format!("SET key {calls}")).as_deref(), Some("+OK"));
                calls += 1;
            }
            calls
        });
        let set = |words: &[&str]| secure.plain(&[&["CONFIG", "SET"], words].concat());
        // A key without its certificate, and one that is broken: nothing changes.
        std::fs::write(certificates.path("broken.key"), "-----BEGIN PRIVATE KEY-----\n!!\n").expect("a file");
        for key in ["second.key", "broken.key", "none.key"] {
            assert!(set(&["tls-key-file", &certificates.text(key)]).starts_with("-ERR CONFIG SET failed"));
            assert_eq!(secure.serial(&secure.enter(None).expect("in")), secure.file("server.crt"));
        }
        for round in 0..40 {
            let name = ["second", "server"][round % 2];
            let (crt, key) = (certificates.text(&format!("{name}.crt")), certificates.text(&format!("{name}.key")));
            assert_eq!(set(&["tls-cert-file", &crt, "tls-key-file", &key]), "+OK\r\n");
            serials.push((secure.serial(&secure.enter(None).expect("in")), secure.file(&format!("{name}.crt"))));
        }
        drop(ends);
        assert!(busy.join().expect("no connection is lost") > 0);
    });
    assert!(serials.iter().all(|(shown, wanted)| shown == wanted), "{serials:?}");
    // The files change under the same names: CONFIG SET of the same value reads them again, and so does the timer.
    let set = |words: &[&str]| assert_eq!(secure.plain(&[&["CONFIG", "SET"], words].concat()), "+OK\r\n");
    set(&["tls-auto-reload-interval", "0"]);
    set(&["tls-cert-file", &certificates.text("server.crt"), "tls-key-file", &certificates.text("server.key")]);
    std::fs::copy(certificates.path("third.crt"), certificates.path("server.crt")).expect("a copy");
    std::fs::copy(certificates.path("third.key"), certificates.path("server.key")).expect("a copy");
    set(&["tls-cert-file", &certificates.text("server.crt")]);
    assert_eq!(secure.serial(&secure.enter(None).expect("in")), secure.file("third.crt"));
    std::fs::copy(certificates.path("second.key"), certificates.path("server.key")).expect("a copy");
    std::fs::copy(certificates.path("second.crt"), certificates.path("server.crt")).expect("a copy");
    set(&["tls-auto-reload-interval", "1"]);
    let second = secure.file("second.crt");
    wait_until("the timer reads the files", || secure.serial(&secure.enter(None).expect("in")) == second);
    wait_until("the log tells of it", || secure.server.log().contains("TLS materials reloaded successfully"));
    assert_eq!(call(&mut old, "PING").as_deref(), Some("+PONG"), "an old connection goes on");
}

#[test]
fn keys_may_be_encrypted_and_certificates_two() {
    let certificates = Certificates::new();
    certificates.issue_with("rsa", "ca", "localhost", "rsa:2048");
    certificates.run("pkcs8 -topk8 -in rsa.key -out locked.key -passout", &["pass:secret"]);
    let secure = start_with(certificates, &[]);
    let set = |words: &[&str]| secure.plain(&[&["CONFIG", "SET"], words].concat());
    let (crt, key) = (secure.certificates.text("rsa.crt"), secure.certificates.text("locked.key"));
    let pair = ["tls-alt-cert-file", &crt, "tls-alt-key-file", &key, "tls-alt-key-file-pass"];
    assert!(set(&[&pair[..], &["wrong"]].concat()).starts_with("-ERR CONFIG SET failed"));
    assert!(set(&pair[..4]).starts_with("-ERR CONFIG SET failed"), "without a pass phrase");
    assert_eq!(set(&[&pair[..], &["secret"]].concat()), "+OK\r\n");
    let log = secure.server.log();
    assert!(log.contains("cannot be decrypted") && !log.contains("secret"), "{log}");
    // Which one a client gets is for the signatures to say that it knows.
    let shown = |wanted: &str| {
        let mut provider = rustls::crypto::ring::default_provider();
        let algorithms = &mut provider.signature_verification_algorithms;
        let mapping = algorithms.mapping.to_vec();
        let kept = mapping.into_iter().filter(|(scheme, _)| {
            let is_rsa = format!("{scheme:?}").starts_with("RSA");
            // The authority has signed by ECDSA, which must stay known, but comes last.
            (wanted == "RSA") == is_rsa
        });
        let mut kept: Vec<_> = kept.collect();
        kept.extend(
            algorithms
                .mapping
                .iter()
                .filter(|(scheme, _)| kept.iter().all(|(known, _)| known != scheme))
                .copied()
                .collect::<Vec<_>>(),
        );
        algorithms.mapping = Box::leak(kept.into_boxed_slice());
        let mut connection = secure.connect(secure.config_of(provider, rustls::ALL_VERSIONS, None));
        assert_eq!(call(&mut connection, "PING").as_deref(), Some("+PONG"));
        secure.serial(&connection)
    };
    assert_eq!(shown("RSA"), secure.file("rsa.crt"));
    assert_eq!(shown("ECDSA"), secure.file("server.crt"));
}

#[test]
fn who_stalls_or_lies_keeps_nobody_out() {
    let (secure, began) = (start(&[]), Instant::now());
    let open = || TcpStream::connect(("127.0.0.1", secure.port)).expect("the port listens");
    let used = || -> u64 {
        let memory = secure.plain(&["INFO", "memory"]);
        let figure = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
        figure.and_then(|figure| figure.trim().parse().ok()).expect("a figure")
    };
    let before = used();
    let mut stalled = Vec::new();
    // Ten thousand, or as many as this process may open.
    while stalled.len() < 10_000 {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", secure.port)) else { break };
        if stalled.len() % 2 == 0 {
            // The beginning of a ClientHello whose rest never comes.
            socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("a socket");
        }
        stalled.push(socket);
    }
    // Room for what follows, in case this process may open no more.
    stalled.truncate(stalled.len() - stalled.len() / 20);
    assert!(stalled.len() > 250, "{}", stalled.len());
    let taken = used().saturating_sub(before);
    assert!(taken < 64 << 20, "{} half-open handshakes take {taken} bytes", stalled.len());
    if stalled.len() > 3000 {
        // The oldest made room for the others.
        stalled[0].set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut rest = Vec::new();
        let end = stalled[0].read_to_end(&mut rest);
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
    assert!(secure.enter(None).is_some(), "others are served");
    for lie in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"*1\r\n$4\r\nPING\r\n", &[0; 100], &[22, 3, 1, 255, 255]] {
        let mut socket = open();
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.write_all(lie).expect("a socket");
        let mut answer = Vec::new();
        // It may end by a reset, as something was unread.
        let end = socket.read_to_end(&mut answer);
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
        assert!(answer.len() < 20, "an alert at most: {answer:?}");
    }
    let mut client = secure.server.client();
    wait_until("half-open ones are no clients", || {
        client.ok("INFO clients").string().contains("connected_clients:1\r\n")
    });
    assert!(secure.enter(None).is_some());
    drop(stalled);
    let log = secure.server.log();
    // The log tells of ten failures a second, and of the number of the others; here of those that made room first.
    assert!(log.contains("Error accepting a client") || log.contains("too many unfinished TLS handshakes"), "{log}");
    let lines_max = 50 + 11 * (began.elapsed().as_secs() as usize + 2);
    assert!(log.lines().count() < lines_max, "nobody fills it: {} lines of {lines_max}", log.lines().count());
}

#[test]
fn replies_wait_for_a_slow_reader_and_are_limited() {
    let secure = start(&[]);
    let mut slow = secure.enter(None).expect("it gets in");
    let value = "x".repeat(1 << 20);
    assert_eq!(secure.plain(&["SET", "big", &value]), "+OK\r\n");
    // More than the sockets hold.
    slow.write_all("GET big\r\n".repeat(40).as_bytes()).expect("the server reads");
    slow.flush().expect("the server reads");
    let mut other = secure.enter(None).expect("it gets in");
    wait_until("replies wait", || {
        assert_eq!(call(&mut other, "PING").as_deref(), Some("+PONG"));
        let list = secure.plain(&["CLIENT", "LIST"]);
        list.split_whitespace().any(|field| field.strip_prefix("omem=").is_some_and(|bytes| bytes != "0"))
    });
    let mut answer = vec![0; 40 * (10 + value.len() + 2)];
    slow.read_exact(&mut answer).expect("every byte comes");
    let part = format!("$1048576\r\n{value}\r\n");
    assert!(answer.chunks(part.len()).all(|chunk| chunk == part.as_bytes()));
    assert_eq!(secure.plain(&["CONFIG", "SET", "client-output-buffer-limit", "normal 8mb 0 0"]), "+OK\r\n");
    slow.write_all("GET big\r\n".repeat(40).as_bytes()).expect("the server reads");
    let mut rest = Vec::new();
    let end = slow.read_to_end(&mut rest);
    assert!(rest.len() < answer.len(), "it was cut: {end:?}");
}

#[test]
fn tls_alone_and_its_port_can_be_exchanged_for_plain() {
    let certificates = Certificates::new();
    let mut secure = start_with(certificates, &[]);
    let plain_port = secure.server.port();
    let (tls, plain) = (secure.port.to_string(), plain_port.to_string());
    let mut admin = secure.enter(None).expect("it gets in");
    assert_eq!(call(&mut admin, "CONFIG SET port 0").as_deref(), Some("+OK"));
    assert!(TcpStream::connect(("127.0.0.1", plain_port)).is_err());
    assert_eq!(call(&mut admin, &format!("CONFIG SET port {tls} tls-port {plain}")).as_deref(), Some("+OK"));
    secure.port = plain_port;
    assert!(secure.enter(None).is_some());
    assert_eq!(call(&mut admin, "CONFIG SET tls-port 0").as_deref(), Some("+OK"));
    assert!(TcpStream::connect(("127.0.0.1", plain_port)).is_err());
    assert_eq!(call(&mut admin, "PING").as_deref(), Some("+PONG"), "an open connection stays");
}

/// The tools that ask servers, under TLS.
#[test]
fn keys_go_from_server_to_server_under_tls() {
    let tool = |args: &[&str]| {
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_ironkeep")).args(args).output().expect("it runs");
        (program.status.code(), String::from_utf8_lossy(&[&program.stdout[..], &program.stderr].concat()).into_owned())
    };
    let home = tempfile::tempdir().expect("a directory");
    let secure = start(&[("tls-auth-clients", "yes")]);
    secure.certificates.issue("me", "ca", "me");
    secure.certificates.authority("stranger");
    let mut client = secure.server.client();
    let value = "v".repeat(300_000);
    for number in 0..50 {
        client.call(&["SET", &format!("key:{number}"), &value]);
    }
    let address = format!("localhost:{}", secure.port);
    let [ca, cert, key, stranger] =
        ["ca.crt", "me.crt", "me.key", "stranger.crt"].map(|name| secure.certificates.text(name));
    let file = home.path().join("dump.rdb").display().to_string();
    let export = ["export", &address, "--format", "rdb", "--to", &file];
    let own = ["--tls", "--cacert", &ca, "--cert", &cert, "--key", &key];
    for (more, problem) in [
        (&[][..], "no reply of Redis"),
        (&["--cacert", &ca][..], "need --tls"),
        (&["--tls", "--cacert", &stranger][..], "certificate"),
        (&["--tls", "--cacert", &ca][..], "ertificate"),
        (&["--tls", "--cacert", &ca, "--cert", &cert][..], "belong together"),
        (&["--tls", "--cacert", &key][..], "there is no certificate in it"),
    ] {
        let (code, text) = tool(&[&export[..], more].concat());
        assert!(code == Some(1) && text.contains(problem), "{more:?}: {text}");
    }
    let (code, text) = tool(&[&export[..], &own[..]].concat());
    assert_eq!(code, Some(0), "{text}");
    client.ok("FLUSHALL");
    let (code, text) = tool(&[&["import", &file, "--into", &address][..], &own[..]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((client.ok("DBSIZE").integer(), client.ok("GET key:49").string()), (50, value));
}

#[test]
fn connections_move_between_workers_and_go_on() {
    let secure = start(&[]);
    let mut connections: Vec<_> = (0..6).map(|_| secure.enter(None).expect("no certificate is needed")).collect();
    // Large, so that a pipeline comes in many records, and what is read of them moves along in every form.
    let value = "v".repeat(50_000);
    let request = |number: usize, round: usize| {
        let set = format!("*3\r\n$3\r\nSET\r\n$5\r\nkey:{number}\r\n${}\r\n{value}{round:02}\r\n", value.len() + 2);
        set + &format!("GET key:{number}\r\nINCR counter:{number}\r\n").repeat(3)
    };
    for round in 0..12 {
        let requests: Vec<String> = (0..6).map(|number| request(number, round)).collect();
        let count = [4, 1, 3, 1][round % 4].to_string();
        std::thread::scope(|scope| {
            for (connection, request) in connections.iter_mut().zip(&requests) {
                scope.spawn(|| {
                    let (first, rest) = request.split_at(30_000);
                    connection.write_all(first.as_bytes()).expect("the server reads");
                    connection.write_all(rest.as_bytes()).expect("the server reads");
                    let get = format!("${}\r\n{value}{round:02}\r\n", value.len() + 2);
                    let incr = |times: usize| format!(":{}\r\n", round * 3 + times);
                    let expected = "+OK\r\n".to_owned() + &(1..4).map(|at| get.clone() + &incr(at)).collect::<String>();
                    let mut answer = vec![0; expected.len()];
                    connection.read_exact(&mut answer).expect("the replies come whole");
                    assert!(answer == expected.as_bytes(), "round {round}");
                });
            }
            assert_eq!(secure.plain(&["CONFIG", "SET", "io-threads", &count]), "+OK\r\n");
        });
        let is_left = |line: &str| {
            let worker = line.split(' ').find_map(|word| word.strip_prefix("io-thread="));
            worker.and_then(|worker| worker.parse::<usize>().ok()) < count.parse().ok()
        };
        wait_until("they move", || {
            secure.plain(&["CLIENT", "LIST"]).lines().filter(|line| line.starts_with("id=")).all(is_left)
        });
    }
    for connection in &mut connections {
        assert_eq!(call(connection, "QUIT").as_deref(), Some("+OK"));
        assert_eq!(connection.read(&mut [0]).expect("an end that is announced"), 0);
    }
}
