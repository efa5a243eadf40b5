//! Tests of the engine with a host that answers from a list.

use std::sync::Arc;

use super::{Access, Failure, Flow, Host, LogLevel, Run, WORKER_STACK_BYTES, source, with_vm};
use crate::core::scripts::{Script, Sha};
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Output, Reply, Resp};

/// Echoes its arguments, and stops a script after so many questions.
#[derive(Default)]
struct Echo {
    calls: Vec<String>,
    asked: u64,
    stop_after: Option<u64>,
}

impl Host for Echo {
    fn call(&mut self, args: Args<'_>, resp: Resp, out: &mut Output) -> Flow {
        self.calls.push(args.from(0).map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" "));
        match args.at(0) {
            b"fail" => out.error_bytes(b"ERR on purpose"),
            b"null" => drop(Reply::new(out, resp).null()),
            b"raw" => out.raw(args.at(1)),
            _ => drop(Reply::new(out, resp).bulk(args.at(args.len() - 1))),
        }
        Flow::GoesOn
    }

    fn may(&self, _: Args<'_>) -> Access {
        Access::Unknown
    }

    fn log(&mut self, _: LogLevel, _: &str) {}

    fn stop(&mut self) -> Option<&'static str> {
        self.asked += 1;
        self.stop_after.filter(|after| self.asked > *after).map(|_| "stopped")
    }
}

/// Runs on a stack as large as a worker's.
fn run_with(host: &mut Echo, text: &str) -> Result<String, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(WORKER_STACK_BYTES);
        thread.spawn_scoped(scope, || run_here(host, text)).unwrap().join().unwrap()
    })
}

fn run_here(host: &mut Echo, text: &str) -> Result<String, String> {
    run_within(host, text, 64 << 20)
}

/// With this much memory.
fn run_within(host: &mut Echo, text: &str, memory_max: usize) -> Result<String, String> {
    let body: Box<[u8]> = text.as_bytes().into();
    let script = Arc::new(Script::new(Sha::of(&body), body.clone(), source::read(&body).unwrap()));
    let mut out = Output::new();
    let words = OwnedArgs::new([&b"k1"[..], b"k2", b"a1"].into_iter());
    let run = Run { script: &script, args: words.args(), keys_at: 0, keys_count: 2, resp: Resp::V2, memory_max };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "|");
    match with_vm(0, |vm| vm.run(run, host, &mut out)).unwrap() {
        Ok(()) => Ok(text(out.as_bytes())),
        Err(Failure::Compile(error) | Failure::Error(error) | Failure::OfCommand(error)) => {
            let error = text(&error);
            Err(error.split(" script: ").next().unwrap_or_default().to_owned())
        }
        Err(Failure::Engine(error)) => Err(format!("engine: {error}")),
    }
}

fn run(text: &str) -> Result<String, String> {
    run_with(&mut Echo::default(), text)
}

#[track_caller]
fn gives(text: &str, reply: &str) {
    assert_eq!(run(text).as_deref(), Ok(reply), "{text}");
}

#[track_caller]
fn fails(text: &str, error: &str) {
    assert_eq!(run(text).expect_err(text), error, "{text}");
}

#[test]
fn values_become_replies() {
    gives("return 'x'", "$1|x|");
    gives("return 3.99", ":3|");
    gives("return true", ":1|");
    gives("return {1, 'a', {2}, nil, 5}", "*3|:1|$1|a|*1|:2|");
    gives("return {ok='fine'}", "+fine|");
    gives("return {err='X bad'}", "-X bad|");
    gives("return redis.error_reply('bad')", "-ERR bad|");
    gives("return redis.error_reply('-X bad')", "-X bad|");
    gives("return {double=1.5}", "$3|1.5|");
    gives("return KEYS", "*2|$2|k1|$2|k2|");
    gives("return #ARGV .. ARGV[1]", "$3|1a1|");
    gives("return redis.call('null')", "$-1|");
    gives("redis.setresp(3) return redis.call('raw', '%1\\r\\n+a\\r\\n:1\\r\\n').map", "*0|");
    gives("redis.setresp(3) return redis.call('raw', '%1\\r\\n$1\\r\\na\\r\\n:1\\r\\n').map.a", ":1|");
}

#[test]
fn errors_have_the_place_and_the_words_of_redis() {
    fails("return foo", "ERR user_script:1: Script attempted to access nonexistent global variable 'foo'");
    fails("foo = 1", "ERR user_script:1: Attempt to modify a readonly table");
    fails("string.x = 1", "ERR user_script:1: Attempt to modify a readonly table");
    fails("redis.call('fail')", "ERR on purpose");
    fails("error('x')", "ERR user_script:1: x");
    fails("error({err='MY thing'})", "MY thing");
    fails("\n\nlocal a; return a.b", "ERR user_script:3: attempt to index nil with 'b'");
    fails("redis.call()", "ERR Please specify at least one argument for this redis lib call");
    fails("redis.call('a', {})", "ERR Lua redis lib command arguments must be strings or integers");
    fails("return cjson.decode('nope')", "ERR user_script:1: Expected value but found invalid token at character 1");
    fails("return bit.band('a')", "ERR user_script:1: bad argument #1 to 'band' (number expected, got string)");
    gives("return {pcall(redis.call, 'fail')}", "*2|$-1|$14|ERR on purpose|");
    gives("return redis.pcall('fail').err", "$14|ERR on purpose|");
    gives("return redis.pcall('fail')", "-ERR on purpose|");
    assert!(run("local x =").unwrap_err().starts_with("ERR Error compiling script (new function): user_script:1:"));
}

#[test]
fn nothing_is_left_for_the_next_script() {
    // All on one thread, so in one machine.
    let gives =
        |text: &str, reply: &str| assert_eq!(run_here(&mut Echo::default(), text).as_deref(), Ok(reply), "{text}");
    let fails =
        |text: &str, error: &str| assert_eq!(run_here(&mut Echo::default(), text).expect_err(text), error, "{text}");
    fails("KEYS = 1", "ERR user_script:1: Attempt to modify a readonly table");
    gives(
        "KEYS[1] = 'mine' KEYS[5] = 1 setmetatable(ARGV, {__index = function() return 1 end}) return KEYS[1]",
        "$4|mine|",
    );
    gives("return {KEYS[1], ARGV[1], KEYS[5] == nil, ARGV[2] == nil}", "*4|$2|k1|$2|a1|:1|:1|");
    gives("cjson.encode_max_depth(5) return 1", ":1|");
    gives("return cjson.encode_max_depth()", ":1000|");
    for name in ["print", "getfenv", "setfenv", "newproxy", "require", "debug", "buffer", "dofile"] {
        fails(
            &format!("return {name}"),
            &format!("ERR user_script:1: Script attempted to access nonexistent global variable '{name}'"),
        );
    }
    for attack in [
        "getmetatable('').__index = 1",
        "getmetatable('').__gc = 1",
        "rawset(_G, 'x', 1)",
        "rawset(redis, 'call', 1)",
        "setmetatable(_G, {})",
        "table.insert(redis, 1)",
        "getmetatable(_G).__index = nil",
    ] {
        assert!(run_here(&mut Echo::default(), attack).is_err(), "{attack}");
    }
    gives("return redis.call('a', 'still')", "$5|still|");
}

#[test]
fn a_script_ends_when_it_must_whatever_it_does() {
    for text in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local function f() pcall(f) f() end while true do pcall(f) end",
        "return xpcall(function() while true do end end, function() while true do end end)",
        "return string.find(string.rep('a', 100000), string.rep('a?', 40) .. string.rep('a', 50000) .. 'b')",
        "repeat local t = setmetatable({}, {__index = function(t, k) return t[k .. 'x'] end}) pcall(function() return t.a end) until false",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    ] {
        let mut host = Echo { stop_after: Some(100), ..Echo::default() };
        assert!(run_with(&mut host, text).is_err(), "{text}");
        assert!(host.asked > 100, "{text}: {}", host.asked);
    }
    gives("return 1", ":1|");
}

/// The machine stays, full of garbage, and so full that not even a text could be compiled.
#[test]
fn a_script_that_had_no_memory_leaves_it_to_the_next() {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(WORKER_STACK_BYTES);
        let ran = thread.spawn_scoped(scope, || {
            for size in [1, 7, 30, 100, 1000, 20_000] {
                let grows = format!("local t = {{}} for i = 1, 1e7 do t[i] = string.rep('x', {size}) .. i end");
                let error = run_within(&mut Echo::default(), &grows, 8 << 20).unwrap_err();
                assert!(error.contains("not enough memory"), "{error}");
                let text = format!("return {size}");
                assert_eq!(run_within(&mut Echo::default(), &text, 8 << 20), Ok(format!(":{size}|")));
            }
        });
        ran.unwrap().join().unwrap();
    });
}

#[test]
fn memory_and_depth_are_bounded() {
    for text in [
        "local t = {} while true do t[#t + 1] = string.rep('x', 1e6) .. #t end",
        "local s = 'x' while true do s = s .. s end",
        "return string.rep('x', 2e9)",
        "local function f() return 1 + f() end return f()",
        "return unpack({}, 1, 1e8)",
        "return unpack({}, 0, 2^31 - 1)",
        "return string.format('%99999d', 1)",
        "return cjson.decode(string.rep('[', 2000))",
        "local t = {} for i = 1, 2000 do t = {t} end return cjson.encode(t)",
        "return cmsgpack.unpack(string.rep('\\145', 100000))",
        "return struct.unpack('i4', 'a')",
        "return struct.pack('i2147483648', 1)",
        "return struct.unpack('c2147483647', 'a')",
    ] {
        let error = run(text).expect_err(text);
        assert!(!error.is_empty(), "{text}");
    }
    let nested = "local t = {} for i = 1, 100000 do t = {t} end return t";
    assert!(run(nested).unwrap().ends_with("-ERR reached lua stack limit|"));
    gives("return 1", ":1|");
}

#[test]
fn libraries_do_what_those_of_redis_do() {
    gives("return cjson.encode({1, 2, {a = 1}})", "$13|[1,2,{\"a\":1}]|");
    gives("return cjson.encode('\\1\\127/\"')", "$18|\"\\u0001\\u007f\\/\\\"\"|");
    gives("return cjson.encode({[1] = 1, [3] = 3})", "$10|[1,null,3]|");
    gives("return cjson.encode(0.1) .. cjson.encode(1e15) .. cjson.encode({})", "$10|0.11e+15{}|");
    gives("return cjson.decode('{\"a\":[1,2,null]}').a", "*3|:1|:2|$-1|");
    gives("return cjson.decode('[\"\\\\ud83d\\\\ude00\"]')[1]", "$4|\u{1f600}|");
    gives("return cjson.decode('0x10')", ":16|");
    gives("return {cmsgpack.unpack(cmsgpack.pack(1, 'a', {1, 2}, true, -5, 1.5))}", "*6|:1|$1|a|*2|:1|:2|:1|:-5|:1|");
    gives("return cmsgpack.pack(200) == '\\204\\200'", ":1|");
    gives("return {struct.unpack('<I2', '\\1\\0\\2')}", "*2|:1|:3|");
    gives("return struct.size('i4i8!8d')", ":24|");
    gives("return struct.pack('>I2', 258) == '\\1\\2'", ":1|");
    gives("return {bit.tobit(0xffffffff), bit.lshift(1, 33), bit.bswap(1)}", "*3|:-1|:2|:16777216|");
    gives("return bit.tohex(255, -4)", "$4|00FF|");
    gives("math.randomseed(0) return {math.random(1, 100), math.random(100)}", "*2|:18|:75|");
    gives("return redis.sha1hex('')", "$40|da39a3ee5e6b4b0d3255bfef95601890afd80709|");
    gives("return loadstring('return 1 + 1')()", ":2|");
    gives("return {loadstring('x x')}", "*0|");
    gives("return type(os.clock())", "$6|number|");
}

/// What has broken other engines of Lua: each ends with a value or an error, and the machine goes on.
#[test]
fn known_attacks_fail() {
    for (text, reply) in [
        // The parser: deep nesting, long brackets, garbage collected under it.
        ("return loadstring(string.rep('(', 1e5)) == nil", ":1|"),
        ("return loadstring('return ' .. string.rep('{', 1e5)) == nil", ":1|"),
        ("return loadstring('x = [' .. string.rep('=', 1e6) .. '[') == nil", ":1|"),
        ("return loadstring('--[' .. string.rep('=', 1e6) .. '[') == nil", ":1|"),
        ("return #loadstring('return [' .. string.rep('=', 1e5) .. '[x]' .. string.rep('=', 1e5) .. ']')()", ":1|"),
        ("for i = 1, 300 do loadstring('local a' .. i .. ' = ' .. string.rep('x', 1e4)) end return 1", ":1|"),
        ("return pcall(loadstring, '\\27Lua')", ":1|"),
        // Numbers of values and of elements.
        ("return pcall(unpack, {}, -2^31, 2^31 - 1) == false", ":1|"),
        ("return pcall(string.char, unpack({}, 1, 7000)) == false", ":1|"),
        ("return pcall(table.create, 2^31) == false", ":1|"),
        ("return pcall(table.concat, {}, 'x', 1, 2^30) == false", ":1|"),
        ("return pcall(string.rep, 'x', 2^31 - 1) == false", ":1|"),
        ("return pcall(string.format, '%' .. string.rep('9', 400) .. 'd', 1) == false", ":1|"),
        ("return pcall(table.sort, {3, 1, 2, 5, 4, 9, 8}, function() return true end) ~= nil", ":1|"),
        // Recursion through functions of the engine.
        ("local function f() return coroutine.wrap(f)() end return pcall(f) == false", ":1|"),
        ("local function f() return (string.gsub('a', 'a', f)) end return pcall(f) == false", ":1|"),
        (
            "local t = setmetatable({}, {}) getmetatable(t).__index = t return pcall(function() return t.x end) == false",
            ":1|",
        ),
        ("return xpcall(error, function(e) error(e) end) == false", ":1|"),
        ("local t = {} t[1] = t return pcall(cjson.encode, t) == false", ":1|"),
        ("local t = {} t[1] = t return #cmsgpack.pack(t) > 0", ":1|"),
        // Lengths that are not there.
        ("return pcall(cmsgpack.unpack, '\\221\\255\\255\\255\\255') == false", ":1|"),
        ("return pcall(cmsgpack.unpack, '\\219\\255\\255\\255\\255x') == false", ":1|"),
        ("return pcall(cmsgpack.unpack_limit, 'x', 2^31, 2^31) == false", ":1|"),
        ("return pcall(struct.unpack, 'I2147483647', 'x') == false", ":1|"),
        ("return pcall(struct.pack, '!2147483647 i4', 1) == false", ":1|"),
        ("return pcall(struct.unpack, 'i4', 'abcd', -2^31) == false", ":1|"),
        ("return pcall(cjson.decode, '\"\\\\u') == false", ":1|"),
        ("return bit.lshift(1, 2^40) ~= nil", ":1|"),
        // What scripts share.
        ("return pcall(setmetatable, getmetatable(''), {}) == false", ":1|"),
        ("return pcall(rawset, string, 'rep', 1) == false", ":1|"),
        ("return pcall(rawset, getmetatable(''), '__index', 1) == false", ":1|"),
        ("return pcall(table.insert, cjson, 1) == false", ":1|"),
        ("return pcall(function() KEYS.__index = KEYS setmetatable(string, KEYS) end) == false", ":1|"),
    ] {
        gives(text, reply);
    }
    gives("return ('x'):rep(3) .. #KEYS", "$4|xxx2|");
}
