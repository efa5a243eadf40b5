//! Certificates for tests, made by the program `openssl` when they are needed.

use super::server::Recipe;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority and what it has signed, in a directory of its own.
#[derive(Debug)]
pub(crate) struct Certificates {
    directory: tempfile::TempDir,
}

fn openssl(directory: &Path, line: &str, more: &[&str]) {
    let output = Command::new("openssl").args(line.split_whitespace()).args(more).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("openssl: {error}: these tests need the program"));
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Certificates {
    /// An authority, `ca.crt`, and a certificate of the server, `server.crt` with `server.key`.
    pub(crate) fn new() -> Certificates {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let certificates = Certificates { directory };
        certificates.authority("ca");
        certificates.issue("server", "ca", "localhost");
        certificates
    }

    /// The path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes an authority.
    pub(crate) fn authority(&self, name: &str) {
        let line = format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout {name}.key -out {name}.crt"
        );
        self.run(&line, &["-subj", &format!("/CN=authority {name}")]);
    }

    /// Has an authority sign a certificate with this common name, and the URI `urn:user:NAME`.
    pub(crate) fn issue(&self, name: &str, authority: &str, common_name: &str) {
        self.issue_with(name, authority, common_name, "ec -pkeyopt ec_paramgen_curve:P-256");
    }

    /// The same with this kind of key.
    pub(crate) fn issue_with(&self, name: &str, authority: &str, common_name: &str, key: &str) {
        let request = format!("req -newkey {key} -nodes -keyout {name}.key -out {name}.csr");
        self.run(&request, &["-subj", &format!("/CN={common_name}")]);
        let names = format!("subjectAltName=DNS:localhost,IP:127.0.0.1,URI:urn:user:{common_name}\n");
        std::fs::write(self.path(&format!("{name}.ext")), names).expect("a writable directory");
        let sign = format!(
            "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 20 \
             -extfile {name}.ext -out {name}.crt"
        );
        self.run(&sign, &[]);
    }

    /// Runs `openssl` in the directory.
    pub(crate) fn run(&self, line: &str, more: &[&str]) {
        openssl(self.directory.path(), line, more);
    }

    /// Lets the server listen for TLS at this port too, with `server.crt`.
    pub(crate) fn serve(&self, recipe: Recipe, port: u16) -> Recipe {
        recipe
            .with("tls-port", &port.to_string())
            .with("tls-cert-file", &self.text("server.crt"))
            .with("tls-key-file", &self.text("server.key"))
            .with("tls-ca-cert-file", &self.text("ca.crt"))
    }
}
