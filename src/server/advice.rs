//! What the start tells an operator: warnings of a machine that will not do well, each with what to do, and five lines
//! for whoever starts the server for the first time, in a terminal.
//!
//! `vm.overcommit_memory` is no such warning: nothing here forks.

use std::io::{IsTerminal, Write};
use std::path::Path;

use crate::base::config::{FsyncPolicy, Settings};
use crate::base::{cgroup, format, logging};

/// Below this much room on the disk, beyond what the keys occupy in memory, a snapshot may not fit.
const DISK_ROOM_MIN_BYTES: u64 = 1 << 30;

/// What the warnings depend on. Bytes.
#[derive(Clone, Copy, Debug)]
struct Machine {
    /// Memory that the process may use.
    memory_limit: u64,
    /// Memory of the machine.
    memory: u64,
    swap: u64,
    /// Room on the disk for a process without privileges.
    disk_free: u64,
    /// What the keys occupy.
    used: u64,
}

impl Machine {
    fn look(settings: &Settings, used: u64) -> Machine {
        let info = rustix::system::sysinfo();
        let unit = u64::from(info.mem_unit);
        let disk = rustix::fs::statvfs(&settings.dir);
        Machine {
            memory_limit: cgroup::memory_limit(),
            memory: (info.totalram as u64).saturating_mul(unit),
            swap: (info.totalswap as u64).saturating_mul(unit),
            // A disk that cannot be asked is none to warn of.
            disk_free: disk.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            used,
        }
    }
}

/// Writes the warnings into the operator's log. `used` is what the keys occupy, in bytes.
pub fn warn(settings: &Settings, used: u64) {
    let machine = Machine::look(settings, used);
    logging::notice(format_args!(
        "{} workers; maxmemory is {}, of {} that this process may use",
        settings.worker_count(),
        if settings.maxmemory == 0 { "not set".to_owned() } else { format::human_bytes(settings.maxmemory) },
        format::human_bytes(machine.memory_limit)
    ));
    warnings(settings, machine).iter().for_each(|text| logging::warning(format_args!("{text}")));
}

fn warnings(settings: &Settings, machine: Machine) -> Vec<String> {
    let human = format::human_bytes;
    let mut found = Vec::new();
    let (limit, maxmemory) = (machine.memory_limit, settings.maxmemory);
    if maxmemory == 0 && limit < machine.memory {
        found.push(format!(
            "The control group ends this process beyond {} of memory, and maxmemory is not set. Set maxmemory auto, and \
             a maxmemory-policy.",
            human(limit)
        ));
    }
    if maxmemory > limit {
        found.push(format!(
            "maxmemory is {}, but this process may use {} only. Lower maxmemory, or set it to auto.",
            human(maxmemory),
            human(limit)
        ));
    }
    if machine.swap > 0 {
        found.push(format!(
            "Swap is on ({}): a command that needs swapped memory waits for the disk. Switch it off with 'swapoff -a', \
             or for the service with MemorySwapMax=0.",
            human(machine.swap)
        ));
    }
    let persists = settings.appendonly || !settings.save.is_empty();
    if persists && machine.disk_free < machine.used.saturating_add(DISK_ROOM_MIN_BYTES) {
        found.push(format!(
            "The disk of {} has {} left: the next snapshot may not fit, and a full disk refuses writes (MISCONF). Free \
             space there, or move dir to a larger disk.",
            settings.dir.display(),
            human(machine.disk_free)
        ));
    }
    found
}

/// Whether somebody at a terminal reads the server's log.
pub fn is_read_at_a_terminal(settings: &Settings) -> bool {
    settings.logfile.as_os_str().is_empty() && std::io::stdout().is_terminal()
}

/// Tells whoever sits at the terminal what has been started. `addresses` are those of the sockets.
pub fn greet(settings: &Settings, addresses: &[String]) {
    // A terminal that has gone away is no failure.
    let _ = std::io::stdout().write_all(greeting(settings, addresses).as_bytes());
}

fn greeting(settings: &Settings, addresses: &[String]) -> String {
    let dir = std::path::absolute(&settings.dir).unwrap_or_else(|_| settings.dir.clone());
    let dir: std::path::PathBuf = dir.components().collect();
    let durability = match (settings.appendonly, settings.appendfsync, settings.save.is_empty()) {
        (true, FsyncPolicy::Always, _) => "appendfsync always: nothing acknowledged is lost, whatever fails",
        (true, FsyncPolicy::EverySec, _) => "appendfsync everysec: a power cut loses a second at most, a crash nothing",
        (true, FsyncPolicy::No, _) => "appendfsync no: a power cut loses what the kernel held, a crash nothing",
        (false, _, false) => "appendonly no: a crash loses everything since the last snapshot",
        (false, _, true) => "none: everything is lost when the process ends",
    };
    format!(
        "\n  Address     {}\n  Data        {}\n  Durability  {durability}\n  Connect     {}\n  Documents   ironkeep --help, \
         ironkeep man | man -l -, ironkeep config; Ctrl-C ends the server\n\n",
        addresses.join(", "),
        dir.display(),
        connect(settings)
    )
}

/// The command that connects to this server.
fn connect(settings: &Settings) -> String {
    let mut words = vec!["redis-cli".to_owned()];
    if settings.port == 0 && settings.tls_port == 0 {
        words.push(format!("-s {}", Path::new(&settings.unixsocket).display()));
    } else {
        let is_local =
            |bind: &&String| matches!(bind.trim_start_matches('-'), "127.0.0.1" | "localhost" | "*" | "0.0.0.0");
        let other = settings
            .bind
            .iter()
            .find(|bind| !bind.starts_with('-'))
            .filter(|_| !settings.bind.is_empty() && !settings.bind.iter().any(|bind| is_local(&bind)));
        words.extend(other.map(|host| format!("-h {host}")));
        let port = if settings.port == 0 { settings.tls_port } else { settings.port };
        words.push(format!("-p {port}"));
        if settings.port == 0 {
            words.push("--tls".to_owned());
        }
    }
    if !settings.requirepass.is_empty() {
        words.push("--askpass".to_owned());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Config;

    const FINE: Machine =
        Machine { memory_limit: 8 << 30, memory: 8 << 30, swap: 0, disk_free: 100 << 30, used: 1 << 30 };

    fn found(text: &str, machine: Machine) -> Vec<String> {
        warnings(&Config::from_text(text.as_bytes()).expect("a valid text").settings(), machine)
    }

    #[test]
    fn warnings_say_what_to_do() {
        let limited = Machine { memory_limit: 1 << 30, ..FINE };
        let full = Machine { disk_free: (2 << 30) - 1, ..FINE };
        for (text, machine, begins) in [
            ("", FINE, vec![]),
            ("maxmemory 8gb", FINE, vec![]),
            ("maxmemory 9gb", FINE, vec!["maxmemory is 9.00G, but this process may use 8.00G only. Lower"]),
            ("", limited, vec!["The control group ends this process beyond 1.00G of memory"]),
            ("maxmemory 1gb", limited, vec![]),
            ("", Machine { swap: 1 << 30, ..FINE }, vec!["Swap is on (1.00G)"]),
            ("", full, vec!["The disk of ./ironkeep-data has 2.00G left"]),
            ("appendonly no\nsave \"\"", full, vec![]),
            ("", Machine { disk_free: 2 << 30, ..FINE }, vec![]),
        ] {
            let found = found(text, machine);
            let fits = found.iter().zip(&begins).all(|(found, begin)| found.starts_with(begin));
            assert!(fits && found.len() == begins.len(), "{text}: {found:?}");
        }
    }

    #[test]
    fn the_greeting_has_five_lines_that_are_true() {
        let greeting = |text: &str| {
            let settings = Config::from_text(text.as_bytes()).expect("a valid text").settings();
            greeting(&settings, &["127.0.0.1:6379".to_owned()])
        };
        let text = greeting("");
        assert_eq!(text.trim().lines().count(), 5, "{text}");
        for part in ["127.0.0.1:6379", "/ironkeep-data\n", "everysec: a power cut", "redis-cli -p 6379\n"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for (text, part) in [
            ("port 7000\nrequirepass x", "redis-cli -p 7000 --askpass\n"),
            ("bind 10.0.0.1", "redis-cli -h 10.0.0.1 -p 6379\n"),
            ("bind * -::*", "redis-cli -p 6379\n"),
            ("port 0\ntls-port 7001", "redis-cli -p 7001 --tls\n"),
            ("port 0\nunixsocket /run/a", "redis-cli -s /run/a\n"),
            ("appendonly no", "since the last snapshot"),
            ("appendonly no\nsave \"\"", "none: everything is lost"),
            ("appendfsync always", "nothing acknowledged is lost, whatever fails"),
        ] {
            assert!(greeting(text).contains(part), "{part}: {}", greeting(text));
        }
    }
}
