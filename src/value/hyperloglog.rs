//! HyperLogLog: counts different elements with a standard error of 0.81 %, in a string of at most 12 KB. The
//! representation is that of Redis, byte for byte, so that GET, SET and files carry it between servers.
//!
//! ```text
//!   0        4          5        8                        16
//!   ┌────────┬──────────┬────────┬────────────────────────┬───────────
//!   │ "HYLL" │ encoding │ unused │ cached count, u64      │ registers
//!   │        │ 0 or 1   │        │ (bit 63: out of date)  │
//!   └────────┴──────────┴────────┴────────────────────────┴───────────
//!   0 dense:  16384 registers of 6 bits, the first in the lowest bits of the first byte
//!   1 sparse: runs of equal registers
//!             00llllll           ZERO   l + 1 registers of 0
//!             01llllll llllllll  XZERO  l + 1 registers of 0
//!             1vvvvvll           VAL    l + 1 registers of v + 1
//! ```
//!
//! All integers are little-endian, except the length in XZERO. An element chooses its register by 14 bits of its
//! hash. The register keeps the largest rank seen: the number of zero bits before the first one bit, plus one.
//!
//! Invariants:
//! - The functions take any string that [`encoding`] recognises. Its registers may hold anything, because a client
//!   may have written it. Runs that do not add up are [`Corrupt`], never a panic.
//! - [`observe`] on a dense value cannot fail.

use std::fmt;

/// The number of registers, 2^14.
pub const REGISTERS: usize = 1 << REGISTER_BITS;
/// The bits of the hash that choose the register.
const REGISTER_BITS: u32 = 14;
/// The bits of the hash that give the rank.
const RANK_BITS: u32 = 64 - REGISTER_BITS;
/// The largest rank that a register can hold, even one that a client wrote.
const VALUE_MAX: usize = 63;

const MAGIC: &[u8; 4] = b"HYLL";
const HEADER_LEN: usize = 16;
const ENCODING_AT: usize = 4;
const CACHE_AT: usize = 8;
const DENSE_LEN: usize = HEADER_LEN + REGISTERS * 6 / 8;
/// Set in the last byte of the cached count when the count is out of date.
const STALE: u8 = 0x80;

/// The largest value of a VAL run, and its longest length.
const VAL_VALUE_MAX: u8 = 32;
const VAL_LEN_MAX: usize = 4;
/// The longest lengths of the two runs of zeros.
const ZERO_LEN_MAX: usize = 64;
const XZERO_LEN_MAX: usize = 16384;

/// The seed of the hash: part of the format.
const HASH_SEED: u64 = 0xadc8_3b19;

/// The runs of a sparse value do not add up to all registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the runs of a sparse HyperLogLog do not add up")
    }
}

/// How the registers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Every register in 6 bits.
    Dense,
    /// In runs.
    Sparse,
}

/// All registers, one byte each.
pub type Registers = [u8; REGISTERS];

/// The observation of one element: its register has seen at least this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Which register.
    pub register: usize,
    /// From 1 to 51.
    pub rank: u8,
}

impl Observation {
    /// The observation that an element makes.
    pub fn of(element: &[u8]) -> Observation {
        let hash = murmur64a(element, HASH_SEED);
        let register = (hash as usize) & (REGISTERS - 1);
        // The bit behind the last ensures that there is a one bit.
        let rank = (hash >> REGISTER_BITS | 1 << RANK_BITS).trailing_zeros() + 1;
        Observation { register, rank: rank as u8 }
    }

    /// Raises the register that it is about.
    pub fn raise(self, registers: &mut Registers) {
        let register = &mut registers[self.register];
        *register = self.rank.max(*register);
    }
}

/// MurmurHash64A, by Austin Appleby.
fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut k = u64::from_le_bytes(word.try_into().unwrap_or_default()).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> R
}

/// A HyperLogLog that has seen nothing: sparse, one run.
pub fn empty() -> Vec<u8> {
    let mut hll = Vec::with_capacity(HEADER_LEN + 8);
    hll.extend_from_slice(MAGIC);
    hll.push(1);
    hll.resize(HEADER_LEN, 0);
    put_zeros(&mut hll, REGISTERS);
    hll
}

/// The encoding of a string, if it is a HyperLogLog at all.
pub fn encoding(string: &[u8]) -> Option<Encoding> {
    if string.len() < HEADER_LEN || !string.starts_with(MAGIC) {
        return None;
    }
    match string[ENCODING_AT] {
        0 if string.len() == DENSE_LEN => Some(Encoding::Dense),
        1 => Some(Encoding::Sparse),
        _ => None,
    }
}

fn is_dense(hll: &[u8]) -> bool {
    hll[ENCODING_AT] == 0
}

/// The stored count, unless something was observed since.
pub fn cached_count(hll: &[u8]) -> Option<u64> {
    let bytes: [u8; 8] = hll[CACHE_AT..HEADER_LEN].try_into().ok()?;
    (bytes[7] & STALE == 0).then_some(u64::from_le_bytes(bytes))
}

/// Stores the count. Returns the offset and the bytes now stored there.
pub fn cache_count(hll: &mut [u8], count: u64) -> (usize, [u8; 8]) {
    hll[CACHE_AT..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
    (CACHE_AT, count.to_le_bytes())
}

/// Marks the stored count as out of date.
pub fn invalidate_count(hll: &mut [u8]) {
    hll[HEADER_LEN - 1] |= STALE;
}

/// Whether an observation would change a register.
///
/// # Errors
/// [`Corrupt`], where no run covers the register.
pub fn would_change(hll: &[u8], observation: Observation) -> Result<bool, Corrupt> {
    let value = match is_dense(hll) {
        true => dense_register(&hll[HEADER_LEN..], observation.register),
        false => locate(hll, observation.register)?.run.value(),
    };
    Ok(value < observation.rank)
}

/// Adds an observation. A sparse value becomes dense if the rank does not fit a run, or if it would grow beyond
/// `sparse_len_max` bytes. Returns whether a register changed; the cached count is then stale.
///
/// # Errors
/// [`Corrupt`], with the value as it was.
pub fn observe(hll: &mut Vec<u8>, observation: Observation, sparse_len_max: usize) -> Result<bool, Corrupt> {
    if !is_dense(hll) {
        match observe_sparse(hll, observation, sparse_len_max)? {
            Observed::Nothing => return Ok(false),
            Observed::More => {
                invalidate_count(hll);
                return Ok(true);
            }
            Observed::TooMuch => make_dense(hll)?,
        };
    }
    let registers = &mut hll[HEADER_LEN..];
    if dense_register(registers, observation.register) >= observation.rank {
        return Ok(false);
    }
    set_dense_register(registers, observation.register, observation.rank);
    invalidate_count(hll);
    Ok(true)
}

/// Makes a sparse value dense. Returns whether it was sparse.
///
/// # Errors
/// [`Corrupt`], with the value as it was.
pub fn make_dense(hll: &mut Vec<u8>) -> Result<bool, Corrupt> {
    if is_dense(hll) {
        return Ok(false);
    }
    let mut dense = vec![0; DENSE_LEN];
    dense[..HEADER_LEN].copy_from_slice(&hll[..HEADER_LEN]);
    dense[ENCODING_AT] = 0;
    let registers = &mut dense[HEADER_LEN..];
    each_run(hll, |first, run| {
        if run.value() > 0 {
            (first..first + run.len()).for_each(|register| set_dense_register(registers, register, run.value()));
        }
    })?;
    *hll = dense;
    Ok(true)
}

/// Raises each of `registers` to what `hll` has seen.
///
/// # Errors
/// [`Corrupt`]; some registers may have been raised then.
pub fn merge(registers: &mut Registers, hll: &[u8]) -> Result<(), Corrupt> {
    if is_dense(hll) {
        for (four, packed) in registers.chunks_exact_mut(4).zip(hll[HEADER_LEN..].chunks_exact(3)) {
            for (to, from) in four.iter_mut().zip(unpacked(packed)) {
                *to = (*to).max(from);
            }
        }
        return Ok(());
    }
    each_run(hll, |first, run| {
        if run.value() > 0 {
            registers[first..first + run.len()].iter_mut().for_each(|to| *to = (*to).max(run.value()));
        }
    })
}

/// The estimated number of different elements.
///
/// # Errors
/// [`Corrupt`].
pub fn count(hll: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = [0; VALUE_MAX + 1];
    if is_dense(hll) {
        for packed in hll[HEADER_LEN..].chunks_exact(3) {
            unpacked(packed).into_iter().for_each(|value| histogram[value as usize] += 1);
        }
    } else {
        each_run(hll, |_, run| histogram[run.value() as usize] += run.len() as u32)?;
    }
    Ok(estimate(&histogram))
}

/// The same for merged registers.
pub fn count_registers(registers: &Registers) -> u64 {
    let mut histogram = [0; VALUE_MAX + 1];
    registers.iter().for_each(|&value| histogram[value as usize & VALUE_MAX] += 1);
    estimate(&histogram)
}

/// The estimate from how many registers hold each value: Otmar Ertl, "New cardinality estimation algorithms
/// for HyperLogLog sketches", 2017 (arXiv:1702.01284), algorithm 6.
fn estimate(histogram: &[u32; VALUE_MAX + 1]) -> u64 {
    /// 1 / (2 ln 2), in the digits that Redis uses.
    #[allow(clippy::excessive_precision)]
    const ALPHA_INFINITY: f64 = 0.721347520444481703680;
    let m = REGISTERS as f64;
    let last = RANK_BITS as usize + 1;
    let mut z = m * tau((m - f64::from(histogram[last])) / m);
    for &registers in histogram[1..last].iter().rev() {
        z = 0.5 * (z + f64::from(registers));
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA_INFINITY * m * m / z).round() as u64
}

/// Accounts for the share of registers that have overflowed.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// Accounts for the share of registers that nothing has reached.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// Unpacks four dense registers from their three bytes.
fn unpacked(packed: &[u8]) -> [u8; 4] {
    let [a, b, c] = [packed[0], packed[1], packed[2]];
    [a & 63, (a >> 6 | b << 2) & 63, (b >> 4 | c << 4) & 63, c >> 2]
}

/// The byte where a dense register begins, and the number of bits before it there.
fn dense_place(register: usize) -> (usize, u32) {
    let bit = register * 6;
    (bit / 8, (bit % 8) as u32)
}

fn dense_register(registers: &[u8], register: usize) -> u8 {
    let (at, shift) = dense_place(register);
    let next = registers.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([registers[at], next]) >> shift) as u8 & 63
}

fn set_dense_register(registers: &mut [u8], register: usize, value: u8) {
    let (at, shift) = dense_place(register);
    let next = registers.get(at + 1).copied().unwrap_or(0);
    let word = u16::from_le_bytes([registers[at], next]) & !(63 << shift) | u16::from(value) << shift;
    let [low, high] = word.to_le_bytes();
    registers[at] = low;
    // The last register ends with the last byte.
    if let Some(next) = registers.get_mut(at + 1) {
        *next = high;
    }
}

/// One run of equal registers in a sparse value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Zeros, in one byte.
    Zero(usize),
    /// Zeros, in two bytes.
    XZero(usize),
    /// A value, and how often.
    Val(u8, usize),
}

impl Run {
    /// The run at the start of `bytes`.
    fn read(bytes: &[u8]) -> Option<Run> {
        let first = *bytes.first()?;
        Some(match first >> 6 {
            0 => Run::Zero(first as usize + 1),
            1 => Run::XZero((usize::from(first & 63) << 8 | usize::from(*bytes.get(1)?)) + 1),
            _ => Run::Val((first >> 2 & 31) + 1, usize::from(first & 3) + 1),
        })
    }

    /// The number of registers.
    #[allow(clippy::len_without_is_empty)] // no run is empty
    pub fn len(self) -> usize {
        match self {
            Run::Zero(len) | Run::XZero(len) | Run::Val(_, len) => len,
        }
    }

    /// What each register holds.
    pub fn value(self) -> u8 {
        match self {
            Run::Val(value, _) => value,
            _ => 0,
        }
    }

    /// The bytes that the run takes.
    fn size(self) -> usize {
        if matches!(self, Run::XZero(_)) { 2 } else { 1 }
    }
}

/// The byte of a VAL run.
fn val(value: u8, len: usize) -> u8 {
    debug_assert!((1..=VAL_VALUE_MAX).contains(&value) && (1..=VAL_LEN_MAX).contains(&len));
    0x80 | (value - 1) << 2 | (len - 1) as u8
}

/// Appends a run of zeros in its shortest form; nothing for no register.
fn put_zeros(out: &mut impl Extend<u8>, len: usize) {
    debug_assert!(len <= XZERO_LEN_MAX);
    match len {
        0 => {}
        1..=ZERO_LEN_MAX => out.extend([(len - 1) as u8]),
        _ => out.extend([0x40 | ((len - 1) >> 8) as u8, (len - 1) as u8]),
    }
}

/// The runs of a sparse value, up to the first that is cut off.
pub fn runs(hll: &[u8]) -> impl Iterator<Item = Run> {
    let mut rest = &hll[HEADER_LEN..];
    std::iter::from_fn(move || {
        let run = Run::read(rest)?;
        rest = &rest[run.size()..];
        Some(run)
    })
}

/// Calls `f` with the first register and the run, for each run of a sparse value.
fn each_run(hll: &[u8], mut f: impl FnMut(usize, Run)) -> Result<(), Corrupt> {
    let mut first = 0;
    for run in runs(hll) {
        if first + run.len() > REGISTERS {
            return Err(Corrupt);
        }
        f(first, run);
        first += run.len();
    }
    if first == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

/// Where a register of a sparse value is.
struct Located {
    /// The place of its run.
    at: usize,
    /// The place of the run before.
    before: Option<usize>,
    /// The first register of the run.
    first: usize,
    run: Run,
}

fn locate(hll: &[u8], register: usize) -> Result<Located, Corrupt> {
    let (mut at, mut before, mut first) = (HEADER_LEN, None, 0);
    loop {
        let run = hll.get(at..).and_then(Run::read).ok_or(Corrupt)?;
        if register < first + run.len() {
            return Ok(Located { at, before, first, run });
        }
        before = Some(at);
        at += run.size();
        first += run.len();
    }
}

/// The result of an observation on a sparse value.
enum Observed {
    /// The register already had this rank or a higher one.
    Nothing,
    /// The register was raised.
    More,
    /// Only the dense form can hold the result: nothing was done.
    TooMuch,
}

/// Raises one register of a sparse value and splits the run that contains it.
fn observe_sparse(hll: &mut Vec<u8>, observation: Observation, len_max: usize) -> Result<Observed, Corrupt> {
    let Observation { register, rank } = observation;
    if rank > VAL_VALUE_MAX {
        return Ok(Observed::TooMuch);
    }
    let Located { at, before, first, run } = locate(hll, register)?;
    if run.value() >= rank {
        return Ok(Observed::Nothing);
    }
    let (left, right) = (register - first, first + run.len() - 1 - register);
    // At most XZERO VAL XZERO.
    let mut split = smallvec::SmallVec::<[u8; 8]>::new();
    match run {
        Run::Val(value, _) => {
            split.extend((left > 0).then(|| val(value, left)));
            split.push(val(rank, 1));
            split.extend((right > 0).then(|| val(value, right)));
        }
        Run::Zero(_) | Run::XZero(_) => {
            put_zeros(&mut split, left);
            split.push(val(rank, 1));
            put_zeros(&mut split, right);
        }
    }
    if split.len() > run.size() && hll.len() + split.len() - run.size() > len_max {
        return Ok(Observed::TooMuch);
    }
    hll.splice(at..at + run.size(), split);
    join_values(hll, before.unwrap_or(HEADER_LEN));
    Ok(Observed::More)
}

/// Joins neighbours of the same value, from the run at `at` on, as far as a change of one register can have created
/// them: five steps as in Redis, because otherwise the bytes would differ.
fn join_values(hll: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Some(run) = Run::read(&hll[at..]) else { return };
        let next = Run::read(&hll[at + run.size()..]);
        match (run, next) {
            (Run::Val(value, a), Some(Run::Val(same, b))) if value == same && a + b <= VAL_LEN_MAX => {
                hll[at + 1] = val(value, a + b);
                hll.remove(at);
            }
            _ => at += run.size(),
        }
    }
}

/// The largest number of elements that [`self_test`] counts.
const SELF_TEST_ELEMENTS: u64 = 1_000_000;

/// Checks on random numbers that registers keep their values, that both encodings agree, and that the estimate is
/// accurate.
///
/// # Errors
/// What is wrong.
pub fn self_test(seed: u64) -> Result<(), String> {
    let mut random = crate::base::random::Random::from_seed(seed);
    let (mut dense, mut plain) = (vec![0; DENSE_LEN - HEADER_LEN], [0_u8; REGISTERS]);
    for _ in 0..100 {
        for (register, slot) in plain.iter_mut().enumerate() {
            *slot = random.index(VALUE_MAX + 1) as u8;
            set_dense_register(&mut dense, register, *slot);
        }
        for (register, &value) in plain.iter().enumerate() {
            let found = dense_register(&dense, register);
            if found != value {
                return Err(format!("Register {register} should be {value} but is {found}"));
            }
        }
    }
    let (mut sparse, mut dense) = (empty(), empty());
    make_dense(&mut dense).map_err(|corrupt| corrupt.to_string())?;
    let first = random.next_u64();
    let mut checkpoint = 1;
    for seen in 1..=SELF_TEST_ELEMENTS {
        let observation = Observation::of(&(first.wrapping_add(seen)).to_le_bytes());
        for hll in [&mut sparse, &mut dense] {
            observe(hll, observation, DENSE_LEN / 4).map_err(|corrupt| corrupt.to_string())?;
        }
        if seen == checkpoint {
            let counts = [&sparse, &dense].map(|hll| count(hll).unwrap_or(u64::MAX));
            if counts[0] != counts[1] {
                return Err(format!("dense/sparse disagree: {} and {}", counts[1], counts[0]));
            }
            // Four standard errors, and at small counts an element or two more.
            let allowed = (seen as f64 * 0.0081 * 4.0).ceil() as u64 + 2;
            if counts[0].abs_diff(seen) > allowed {
                return Err(format!("Too big error: {seen} elements, counted as {}", counts[0]));
            }
            checkpoint *= 10;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "hyperloglog_tests.rs"]
mod tests;
