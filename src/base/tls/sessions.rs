//! The sessions that clients may resume: `tls-session-cache-size` and `tls-session-cache-timeout`.
//!
//! Invariants:
//! - The number of sessions and their bytes are bounded; the oldest goes first.
//! - A session that is older than the timeout is not resumed.
//! - A session under TLS 1.3 is resumed once: the library takes it out.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use rustls::server::StoresServerSessions;
use zeroize::Zeroizing;

use crate::base::clock;
use crate::base::lock::{Mutex, Rank};

/// The most that all sessions may take, in bytes. One with a client's certificate takes some kilobytes.
const BYTES_MAX: usize = 64 << 20;

/// See the module.
pub(super) struct Sessions {
    kept: Mutex<Kept>,
    sessions_max: usize,
    timeout_us: u64,
}

#[derive(Default)]
struct Kept {
    by_key: HashMap<Vec<u8>, Session>,
    /// The keys in the order in which they came, each with the number of its session. One that is gone is skipped.
    order: VecDeque<(Vec<u8>, u64)>,
    next: u64,
    bytes: usize,
}

struct Session {
    number: u64,
    ends_us: u64,
    secrets: Zeroizing<Vec<u8>>,
}

impl Sessions {
    /// Room for this many sessions, 0 for any number, each of which is kept for so long.
    pub(super) fn new(sessions_max: u64, timeout_seconds: u64) -> Sessions {
        let sessions_max = if sessions_max == 0 { u64::MAX } else { sessions_max };
        Sessions {
            kept: Mutex::new(Rank::Register, Kept::default()),
            sessions_max: usize::try_from(sessions_max).unwrap_or(usize::MAX),
            timeout_us: timeout_seconds.saturating_mul(1_000_000),
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Kept {
    fn remove(&mut self, key: &[u8]) -> Option<Session> {
        let session = self.by_key.remove(key)?;
        self.bytes -= key.len() + session.secrets.len();
        Some(session)
    }

    /// Drops the oldest, and what is known of those that are gone. False if there is nothing.
    fn drop_oldest(&mut self) -> bool {
        let Some((key, number)) = self.order.pop_front() else { return false };
        if self.by_key.get(&key).is_some_and(|session| session.number == number) {
            self.remove(&key);
        }
        true
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let secrets = Zeroizing::new(value);
        let now = clock::monotonic_us();
        let mut kept = self.kept.lock();
        kept.remove(&key);
        while kept.by_key.len() >= self.sessions_max
            || kept.bytes + key.len() + secrets.len() > BYTES_MAX
            || kept.order.len() > 2 * kept.by_key.len() + 16
        {
            if !kept.drop_oldest() {
                return false;
            }
        }
        let number = kept.next;
        kept.next += 1;
        kept.bytes += key.len() + secrets.len();
        kept.order.push_back((key.clone(), number));
        kept.by_key.insert(key, Session { number, ends_us: now.saturating_add(self.timeout_us), secrets });
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = clock::monotonic_us();
        let kept = self.kept.lock();
        kept.by_key.get(key).filter(|session| session.ends_us >= now).map(|session| session.secrets.to_vec())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = clock::monotonic_us();
        let session = self.kept.lock().remove(key)?;
        (session.ends_us >= now).then(|| session.secrets.to_vec())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_each_is_taken_once() {
        let sessions = Sessions::new(2, 300);
        for key in 0..4_u8 {
            assert!(sessions.put(vec![key], vec![key; 8]));
        }
        let found = |key: u8| sessions.get(&[key]).is_some();
        assert_eq!([0, 1, 2, 3].map(found), [false, false, true, true]);
        assert_eq!((sessions.take(&[3]), sessions.take(&[3])), (Some(vec![3; 8]), None));
        for key in 0..200_u8 {
            sessions.put(vec![key], vec![key]);
            sessions.take(&[key]);
        }
        let kept = sessions.kept.lock();
        assert!(kept.order.len() < 40, "what is taken leaves no trace behind");
        assert_eq!((kept.by_key.len(), kept.bytes), (0, 0));
    }

    #[test]
    fn a_session_ends_and_bytes_are_bounded() {
        let sessions = Sessions::new(0, 0);
        sessions.put(vec![1], vec![1]);
        let later = clock::monotonic_us() + 2;
        while clock::monotonic_us() < later {
            std::hint::spin_loop();
        }
        assert_eq!(sessions.get(&[1]), None);
        let sessions = Sessions::new(0, 300);
        for key in 0..70_u8 {
            sessions.put(vec![key], vec![0; 1 << 20]);
        }
        assert!(sessions.kept.lock().bytes <= BYTES_MAX);
        assert!(sessions.get(&[69]).is_some() && sessions.get(&[0]).is_none());
        assert!(!sessions.put(vec![1], vec![0; BYTES_MAX + 1]));
    }
}
