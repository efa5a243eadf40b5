//! What a configuration leaves open: for `ironkeep check-config`, and, as far as files go, for the start.
//!
//! Invariants:
//! - Only metadata of files is read, and certificates. Nothing is changed, and no finding shows a secret.
//! - A door is *open* if somebody gets in who was not given anything. It is *weak* if getting in takes little, or if
//!   what passes through it can be read.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::base::clock;
use crate::base::config::{ClientCertificates, Permission, Settings};
use crate::base::tls::Offer;

/// A password with fewer bytes than this is weak.
const PASSWORD_MIN_BYTES: usize = 16;
/// A certificate that expires within this time is a finding, in seconds.
const EXPIRES_SOON_S: i64 = 14 * 24 * 3600;
/// Permission bits of everybody, and of everybody but the owner.
const EVERYBODY: u32 = 0o007;
const OTHERS: u32 = 0o077;
const WRITE_BY_EVERYBODY: u32 = 0o002;

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Whether it is open, and not only weak.
    pub is_open: bool,
    /// What it is, and how to close it.
    pub text: String,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn open(text: impl Into<String>) -> Door {
    Door { is_open: true, text: text.into() }
}

fn weak(text: impl Into<String>) -> Door {
    Door { is_open: false, text: text.into() }
}

/// Whether a file of this name in the data directory holds data.
pub type IsData = fn(&str) -> bool;

/// Everything that these settings leave open. `file` is the configuration file.
pub fn all(settings: &Settings, file: Option<&Path>, is_data: IsData) -> Vec<Door> {
    let mut doors = of_network(settings);
    doors.extend(of_commands(settings));
    doors.extend(of_certificates(settings));
    doors.extend(of_files(settings, file, is_data));
    doors
}

/// What the start warns of: files that others can read, and that anybody may come in. The rest is for
/// `ironkeep check-config`.
pub fn at_start(settings: &Settings, file: Option<&Path>, is_data: IsData) -> Vec<Door> {
    let mut doors = of_network(settings);
    doors.retain(|door| door.is_open);
    doors.extend(of_files(settings, file, is_data));
    doors
}

/// Whether other machines may reach an address of `bind` or `http-bind`.
pub fn is_public(address: &str) -> bool {
    match address.trim_start_matches('-') {
        "localhost" => false,
        other => other.parse::<IpAddr>().map_or(true, |address| !address.to_canonical().is_loopback()),
    }
}

/// The addresses that other machines may reach.
fn public_addresses(addresses: &[String]) -> Vec<&str> {
    addresses.iter().map(String::as_str).filter(|address| is_public(address)).collect()
}

/// The doors of `http-port`. Without a token, the server does not open it to other machines.
fn of_http(settings: &Settings) -> Vec<Door> {
    let (port, public) = (settings.http_port, public_addresses(&settings.http_bind).join(" "));
    let mut doors = Vec::new();
    if port != 0 && !public.is_empty() && !settings.http_tls {
        doors.push(weak(format!(
            "http-port {port}: the token crosses the network of {public} in clear text. Use http-tls yes."
        )));
    }
    if port != 0 && !settings.http_token.is_empty() && settings.http_token.len() < PASSWORD_MIN_BYTES {
        doors.push(weak(format!("http-token: fewer than {PASSWORD_MIN_BYTES} bytes can be guessed.")));
    }
    doors
}

fn of_network(settings: &Settings) -> Vec<Door> {
    let public = public_addresses(&settings.bind).join(" ");
    let (is_public, plain, tls) = (!public.is_empty(), settings.port != 0, settings.tls_port != 0);
    let has_users = !settings.users.is_empty() || !settings.aclfile.as_os_str().is_empty();
    let has_password = !settings.requirepass.is_empty() || has_users;
    let mut doors = Vec::new();
    if is_public && !has_password && !settings.protected_mode {
        if plain {
            doors.push(open(format!(
                "port {}: anybody who reaches {public} may do everything. Set requirepass, or bind a local address.",
                settings.port
            )));
        }
        if tls && settings.tls_auth_clients != ClientCertificates::Required {
            doors.push(open(format!(
                "tls-port {}: anybody who reaches {public} may do everything. Set requirepass, or tls-auth-clients yes.",
                settings.tls_port
            )));
        }
    }
    if is_public && has_password && plain {
        doors.push(weak(format!(
            "port {}: passwords and data cross the network of {public} in clear text. Use tls-port, and port 0.",
            settings.port
        )));
    }
    if !settings.requirepass.is_empty() && settings.requirepass.len() < PASSWORD_MIN_BYTES {
        doors.push(weak(format!("requirepass: fewer than {PASSWORD_MIN_BYTES} bytes can be guessed.")));
    }
    let has_socket = !settings.unixsocket.as_os_str().is_empty();
    if has_socket && !has_password && settings.unixsocketperm & WRITE_BY_EVERYBODY != 0 {
        doors.push(open(format!(
            "unixsocketperm {:o}: every user of this machine may do everything. Use 770 with unixsocketgroup.",
            settings.unixsocketperm
        )));
    }
    doors.extend(of_http(settings));
    doors
}

fn of_commands(settings: &Settings) -> Vec<Door> {
    let mut doors = Vec::new();
    for (name, permission, what) in [
        ("enable-debug-command", settings.enable_debug_command, "crash the server"),
        ("enable-protected-configs", settings.enable_protected_configs, "have it write into other directories"),
    ] {
        match permission {
            Permission::Yes => doors.push(open(format!("{name} yes: every client may {what}. Use local, or no."))),
            Permission::Local => doors.push(weak(format!("{name} local: every local client may {what}."))),
            Permission::No => {}
        }
    }
    doors
}

fn of_certificates(settings: &Settings) -> Vec<Door> {
    let Some(Ok(offer)) = (settings.tls_port != 0).then(|| Offer::of(settings)) else { return Vec::new() };
    let now_s = clock::now_ms() / 1000;
    let certificates = [("tls-cert-file", Some(&offer.server)), ("tls-ca-cert-file", offer.authority.as_ref())];
    let expires = certificates.into_iter().filter_map(|(name, facts)| Some((name, facts?.expires_s - now_s)));
    let soon = expires.filter(|(_, left_s)| *left_s < EXPIRES_SOON_S);
    soon.map(|(name, left_s)| match left_s {
        ..=0 => weak(format!("{name}: a certificate has expired.")),
        _ => weak(format!("{name}: a certificate expires in {} days.", left_s / (24 * 3600))),
    })
    .collect()
}

/// The permission bits of a file or directory that is there.
fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|facts| facts.permissions().mode() & 0o777)
}

/// Files that others may read or write, and should not.
fn of_files(settings: &Settings, file: Option<&Path>, is_data: IsData) -> Vec<Door> {
    let mut doors = Vec::new();
    let has_secrets = !settings.requirepass.is_empty()
        || !settings.users.is_empty()
        || !settings.tls_key_file_pass.is_empty()
        || !settings.tls_alt_key_file_pass.is_empty();
    if let Some(file) = file
        && let Some(mode) = mode(file)
    {
        if mode & WRITE_BY_EVERYBODY != 0 {
            doors.push(open(format!("{} (mode {mode:04o}): every user may change it. chmod 0640", file.display())));
        } else if has_secrets && mode & EVERYBODY != 0 {
            doors.push(open(format!(
                "{} (mode {mode:04o}): every user may read its passwords. chmod 0640",
                file.display()
            )));
        }
    }
    for (name, path) in [
        ("tls-key-file", &settings.tls_key_file),
        ("tls-alt-key-file", &settings.tls_alt_key_file),
        ("aclfile", &settings.aclfile),
        ("encryption-key-file", &settings.encryption_key_file),
    ] {
        if let Some(mode) = mode(path).filter(|mode| mode & EVERYBODY != 0) {
            doors
                .push(open(format!("{name} {} (mode {mode:04o}): every user may read it. chmod 0640", path.display())));
        }
    }
    doors.extend(of_data(&settings.dir, is_data));
    doors
}

/// The data directory, if others can enter it, and what in it they can read.
fn of_data(dir: &Path, is_data: IsData) -> Vec<Door> {
    let Some(of_dir) = mode(dir).filter(|mode| mode & OTHERS != 0) else { return Vec::new() };
    if of_dir & WRITE_BY_EVERYBODY != 0 {
        return vec![open(format!(
            "dir {} (mode {of_dir:04o}): every user may put files into it. chmod 0700",
            dir.display()
        ))];
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_data)).map(|entry| entry.path());
    let is_readable = |path: &PathBuf| path.is_file() && mode(path).is_some_and(|mode| mode & OTHERS != 0);
    let mut readable: Vec<PathBuf> = entries.filter(is_readable).collect();
    readable.sort();
    let Some(first) = readable.first() else { return Vec::new() };
    let is_open = readable.iter().any(|path| mode(path).is_some_and(|mode| mode & EVERYBODY != 0));
    let text = format!(
        "dir {} (mode {of_dir:04o}): others may read {} and {} more. chmod 0700 the directory, and 0600 its files",
        dir.display(),
        first.file_name().unwrap_or_default().display(),
        readable.len() - 1
    );
    vec![Door { is_open: is_open && of_dir & EVERYBODY != 0, text }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Config;

    fn found(text: &str) -> Vec<String> {
        let settings = Config::from_text(text.as_bytes()).expect("a valid text").settings();
        all(&settings, None, |_| true)
            .iter()
            .map(|door| format!("{} {door}", if door.is_open { "open" } else { "weak" }))
            .collect()
    }

    #[test]
    fn each_door_is_found_and_no_other() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = format!("dir {}\n", home.path().display());
        for (text, begins) in [
            ("", vec![]),
            ("protected-mode no", vec![]),
            ("bind *", vec![]),
            ("bind * ::1\nprotected-mode no", vec!["open port 6379: anybody who reaches * "]),
            ("bind 10.0.0.1\nrequirepass abcdefghijklmnop", vec!["weak port 6379: passwords and data cross"]),
            ("bind -127.0.0.1 ::1 localhost\nrequirepass short", vec!["weak requirepass: fewer than 16 bytes"]),
            ("bind *\nprotected-mode no\nport 0\ntls-port 7000", vec![]),
            ("bind *\nprotected-mode no\nport 0\ntls-port 7\ntls-auth-clients no", vec!["open tls-port 7: anybody"]),
            ("http-port 9121", vec![]),
            (
                "http-port 9121\nhttp-bind *\nhttp-token abcdefghijklmnop",
                vec!["weak http-port 9121: the token crosses"],
            ),
            ("http-port 9121\nhttp-token short", vec!["weak http-token: fewer than 16 bytes"]),
            ("unixsocket s\nunixsocketperm 777", vec!["open unixsocketperm 777"]),
            ("unixsocket s\nunixsocketperm 770", vec![]),
            ("enable-debug-command yes", vec!["open enable-debug-command yes"]),
            ("enable-protected-configs local", vec!["weak enable-protected-configs local"]),
        ] {
            let found = found(&format!("{dir}{text}"));
            let fits = found.iter().zip(&begins).all(|(door, begin)| door.starts_with(begin));
            assert!(fits && found.len() == begins.len(), "{text}: {found:?}");
        }
    }

    #[test]
    fn files_that_others_can_read() {
        let home = tempfile::tempdir().expect("a directory");
        let (dir, conf) = (home.path().join("data"), home.path().join("conf"));
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("our own file");
        };
        std::fs::create_dir(&dir).expect("a directory");
        for path in [&conf, &dir.join("log.1"), &dir.join("log.2")] {
            std::fs::write(path, "").expect("a file");
        }
        let config = format!("dir {}\nrequirepass abcdefghijklmnop\n", dir.display());
        let settings = Config::from_text(config.as_bytes()).expect("valid").settings();
        for (of_conf, of_dir, of_file, count, is_open) in [
            (0o600, 0o700, 0o644, 0, false),
            (0o640, 0o755, 0o600, 0, false),
            (0o644, 0o755, 0o600, 1, true),
            (0o600, 0o755, 0o644, 1, true),
            (0o600, 0o750, 0o640, 1, false),
            (0o666, 0o777, 0o600, 2, true),
        ] {
            set(&conf, of_conf);
            set(&dir, of_dir);
            set(&dir.join("log.2"), of_file);
            set(&dir.join("log.1"), 0o600);
            let doors = of_files(&settings, Some(&conf), |name| name.starts_with("log."));
            assert!(doors.len() == count && doors.iter().any(|door| door.is_open) == is_open, "{doors:?}");
        }
    }
}
