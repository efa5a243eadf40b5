//! INFO: its sections in Redis' order and form, and which of them a client asked for.
//!
//! The figures come from their owners as data: see [`crate::core::figures`]. Here they become text. A field without
//! meaning here is shown nevertheless, because clients and monitors look fields up by name: `constant.rs` lists them.

use std::borrow::Cow;
use std::fmt::Write;

use super::constant::CONSTANT;
use super::{keysizes, keyspace, memory, process, service, stats};
use crate::base::clock;
use crate::base::config::CompatibilityMode;
use crate::base::tls::Facts;
use crate::base::version::VALKEY_VERSION;
use crate::core::Server;
use crate::core::figures::{Figure, Figures, Look, Value};
use crate::durable::figures::persistence;

pub use crate::base::version::REDIS_VERSION;

/// One section.
struct Section {
    /// Its name in requests, and, with a capital letter, its heading.
    name: &'static str,
    heading: &'static str,
    shown: Shown,
    contribute: fn(&Look<'_>, &mut Figures),
}

/// When a section is shown without being requested by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Always.
    Default,
    /// In `all` and `everything`.
    All,
    /// By default and in `everything`, not in `all`.
    NotInAll,
}

const fn section(
    name: &'static str,
    heading: &'static str,
    shown: Shown,
    contribute: fn(&Look<'_>, &mut Figures),
) -> Section {
    Section { name, heading, shown, contribute }
}

static SECTIONS: &[Section] = &[
    section("server", "Server", Shown::Default, server_figures),
    section("clients", "Clients", Shown::Default, |look, out| look.server.clients.figures(look, out)),
    section("memory", "Memory", Shown::Default, memory::figures),
    section("persistence", "Persistence", Shown::Default, persistence),
    section("threads", "Threads", Shown::Default, stats::of_threads),
    section("stats", "Stats", Shown::Default, stats::totals),
    section("replication", "Replication", Shown::Default, replication_figures),
    section("cpu", "CPU", Shown::Default, cpu_figures),
    section("modules", "Modules", Shown::NotInAll, |_, _| {}),
    section("commandstats", "Commandstats", Shown::All, stats::of_commands),
    section("errorstats", "Errorstats", Shown::Default, stats::of_errors),
    section("latencystats", "Latencystats", Shown::All, stats::of_times),
    section("servicestats", "Servicestats", Shown::All, service::figures),
    section("cluster", "Cluster", Shown::Default, |look, out| {
        out.flag("cluster_enabled", look.server.cluster.is_some())
    }),
    section("scriptingengines", "Scripting Engines", Shown::All, memory::of_engines),
    section("keyspace", "Keyspace", Shown::Default, keyspace::databases),
    section("keysizes", "Keysizes", Shown::Default, keysizes::distributions),
    section("tls", "TLS", Shown::Default, tls_figures),
    section("keystats", "Keystats", Shown::All, stats::of_keys),
    section("hotkeys", "Hotkeys", Shown::All, stats::of_hotkeys),
];

impl Section {
    fn is_wanted(&self, words: &[&[u8]]) -> bool {
        let asked = |word: &&[u8]| match () {
            () if word.eq_ignore_ascii_case(b"default") => self.shown != Shown::All,
            () if word.eq_ignore_ascii_case(b"all") => self.shown != Shown::NotInAll,
            () => word.eq_ignore_ascii_case(b"everything") || word.eq_ignore_ascii_case(self.name.as_bytes()),
        };
        if words.is_empty() { self.shown != Shown::All } else { words.iter().any(asked) }
    }
}

/// The text of INFO with these arguments, at a time in Unix ms.
pub fn report(server: &Server, words: &[&[u8]], now: i64) -> String {
    let settings = server.config.settings();
    let look = Look { server, settings: &settings, now };
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| section.is_wanted(words)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str("# ");
        text.push_str(section.heading);
        text.push_str("\r\n");
        let mut figures = Figures::new(section.name, CONSTANT);
        (section.contribute)(&look, &mut figures);
        for figure in figures.into_all() {
            text.push_str(&figure.name);
            write_value(&mut text, &figure.value, ':');
            text.push_str("\r\n");
        }
    }
    text
}

/// The figures of all sections, with their names, at a time in Unix ms.
pub fn sections(server: &Server, now: i64) -> Vec<(&'static str, Vec<Figure>)> {
    let settings = server.config.settings();
    let look = Look { server, settings: &settings, now };
    let figures_of = |section: &Section| {
        let mut figures = Figures::new(section.name, CONSTANT);
        (section.contribute)(&look, &mut figures);
        (section.name, figures.into_all())
    };
    SECTIONS.iter().map(figures_of).collect()
}

/// Writes a value behind its name and this sign.
fn write_value(text: &mut String, value: &Value, sign: char) {
    let written = match value {
        Value::Counter(number) | Value::Bytes(number) => write!(text, "{sign}{number}"),
        Value::Gauge(number) => write!(text, "{sign}{number}"),
        Value::Ratio(number) => write!(text, "{sign}{number:.2}"),
        Value::Percent(number) => write!(text, "{sign}{number:.2}%"),
        Value::CpuTime(us) => write!(text, "{sign}{}.{:06}", us / 1_000_000, us % 1_000_000),
        Value::Micros(us) => write!(text, "{sign}{us:.3}"),
        Value::Text(words) => write!(text, "{sign}{words}"),
        Value::Row { label, columns, .. } => {
            text.push_str(label);
            return write_columns(text, columns, sign);
        }
        Value::Columns(columns) => return write_columns(text, columns, sign),
    };
    written.expect("a String takes every write");
}

fn write_columns(text: &mut String, columns: &[(Cow<'static, str>, Value)], sign: char) {
    text.push(sign);
    for (at, (name, value)) in columns.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        text.push_str(name);
        write_value(text, value, '=');
    }
}

fn server_figures(look: &Look<'_>, out: &mut Figures) {
    let (server, settings) = (look.server, look.settings);
    let uptime = (look.now - server.started_ms).max(0) / 1000;
    out.text("redis_version", REDIS_VERSION);
    out.constants(&["redis_git_sha1", "redis_git_dirty", "redis_build_id"]);
    if settings.compatibility_mode == CompatibilityMode::Valkey {
        // By these, clients tell Valkey from Redis.
        out.text("server_name", "valkey");
        out.text("valkey_version", VALKEY_VERSION);
        out.text("valkey_release_stage", "ga");
        out.text("server_mode", if server.cluster.is_some() { "cluster" } else { "standalone" });
    }
    out.text("redis_mode", if server.cluster.is_some() { "cluster" } else { "standalone" });
    out.text("os", process::system_name());
    out.gauge("arch_bits", usize::BITS);
    out.constants(&["monotonic_clock", "multiplexing_api", "atomicvar_api", "gcc_version"]);
    out.gauge("process_id", std::process::id());
    out.text("process_supervised", settings.supervised.to_string());
    out.text("run_id", &*server.run_id);
    out.gauge("tcp_port", if settings.port == 0 { settings.tls_port } else { settings.port });
    out.gauge("server_time_usec", clock::now_us());
    out.gauge("uptime_in_seconds", uptime);
    out.gauge("uptime_in_days", uptime / 86400);
    out.constants(&["hz", "configured_hz"]);
    out.gauge("lru_clock", (look.now / 1000) & 0xff_ffff);
    out.text("executable", &*server.executable);
    out.text("config_file", &*server.config_file);
    out.text("availability_zone", &*server.config.settings().availability_zone);
    out.flag("io_threads_active", server.roster.in_service() > 1);
    let mut listeners = 0;
    for (name, port) in [("tcp", settings.port), ("tls", settings.tls_port)].into_iter().filter(|(_, port)| *port != 0)
    {
        let addresses: String = settings.bind.iter().map(|address| format!("bind={address},")).collect();
        out.text(format!("listener{listeners}"), format!("name={name},{addresses}port={port}"));
        listeners += 1;
    }
    if !settings.unixsocket.as_os_str().is_empty() {
        let socket = settings.unixsocket.display();
        out.text(format!("listener{listeners}"), format!("name=unix,bind={socket}"));
    }
    out.text("ironkeep_version", env!("CARGO_PKG_VERSION"));
}

fn tls_figures(look: &Look<'_>, out: &mut Figures) {
    let offer = look.server.tls.current();
    let seconds = |facts: &Facts| facts.expires_s - look.now / 1000;
    let mut show = |of: &str, facts: Option<&Facts>| {
        let serial = facts.map_or_else(|| "none".to_owned(), |facts| facts.serial.clone());
        out.text(format!("tls_{of}_cert_serial"), serial);
        out.add(format!("tls_{of}_cert_expires_in_seconds"), Value::Gauge(facts.map_or(0, seconds)));
    };
    show("server", offer.as_ref().map(|offer| &offer.server));
    show("ca", offer.as_ref().and_then(|offer| offer.authority.as_ref()));
    out.constants(&["tls_client_cert_serial", "tls_client_cert_expires_in_seconds"]);
}

fn replication_figures(look: &Look<'_>, out: &mut Figures) {
    out.constants(&["role", "connected_slaves", "master_failover_state"]);
    out.text("master_replid", &*look.server.run_id);
    out.constants(&["master_replid2", "master_repl_offset", "second_repl_offset", "repl_backlog_active"]);
    out.constants(&["repl_backlog_size", "repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

fn cpu_figures(_: &Look<'_>, out: &mut Figures) {
    let (whole, main) = process::cpu_times();
    out.add("used_cpu_sys", Value::CpuTime(whole.system_us));
    out.add("used_cpu_user", Value::CpuTime(whole.user_us));
    out.constants(&["used_cpu_sys_children", "used_cpu_user_children"]);
    out.add("used_cpu_sys_main_thread", Value::CpuTime(main.system_us));
    out.add("used_cpu_user_main_thread", Value::CpuTime(main.user_us));
}
