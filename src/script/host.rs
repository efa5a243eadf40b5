//! What a script asks of the server, and how a function of Lua finds whom to ask.
//!
//! Functions of Lua live as long as the virtual machine, and a host only as long as one run. So the thread keeps a
//! pointer to the host of the running script, and nobody can keep the host itself.

use std::cell::Cell;
use std::ptr::NonNull;

use crate::resp::{Args, Output, Resp};

/// The importance of a line of `redis.log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `redis.LOG_DEBUG`.
    Debug,
    /// `redis.LOG_VERBOSE`.
    Verbose,
    /// `redis.LOG_NOTICE`.
    Notice,
    /// `redis.LOG_WARNING`.
    Warning,
}

/// Whether the user of a script may run a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// There is no such command, or its arguments do not fit.
    Unknown,
}

/// The server, as a running script sees it.
pub trait Host {
    /// Runs a command and appends its reply, which may be an error, in this version of the protocol.
    fn call(&mut self, args: Args<'_>, resp: Resp, out: &mut Output);

    /// Whether the user may run a command: `redis.acl_check_cmd`.
    fn may(&self, args: Args<'_>) -> Access;

    /// Writes a line into the server's log: `redis.log`.
    fn log(&self, level: LogLevel, line: &str);

    /// Why the script must end now, if it must. Asked often.
    fn stop(&mut self) -> Option<&'static str>;
}

thread_local! {
    static HOST: Cell<Option<NonNull<dyn Host>>> = const { Cell::new(None) };
}

/// Runs something for which [`ask`] finds this host.
pub(super) fn serve<R>(host: &mut dyn Host, run: impl FnOnce() -> R) -> R {
    struct Restore(Option<NonNull<dyn Host>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOST.set(self.0);
        }
    }
    let host: NonNull<dyn Host + '_> = NonNull::from(host);
    // SAFETY: only the lifetime changes. The pointer is used by `ask` alone, on this thread, while `run` runs, for
    // which `host` is borrowed; `Restore` takes it away even if that panics.
    let host: NonNull<dyn Host> = unsafe { std::mem::transmute(host) };
    let _restore = Restore(HOST.replace(Some(host)));
    run()
}

/// Asks the host of the running script; `None` if no script runs, or if it is being asked already.
pub(super) fn ask<R>(question: impl FnOnce(&mut dyn Host) -> R) -> Option<R> {
    struct Restore(NonNull<dyn Host>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOST.set(Some(self.0));
        }
    }
    let mut restore = Restore(HOST.take()?);
    // SAFETY: `serve` put the pointer there and is still running; taking it away made this the only reference.
    Some(question(unsafe { restore.0.as_mut() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(u64);

    impl Host for Counter {
        fn call(&mut self, _: Args<'_>, _: Resp, _: &mut Output) {}
        fn may(&self, _: Args<'_>) -> Access {
            Access::Unknown
        }
        fn log(&self, _: LogLevel, _: &str) {}
        fn stop(&mut self) -> Option<&'static str> {
            self.0 += 1;
            None
        }
    }

    #[test]
    fn the_host_is_found_while_it_serves_and_by_one_at_a_time() {
        assert!(ask(|_| ()).is_none());
        let (mut outer, mut inner) = (Counter(0), Counter(0));
        serve(&mut outer, || {
            ask(|host| {
                host.stop();
                assert!(ask(|_| ()).is_none(), "it is being asked");
            });
            serve(&mut inner, || ask(|host| host.stop()));
            ask(|host| host.stop());
        });
        assert_eq!((outer.0, inner.0), (2, 1));
        let died =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(&mut outer, || panic!("on purpose"))));
        assert!(died.is_err() && ask(|_| ()).is_none());
    }
}
