//! Random numbers: a small fast generator (xoshiro256**) seeded by the operating system.
//!
//! It is good for sampling, SPOP and probabilistic counters, and **never** for secrets. Secrets and identifiers come
//! from [`os_bytes`] directly.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

/// Bytes from the operating system's generator.
pub fn os_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) if count > 0 => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // Where the call is missing (a very old kernel), the hash keys of `std` provide the system's randomness.
            _ => {
                for (index, byte) in bytes.iter_mut().enumerate().skip(filled) {
                    *byte = RandomState::new().hash_one(index) as u8;
                }
                filled = N;
            }
        }
    }
    bytes
}

/// Forty hexadecimal digits that no other run shares: run ids, replication ids, ACL GENPASS-like names.
pub fn run_id() -> String {
    os_bytes::<20>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A generator with its own state. The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// Seeded by the operating system.
    pub fn from_os() -> Random {
        Random::from_seed(u64::from_le_bytes(os_bytes()))
    }

    /// Seeded by a number, for tests and simulations.
    pub fn from_seed(mut seed: u64) -> Random {
        // splitmix64, as the authors of xoshiro advise: no seed gives the all-zero state.
        let mut next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Random { state: [next(), next(), next(), next()] }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, without bias; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // Lemire: the high half of a product, and a redraw in the rare unfair strip.
        let mut product = u128::from(self.next_u64()) * u128::from(bound);
        let unfair = bound.wrapping_neg() % bound;
        while (product as u64) < unfair {
            product = u128::from(self.next_u64()) * u128::from(bound);
        }
        (product >> 64) as u64
    }

    /// An index into something of `len` elements; 0 when it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

thread_local! {
    static THREAD: RefCell<Random> = RefCell::new(Random::from_os());
}

/// Runs `f` with this thread's own generator. `f` must not call this function again.
pub fn with<T>(f: impl FnOnce(&mut Random) -> T) -> T {
    THREAD.with(|random| f(&mut random.borrow_mut()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sequence() {
        // The reference implementation's first numbers for the state 1, 2, 3, 4.
        let mut random = Random { state: [1, 2, 3, 4] };
        assert_eq!([random.next_u64(), random.next_u64(), random.next_u64()], [11520, 0, 1_509_978_240]);
    }

    #[test]
    fn bounds_hold_and_all_values_come() {
        let mut random = Random::from_seed(7);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[random.index(7)] += 1;
            let unit = random.unit();
            assert!((0.0..1.0).contains(&unit));
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
        assert!(random.below(u64::MAX) < u64::MAX);
    }

    #[test]
    fn run_ids_differ() {
        let id = run_id();
        assert_eq!(id.len(), 40);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, run_id());
        assert_ne!(Random::from_os().next_u64(), Random::from_os().next_u64());
        assert_ne!(with(Random::next_u64), with(Random::next_u64));
    }
}
