//! `supervised`: tells the service manager when the server is ready, that it is alive, and when it ends.
//!
//! systemd listens on the datagram socket that `NOTIFY_SOCKET` names: a path or, behind `@`, an abstract name. A
//! message is a few lines `NAME=value`, as `sd_notify(3)` describes them. upstart waits for the process to stop
//! itself. Loading and the final snapshot may take longer than the manager's timeout, so they ask for more time.
//!
//! Invariants:
//! - A message that cannot be sent changes nothing. A server does not end because its manager does not listen.
//! - A request for more time comes before the message about what it was for: a manager that hears of loading last
//!   would show that for ever.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{env, io, process, thread};

use crate::base::config::Settings;
use crate::base::logging;

/// A request for more time asks for this long,
const EXTENSION: Duration = Duration::from_secs(60);
/// and is repeated this often, or twice per period of the watchdog.
const EXTENSION_PERIOD: Duration = Duration::from_secs(20);
/// How long a message that must not be lost waits for room in the manager's queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

/// The service manager of this process, if it has one.
#[derive(Debug)]
pub struct Supervisor {
    manager: Service,
}

#[derive(Clone, Debug)]
enum Service {
    None,
    Upstart,
    Systemd(Arc<Notifier>),
}

/// The socket of systemd.
#[derive(Debug)]
struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// The relevant environment variables.
#[derive(Debug, Default)]
struct Environment {
    upstart_job: Option<OsString>,
    notify_socket: Option<OsString>,
    watchdog_us: Option<u64>,
    watchdog_pid: Option<u32>,
}

impl Environment {
    fn of_process() -> Environment {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        Environment {
            upstart_job: env::var_os("UPSTART_JOB"),
            notify_socket: env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
            watchdog_us: number("WATCHDOG_USEC").filter(|us| *us > 0),
            watchdog_pid: number("WATCHDOG_PID").and_then(|pid| u32::try_from(pid).ok()),
        }
    }

    /// The manager to notify: the one that `supervised` names, if it has started this process.
    fn manager(&self, supervised: &str) -> Option<&'static str> {
        match supervised {
            "systemd" | "auto" if self.notify_socket.is_some() => Some("systemd"),
            "upstart" | "auto" if self.upstart_job.is_some() => Some("upstart"),
            _ => None,
        }
    }
}

/// Whether a service manager has started this process and wants to be notified.
pub fn is_supervised(settings: &Settings) -> bool {
    Environment::of_process().manager(settings.supervised).is_some()
}

impl Supervisor {
    /// The manager that has started this process, if `supervised` wants it to be notified.
    pub fn of(settings: &Settings) -> Supervisor {
        let environment = Environment::of_process();
        let manager = match (environment.manager(settings.supervised), &environment.notify_socket) {
            (Some("systemd"), Some(name)) => match Notifier::to(name) {
                Ok(notifier) => Service::Systemd(Arc::new(notifier)),
                Err(error) => {
                    logging::warning(format_args!("systemd cannot be notified at {}: {error}", name.display()));
                    Service::None
                }
            },
            (Some("upstart"), _) => Service::Upstart,
            (None, _) if matches!(settings.supervised, "systemd" | "upstart") => {
                let wanted = settings.supervised;
                logging::warning(format_args!("{wanted} supervision requested, but {wanted} has not started this"));
                Service::None
            }
            _ => Service::None,
        };
        Supervisor { manager }
    }

    /// Reports that the server accepts connections.
    pub fn ready(&self) {
        match &self.manager {
            Service::None => {}
            Service::Systemd(notifier) => {
                notifier.insist("READY=1\nSTATUS=Ready to accept connections", QUEUE_PATIENCE);
            }
            Service::Upstart => {
                logging::notice(format_args!("Supervised by upstart, will stop to signal readiness"));
                let stopped = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
                if let Err(error) = stopped {
                    logging::warning(format_args!("upstart cannot be told: {error}"));
                }
            }
        }
    }

    /// Reports that the server continues after an abandoned shutdown.
    pub fn goes_on(&self) {
        if let Service::Systemd(notifier) = &self.manager {
            notifier.send("STATUS=Ready to accept connections");
        }
    }

    /// Reports that the server is shutting down for good.
    pub fn stopping(&self) {
        if let Service::Systemd(notifier) = &self.manager {
            notifier.insist("STOPPING=1", QUEUE_PATIENCE);
        }
    }

    /// Makes the manager wait for as long as the returned value lives.
    pub fn ask_for_time(&self, status: &str) -> MoreTime {
        let Service::Systemd(notifier) = &self.manager else { return MoreTime { asking: None } };
        let (ended, is_ended) = channel();
        let notifier = Arc::clone(notifier);
        let message = format!("EXTEND_TIMEOUT_USEC={}\nWATCHDOG=1\nSTATUS={status}", EXTENSION.as_micros());
        let period = watchdog_period().map_or(EXTENSION_PERIOD, |period| period.min(EXTENSION_PERIOD));
        notifier.send(&message);
        let asking = move || notifier.repeat(&message, period, &is_ended);
        // Without the thread, the manager waits as long as it is configured to.
        let thread = thread::Builder::new().name("patience".into()).spawn(asking).ok();
        MoreTime { asking: thread.map(|thread| (ended, thread)) }
    }

    /// Reports twice per period of systemd's watchdog that the server is alive. Runs for ever, beside the server's
    /// timer: if that hangs, the messages stop.
    pub fn watchdog(&self) -> impl Future<Output = ()> + Send + 'static {
        let manager = self.manager.clone();
        async move {
            let (Service::Systemd(notifier), Some(period)) = (manager, watchdog_period()) else { return };
            let mut tick = tokio::time::interval(period);
            loop {
                tick.tick().await;
                notifier.send("WATCHDOG=1");
            }
        }
    }
}

/// The period of the watchdog, if there is one.
fn watchdog_period() -> Option<Duration> {
    let environment = Environment::of_process();
    let is_ours = environment.watchdog_pid.is_none_or(|pid| pid == process::id());
    let us = environment.watchdog_us.filter(|_| is_ours)?;
    Some(Duration::from_micros(us / 2).max(Duration::from_millis(1)))
}

/// While this lives, the service manager is asked for more time.
#[derive(Debug)]
pub struct MoreTime {
    /// The thread that asks again. Dropping the sender ends it.
    asking: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Drop for MoreTime {
    fn drop(&mut self) {
        if let Some((ended, thread)) = self.asking.take() {
            drop(ended);
            // A thread that has panicked asks no more, either.
            let _ = thread.join();
        }
    }
}

impl Notifier {
    fn to(name: &OsStr) -> io::Result<Notifier> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop the server.
        socket.set_nonblocking(true)?;
        Ok(Notifier { socket, address })
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            logging::verbose(format_args!("systemd could not be notified: {error}"));
        }
    }

    /// Sends a message that is sent once. If the queue is full, the manager has so much time to read.
    fn insist(&self, message: &str, patience: Duration) {
        const LOOK: Duration = Duration::from_millis(10);
        let start = Instant::now();
        loop {
            match self.socket.send_to_addr(message.as_bytes(), &self.address) {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < patience => {
                    thread::sleep(LOOK);
                }
                Err(error) => {
                    return logging::warning(format_args!("systemd was not told {message}: {error}"));
                }
            }
        }
    }

    /// Sends a message in every period, until the other end of the channel is dropped.
    fn repeat(&self, message: &str, period: Duration, is_ended: &Receiver<()>) {
        while is_ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            self.send(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_the_one_that_is_wanted_and_there() {
        let none = Environment::default();
        let upstart = || Some(OsString::from("job"));
        let socket = || Some(OsString::from("@name"));
        let both = Environment { upstart_job: upstart(), notify_socket: socket(), ..Environment::default() };
        let job = Environment { upstart_job: upstart(), ..Environment::default() };
        for (environment, supervised, manager) in [
            (&none, "auto", None),
            (&none, "systemd", None),
            (&both, "no", None),
            (&both, "auto", Some("systemd")),
            (&both, "upstart", Some("upstart")),
            (&job, "auto", Some("upstart")),
            (&job, "systemd", None),
        ] {
            assert_eq!(environment.manager(supervised), manager, "{environment:?} {supervised}");
        }
    }

    /// A manager, and what notifies it.
    fn manager(name: &str) -> (UnixDatagram, Notifier) {
        let name = format!("ironkeep-test-{name}-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("a free name");
        manager.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        (manager, Notifier::to(OsStr::new(&format!("@{name}"))).expect("an address"))
    }

    fn message(manager: &UnixDatagram) -> String {
        let mut message = [0; 200];
        let length = manager.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    /// The request for more time came from a thread that nobody waited for: it could come after what it asked for.
    #[test]
    fn a_request_for_time_comes_before_what_it_was_for() {
        let (manager, notifier) = manager("order");
        let supervisor = Supervisor { manager: Service::Systemd(Arc::new(notifier)) };
        for _ in 0..100 {
            drop(supervisor.ask_for_time("Loading the data"));
            supervisor.ready();
            assert!(message(&manager).starts_with("EXTEND_TIMEOUT_USEC="));
            assert!(message(&manager).starts_with("READY=1"));
        }
        manager.set_nonblocking(true).expect("a mode");
        assert!(manager.recv(&mut [0]).is_err(), "and nothing comes later");
    }

    /// The end of the start was told once, into a queue of ten messages: lost, it left the service starting.
    #[test]
    fn what_is_told_once_waits_for_room_in_the_queue() {
        let (manager, notifier) = manager("queue");
        let sent = (0..1_000_000).find(|_| notifier.socket.send_to_addr(b"WATCHDOG=1", &notifier.address).is_err());
        assert!(sent.is_some(), "a queue without end");
        notifier.insist("READY=1", Duration::ZERO); // nobody reads, and nothing happens
        thread::scope(|scope| {
            scope.spawn(|| while message(&manager) != "READY=1" {});
            notifier.insist("READY=1", Duration::from_secs(60));
        });
    }

    #[test]
    fn messages_reach_an_abstract_socket() {
        let (manager, notifier) = manager("name");
        notifier.send("READY=1");
        assert_eq!(message(&manager), "READY=1");
        assert!(Notifier::to(OsStr::new("vsock:2:1")).is_err());
        drop(manager);
        notifier.send("READY=1"); // no receiver, and nothing happens
    }
}
