//! Fatal signals: where the thread was, told to a function that may do anything, before the process ends.
//!
//! ```text
//! faulting thread   signal ─ handler: notes signal, address and return addresses ─ wakes ─ waits ─ dies of it
//! thread "fatal"    sleeps ───────────────────────────────────────────────────────▶ names the frames, writes the report
//! ```
//!
//! A handler may do next to nothing: whatever lock it needs may be held by the thread that it interrupts, the
//! allocator's too. So it only collects addresses, and a thread of its own, started beforehand, does the rest. The
//! handler waits for as long as that thread gets on. If it hangs, because the fault left a lock behind, the process
//! ends all the same.
//!
//! Invariants: the process always dies of the signal, with a core dump where the system makes one; a second fault
//! changes nothing about the first report.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

/// The signals, with their names.
pub const SIGNALS: &[(libc::c_int, &str)] = &[
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGABRT, "SIGABRT"),
];

/// How many frames are kept.
const FRAMES_MAX: usize = 64;

/// How long the handler waits at a time for the report, in milliseconds,
const LOOK_MS: libc::c_int = 100;
/// how often while the thread that writes it does nothing,
const IDLE_LOOKS_MAX: u32 = 30;
/// and how often in all. Time in which the whole process stands still is one look, however long it is.
const LOOKS_MAX: u32 = 600;

static SEEN: AtomicBool = AtomicBool::new(false);
/// The clock of the time that the thread which writes the report has run; 0 while it is not known.
static CLOCK: AtomicI32 = AtomicI32::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static FRAMES: [AtomicUsize; FRAMES_MAX] = [const { AtomicUsize::new(0) }; FRAMES_MAX];
static THREAD: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// The ends of the pipes that the handler writes to and waits at.
static WAKE: OnceLock<(RawFd, RawFd)> = OnceLock::new();

/// What ended the process.
#[derive(Debug)]
pub struct Fault {
    /// The signal's name.
    pub signal: &'static str,
    /// The address that could not be accessed or executed; for a signal that was sent, who sent it.
    pub address: usize,
    /// The name of the thread.
    pub thread: String,
    /// The return addresses of its frames, innermost first.
    addresses: Vec<usize>,
}

impl Fault {
    /// Where it was: the name, file and line of each frame, innermost first, as far as they are known. The first of
    /// them takes long: the program's own file is read for it.
    pub fn frames(&self) -> impl Iterator<Item = String> {
        self.addresses.iter().flat_map(|address| described(*address))
    }
}

/// From now on, tells `report` of a fatal signal, on a thread made for it.
///
/// # Errors
/// A pipe or the thread cannot be made, or the system refuses a handler.
pub fn watch(report: impl Fn(&Fault) + Send + 'static) -> io::Result<()> {
    let (woken, wake) = io::pipe()?;
    let (wait, done) = io::pipe()?;
    let fds = (wake.as_raw_fd(), wait.as_raw_fd());
    // The descriptors must stay open as long as the handler may use them: for ever.
    std::mem::forget((wake, wait));
    if WAKE.set(fds).is_err() {
        return Ok(());
    }
    std::thread::Builder::new().name("fatal".into()).spawn(move || serve(woken, done, &report))?;
    for (signal, _) in SIGNALS {
        catch(*signal)?;
    }
    Ok(())
}

fn serve(mut woken: PipeReader, mut done: PipeWriter, report: &dyn Fn(&Fault)) {
    let mut clock = 0;
    // SAFETY: the pointer is to a live value of its type.
    if unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) } == 0 {
        CLOCK.store(clock, Ordering::Relaxed);
    }
    if woken.read_exact(&mut [0]).is_ok() {
        report(&fault());
        // The handler goes on by itself after a while.
        let _ = done.write_all(&[1]);
    }
}

/// What the handler has noted.
fn fault() -> Fault {
    let signal = SIGNAL.load(Ordering::Acquire);
    let name = SIGNALS.iter().find(|(number, _)| *number == signal).map_or("a signal", |(_, name)| name);
    let bytes: Vec<u8> = THREAD.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    let thread = bytes.split(|byte| *byte == 0).next().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    let addresses = FRAMES.iter().map(|frame| frame.load(Ordering::Relaxed)).take_while(|address| *address != 0);
    Fault { signal: name, address: ADDRESS.load(Ordering::Relaxed), thread, addresses: addresses.collect() }
}

/// The functions at a return address: several where calls were inlined.
fn described(address: usize) -> Vec<String> {
    let mut lines = Vec::new();
    // Of a call, the address behind it is known; the line is that of the call.
    backtrace::resolve((address - 1) as *mut _, |symbol| {
        let name = symbol.name().map_or_else(|| "?".to_owned(), |name| format!("{name:#}"));
        let place = match (symbol.filename(), symbol.lineno()) {
            (Some(file), Some(line)) => format!(" ({}:{line})", file.display()),
            _ => String::new(),
        };
        lines.push(format!("{address:#x} {name}{place}"));
    });
    if lines.is_empty() {
        lines.push(format!("{address:#x} ?"));
    }
    lines
}

fn catch(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: an action of zeros is a valid one, the mask is initialized by sigemptyset, and the handler has the
    // signature that SA_SIGINFO asks for. It runs on the alternate stack that Rust's runtime gives to each thread.
    let outcome = unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handle as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    if !SEEN.swap(true, Ordering::AcqRel) {
        note(signal, info);
        if let Some(&(wake, wait)) = WAKE.get() {
            let mut ready = libc::pollfd { fd: wait, events: libc::POLLIN, revents: 0 };
            // SAFETY: `write` is allowed in a handler, and its pointer is to a live value of the length told.
            unsafe { libc::write(wake, [1_u8].as_ptr().cast(), 1) };
            let (mut ran, mut idle) = (0, 0);
            for _ in 0..LOOKS_MAX {
                // SAFETY: `poll` is allowed in a handler, and its pointer is to one live value.
                if unsafe { libc::poll(&raw mut ready, 1, LOOK_MS) } > 0 {
                    break;
                }
                let before = std::mem::replace(&mut ran, report_ran_ns());
                idle = if ran == before { idle + 1 } else { 0 };
                if idle == IDLE_LOOKS_MAX {
                    break;
                }
            }
        }
    }
    // SAFETY: `raise` is allowed in a handler. The action has been reset, so the signal, which is blocked until the
    // handler returns, then ends the process.
    unsafe { libc::raise(signal) };
}

/// How long the thread that writes the report has run, in nanoseconds.
fn report_ran_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = CLOCK.load(Ordering::Relaxed);
    // SAFETY: `clock_gettime` is allowed in a handler, and its pointer is to a live value of its type.
    if clock != 0 && unsafe { libc::clock_gettime(clock, &raw mut time) } == 0 {
        return time.tv_sec * 1_000_000_000 + time.tv_nsec;
    }
    0
}

/// Notes what is known, without a lock and without memory.
fn note(signal: libc::c_int, info: *mut libc::siginfo_t) {
    let mut name = [0_u8; 16];
    // SAFETY: the kernel passes a valid `info` to a handler with SA_SIGINFO, and PR_GET_NAME writes at most 16 bytes.
    let address = unsafe {
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
        (*info).si_addr() as usize
    };
    ADDRESS.store(address, Ordering::Relaxed);
    for (word, bytes) in THREAD.iter().zip(name.chunks_exact(size_of::<usize>())) {
        word.store(usize::from_ne_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
    }
    let mut at = 0;
    // SAFETY: the lock that the synchronized form takes protects the naming of frames, and nothing is named here.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            FRAMES[at].store(frame.ip() as usize, Ordering::Relaxed);
            at += 1;
            at < FRAMES_MAX
        });
    }
    SIGNAL.store(signal, Ordering::Release);
}
