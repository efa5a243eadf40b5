//! Any bytes for the libraries of scripts: `cjson`, `cmsgpack`, `struct` and `bit` refuse them or make values of them.
//! What they write of such a value, they read again.
//!
//! The first byte chooses the library. For `struct`, the format ends at the first zero.
#![no_main]

mod lua;

use ironkeep::resp::Resp;
use libfuzzer_sys::fuzz_target;

/// Errors that begin so are ours.
const BROKEN: &str = "BROKEN";

const SCRIPTS: &[&str] = &[
    "local ok, value = pcall(cjson.decode, ARGV[1])
     local could, text = pcall(cjson.encode, value)
     if ok and could and not pcall(cjson.decode, text) then error({err = 'BROKEN json'}) end
     return could and text",
    "local json = cjson.new()
     json.decode_invalid_numbers(false) json.encode_invalid_numbers('null') json.encode_sparse_array(true, 1, 1)
     json.decode_max_depth(10) json.encode_max_depth(12)
     local ok, value = pcall(json.decode, ARGV[1])
     return select(2, pcall(json.encode, value))",
    "local all = {pcall(cmsgpack.unpack, ARGV[1])}
     if not all[1] then return 'refused' end
     local packed = cmsgpack.pack(unpack(all, 2))
     if not pcall(cmsgpack.unpack, packed) then error({err = 'BROKEN pack'}) end
     return packed",
    "local at, steps = 0, 0
     repeat
         local ok, next_at = pcall(cmsgpack.unpack_one, ARGV[1], at)
         at, steps = ok and next_at or -1, steps + 1
     until at < 0 or steps > 1000
     pcall(cmsgpack.unpack_limit, ARGV[1], 3, #ARGV[1] % 7)
     return steps",
    "local read = {pcall(struct.unpack, ARGV[1], ARGV[2])}
     pcall(struct.unpack, ARGV[1], ARGV[2], #ARGV[2] % 5 + 1)
     local ok, size = pcall(struct.size, ARGV[1])
     if read[1] then return select(2, pcall(struct.pack, ARGV[1], unpack(read, 2, #read - 1))) end
     return ok and size",
    "local n = tonumber(ARGV[1]) or #ARGV[1] * 2654435761
     return {bit.tobit(n), bit.bnot(n), bit.lshift(n, n), bit.arshift(n, n), bit.rol(n, n), bit.bswap(n),
         bit.tohex(n, n % 20 - 10), redis.sha1hex(ARGV[1]), tostring(n)}",
];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else { return };
    let script = SCRIPTS[usize::from(choice) % SCRIPTS.len()];
    let zero = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let (format, data) = rest.split_at(zero);
    let arguments: &[&[u8]] = if script.contains("struct") { &[format, data] } else { &[rest] };
    if let Err(error) = lua::run(script.as_bytes(), arguments, Resp::V3) {
        assert!(!error.starts_with(BROKEN.as_bytes()), "{}", error.escape_ascii());
    }
});
