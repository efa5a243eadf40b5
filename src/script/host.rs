//! What a script asks of the server, how a function of Lua finds whom to ask, and how a function is run.
//!
//! ```text
//! Machine::run ─ protected call ─▶ enter ─ KEYS, ARGV ─ protected call ─▶ the script ─ redis.call ─▶ Bridge ─▶ Host
//!                                    └─ its value becomes the reply         └─ interrupt ─ must it end? ─▶ Host
//! ```
//!
//! Functions of Lua live as long as the virtual machine, and a host only as long as one run. So the thread knows the
//! bridge of the machine that runs, which knows the host, and nobody can keep the host itself.
//!
//! Invariants:
//! - The engine raises errors by unwinding. Where it may, the frames of ours above its protected call own nothing, and
//!   none of them catches a panic.
//! - A panic of the host goes on outside the engine.
//! - While a host is asked whether the script must end, other machines may run on the thread.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_int;
use std::io::IoSlice;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use mlua::ffi;
use mlua::prelude::*;

use super::library::write_g;
use super::stack::{Kind, Stack};
use super::{cjson, convert, random};
use crate::base::logging;
use crate::resp::request::Span;
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

impl LogLevel {
    /// Writes a line into the server's log.
    pub fn write(self, line: &str) {
        match self {
            LogLevel::Debug => logging::debug(format_args!("{line}")),
            LogLevel::Verbose => logging::verbose(format_args!("{line}")),
            LogLevel::Notice => logging::notice(format_args!("{line}")),
            LogLevel::Warning => logging::warning(format_args!("{line}")),
        }
    }
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

/// How a script goes on after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    GoesOn,
    /// It is to ask [`Host::stop`] next.
    Looks,
    /// The same: it will be told to end.
    Ends,
}

/// The server, as a running script sees it.
pub trait Host {
    /// Runs a command and appends its reply, which may be an error, in this version of the protocol.
    fn call(&mut self, args: Args<'_>, resp: Resp, out: &mut Output) -> Flow;

    /// Whether the user may run a command: `redis.acl_check_cmd`.
    fn may(&self, args: Args<'_>) -> Access;

    /// Writes a line into the server's log: `redis.log`.
    fn log(&mut self, level: LogLevel, line: &str);

    /// An error is in its reply, with this text. `is_of_command` says whether a command that it has called had failed
    /// by that.
    fn note_error(&mut self, text: &[u8], is_of_command: bool) {
        let _ = (text, is_of_command);
    }

    /// Why the script must end now, if it must. Asked often, and the script stands still meanwhile.
    fn stop(&mut self) -> Option<&'static str>;
}

/// How often the engine may ask whether the script must end, for one question to the host,
const ASKED_PER_QUESTION: u32 = 128;
/// and for how many of these a command counts.
const ASKED_PER_COMMAND: u32 = 8;

/// What the functions of a machine need of the run that they are in. A machine has one.
#[derive(Default)]
pub(super) struct Bridge {
    host: Option<NonNull<dyn Host>>,
    /// How often the engine may still ask before the host is asked.
    left: u32,
    /// Why the script must end. It stays so until the script has ended.
    why: Option<&'static str>,
    /// The version of the protocol in which the script gets replies: `redis.setresp`.
    resp: Option<Resp>,
    /// The words of the command that is called.
    words: Vec<u8>,
    spans: Vec<Span>,
    /// Its reply, and the same in one piece if it is in several.
    reply: Output,
    gathered: Vec<u8>,
    /// A panic of the host, until it can go on outside the engine.
    panic: Option<Box<dyn Any + Send>>,
    kept: Kept,
}

/// References to what every run needs.
#[derive(Clone, Copy, Default)]
struct Kept {
    /// `KEYS`,
    keys: c_int,
    /// `ARGV`,
    arguments: c_int,
    /// the handler of errors,
    handler: c_int,
    /// and [`enter`].
    enter: c_int,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("why", &self.why).finish_non_exhaustive()
    }
}

thread_local! {
    /// The bridge of the machine that runs on this thread just now.
    static BRIDGE: Cell<*mut Bridge> = const { Cell::new(std::ptr::null_mut()) };
}

/// Keeps a bridge in its place while the machine runs.
struct Serving(*mut Bridge);

impl Drop for Serving {
    fn drop(&mut self) {
        BRIDGE.set(self.0);
    }
}

/// How a function gets the words of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// In `KEYS` and `ARGV`.
    Globals,
    /// As two arguments, which it may keep.
    Arguments,
    /// Not at all, and its value is no reply.
    Nothing,
}

/// One run of a function in a machine.
pub(super) struct Job<'a> {
    /// What [`Machine::keep`] made of the function.
    pub(super) function: c_int,
    /// The words of the call, and where the keys among them are. The arguments of the script are behind them.
    pub(super) args: Args<'a>,
    pub(super) keys: Range<usize>,
    pub(super) takes: Takes,
    /// The version of the protocol of the client.
    pub(super) resp: Resp,
    pub(super) out: &'a mut Output,
}

/// A job, and how it has ended, unless the engine has failed.
struct Running<'a> {
    job: Job<'a>,
    ended: Option<Result<(), Caught>>,
}

/// An error that a script did not catch.
#[derive(Debug, Default)]
pub(super) struct Caught {
    /// Its text,
    pub(super) text: Vec<u8>,
    /// and where it was raised, if that is known.
    pub(super) source: Vec<u8>,
    pub(super) line: u32,
    /// Whether a command has failed by it.
    pub(super) is_of_command: bool,
}

/// The raw side of a machine: what it needs to run functions.
#[derive(Debug)]
pub(super) struct Machine {
    state: *mut ffi::lua_State,
    bridge: Box<Bridge>,
}

impl Machine {
    /// The raw side of a machine with these tables and this handler. It must not outlive `lua`.
    pub(super) fn new(lua: &Lua, keys: &LuaTable, arguments: &LuaTable, handler: &LuaFunction) -> LuaResult<Machine> {
        let state = lua.exec_raw_lua(|raw| raw.state());
        // SAFETY: `enter` keeps the rules of the engine.
        let enter = unsafe { lua.create_c_function(enter)? };
        let kept = Kept {
            keys: keep(lua, keys)?,
            arguments: keep(lua, arguments)?,
            handler: keep(lua, handler)?,
            enter: keep(lua, enter)?,
        };
        // SAFETY: the state is that of `lua`, and nothing runs in it.
        unsafe { (*ffi::lua_callbacks(state)).interrupt = Some(interrupt) };
        Ok(Machine { state, bridge: Box::new(Bridge { kept, ..Bridge::default() }) })
    }

    /// Drops what [`keep`] has kept.
    pub(super) fn forget(&self, reference: c_int) {
        // SAFETY: the state is valid, and the reference is one of `keep`. This raises no error.
        unsafe { ffi::lua_unref(self.state, reference) };
    }

    /// Runs a function, which asks this host.
    ///
    /// # Errors
    /// The engine has failed: there is no memory, for example. Inside: the script has.
    pub(super) fn run(&mut self, host: &mut dyn Host, job: Job<'_>) -> Result<Result<(), Caught>, Vec<u8>> {
        let bridge: *mut Bridge = &raw mut *self.bridge;
        let host: NonNull<dyn Host + '_> = NonNull::from(host);
        let mut running = Running { job, ended: None };
        // SAFETY: only the lifetime of `host` changes: the pointer is used by `ask` alone, while the engine runs, for
        // which `host` is borrowed, and it is taken away below. The state is valid and nothing runs in it, so its
        // stack has room for these two values, which are pushed and called without anything that could raise an error
        // outside the protected call. `running` outlives the call, and nothing else uses it meanwhile.
        let (failed, why) = unsafe {
            (*bridge).host = Some(std::mem::transmute::<NonNull<dyn Host + '_>, NonNull<dyn Host>>(host));
            ((*bridge).left, (*bridge).why, (*bridge).resp) = (ASKED_PER_QUESTION, None, None);
            let serving = Serving(BRIDGE.replace(bridge));
            let top = ffi::lua_gettop(self.state);
            ffi::lua_rawgeti_(self.state, ffi::LUA_REGISTRYINDEX, (*bridge).kept.enter);
            ffi::lua_pushlightuserdatatagged(self.state, (&raw mut running).cast(), 0);
            let status = ffi::lua_pcall(self.state, 1, 0, 0);
            let failed = (status != ffi::LUA_OK).then(|| Stack::new(self.state).bytes(-1).to_vec());
            ffi::lua_settop(self.state, top);
            drop(serving);
            (*bridge).host = None;
            (failed, (*bridge).why)
        };
        self.bridge.limit();
        if let Some(panic) = self.bridge.panic.take() {
            std::panic::resume_unwind(panic);
        }
        match (running.ended, failed, why) {
            (Some(Err(_)), None, Some(why)) | (_, Some(_), Some(why)) => {
                Ok(Err(Caught { text: [b"ERR ", why.as_bytes()].concat(), ..Caught::default() }))
            }
            (_, Some(failed), None) => Err(failed),
            (Some(ended), None, _) => Ok(ended),
            (None, None, _) => Err(b"the engine did not run the script".to_vec()),
        }
    }
}

impl Bridge {
    /// Keeps no room for long words and replies.
    fn limit(&mut self) {
        const KEPT_BYTES: usize = 64 << 10;
        if self.words.capacity() + self.reply.capacity() + self.gathered.capacity() > KEPT_BYTES {
            (self.words, self.reply, self.gathered) = (Vec::new(), Output::new(), Vec::new());
        }
        if self.spans.capacity() > 1024 {
            self.spans = Vec::new();
        }
    }
}

/// Keeps a value in its machine. Returns its reference.
pub(super) fn keep(lua: &Lua, value: impl IntoLua) -> LuaResult<c_int> {
    let mut reference = 0;
    // SAFETY: the value is uppermost, and the call is protected.
    unsafe { lua.exec_raw::<()>(value.into_lua(lua)?, |state| reference = ffi::lua_ref(state, -1))? };
    Ok(reference)
}

/// `redis.call` and `redis.pcall`.
pub(super) fn callers(lua: &Lua) -> LuaResult<(LuaFunction, LuaFunction)> {
    // SAFETY: both keep the rules of the engine.
    unsafe { Ok((lua.create_c_function(call)?, lua.create_c_function(pcall)?)) }
}

/// What reads the upvalues of a function, and what compares them with those that were read.
pub(super) fn upvalue_readers(lua: &Lua) -> LuaResult<(LuaFunction, LuaFunction)> {
    // SAFETY: both keep the rules of the engine.
    unsafe { Ok((lua.create_c_function(upvalues)?, lua.create_c_function(upvalues_are)?)) }
}

/// How many upvalues a function of Lua has at most, and some more.
const UPVALUES_MAX: c_int = 256;

/// The upvalues of a function, behind their number; that is -1 for a function that is not written in Lua.
unsafe extern "C-unwind" fn upvalues(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the engine calls this in protected mode, with a function; no frame owns anything.
    unsafe {
        if ffi::lua_iscfunction(state, 1) != 0 {
            ffi::lua_pushnumber(state, -1.0);
            return 1;
        }
        ffi::luaL_checkstack(state, UPVALUES_MAX + 8, std::ptr::null());
        ffi::lua_pushnil(state);
        let count = (1..=UPVALUES_MAX).take_while(|at| !ffi::lua_getupvalue(state, 1, *at).is_null()).count() as c_int;
        ffi::lua_pushnumber(state, f64::from(count));
        ffi::lua_replace(state, 2);
        count + 1
    }
}

/// Whether the upvalues of a function of Lua are those of a table, which has them in their order.
unsafe extern "C-unwind" fn upvalues_are(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the engine calls this in protected mode, with a function and a table; no frame owns anything. There is
    // room for two more values.
    unsafe {
        let mut at = 1;
        let mut are_same = true;
        while are_same && !ffi::lua_getupvalue(state, 1, at).is_null() {
            ffi::lua_rawgeti_(state, 2, at);
            are_same = ffi::lua_rawequal(state, -1, -2) != 0;
            if are_same && ffi::lua_type(state, -1) == ffi::LUA_TNUMBER {
                // Zero has two forms, which are equal.
                are_same = ffi::lua_tonumber(state, -1).to_bits() == ffi::lua_tonumber(state, -2).to_bits();
            }
            ffi::lua_settop(state, 2);
            at += 1;
        }
        ffi::lua_pushboolean(state, c_int::from(are_same));
    }
    1
}

/// Runs the [`Running`] whose address is the one argument. It is called in protected mode.
unsafe extern "C-unwind" fn enter(state: *mut ffi::lua_State) -> c_int {
    const HANDLER: c_int = 2;
    // SAFETY: `Machine::run` passes the address of a job that it does not touch meanwhile, and has put its bridge in
    // place. When the engine may raise an error, no frame owns anything.
    unsafe {
        let stack = Stack::new(state);
        let Running { job, ended } = &mut *ffi::lua_touserdata(state, 1).cast::<Running<'_>>();
        let Kept { keys, arguments, handler, .. } = (*BRIDGE.get()).kept;
        stack.push_reference(handler);
        let behind = job.keys.end..job.args.len();
        let passed = match job.takes {
            Takes::Globals => {
                stack.push_reference(keys);
                fill(stack, job.args, job.keys.clone());
                stack.push_reference(arguments);
                fill(stack, job.args, behind);
                stack.pop(2);
                stack.push_reference(job.function);
                0
            }
            Takes::Arguments => {
                stack.push_reference(job.function);
                stack.new_table(job.keys.len(), 0);
                fill(stack, job.args, job.keys.clone());
                stack.new_table(behind.len(), 0);
                fill(stack, job.args, behind);
                2
            }
            Takes::Nothing => {
                stack.push_reference(job.function);
                0
            }
        };
        if stack.call(passed, HANDLER) {
            if job.takes != Takes::Nothing {
                let script = (*BRIDGE.get()).resp.unwrap_or(Resp::V2);
                convert::value_to_reply(stack, job.out, (job.resp, script), |text, is_of_command| {
                    ask(|host| host.note_error(text, is_of_command));
                });
            }
            *ended = Some(Ok(()));
        } else {
            *ended = Some(Err(caught(stack)));
        }
    }
    0
}

/// Fills the uppermost table with these words, and nothing else.
fn fill(stack: Stack, args: Args<'_>, places: Range<usize>) {
    stack.clear_table(-1);
    for (index, place) in (1..).zip(places) {
        stack.push_bytes(args.at(place));
        stack.set_element(index);
    }
}

/// What the handler of errors has left: `{text, source, line, is of a command}`, or a text if it has failed itself.
fn caught(stack: Stack) -> Caught {
    if stack.kind(-1) != Kind::Table {
        let text = match stack.bytes(-1) {
            b"" => b"the handler of errors has failed",
            text => text,
        };
        return Caught { text: [b"ERR ", text].concat(), ..Caught::default() };
    }
    let table = stack.absolute(-1);
    let mut caught = Caught::default();
    stack.element(table, 1);
    caught.text.extend_from_slice(stack.bytes(-1));
    stack.element(table, 2);
    caught.source.extend_from_slice(stack.bytes(-1));
    if stack.element(table, 3) == Kind::Number {
        caught.line = stack.number(-1) as u32;
    }
    caught.is_of_command = stack.element(table, 4) == Kind::Boolean && stack.boolean(-1);
    stack.pop(4);
    caught
}

/// `redis.call`: the value of the reply, or an error that is raised.
unsafe extern "C-unwind" fn call(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the engine calls this in protected mode; when an error is raised, no frame owns anything.
    unsafe {
        let stack = Stack::new(state);
        if run_command(stack) {
            stack.raise();
        }
    }
    1
}

/// `redis.pcall`: the value of the reply, which may be an error.
unsafe extern "C-unwind" fn pcall(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe { run_command(Stack::new(state)) };
    1
}

/// Runs the command whose words are on the stack and pushes its reply. Returns whether that is an error.
fn run_command(stack: Stack) -> bool {
    let bridge = BRIDGE.get();
    // SAFETY: while a machine runs, its bridge is in place and this thread alone uses it. No reference to it is kept
    // across a call of the host.
    let asked = match unsafe { bridge.as_mut() } {
        Some(bridge) => bridge.run_command(stack),
        None => Err("ERR redis.call/pcall can only be called inside a script invocation"),
    };
    match asked {
        // SAFETY: as above; the reply stays as it is until the next command.
        Ok(()) => convert::push_reply(stack, unsafe { (*bridge).reply_bytes() }),
        Err(text) => {
            convert::push_error(stack, text.as_bytes());
            true
        }
    }
}

impl Bridge {
    /// Has the host run the command whose words are on the stack. Raises nothing.
    fn run_command(&mut self, stack: Stack) -> Result<(), &'static str> {
        self.gather_words(stack)?;
        self.reply.clear();
        let Some(mut host) = self.host.take() else { return Err("ERR a command is being run already") };
        let args = Args::new(&self.words, &self.spans);
        let (resp, reply) = (self.resp.unwrap_or(Resp::V2), &mut self.reply);
        // SAFETY: `Machine::run` put the pointer there and is still running; taking it away made this the only
        // reference.
        let called = catch_unwind(AssertUnwindSafe(|| unsafe { host.as_mut() }.call(args, resp, reply)));
        self.host = Some(host);
        match called {
            Ok(Flow::GoesOn) => self.left = self.left.saturating_sub(ASKED_PER_COMMAND).max(1),
            Ok(Flow::Looks | Flow::Ends) => self.left = 1,
            Err(panic) => {
                self.panic = Some(panic);
                (self.why, self.left) = (Some("internal error"), 1);
                return Err("ERR internal error");
            }
        }
        if self.reply.one_slice(0).is_none() {
            self.gathered.clear();
            while self.gathered.len() < self.reply.len() {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = self.reply.slices(self.gathered.len(), &mut slices);
                slices[..filled].iter().for_each(|slice| self.gathered.extend_from_slice(slice));
            }
        }
        Ok(())
    }

    fn reply_bytes(&self) -> &[u8] {
        self.reply.one_slice(0).unwrap_or(&self.gathered)
    }

    fn gather_words(&mut self, stack: Stack) -> Result<(), &'static str> {
        self.words.clear();
        self.spans.clear();
        if stack.len() == 0 {
            return Err("ERR Please specify at least one argument for this redis lib call");
        }
        for at in 1..=stack.len() {
            let start = self.words.len();
            match stack.kind(at) {
                Kind::String => self.words.extend_from_slice(stack.bytes(at)),
                Kind::Number => write_word(&mut self.words, stack.number(at)),
                Kind::Integer => {
                    self.words.extend_from_slice(itoa::Buffer::new().format(stack.integer(at)).as_bytes());
                }
                _ => return Err("ERR Lua redis lib command arguments must be strings or integers"),
            }
            self.spans.push(Span { start, len: self.words.len() - start });
        }
        Ok(())
    }
}

/// A number as a word of a command: an integer if it is one.
pub(super) fn write_word(words: &mut Vec<u8>, number: f64) {
    let whole = number as i64;
    if whole as f64 == number && whole != i64::MAX {
        words.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else {
        write_g(words, number, 17);
    }
}

/// The engine asks in every loop, call and pattern whether the script must end.
unsafe extern "C-unwind" fn interrupt(state: *mut ffi::lua_State, gc: c_int) {
    let bridge = BRIDGE.get();
    if gc >= 0 || bridge.is_null() {
        return;
    }
    // SAFETY: the bridge in place is valid while its machine runs, and this thread alone uses it.
    unsafe {
        if (*bridge).left > 1 {
            (*bridge).left -= 1;
            return;
        }
        if let Some(why) = ask_to_stop(bridge) {
            // The frames above are those of the engine, which calls this where an error may be raised.
            Stack::new(state).raise_text(why.as_bytes());
        }
    }
}

/// Asks the host whether the script must end. Meanwhile this thread may run other machines.
#[cold]
fn ask_to_stop(bridge: *mut Bridge) -> Option<&'static str> {
    // SAFETY: see `interrupt`. The bridge belongs to a machine that runs; no reference to it is kept while the host
    // is asked.
    unsafe {
        (*bridge).left = 1;
        if (*bridge).why.is_none() {
            let mut host = (*bridge).host.take()?;
            let _serving = Serving(BRIDGE.replace(std::ptr::null_mut()));
            let (random, json) = (random::state(), cjson::options());
            let asked = catch_unwind(AssertUnwindSafe(|| host.as_mut().stop()));
            random::set_state(random);
            cjson::set_options(json);
            (*bridge).host = Some(host);
            match asked {
                Ok(why) => (*bridge).why = why,
                Err(panic) => ((*bridge).panic, (*bridge).why) = (Some(panic), Some("internal error")),
            }
        }
        if (*bridge).why.is_none() {
            (*bridge).left = ASKED_PER_QUESTION;
        }
        (*bridge).why
    }
}

/// Asks the host of the running script; `None` if no script runs, or if it is being asked already.
pub(super) fn ask<R>(question: impl FnOnce(&mut dyn Host) -> R) -> Option<R> {
    struct Restore(*mut Bridge, NonNull<dyn Host>);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the bridge is in place, see below.
            unsafe { (*self.0).host = Some(self.1) };
        }
    }
    let bridge = BRIDGE.get();
    // SAFETY: a bridge in place is valid while its machine runs. `Machine::run` put the host there and is still
    // running; taking it away makes this the only reference.
    unsafe {
        let host = bridge.as_mut()?.host.take()?;
        let mut restore = Restore(bridge, host);
        Some(question(restore.1.as_mut()))
    }
}

/// Sets the version of the protocol in which the running script gets replies.
pub(super) fn set_resp(resp: Resp) {
    // SAFETY: as in `ask`.
    if let Some(bridge) = unsafe { BRIDGE.get().as_mut() } {
        bridge.resp = Some(resp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_script_nobody_is_asked() {
        assert!(ask(|_| ()).is_none());
    }

    #[test]
    fn numbers_are_words_as_redis_writes_them() {
        for (number, word) in [
            (3.0, "3"),
            (-0.0, "0"),
            (1e15, "1000000000000000"),
            (3.5, "3.5"),
            (1e20, "1e+20"),
            (0.1, "0.10000000000000001"),
        ] {
            let mut words = Vec::new();
            write_word(&mut words, number);
            assert_eq!(String::from_utf8_lossy(&words), word);
        }
    }
}
