//! LCS: the longest common subsequence of two strings.
//!
//! Redis fills a table of 4 bytes per cell, where `L[i][j]` is the length for the first `i` and `j` bytes, and walks
//! back through it. Neighbours in a row differ by 0 or 1, so one bit per cell is enough. A whole row follows from the
//! previous one by an addition and three logical operations on words of 64 cells (Crochemore, Hyyrö). A table with
//! the same limits takes a 32nd of the memory and of the time.
//!
//! ```text
//! a bit of row i at column j is 0  ⇔  L[i][j+1] = L[i][j] + 1
//! row 0 = all ones
//! row i = (row + (row & mask)) | (row & !mask)      mask: where b has the byte a[i-1]
//! ```
//!
//! On the way back, at cells that do not match, Redis goes up if `L[i-1][j] > L[i][j-1]`. That holds exactly if
//! `L[i][j] = L[i][j-1] + 1`, which is the bit itself.
//!
//! Invariant: the limits, and which of several longest subsequences is given, are those of Redis.

use super::{STRING, len, text};
use crate::core::args::is;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, Words, flags};
use crate::resp::{Elements, Reply};

/// The bytes of one cell in Redis' table, from which its limit is computed.
const REDIS_CELL_BYTES: u64 = 4;
/// Strings of this length or longer are refused.
const LEN_LIMIT: u64 = u32::MAX as u64 - 1;

pub(super) static LCS: Command = Command {
    name: "LCS",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY,
    keys: Keys(&[KeySpec::range(1, 1, 1, "RO access")]),
    handler: Handler::Data(lcs),
    since: "7.0.0",
    complexity: "O(N*M) where N and M are the lengths of the strings.",
    syntax: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    summary: "Gives the longest common subsequence of two strings, its length, or where its pieces are.",
    ..STRING
};

#[derive(Default)]
struct Options {
    only_len: bool,
    indices: bool,
    with_len: bool,
    len_min: i64,
}

impl Options {
    fn parse(mut words: Words<'_>) -> Result<Self, CommandError> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            if is(word, "IDX") {
                options.indices = true;
            } else if is(word, "LEN") {
                options.only_len = true;
            } else if is(word, "WITHMATCHLEN") {
                options.with_len = true;
            } else if is(word, "MINMATCHLEN") {
                options.len_min = words.integer()?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if options.indices && options.only_len {
            let text = "ERR If you want both the length and indexes, please just use IDX.";
            return Err(CommandError::Text(text));
        }
        Ok(options)
    }
}

fn lcs(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let keys = [call.key(1), call.key(2)];
    // Both are looked up, even if the first is of another type.
    let lengths = keys.map(|key| call.db.string(key).map(|value| value.map_or(0, len) as u64));
    let [Ok(one), Ok(other)] = lengths else {
        return Err(CommandError::Text("ERR The specified keys must contain string values"));
    };
    let lengths = [one, other];
    let options = Options::parse(Words::new(call.args, 3))?;
    check_limits(lengths, call.db.facts().string_max_bytes)?;
    let a = copy(call, 0)?;
    let b = copy(call, 1)?;
    if options.only_len {
        return Ok(reply.int(Table::fill(&a, &b, false)?.len() as i64));
    }
    let table = Table::fill(&a, &b, true)?;
    let matches = table.matches(&a, &b);
    if !options.indices {
        let common: Vec<u8> = matches.iter().rev().flat_map(|m| &a[m.a..m.a + m.len]).copied().collect();
        return Ok(reply.bulk(&common));
    }
    let mut map = reply.map(2);
    map.bulk(b"matches");
    let shown: Vec<&Match> = matches.iter().filter(|m| m.len as i64 >= options.len_min).collect();
    let mut list = map.array(shown.len());
    for found in shown {
        found.write(&mut list, options.with_len);
    }
    list.end();
    map.bulk(b"len");
    map.int(table.len() as i64);
    Ok(map.done())
}

fn check_limits(lengths: [u64; 2], string_max_bytes: u64) -> Result<(), CommandError> {
    let [a, b] = lengths;
    if a >= LEN_LIMIT || b >= LEN_LIMIT {
        return Err(CommandError::Text("ERR String too long for LCS"));
    }
    let table_bytes = ((a + 1) * (b + 1)).checked_mul(REDIS_CELL_BYTES).ok_or(NO_MEMORY)?;
    if table_bytes > string_max_bytes {
        return Err(CommandError::Text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"));
    }
    Ok(())
}

const NO_MEMORY: CommandError =
    CommandError::Text("ERR Insufficient memory, failed allocating transient memory for LCS");

/// Copies the string at the key number `index`, because two values cannot be borrowed at once.
fn copy(call: &mut Call<'_>, index: usize) -> Result<Vec<u8>, CommandError> {
    let key = call.key(1 + index);
    let value = call.db.string_to_change(key)?;
    Ok(value.map_or_else(Vec::new, |value| text(value, &mut itoa::Buffer::new()).to_vec()))
}

/// A maximal run that both strings share.
#[derive(Debug, PartialEq)]
struct Match {
    /// Where it begins in the first string.
    a: usize,
    /// Where it begins in the second string.
    b: usize,
    len: usize,
}

impl Match {
    fn write(&self, list: &mut Elements<'_>, with_len: bool) {
        let mut found = list.array(2 + usize::from(with_len));
        for start in [self.a, self.b] {
            let mut range = found.array(2);
            range.int(start as i64);
            range.int((start + self.len - 1) as i64);
            range.end();
        }
        if with_len {
            found.int(self.len as i64);
        }
        found.end();
    }
}

/// The rows of the table, or only the last of them.
struct Table {
    /// Words in a row.
    width: usize,
    /// Row by row from row 1 on. The bits above the last column are ones.
    rows: Vec<u64>,
}

impl Table {
    fn fill(a: &[u8], b: &[u8], keep_rows: bool) -> Result<Table, CommandError> {
        let width = b.len().div_ceil(64);
        let masks = Masks::new(a, b, width)?;
        let mut row = words(width, u64::MAX)?;
        let mut rows = Vec::new();
        if keep_rows {
            rows.try_reserve_exact(width * a.len()).map_err(|_| NO_MEMORY)?;
        }
        for &byte in a {
            step(&mut row, masks.of(byte));
            if keep_rows {
                rows.extend_from_slice(&row);
            }
        }
        Ok(Table { width, rows: if keep_rows && !a.is_empty() { rows } else { row } })
    }

    /// The length of the longest common subsequence.
    fn len(&self) -> usize {
        let last = &self.rows[self.rows.len() - self.width..];
        last.iter().map(|word| word.count_zeros() as usize).sum()
    }

    /// Whether the cell is one larger than its neighbour to the left.
    fn grows(&self, i: usize, j: usize) -> bool {
        let word = self.rows[(i - 1) * self.width + (j - 1) / 64];
        word >> ((j - 1) % 64) & 1 == 0
    }

    /// Walks back through the table. Returns the runs, last first.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut matches = Vec::new();
        let (mut i, mut j) = (a.len(), b.len());
        let mut len = 0;
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j, len) = (i - 1, j - 1, len + 1);
                continue;
            }
            if len > 0 {
                matches.push(Match { a: i, b: j, len });
                len = 0;
            }
            if self.grows(i, j) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        if len > 0 {
            matches.push(Match { a: i, b: j, len });
        }
        matches
    }
}

/// The next row of the table.
fn step(row: &mut [u64], mask: &[u64]) {
    let mut carry = false;
    for (word, &mask) in row.iter_mut().zip(mask) {
        let (sum, over) = word.overflowing_add(*word & mask);
        let (sum, over_by_carry) = sum.overflowing_add(u64::from(carry));
        carry = over || over_by_carry;
        *word = sum | (*word & !mask);
    }
}

/// For each byte of one string, its positions in the other: one bit per column.
struct Masks {
    width: usize,
    /// By byte: its number among the different bytes of the first string.
    numbers: [Option<u8>; 256],
    words: Vec<u64>,
}

impl Masks {
    fn new(a: &[u8], b: &[u8], width: usize) -> Result<Masks, CommandError> {
        let mut numbers = [None; 256];
        let mut different = 0;
        for &byte in a {
            if numbers[usize::from(byte)].is_none() {
                numbers[usize::from(byte)] = Some(different as u8);
                different += 1;
            }
        }
        let mut masks = Masks { width, numbers, words: words(width * different, 0)? };
        for (column, &byte) in b.iter().enumerate() {
            if let Some(number) = masks.numbers[usize::from(byte)] {
                masks.words[usize::from(number) * width + column / 64] |= 1 << (column % 64);
            }
        }
        Ok(masks)
    }

    /// The mask of a byte of the first string.
    fn of(&self, byte: u8) -> &[u64] {
        let number = self.numbers[usize::from(byte)].map_or(0, usize::from);
        &self.words[number * self.width..(number + 1) * self.width]
    }
}

fn words(count: usize, fill: u64) -> Result<Vec<u64>, CommandError> {
    let mut words = Vec::new();
    words.try_reserve_exact(count).map_err(|_| NO_MEMORY)?;
    words.resize(count, fill);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;
    use crate::exec::testing::Runner;
    use crate::resp::Resp;

    /// Redis' own algorithm: the table of lengths, and the walk back through it.
    fn by_the_book(a: &[u8], b: &[u8]) -> (usize, Vec<Match>) {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                table[i][j] = match a[i - 1] == b[j - 1] {
                    true => table[i - 1][j - 1] + 1,
                    false => table[i - 1][j].max(table[i][j - 1]),
                };
            }
        }
        let mut matches: Vec<Match> = Vec::new();
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                match matches.last_mut() {
                    Some(last) if last.a == i + 1 && last.b == j + 1 => {
                        (last.a, last.b, last.len) = (i, j, last.len + 1)
                    }
                    _ => matches.push(Match { a: i, b: j, len: 1 }),
                }
            } else if table[i - 1][j] > table[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        (table[a.len()][b.len()], matches)
    }

    #[test]
    fn the_bits_say_what_the_table_of_lengths_says() {
        let mut random = Random::from_seed(11);
        for _ in 0..600 {
            let letters = [1, 2, 4, 256][random.index(4)];
            let mut string = |len_max| -> Vec<u8> {
                let len = random.below(len_max);
                (0..len).map(|_| random.below(letters) as u8).collect()
            };
            let (a, b) = (string(150), string(200));
            let (len, matches) = by_the_book(&a, &b);
            let table = Table::fill(&a, &b, true).expect("memory");
            assert_eq!(table.len(), len, "{a:?} {b:?}");
            assert_eq!(Table::fill(&a, &b, false).expect("memory").len(), len);
            assert_eq!(table.matches(&a, &b), matches, "{a:?} {b:?}");
        }
    }

    #[test]
    fn the_forms_of_the_reply() {
        let mut t = Runner::new();
        t.script(
            "MSET a ohmytext b mynewtext n 1234 => +OK
             LCS a b => $6 mytext
             LCS a b LEN => :6
             LCS a b IDX => *4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6
             LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN => *4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6
             LCS a b IDX MINMATCHLEN -5 WITHMATCHLEN MINMATCHLEN 5 => *4 $7 matches *0 $3 len :6
             LCS a b LEN WITHMATCHLEN MINMATCHLEN 100 => :6
             LCS a a IDX => *4 $7 matches *1 *2 *2 :0 :7 *2 :0 :7 $3 len :8
             LCS n n => $4 1234
             LCS a nothing => $0
             LCS nothing a IDX => *4 $7 matches *0 $3 len :0
             LCS nothing nothing LEN => :0",
        );
        t.resp = Resp::V3;
        t.script("LCS a b IDX MINMATCHLEN 4 => %2 $7 matches *1 *2 *2 :4 :7 *2 :5 :8 $3 len :6");
    }

    #[test]
    fn mistakes_are_named_as_in_redis() {
        let mut t = Runner::new();
        t.script(
            "LCS a => -ERR wrong number of arguments for 'lcs' command
             LCS a b FOO => -ERR syntax error
             LCS a b MINMATCHLEN => -ERR syntax error
             LCS a b MINMATCHLEN x => -ERR value is not an integer or out of range
             LCS a b LEN IDX => -ERR If you want both the length and indexes, please just use IDX.",
        );
    }

    #[test]
    fn a_table_above_the_limit_is_refused_and_one_below_is_not() {
        let mut t = Runner::new();
        t.run("SETRANGE long 199999 x");
        t.run("SETRANGE fits 669 x");
        t.run("SETRANGE more 671 x");
        let refused = "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len ";
        assert_eq!(t.run("LCS long long LEN"), refused);
        assert_eq!(t.run("LCS long more"), refused);
        assert_eq!(t.run("LCS long fits LEN"), ":670 ");
        assert_eq!(check_limits([LEN_LIMIT, 0], u64::MAX), Err(CommandError::Text("ERR String too long for LCS")));
        assert_eq!(check_limits([LEN_LIMIT - 1, LEN_LIMIT - 1], u64::MAX), Err(NO_MEMORY));
    }
}
