//! Tests of the machine of functions with a host that answers every command.

use std::sync::Arc;

use super::functions::{FunctionCall, FunctionMachine, LOAD_TIMEOUT};
use super::handed::with_machine;
use super::{Access, Failure, Flow, Host, LogLevel, source};
use crate::core::functions::Functions;
use crate::keyspace::{Libraries, Library};
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Output, Reply, Resp};

const MEMORY_MAX: usize = 16 << 20;

/// Echoes the last word, and stops a function after so many questions.
struct Echo(Option<u64>);

impl Host for Echo {
    fn call(&mut self, args: Args<'_>, resp: Resp, out: &mut Output) -> Flow {
        let _done = Reply::new(out, resp).bulk(args.at(args.len() - 1));
        Flow::GoesOn
    }

    fn may(&self, _: Args<'_>) -> Access {
        Access::Unknown
    }

    fn log(&mut self, _: LogLevel, _: &str) {}

    fn stop(&mut self) -> Option<&'static str> {
        self.0 = self.0.map(|left| left.saturating_sub(1));
        (self.0 == Some(0)).then_some("stopped")
    }
}

/// Reads a library, adds it and keeps it.
fn load(machine: &mut FunctionMachine, all: &mut Libraries, text: &str) -> Result<Arc<Library>, String> {
    let source = source::library(text.as_bytes()).map_err(|error| error.to_string())?;
    let read = machine.read(&source, LOAD_TIMEOUT).map_err(|error| error.to_string())?;
    let library = Arc::clone(read.library());
    all.insert(Arc::clone(&library));
    machine.keep(vec![read], all);
    Ok(library)
}

fn call(machine: &mut FunctionMachine, library: &Arc<Library>, at: usize, host: &mut Echo) -> Result<String, String> {
    let mut out = Output::new();
    let words = OwnedArgs::new([&b"k"[..], b"a", b"b"].into_iter());
    let call = FunctionCall { library, at, args: words.args(), keys: 0..1, resp: Resp::V2 };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "|");
    match machine.call(call, host, &mut out) {
        Ok(()) => Ok(text(out.as_bytes())),
        Err(Failure::Compile(error) | Failure::Error(error) | Failure::OfCommand(error)) => Err(text(&error)),
        Err(Failure::Engine(error)) => Err(format!("engine: {error}")),
    }
}

#[test]
fn libraries_share_nothing_and_keep_their_own() {
    let (mut machine, mut all) = (FunctionMachine::new(MEMORY_MAX).unwrap(), Libraries::default());
    let counter = |name: &str| {
        format!(
            "#!lua name={name}\nlocal n, seen = 0, {{}}\nlocal function add(k) n = n + #k seen[n] = k return n end\n\
             redis.register_function('{name}', function(keys, args) return {{add(keys), args[2], #seen}} end)"
        )
    };
    let one = load(&mut machine, &mut all, &counter("one")).unwrap();
    let two = load(&mut machine, &mut all, &counter("two")).unwrap();
    for count in 1..4 {
        let reply = format!("*3|:{count}|$1|b|:{count}|");
        assert_eq!(call(&mut machine, &one, 0, &mut Echo(None)), Ok(reply));
    }
    assert_eq!(call(&mut machine, &two, 0, &mut Echo(None)).unwrap(), "*3|:1|$1|b|:1|");
    let again = load(&mut machine, &mut all, &counter("one")).unwrap();
    assert_eq!(call(&mut machine, &again, 0, &mut Echo(None)).unwrap(), "*3|:1|$1|b|:1|", "another one begins anew");
    assert_eq!(call(&mut machine, &two, 0, &mut Echo(None)).unwrap(), "*3|:2|$1|b|:2|");
}

#[test]
fn what_a_call_leaves_is_seen() {
    const BEFORE: &str = "local n, t, inner = 0, {1, a = {}}, {}\nlocal function add(by) n = n + by end\n\
                          local function zero() n = 0 end\n\
                          local deep = {{{}}}\nlocal function reach() return deep, t, inner, add, zero end";
    let cases: &[(&str, bool)] = &[
        ("return 1", false),
        ("return t[1] + #t + n", false),
        ("local m = 0 for i = 1, 9 do (function() m = m + i end)() end local u = {} u.x = 1 return m", false),
        ("return {redis.call('a', keys[1]), cjson.encode({1}), cmsgpack.pack(1), string.rep('x', 3)}", false),
        ("add(1) add(-1)", false),
        ("t.b = 1 t.b = nil", false),
        ("pcall(error, 'x') return reach()", false),
        ("n = n + 1", true),
        ("add(1)", true),
        ("zero() n = -n", true),
        ("n = 0 / 0", true),
        ("n = {}", true),
        ("t[2] = 1", true),
        ("t[1] = nil", true),
        ("t.a = {}", true),
        ("table.insert(t.a, 1)", true),
        ("setmetatable(inner, {})", true),
        ("setmetatable(inner, {__metatable = false})", true),
        ("deep[1][1][1] = 1", true),
        ("add = function() end", true),
        ("pcall(function() t.x = 1 error('x') end)", true),
        ("coroutine.wrap(function() n = 5 end)()", true),
        ("n = 1 error('failed')", true),
        ("n = 1 while true do end", true),
    ];
    for (body, leaves) in cases {
        let (mut machine, mut all) = (FunctionMachine::new(MEMORY_MAX).unwrap(), Libraries::default());
        let text = format!("#!lua name=a\n{BEFORE}\nredis.register_function('f', function(keys, args) {body} end)");
        // Whoever reaches something by one function sees what another one has done to it.
        let text = format!("{text}\nredis.register_function('g', function() return reach() end)");
        let library = load(&mut machine, &mut all, &text).expect(body);
        assert!(!machine.leaves_state(&library), "{body}: nothing was called");
        let _ = call(&mut machine, &library, 0, &mut Echo(Some(50)));
        assert_eq!(machine.leaves_state(&library), *leaves, "{body}");
        assert!(!machine.is_altered());
        machine.begin_anew(&library);
        let _ = call(&mut machine, &library, 1, &mut Echo(None));
        assert!(!machine.leaves_state(&library), "{body}: it begins anew");
    }
    for (text, what) in [
        ("local next = ('a b'):gmatch('%a') redis.register_function('f', function() return next() end)", "an iterator"),
        (
            "local t = {0} local x = t[1] / t[1] redis.register_function('f', function() return x end)",
            "what equals nothing",
        ),
        (
            "local t = {} for i = 1, 999 do t[i] = i end redis.register_function('f', function() return t[1] end)",
            "much",
        ),
    ] {
        let (mut machine, mut all) = (FunctionMachine::new(MEMORY_MAX).unwrap(), Libraries::default());
        let library = load(&mut machine, &mut all, &format!("#!lua name=a\n{text}")).expect(what);
        assert!(machine.leaves_state(&library), "{what} is state");
    }
    let (mut machine, mut all) = (FunctionMachine::new(MEMORY_MAX).unwrap(), Libraries::default());
    let text = "#!lua name=a\nredis.register_function('f', function() cjson.encode_max_depth(7) end)";
    let library = load(&mut machine, &mut all, text).unwrap();
    call(&mut machine, &library, 0, &mut Echo(None)).unwrap();
    assert!(!machine.leaves_state(&library) && machine.is_altered(), "all libraries share options");
}

#[test]
fn no_library_changes_what_another_finds() {
    let (mut machine, mut all) = (FunctionMachine::new(MEMORY_MAX).unwrap(), Libraries::default());
    let attacks = [
        "x = 1",
        "_G.x = 1",
        "rawset(_G, 'x', 1)",
        "redis.call = nil",
        "server.call = nil",
        "string.rep = nil",
        "table.insert(redis, 1)",
        "setmetatable(_G, {})",
        "getmetatable(_G).__index = nil",
        "getmetatable(_G).__index(_G, 'x')",
        "getmetatable('').__index = nil",
        "return os",
        "return KEYS",
        "return debug",
        "return getfenv",
        "return loadstring('x = 1')()",
        "redis.register_function('late', function() end)",
    ];
    for attack in attacks {
        let text = format!("#!lua name=a\nredis.register_function('f', function() {attack} end)");
        let library = load(&mut machine, &mut all, &text).expect(attack);
        assert!(call(&mut machine, &library, 0, &mut Echo(None)).is_err(), "{attack}");
    }
    for attack in
        attacks.iter().chain(&["redis.register_function = nil", "redis.x = 1", "local a <const> = redis.call"])
    {
        let text = format!("#!lua name=b\n{attack}\nredis.register_function('g', function() end)");
        // One that registers a function is a library.
        if !attack.starts_with("redis.register_function(") {
            assert!(load(&mut machine, &mut all, &text).is_err(), "{attack}");
        }
    }
    // A reference to the function that registers is of no use later.
    let text = "#!lua name=c\nlocal r = redis.register_function\nr('h', function() return {pcall(r, 'i', r)} end)";
    let library = load(&mut machine, &mut all, text).unwrap();
    let told = call(&mut machine, &library, 0, &mut Echo(None)).unwrap();
    assert!(told.ends_with("|ERR redis.register_function can only be called on FUNCTION LOAD command|"), "{told}");
    let text =
        "#!lua name=d\nredis.register_function('j', function(k) return {redis.call('a', k[1]), _G.x == nil} end)";
    assert!(load(&mut machine, &mut all, text).is_ok());
}

#[test]
fn functions_end_when_they_must_and_take_no_more_than_they_may() {
    let (mut machine, mut all) = (FunctionMachine::new(MEMORY_MAX).unwrap(), Libraries::default());
    let text = "#!lua name=a\nlocal kept = {}\n\
                redis.register_function('endless', function() \
                while true do pcall(function() while true do end end) end end)\n\
                redis.register_function('hoard', function() \
                while true do kept[#kept + 1] = string.rep('x', 1e5) .. #kept end end)\n\
                redis.register_function('waste', function() \
                local s for i = 1, 400 do s = string.rep('x', 1e5) .. i end return #s end)\n\
                redis.register_function('drop', function() local n = #kept kept = {} return n > 100 end)";
    let library = load(&mut machine, &mut all, text).unwrap();
    assert!(call(&mut machine, &library, 0, &mut Echo(Some(100))).is_err());
    for _ in 0..20 {
        machine.limit_memory(MEMORY_MAX).unwrap();
        assert_eq!(call(&mut machine, &library, 2, &mut Echo(None)).unwrap(), ":100003|");
    }
    assert!(call(&mut machine, &library, 1, &mut Echo(None)).unwrap_err().contains("not enough memory"));
    assert!(machine.memory() <= MEMORY_MAX);
    machine.note_state(&library);
    assert!(library.keeps_state.is_so());
    assert_eq!(call(&mut machine, &library, 3, &mut Echo(None)).unwrap(), ":1|", "what a function hoards it can drop");
    machine.limit_memory(MEMORY_MAX).unwrap();
    assert_eq!(call(&mut machine, &library, 2, &mut Echo(None)).unwrap(), ":100003|");
}

#[test]
fn any_thread_may_use_the_machine_and_a_panic_costs_no_more_than_its_state() {
    let functions = Functions::default();
    let mut all = Libraries::default();
    let text = "#!lua name=a\nlocal n = 0 redis.register_function('f', function() n = n + 1 \
                return cjson.encode({n, cjson.decode('[1]')}) end)";
    let library = with_machine(&functions, MEMORY_MAX, |machine| load(machine, &mut all, text)).unwrap().unwrap();
    let called = || with_machine(&functions, MEMORY_MAX, |machine| call(machine, &library, 0, &mut Echo(None)));
    std::thread::scope(|scope| {
        for count in 1..6 {
            let reply = scope.spawn(called).join().unwrap().unwrap();
            assert_eq!(reply, Ok(format!("$7|[{count},[1]]|")));
        }
    });
    assert!(functions.memory_bytes() > 1000);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        with_machine(&functions, MEMORY_MAX, |_| panic!("on purpose"))
    }));
    assert!(died.is_err());
    assert_eq!(called().unwrap(), Ok("$7|[1,[1]]|".into()), "the library is there again");
}
