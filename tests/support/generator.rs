//! Writes random commands for strings, hashes, lists and keys, good and malformed, on few keys.
//!
//! Expiry times are far ahead or long past, so that nothing depends on the clock.

use super::random::Random;

/// The words of one command.
pub(crate) type Command = Vec<Vec<u8>>;

const KEYS: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "", "key:with:a:long:name", "\u{0}\r\n"];
const HYPERLOGLOGS: &[&str] = &["hll:a", "hll:b", "hll:c"];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "5",
    "10",
    "-10",
    "42",
    "100",
    "-0",
    "01",
    "+1",
    " 1",
    "1.5",
    "abc",
    "",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775806",
    "9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999",
];
const SMALL: &[&str] =
    &["0", "1", "2", "3", "5", "-1", "-2", "-5", "10", "43", "44", "45", "126", "127", "128", "200", "-200", "abc"];
// Sums of these are exact in any order: the logic is compared, not the rounding.
const FLOATS: &[&str] =
    &["0", "0.5", "-0.5", "1.25", "-3", "10", "1e3", "abc", "inf", "nan", "", "+2.5", "0.125", "-100.75"];
// Some are keys of strings, too.
const HASHES: &[&str] = &["hash", "hash", "hash:2", "hash:3", "a", "b"];
const LISTS: &[&str] = &["list", "list", "list:2", "list:3", "a", "b"];
const ELEMENTS: &[&str] = &["", "x", "y", "7", "-3", "07", "9223372036854775807"];
const INDEXES: &[&str] = &["0", "1", "2", "5", "-1", "-2", "-5", "100", "-100", "abc", "9223372036854775807"];
const STREAMS: &[&str] = &["stream:1", "stream:1", "stream:2", "a"];
const GROUPS: &[&str] = &["g", "g", "h", "none"];
const CONSUMERS: &[&str] = &["c", "d", ""];
const FIELDS: &[&str] = &["f1", "f2", "f3", "7", "", "\u{0}\r\n", "f:with:a:longer:name", "-9223372036854775808"];
const VALUES: &[&str] = &[
    "",
    "0",
    "7",
    "-3",
    "12345",
    "9223372036854775807",
    "-9223372036854775808",
    "01",
    "hello",
    "hello world",
    "1.5",
    "10.0",
    "\u{1}\u{0}",
];
const ZSETS: &[&str] = &["zset", "zset", "zset:2", "zset:3", "a", "hash"];
const MEMBERS: &[&str] = &["m1", "m2", "m3", "m4", "m5", "7", "-3", "", "\u{0}\r\n", "m:with:a:longer:name"];
// Halves and quarters: Redis 7.0 prints the digits of others differently. No -0: it depends on the form there.
const SCORES: &[&str] = &["0", "1", "2", "-1", "2.5", "-7.25", "100", "1000000", "inf", "-inf", "abc", "1", "2"];
const SCORE_EDGES: &[&str] = &["0", "1", "(1", "(2", "2.5", "-inf", "+inf", "(inf", "abc", "-7.25", "100"];
const LEX_EDGES: &[&str] = &["-", "+", "[m1", "(m1", "[m3", "(m4", "[", "m", "[7"];
// Thousands of years ahead, or long past.
const TIMES_MS: &[&str] = &["33177117420000", "33177117420123", "44177117420999", "1", "0", "-1", "abc", "1000"];
const TIMES_S: &[&str] = &["33177117420", "33177117421", "44177117420", "1", "0", "-1", "abc"];
const DATABASES: &[&str] = &["0", "0", "0", "1", "2", "15", "16", "-1", "abc"];
const BIT_OFFSETS: &[&str] =
    &["0", "1", "5", "7", "8", "9", "63", "100", "777", "#0", "#3", "#40", "-1", "4294967296", "abc"];
const FIELD_TYPES: &[&str] = &["u1", "i1", "u8", "i8", "u7", "i13", "u32", "u63", "i63", "i64", "u64", "i0", "x8", "u"];
const FLAGS: &[&str] = &["NX", "XX", "GT", "LT", "nx", "FOO"];

/// A source of commands.
#[derive(Debug)]
pub(crate) struct Generator<'a> {
    /// Where the choices come from.
    pub(crate) random: &'a mut Random,
}

impl Generator<'_> {
    fn pick(&mut self, choices: &[&str]) -> Vec<u8> {
        self.random.pick(choices).as_bytes().to_vec()
    }

    fn key(&mut self) -> Vec<u8> {
        self.pick(KEYS)
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(8) {
            0 => vec![b'x'; [43, 44, 45, 126, 127, 128, 129, 255, 256, 1000][self.random.below(10)]],
            1 => self.random.below(1000).to_string().into_bytes(),
            2 => (self.random.next() as i64).to_string().into_bytes(),
            3 => (0..self.random.below(20)).map(|_| self.random.next() as u8).collect(),
            _ => self.pick(VALUES),
        }
    }

    /// A value that fits a small collection.
    fn short_value(&mut self) -> Vec<u8> {
        let mut value = self.value();
        value.truncate(64);
        value
    }

    fn expiry(&mut self) -> Command {
        match self.random.below(4) {
            0 => vec![b"EXAT".to_vec(), self.pick(TIMES_S)],
            1 => vec![b"PXAT".to_vec(), self.pick(TIMES_MS)],
            2 => vec![b"KEEPTTL".to_vec()],
            _ => vec![self.pick(&["PERSIST", "EX", "PX"]), self.pick(&["0", "-1", "abc", ""])],
        }
    }

    /// Every key that a command may name.
    pub(crate) fn all_keys() -> impl Iterator<Item = Vec<u8>> {
        let floats = KEYS.iter().chain(HASHES).map(|key| format!("float:{key}").into_bytes());
        let others = HYPERLOGLOGS.iter().chain(HASHES).chain(LISTS).chain(ZSETS).chain(STREAMS);
        KEYS.iter().chain(others).map(|key| key.as_bytes().to_vec()).chain(floats)
    }

    /// The next command.
    pub(crate) fn command(&mut self) -> Command {
        let mut command = match self.random.below(17) {
            0 => self.set(),
            1 => self.get(),
            2 => self.change(),
            3 => self.count(),
            4 => self.expire(),
            5 => self.move_about(),
            6 => self.bits(),
            7 => self.hyperloglog(),
            8 | 9 => self.hash(),
            10 | 11 => self.zset(),
            12 | 13 => self.list(),
            14 | 15 => self.stream(),
            _ => self.look(),
        };
        // For these, Redis 7.0 overlooks malformed arguments when the key is missing, or has other error texts.
        const UNSPOILT: &[&[u8]] = &[b"BITCOUNT", b"BITPOS", b"ZRANK", b"ZREVRANK", b"XREAD", b"XREADGROUP"];
        if UNSPOILT.contains(&command[0].as_slice()) {
            return command;
        }
        // Occasionally one argument too few or too many, or a lower-case name.
        match self.random.below(60) {
            0 => drop(command.pop()),
            1 => command.push(self.value()),
            2 => command[0].make_ascii_lowercase(),
            _ => {}
        }
        if command.is_empty() { vec![b"PING".to_vec()] } else { command }
    }

    fn words(&mut self, name: &str, arguments: impl IntoIterator<Item = Vec<u8>>) -> Command {
        let mut command = vec![name.as_bytes().to_vec()];
        command.extend(arguments);
        command
    }

    fn set(&mut self) -> Command {
        let (key, value) = (self.key(), self.value());
        match self.random.below(8) {
            0 => self.words("SETNX", [key, value]),
            1 => self.words("GETSET", [key, value]),
            2 => {
                let name = self.random.pick(&["MSET", "MSETNX"]);
                let mut arguments = vec![key, value];
                for _ in 0..self.random.below(4) {
                    arguments.extend([self.key(), self.value()]);
                }
                self.words(name, arguments)
            }
            3 => {
                let name = self.random.pick(&["SETEX", "PSETEX"]);
                let bad = self.pick(&["0", "-1", "abc", "9223372036854775807"]);
                self.words(name, [key, bad, value])
            }
            _ => {
                let mut arguments = vec![key, value];
                for _ in 0..self.random.below(4) {
                    match self.random.below(4) {
                        0 => arguments.push(b"GET".to_vec()),
                        1 => arguments.extend(self.expiry()),
                        2 => arguments.push(self.pick(FLAGS)),
                        _ => arguments.push(self.pick(&["NX", "XX", "KEEPTTL"])),
                    }
                }
                self.words("SET", arguments)
            }
        }
    }

    fn get(&mut self) -> Command {
        let key = self.key();
        match self.random.below(6) {
            0 => self.words("GETDEL", [key]),
            1 => {
                let mut arguments = vec![key];
                for _ in 0..self.random.below(3) {
                    arguments.extend(self.expiry());
                }
                self.words("GETEX", arguments)
            }
            2 => {
                let mut arguments = vec![key];
                arguments.extend((0..self.random.below(20)).map(|_| self.key()).collect::<Vec<_>>());
                self.words("MGET", arguments)
            }
            3 => {
                let name = self.random.pick(&["GETRANGE", "SUBSTR"]);
                let bounds = [self.pick(SMALL), self.pick(SMALL)];
                self.words(name, [vec![key], bounds.to_vec()].concat())
            }
            4 => {
                let other = self.key();
                let mut arguments = vec![key, other];
                for _ in 0..self.random.below(3) {
                    match self.random.below(4) {
                        0 => arguments.extend([b"MINMATCHLEN".to_vec(), self.pick(SMALL)]),
                        _ => arguments.push(self.pick(&["LEN", "IDX", "WITHMATCHLEN"])),
                    }
                }
                self.words("LCS", arguments)
            }
            _ => self.words("GET", [key]),
        }
    }

    fn change(&mut self) -> Command {
        let key = self.key();
        match self.random.below(4) {
            0 => {
                let (at, value) = (self.pick(SMALL), self.value());
                self.words("SETRANGE", [key, at, value])
            }
            1 => {
                let name = self.random.pick(&["DEL", "UNLINK"]);
                let other = self.key();
                self.words(name, [key, other])
            }
            _ => {
                let value = self.value();
                self.words("APPEND", [key, value])
            }
        }
    }

    fn count(&mut self) -> Command {
        let key = self.key();
        match self.random.below(5) {
            0 => self.words("INCR", [key]),
            1 => self.words("DECR", [key]),
            2 => {
                let number = self.pick(FLOATS);
                // Uses its own keys: the rounding of huge numbers has its cases elsewhere.
                let key = [b"float:".to_vec(), key].concat();
                self.words("INCRBYFLOAT", [key, number])
            }
            _ => {
                let name = self.random.pick(&["INCRBY", "DECRBY"]);
                let number = self.pick(NUMBERS);
                self.words(name, [key, number])
            }
        }
    }

    fn bits(&mut self) -> Command {
        let key = self.key();
        match self.random.below(7) {
            0 => {
                let (offset, bit) = (self.pick(BIT_OFFSETS), self.pick(&["0", "1", "1", "1", "2"]));
                self.words("SETBIT", [key, offset, bit])
            }
            1 => {
                let offset = self.pick(BIT_OFFSETS);
                self.words("GETBIT", [key, offset])
            }
            2 => {
                let mut arguments = vec![key];
                if self.random.one_in(2) {
                    arguments.extend(self.bit_range());
                }
                self.words("BITCOUNT", arguments)
            }
            3 => {
                let mut arguments = vec![key, self.pick(&["0", "1"])];
                let range = self.bit_range();
                let given = self.random.below(range.len() + 1);
                arguments.extend(range.into_iter().take(given));
                self.words("BITPOS", arguments)
            }
            4 => {
                let operation = self.pick(&["AND", "OR", "XOR", "not", "NAND"]);
                let mut arguments = vec![operation, key];
                arguments.extend((0..=self.random.below(3)).map(|_| self.key()).collect::<Vec<_>>());
                self.words("BITOP", arguments)
            }
            _ => {
                let name = self.random.pick(&["BITFIELD", "BITFIELD", "BITFIELD", "BITFIELD_RO"]);
                let mut arguments = vec![key];
                for _ in 0..self.random.below(5) {
                    arguments.extend(self.field_operation());
                }
                self.words(name, arguments)
            }
        }
    }

    fn bit_range(&mut self) -> Command {
        let index = &["0", "1", "2", "9", "30", "100", "2000", "-1", "-2", "-9", "-30", "-2000"];
        let mut range = vec![self.pick(index), self.pick(index)];
        if self.random.one_in(2) {
            range.push(self.pick(&["BIT", "BYTE", "bit"]));
        }
        range
    }

    fn field_operation(&mut self) -> Command {
        let (kind, offset) = (self.pick(FIELD_TYPES), self.pick(BIT_OFFSETS));
        let number = self.pick(NUMBERS);
        match self.random.below(6) {
            0 => vec![b"OVERFLOW".to_vec(), self.pick(&["WRAP", "SAT", "FAIL", "sat", "FOO"])],
            1 => vec![b"GET".to_vec(), kind, offset],
            2 => {
                let number = self.random.below(300).to_string().into_bytes();
                vec![b"SET".to_vec(), b"u8".to_vec(), b"#2".to_vec(), number]
            }
            3 => vec![b"INCRBY".to_vec(), b"i8".to_vec(), b"#2".to_vec(), self.pick(SMALL)],
            4 => vec![b"SET".to_vec(), kind, offset, number],
            _ => vec![b"INCRBY".to_vec(), kind, offset, number],
        }
    }

    fn hyperloglog(&mut self) -> Command {
        // Occasionally a string of another kind.
        let key = if self.random.one_in(12) { self.key() } else { self.pick(HYPERLOGLOGS) };
        let other = self.pick(HYPERLOGLOGS);
        match self.random.below(10) {
            0 => self.words("PFCOUNT", [key]),
            1 => self.words("PFCOUNT", [key, other]),
            2 => self.words("PFMERGE", [key, other, b"hll:c".to_vec()]),
            3 => {
                let subcommand = self.pick(&["ENCODING", "DECODE", "decode", "FOO"]);
                self.words("PFDEBUG", [subcommand, key])
            }
            4 => self.words("GET", [key]),
            5 if self.random.one_in(15) => self.words("PFDEBUG", [b"TODENSE".to_vec(), key]),
            6 if self.random.one_in(3) => self.words("DEL", [key]),
            _ => {
                let elements: Command =
                    (0..self.random.below(60)).map(|_| self.random.below(3000).to_string().into_bytes()).collect();
                self.words("PFADD", [vec![key], elements].concat())
            }
        }
    }

    fn expire(&mut self) -> Command {
        let key = self.key();
        match self.random.below(6) {
            0 => self.words("PERSIST", [key]),
            1 => {
                let name = self.random.pick(&["EXPIRETIME", "PEXPIRETIME"]);
                self.words(name, [key])
            }
            kind => {
                let (name, time) = match kind {
                    2 => ("EXPIRE", self.pick(&["0", "-1", "abc", "9223372036854775807"])),
                    3 => ("EXPIREAT", self.pick(TIMES_S)),
                    _ => ("PEXPIREAT", self.pick(TIMES_MS)),
                };
                let mut arguments = vec![key, time];
                for _ in 0..self.random.below(3) {
                    arguments.push(self.pick(FLAGS));
                }
                self.words(name, arguments)
            }
        }
    }

    /// Only on small hashes: the order of a large one is not guaranteed. The id of an entry that may exist: entries
    /// get the next number of the time 2.
    fn stream_id(&mut self) -> Vec<u8> {
        match self.random.below(12) {
            0 => self.pick(&["0", "1", "2", "3", "0-1", "abc", "", "2-*", "$"]),
            _ => format!("2-{}", self.random.below(120)).into_bytes(),
        }
    }

    fn stream_range(&mut self) -> [Vec<u8>; 2] {
        let [mut start, mut end] = [self.stream_id(), self.stream_id()];
        match self.random.below(5) {
            0 => start = b"-".to_vec(),
            1 => end = b"+".to_vec(),
            2 => [start, end] = [b"-".to_vec(), b"+".to_vec()],
            3 => start = [b"(".to_vec(), start].concat(),
            _ => {}
        }
        [start, end]
    }

    fn stream_trim(&mut self) -> Command {
        let mut arguments = vec![self.pick(&["MAXLEN", "MAXLEN", "MINID"])];
        if self.random.one_in(2) {
            arguments.push(self.pick(&["~", "="]));
        }
        arguments.push(self.pick(&["5", "10", "50", "2-20", "0", "-1"]));
        if self.random.one_in(6) {
            arguments.extend([b"LIMIT".to_vec(), self.pick(&["0", "20", "-1"])]);
        }
        arguments
    }

    fn stream(&mut self) -> Command {
        let key = self.pick(STREAMS);
        match self.random.below(16) {
            0..5 => {
                let mut arguments = vec![key];
                if self.random.one_in(8) {
                    arguments.push(b"NOMKSTREAM".to_vec());
                }
                if self.random.one_in(8) {
                    arguments.extend(self.stream_trim());
                }
                arguments.push(if self.random.one_in(8) { self.stream_id() } else { b"2-*".to_vec() });
                for _ in 0..=self.random.below(2) {
                    arguments.extend([self.pick(FIELDS), self.short_value()]);
                }
                self.words("XADD", arguments)
            }
            5 => {
                let arguments = [vec![key, self.stream_id()], vec![self.stream_id()]].concat();
                self.words("XDEL", arguments)
            }
            6 => {
                let arguments = [vec![key], self.stream_trim()].concat();
                self.words("XTRIM", arguments)
            }
            7 => {
                let [start, end] = self.stream_range();
                let (name, from, to) =
                    if self.random.one_in(2) { ("XRANGE", start, end) } else { ("XREVRANGE", end, start) };
                let count = self.pick(&["1", "5", "0", "-1", "200"]);
                self.words(name, [key, from, to, b"COUNT".to_vec(), count])
            }
            8 => {
                let arguments = [key, self.pick(STREAMS), self.stream_id(), self.stream_id()];
                let head = ["COUNT", "3", "STREAMS"].map(|word| word.as_bytes().to_vec());
                self.words("XREAD", head.into_iter().chain(arguments))
            }
            _ => self.stream_group(key),
        }
    }

    fn stream_group(&mut self, key: Vec<u8>) -> Command {
        let (group, consumer) = (self.pick(GROUPS), self.pick(CONSUMERS));
        match self.random.below(9) {
            0 => {
                let [create, from] = [b"CREATE".to_vec(), self.pick(&["0", "$", "2-5", "abc"])];
                self.words("XGROUP", [create, key, group, from, b"MKSTREAM".to_vec()])
            }
            1 => {
                // No CREATECONSUMER, because in Redis 7.0 claims that claim nothing do not create the consumer.
                let what = self.pick(&["DELCONSUMER", "SETID"]);
                self.words("XGROUP", [what, key, group, consumer])
            }
            2..5 => {
                let id = if self.random.one_in(3) { self.stream_id() } else { b">".to_vec() };
                let mut arguments = vec![b"GROUP".to_vec(), group, consumer, b"COUNT".to_vec(), self.pick(&["1", "3"])];
                if self.random.one_in(5) {
                    arguments.push(b"NOACK".to_vec());
                }
                arguments.extend([b"STREAMS".to_vec(), key, id]);
                self.words("XREADGROUP", arguments)
            }
            5 => {
                let arguments = [key, group, self.stream_id(), self.stream_id(), self.stream_id()];
                self.words("XACK", arguments)
            }
            6 => self.words("XPENDING", [key, group]),
            7 => {
                let mut arguments = vec![key, group, consumer, b"0".to_vec(), self.stream_id(), self.stream_id()];
                for _ in 0..self.random.below(3) {
                    arguments.push(self.pick(&["FORCE", "JUSTID", "FOO"]));
                }
                self.words("XCLAIM", arguments)
            }
            _ => {
                let arguments = [key, group, consumer, b"0".to_vec(), self.stream_id(), b"COUNT".to_vec()];
                self.words("XAUTOCLAIM", arguments.into_iter().chain([b"3".to_vec()]).collect::<Vec<_>>())
            }
        }
    }

    fn hash(&mut self) -> Command {
        let (key, field) = (self.pick(HASHES), self.pick(FIELDS));
        match self.random.below(12) {
            0..3 => {
                let name = self.random.pick(&["HSET", "HSET", "HMSET"]);
                let mut arguments = vec![key, field, self.short_value()];
                for _ in 0..self.random.below(4) {
                    arguments.extend([self.pick(FIELDS), self.short_value()]);
                }
                self.words(name, arguments)
            }
            3 => {
                let value = self.short_value();
                self.words("HSETNX", [key, field, value])
            }
            4 => {
                let other = self.pick(FIELDS);
                self.words("HDEL", [key, field, other])
            }
            5 => {
                let number = self.pick(NUMBERS);
                self.words("HINCRBY", [key, field, number])
            }
            6 => {
                let number = self.pick(FLOATS);
                self.words("HINCRBYFLOAT", [[b"float:".to_vec(), key].concat(), field, number])
            }
            7 => {
                let name = self.random.pick(&["HGET", "HEXISTS", "HSTRLEN"]);
                self.words(name, [key, field])
            }
            8 => {
                let fields = [field, self.pick(FIELDS), self.pick(FIELDS)].to_vec();
                self.words("HMGET", [vec![key], fields].concat())
            }
            9 => {
                let name = self.random.pick(&["HGETALL", "HKEYS", "HVALS", "HLEN"]);
                self.words(name, [key])
            }
            10 => {
                // Random draws are compared only where there is no choice.
                let count = self.pick(&["0", "1000", "abc", "9223372036854775807"]);
                let arguments = match self.random.below(3) {
                    0 => vec![b"no such hash".to_vec(), self.pick(&["-1", "5", "abc"])],
                    _ => vec![key, count, self.pick(&["WITHVALUES", "withvalues", "FOO"])],
                };
                self.words("HRANDFIELD", arguments)
            }
            _ => {
                let cursor = self.pick(&["0", "0", "7", "abc"]);
                let mut arguments = vec![key, cursor];
                for _ in 0..self.random.below(3) {
                    match self.random.below(2) {
                        0 => arguments.extend([b"COUNT".to_vec(), self.pick(&["1", "100", "0", "abc"])]),
                        _ => arguments.extend([b"MATCH".to_vec(), self.pick(&["*", "f*", "?"])]),
                    }
                }
                self.words("HSCAN", arguments)
            }
        }
    }

    fn zset(&mut self) -> Command {
        let (key, member, score) = (self.pick(ZSETS), self.pick(MEMBERS), self.pick(SCORES));
        match self.random.below(14) {
            0..4 => {
                let mut arguments = vec![key];
                for _ in 0..self.random.below(3) {
                    arguments.push(self.pick(&["NX", "XX", "GT", "LT", "CH", "CH", "INCR"]));
                }
                arguments.extend([score, member]);
                for _ in 0..self.random.below(4) {
                    arguments.extend([self.pick(SCORES), self.pick(MEMBERS)]);
                }
                self.words("ZADD", arguments)
            }
            4 => self.words("ZINCRBY", [key, score, member]),
            5 => {
                let other = self.pick(MEMBERS);
                self.words("ZREM", [key, member, other])
            }
            6 => {
                let name = self.random.pick(&["ZSCORE", "ZRANK", "ZREVRANK", "ZMSCORE"]);
                self.words(name, [key, member])
            }
            7 => {
                let name = self.random.pick(&["ZPOPMIN", "ZPOPMAX"]);
                let count = self.pick(SMALL);
                self.words(name, [key, count])
            }
            8 => self.zset_slice(key),
            9 => {
                let name = self.random.pick(&["ZREMRANGEBYSCORE", "ZCOUNT"]);
                let edges = [self.pick(SCORE_EDGES), self.pick(SCORE_EDGES)];
                self.words(name, [vec![key], edges.to_vec()].concat())
            }
            10 => {
                let name = self.random.pick(&["ZREMRANGEBYRANK", "ZRANGE", "ZREVRANGE"]);
                let bounds = [self.pick(SMALL), self.pick(SMALL)];
                self.words(name, [vec![key], bounds.to_vec()].concat())
            }
            11 => self.words("ZRANGE", [key, b"0".to_vec(), b"-1".to_vec(), b"WITHSCORES".to_vec()]),
            _ => self.zset_algebra(key),
        }
    }

    fn zset_slice(&mut self, key: Vec<u8>) -> Command {
        let mut arguments = vec![key];
        let name = match self.random.below(3) {
            // Between members of unequal scores nothing is guaranteed, except that the words are understood.
            0 => {
                arguments[0] = b"none".to_vec();
                arguments.extend([self.pick(LEX_EDGES), self.pick(LEX_EDGES)]);
                self.random.pick(&["ZRANGEBYLEX", "ZREVRANGEBYLEX", "ZLEXCOUNT"])
            }
            _ => {
                arguments.extend([self.pick(SCORE_EDGES), self.pick(SCORE_EDGES)]);
                self.random.pick(&["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"])
            }
        };
        if self.random.one_in(2) {
            arguments.push(b"WITHSCORES".to_vec());
        }
        if self.random.one_in(2) {
            arguments.extend([b"LIMIT".to_vec(), self.pick(SMALL), self.pick(SMALL)]);
        }
        self.words(name, arguments)
    }

    fn zset_algebra(&mut self, key: Vec<u8>) -> Command {
        let (one, other) = (self.pick(ZSETS), self.pick(ZSETS));
        if self.random.one_in(4) {
            let words = [self.pick(SCORE_EDGES), self.pick(SCORE_EDGES), b"BYSCORE".to_vec()];
            return self.words("ZRANGESTORE", [vec![key, one], words.to_vec()].concat());
        }
        let name = self.random.pick(&["ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE", "ZUNION", "ZINTER", "ZDIFF"]);
        let mut arguments = vec![b"2".to_vec(), one, other];
        if name.ends_with("STORE") {
            arguments.insert(0, key);
        }
        match self.random.below(4) {
            0 => arguments.extend([b"WEIGHTS".to_vec(), self.pick(SCORES), self.pick(SCORES)]),
            1 => arguments.extend([b"AGGREGATE".to_vec(), self.pick(&["SUM", "MIN", "MAX", "FOO"])]),
            2 => arguments.push(b"WITHSCORES".to_vec()),
            _ => {}
        }
        self.words(name, arguments)
    }

    fn element(&mut self) -> Vec<u8> {
        if self.random.one_in(8) { self.value() } else { self.pick(ELEMENTS) }
    }

    fn list(&mut self) -> Command {
        let key = self.pick(LISTS);
        match self.random.below(16) {
            0..5 => {
                let name = self.random.pick(&["LPUSH", "RPUSH", "RPUSH", "LPUSHX", "RPUSHX"]);
                let elements: Command = (0..=self.random.below(4)).map(|_| self.element()).collect();
                self.words(name, [vec![key], elements].concat())
            }
            5 => {
                let name = self.random.pick(&["LPOP", "RPOP"]);
                let mut arguments = vec![key];
                if self.random.one_in(2) {
                    arguments.push(self.pick(&["0", "1", "2", "3", "-1", "abc"]));
                }
                self.words(name, arguments)
            }
            6 => {
                let name = self.random.pick(&["LRANGE", "LRANGE", "LTRIM"]);
                let bounds = [self.pick(INDEXES), self.pick(INDEXES)];
                self.words(name, [vec![key], bounds.to_vec()].concat())
            }
            7 => {
                let index = self.pick(INDEXES);
                self.words("LINDEX", [key, index])
            }
            8 => {
                let (index, element) = (self.pick(INDEXES), self.element());
                self.words("LSET", [key, index, element])
            }
            9 => {
                let place = self.pick(&["BEFORE", "AFTER", "after", "FOO"]);
                let (pivot, element) = (self.element(), self.element());
                self.words("LINSERT", [key, place, pivot, element])
            }
            10 => {
                let (count, element) = (self.pick(INDEXES), self.element());
                self.words("LREM", [key, count, element])
            }
            11 | 12 => self.list_position(key),
            13 | 14 => self.list_move(key),
            _ => self.words("LLEN", [key]),
        }
    }

    fn list_position(&mut self, key: Vec<u8>) -> Command {
        let mut arguments = vec![key, self.element()];
        for _ in 0..self.random.below(3) {
            let option = self.pick(&["RANK", "COUNT", "MAXLEN", "rank", "FOO"]);
            arguments.extend([option, self.pick(INDEXES)]);
        }
        self.words("LPOS", arguments)
    }

    fn list_move(&mut self, key: Vec<u8>) -> Command {
        let other = self.pick(LISTS);
        let ends = ["LEFT", "RIGHT", "left", "RIGHT", "LEFT", "FOO"];
        match self.random.below(3) {
            0 => self.words("RPOPLPUSH", [key, other]),
            1 => {
                let (from, to) = (self.pick(&ends), self.pick(&ends));
                self.words("LMOVE", [key, other, from, to])
            }
            _ => {
                let mut arguments =
                    vec![self.pick(&["2", "2", "2", "1", "0", "3", "abc"]), key, other, self.pick(&ends)];
                if self.random.one_in(2) {
                    arguments.extend([b"COUNT".to_vec(), self.pick(&["1", "2", "10", "0", "abc"])]);
                }
                self.words("LMPOP", arguments)
            }
        }
    }

    fn move_about(&mut self) -> Command {
        let (key, other) = (self.key(), self.key());
        match self.random.below(14) {
            0..4 => {
                let name = self.random.pick(&["RENAME", "RENAMENX"]);
                self.words(name, [key, other])
            }
            4..8 => {
                let mut arguments = vec![key, other];
                for _ in 0..self.random.below(3) {
                    match self.random.below(2) {
                        0 => arguments.push(b"REPLACE".to_vec()),
                        _ => arguments.extend([b"DB".to_vec(), self.pick(DATABASES)]),
                    }
                }
                self.words("COPY", arguments)
            }
            8..10 => {
                let database = self.pick(DATABASES);
                self.words("MOVE", [key, database])
            }
            10 => {
                let databases = [self.pick(DATABASES), self.pick(DATABASES)];
                self.words("SWAPDB", databases)
            }
            11 if self.random.one_in(20) => {
                let name = self.random.pick(&["FLUSHDB", "FLUSHALL"]);
                let mode = self.pick(&["SYNC", "ASYNC", "FOO"]);
                self.words(name, [mode])
            }
            _ => {
                let database = self.pick(DATABASES);
                self.words("SELECT", [database])
            }
        }
    }

    fn look(&mut self) -> Command {
        let key = self.key();
        match self.random.below(8) {
            0 => self.words("DBSIZE", []),
            1 => self.words("TYPE", [key]),
            2 => self.words("STRLEN", [key]),
            3 => self.words("OBJECT", [b"ENCODING".to_vec(), key]),
            4 => {
                let pattern = self.pick(&["*", "?", "[a-c]", "[^a]", "key*", "f*"]);
                self.words("KEYS", [pattern])
            }
            5 => {
                let type_name = self.pick(&["string", "hash", "list"]);
                let head = ["0", "COUNT", "1000", "TYPE"].map(|word| word.as_bytes().to_vec());
                self.words("SCAN", [head.to_vec(), vec![type_name]].concat())
            }
            6 => {
                let name = self.random.pick(&["EXISTS", "TOUCH"]);
                let keys = [key, self.key(), self.key()];
                self.words(name, keys)
            }
            _ => self.words("ECHO", [key]),
        }
    }
}
