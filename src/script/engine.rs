//! The virtual machine of a thread, and one run of a script in it.
//!
//! Each worker has one, made when its first script runs. Scripts leave nothing in it but the state of
//! `math.random`: what they can reach is read-only, `KEYS` and `ARGV` are filled anew, and the options of `cjson` begin
//! again.
//!
//! Invariants:
//! - A run ends when [`Host::stop`] says so, also in an endless loop, in `pcall` and in a pattern.
//! - The memory of a machine is limited; one that has grown is thrown away after the run.
//! - A panic under a run costs the machine, and nothing else.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use mlua::chunk::{ChunkMode, Compiler};
use mlua::prelude::*;
use mlua::{StdLib, VmState};

use super::host::{self, Access, Host, LogLevel};
use super::library::{Fault, Given, Returned, cast, fault, guarded, number_of, one, string, write_g};
use super::{bits, cjson, cmsgpack, convert, packing, random, source};
use crate::core::scripts::{Script, Sha};
use crate::resp::request::OwnedArgs;
use crate::resp::{Output, Resp};

/// A machine that has more than this after a run is collected, and thrown away if that does not help.
const MEMORY_KEPT: usize = 32 << 20;
/// How many compiled scripts a machine keeps.
const COMPILED_MAX: usize = 1000;
/// A script is called this in errors.
const CHUNK: &str = "@user_script";

/// One run.
#[derive(Debug)]
pub struct Run<'a, I, J> {
    /// What to run.
    pub script: &'a Arc<Script>,
    /// `KEYS`.
    pub keys: I,
    /// `ARGV`.
    pub arguments: J,
    /// The client's version of the protocol.
    pub resp: Resp,
    /// The memory that the machine may take, in bytes.
    pub memory_max: usize,
}

/// Why a script did not run to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be compiled: the text.
    Compile(Vec<u8>),
    /// It failed: the text of the error, without its code if it has none.
    Error(Vec<u8>),
    /// There is no memory for it, or the engine failed.
    Engine(String),
}

/// The virtual machine of a thread.
#[derive(Debug)]
pub struct Vm {
    lua: Lua,
    keys: LuaTable,
    arguments: LuaTable,
    /// Runs a function and says how it ended.
    runner: LuaFunction,
    compiled: HashMap<Sha, LuaFunction>,
    /// The generation of the scripts that are compiled here.
    generation: u64,
}

thread_local! {
    static MACHINE: RefCell<Option<Vm>> = const { RefCell::new(None) };
    /// The version of the protocol in which the running script gets replies: `redis.setresp`.
    static SCRIPT_RESP: Cell<Resp> = const { Cell::new(Resp::V2) };
    /// Reused for the replies of commands.
    static REPLY: RefCell<Output> = RefCell::default();
}

/// Uses this thread's machine.
///
/// # Errors
/// There is no memory for one, or it is in use: a script cannot run inside a script.
pub fn with_vm<R>(generation: u64, run: impl FnOnce(&mut Vm) -> R) -> Result<R, Failure> {
    let taken = MACHINE.take();
    let mut vm = match taken {
        Some(vm) => vm,
        None => Vm::new().map_err(|error| Failure::Engine(error.to_string()))?,
    };
    if vm.generation != generation {
        vm.compiled.clear();
        vm.generation = generation;
    }
    let result = run(&mut vm);
    if vm.is_worth_keeping() {
        MACHINE.set(Some(vm));
    }
    Ok(result)
}

impl Vm {
    fn new() -> LuaResult<Vm> {
        let lua = Lua::new_with(StdLib::ALL_SAFE, LuaOptions::new())?;
        let (keys, arguments) = (lua.create_table()?, lua.create_table()?);
        let raw = lua.create_table()?;
        raw.raw_set("keys", &keys)?;
        raw.raw_set("arguments", &arguments)?;
        raw.raw_set("null", LuaValue::NULL)?;
        raw.raw_set("bit", bits::functions(&lua)?)?;
        raw.raw_set("struct", packing::functions(&lua)?)?;
        raw.raw_set("cmsgpack", cmsgpack::functions(&lua)?)?;
        raw.raw_set("cjson", cjson::functions(&lua)?)?;
        raw.raw_set("random", random::functions(&lua)?)?;
        raw.raw_set("redis", server_functions(&lua)?)?;
        raw.raw_set("constants", constants(&lua)?)?;
        raw.raw_set("call", lua.create_function(call)?)?;
        raw.raw_set("compile", guarded(&lua, compile)?)?;
        raw.raw_set("clock", lua.create_function(|_, ()| Ok(cpu_seconds()))?)?;
        let globals = lua.globals();
        let prelude = lua.load(include_str!("prelude.lua")).set_name("=redis").set_mode(ChunkMode::Text);
        let runner: LuaFunction = prelude.call((raw, &globals))?;
        globals.set_safeenv(true);
        lua.set_interrupt(|_| match host::ask(|host| host.stop()).flatten() {
            None => Ok(VmState::Continue),
            Some(why) => Err(LuaError::runtime(why)),
        });
        Ok(Vm { lua, keys, arguments, runner, compiled: HashMap::new(), generation: 0 })
    }

    /// Whether the next script may use it.
    fn is_worth_keeping(&self) -> bool {
        self.lua.used_memory() <= MEMORY_KEPT
            || (self.lua.gc_collect().is_ok() && self.lua.used_memory() <= MEMORY_KEPT)
    }

    /// Compiles a script, unless it has been.
    ///
    /// # Errors
    /// It is no Lua.
    pub fn prepare(&mut self, script: &Script) -> Result<(), Failure> {
        self.function(script).map(drop)
    }

    fn function(&mut self, script: &Script) -> Result<LuaFunction, Failure> {
        if let Some(function) = self.compiled.get(&script.sha) {
            return Ok(function.clone());
        }
        let function = compiled(&self.lua, source::without_first_line(&script.body), CHUNK).map_err(|error| {
            let text = format!("ERR Error compiling script (new function): {}", words(&error));
            Failure::Compile(text.into_bytes())
        })?;
        if self.compiled.len() >= COMPILED_MAX {
            self.compiled.clear();
        }
        self.compiled.insert(script.sha, function.clone());
        Ok(function)
    }

    /// Runs a script, which asks this host, and writes its reply.
    ///
    /// # Errors
    /// It did not run to its end. What it has done stands, unless the caller takes it back.
    pub fn run<'k>(
        &mut self,
        run: Run<'_, impl Iterator<Item = &'k [u8]>, impl Iterator<Item = &'k [u8]>>,
        host: &mut dyn Host,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let function = self.function(run.script)?;
        let engine = |error: LuaError| Failure::Engine(words(&error));
        self.lua.set_memory_limit(run.memory_max).map_err(engine)?;
        self.fill(&self.keys, run.keys).map_err(engine)?;
        self.fill(&self.arguments, run.arguments).map_err(engine)?;
        cjson::reset();
        SCRIPT_RESP.set(Resp::V2);
        let ended: LuaResult<(bool, LuaValue)> = host::serve(host, || self.runner.call(function));
        match ended.map_err(engine)? {
            (true, value) => {
                let mark = out.mark();
                convert::value_to_reply(&value, out, run.resp, SCRIPT_RESP.get()).map_err(|error| {
                    out.truncate(mark);
                    engine(error)
                })
            }
            (false, error) => Err(Failure::Error(described(&error, run.script.sha.as_str()))),
        }
    }

    fn fill<'k>(&self, table: &LuaTable, words: impl Iterator<Item = &'k [u8]>) -> LuaResult<()> {
        table.set_metatable(None)?;
        table.clear()?;
        for (index, word) in (1..).zip(words) {
            table.raw_set(index, self.lua.create_string(word)?)?;
        }
        Ok(())
    }
}

/// The text of an error that a script did not catch: `{what, source, line}`.
fn described(error: &LuaValue, name: &str) -> Vec<u8> {
    let LuaValue::Table(error) = error else {
        // The handler of errors failed: memory, or the depth of calls.
        return [b"ERR ", &*lossy(error), b" script: ", name.as_bytes(), b"."].concat();
    };
    let field = |index: i32| error.raw_get::<LuaValue>(index).unwrap_or(LuaValue::Nil);
    let mut text = lossy(&field(1)).to_vec();
    let place = match (field(2), field(3)) {
        (LuaValue::String(source), LuaValue::Integer(line)) => {
            Some([b"@", &*source.as_bytes(), b":", line.to_string().as_bytes()].concat())
        }
        (LuaValue::String(source), LuaValue::Number(line)) => {
            Some([b"@", &*source.as_bytes(), b":", line.to_string().as_bytes()].concat())
        }
        _ => None,
    };
    text.extend_from_slice(b" script: ");
    text.extend_from_slice(name.as_bytes());
    if let Some(place) = place {
        text.extend_from_slice(b", on ");
        text.extend_from_slice(&place);
        text.push(b'.');
    }
    text
}

fn lossy(value: &LuaValue) -> Box<[u8]> {
    match value {
        LuaValue::String(text) => text.as_bytes().to_vec().into(),
        LuaValue::Error(error) => words(error).into_bytes().into(),
        other => other.type_name().as_bytes().into(),
    }
}

/// What the engine says of a failure, without its own trace.
fn words(error: &LuaError) -> String {
    let text = match error {
        LuaError::SyntaxError { message, .. } => message.clone(),
        LuaError::RuntimeError(message) => message.clone(),
        LuaError::MemoryError(_) => "not enough memory".to_owned(),
        LuaError::CallbackError { cause, .. } => return words(cause),
        other => other.to_string(),
    };
    text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
}

/// Compiles a text.
fn compiled(lua: &Lua, text: &[u8], name: &str) -> LuaResult<LuaFunction> {
    let compiler = Compiler::new().set_optimization_level(1).set_debug_level(1);
    lua.load(text).set_name(name).set_mode(ChunkMode::Text).set_compiler(compiler).into_function()
}

/// `loadstring`: a function, or nil and what is wrong.
fn compile(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("loadstring", &arguments);
    let text = given.bytes(1)?;
    let name = match given.at(2) {
        LuaValue::String(name) => String::from_utf8_lossy(&name.as_bytes()).into_owned(),
        _ => format!("=[string \"{}\"]", first_line_shown(&text)),
    };
    match compiled(lua, &text, &name) {
        Ok(function) => one(LuaValue::Function(function)),
        Err(error @ LuaError::SyntaxError { .. }) => {
            let problem = lua.create_string(words(&error))?;
            Ok(LuaMultiValue::from_iter([LuaValue::Nil, LuaValue::String(problem)]))
        }
        Err(error) => Err(Fault::Engine(error)),
    }
}

fn first_line_shown(text: &[u8]) -> String {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(40).collect()
}

/// The CPU time of the process, for `os.clock`.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// `redis.call` and `redis.pcall`: the value of the reply, and whether it is an error.
fn call(lua: &Lua, arguments: LuaMultiValue) -> LuaResult<(LuaValue, bool)> {
    let args = match words_of(&arguments) {
        Ok(args) => args,
        Err(text) => return Ok((convert::error_table(lua, text.as_bytes())?, true)),
    };
    let mut reply = REPLY.take();
    reply.clear();
    let asked = host::ask(|host| host.call(args.args(), SCRIPT_RESP.get(), &mut reply));
    let value = match asked {
        Some(()) => convert::reply_to_value(lua, &reply),
        None => convert::error_table(lua, b"ERR redis.call/pcall can only be called inside a script invocation")
            .map(|value| (value, true)),
    };
    REPLY.set(reply);
    value
}

/// The words of a command.
fn words_of(arguments: &LuaMultiValue) -> Result<OwnedArgs, &'static str> {
    const WRONG: &str = "ERR Lua redis lib command arguments must be strings or integers";
    if arguments.is_empty() {
        return Err("ERR Please specify at least one argument for this redis lib call");
    }
    let mut words: Vec<Vec<u8>> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        words.push(match argument {
            LuaValue::String(text) => text.as_bytes().to_vec(),
            LuaValue::Integer(number) => number.to_string().into_bytes(),
            LuaValue::Number(number) => {
                let mut text = Vec::new();
                write_g(&mut text, *number, 17);
                text
            }
            _ => return Err(WRONG),
        });
    }
    Ok(OwnedArgs::new(words.iter().map(Vec::as_slice)))
}

fn log(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("log", &arguments);
    if given.len() < 2 {
        return fault("ERR redis.log() requires two arguments or more.");
    }
    let Some(level) = number_of(given.at(1)) else {
        return fault("ERR First argument must be a number (log level).");
    };
    let level = match cast(level) {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => return fault("ERR Invalid debug level."),
    };
    let mut line = Vec::new();
    for position in 2..=given.len() {
        if position > 2 {
            line.push(b' ');
        }
        // What is no text is left out, as in Redis.
        line.extend_from_slice(&given.bytes(position).unwrap_or_default());
    }
    host::ask(|host| host.log(level, &String::from_utf8_lossy(&line)));
    Ok(LuaMultiValue::new())
}

fn sha1hex(lua: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("sha1hex", &arguments);
    if given.len() != 1 {
        return fault("ERR wrong number of arguments");
    }
    string(lua, Sha::of(&given.bytes(1).unwrap_or_default()).as_str())
}

fn setresp(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("setresp", &arguments);
    if given.len() != 1 {
        return fault("ERR redis.setresp() requires one argument.");
    }
    match number_of(given.at(1)) {
        Some(2.0) => SCRIPT_RESP.set(Resp::V2),
        Some(3.0) => SCRIPT_RESP.set(Resp::V3),
        _ => return fault("ERR RESP version must be 2 or 3."),
    }
    Ok(LuaMultiValue::new())
}

/// All effects are logged: what a client was told must survive. So this checks its argument and changes nothing.
fn set_repl(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("set_repl", &arguments);
    if given.len() != 1 {
        return fault("ERR redis.set_repl() requires two arguments.");
    }
    match number_of(given.at(1)).map(cast) {
        Some(0..=3) => Ok(LuaMultiValue::new()),
        _ => fault("ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."),
    }
}

fn acl_check_cmd(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let args = match words_of(&arguments) {
        Ok(args) => args,
        Err(text) => return fault(text),
    };
    match host::ask(|host| host.may(args.args())) {
        Some(Access::Allowed) => one(LuaValue::Boolean(true)),
        Some(Access::Denied) => one(LuaValue::Boolean(false)),
        _ => fault("ERR Invalid command passed to redis.acl_check_cmd()"),
    }
}

fn server_functions(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    let functions: [(&str, super::library::Library); 5] = [
        ("log", log),
        ("sha1hex", sha1hex),
        ("setresp", setresp),
        ("set_repl", set_repl),
        ("acl_check_cmd", acl_check_cmd),
    ];
    for (name, function) in functions {
        table.raw_set(name, guarded(lua, function)?)?;
    }
    Ok(table)
}

fn constants(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    for (name, value) in [
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
        ("REDIS_VERSION_NUM", 0x0007_0204),
    ] {
        table.raw_set(name, value)?;
    }
    table.raw_set("REDIS_VERSION", "7.2.4")?;
    Ok(table)
}
