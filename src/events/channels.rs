//! Channels, shard channels and patterns, with their subscribers.
//!
//! ```text
//! stripe (by the name's hash) ─ channel ─ worker ─ ids of its subscribers      shared with messages on their way
//! patterns ──────────────────── pattern ─ worker ─ ids of its subscribers       see `patterns.rs`
//! ```
//!
//! A message takes the lists of its subscribers along, as they are while it is published. A list that is changed
//! meanwhile is copied.
//!
//! Invariants:
//! - Messages of one channel are posted under the lock of its stripe, so that all workers see them in one order.
//! - A channel or pattern without subscribers is not in the register.
//! - Without any subscriber, publishing costs one load.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use smallvec::SmallVec;

use super::patterns::Patterns;
use super::subscribers::Subscribers;
pub use super::subscribers::{Ids, Name};
use super::wide::Wide;
use crate::base::glob;
use crate::base::lock::{Mutex, Rank, RwLock};

/// How many locks channels are spread over.
const STRIPES: usize = 64;
/// Maps with more room than this give it back once most of it is unused.
const ROOM_KEPT: usize = 1024;
/// What a subscription takes beside its name, about, in bytes: its places in the register and in the client's own set.
/// A pattern is filed, too.
const CHANNEL_MORE_BYTES: usize = 200;
const PATTERN_MORE_BYTES: usize = 300;

/// What a client can subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel: SUBSCRIBE.
    Channel = 0,
    /// All channels whose names match a pattern: PSUBSCRIBE.
    Pattern = 1,
    /// A shard channel: SSUBSCRIBE.
    Shard = 2,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];
}

type Names = HashMap<Name, Subscribers>;

/// Adds a subscriber. Returns the shared name, and whether it is new.
fn add(names: &mut Names, name: &[u8], worker: usize, client: u64) -> (Name, bool) {
    if let Some((known, _)) = names.get_key_value(name) {
        let known = Arc::clone(known);
        names.entry(Arc::clone(&known)).or_default().add(worker, client);
        return (known, false);
    }
    let name: Name = name.into();
    names.entry(Arc::clone(&name)).or_default().add(worker, client);
    (name, true)
}

/// Removes a subscriber. Returns whether that was the last.
fn remove(names: &mut Names, name: &[u8], worker: usize, client: u64) -> bool {
    let Some(subscribers) = names.get_mut(name) else { return false };
    subscribers.remove(worker, client);
    let is_last = subscribers.is_empty();
    if is_last {
        names.remove(name);
        if names.capacity() > ROOM_KEPT && names.len() < names.capacity() / 8 {
            names.shrink_to(names.len() * 2);
        }
    }
    is_last
}

/// Who receives one message, among the clients of one worker.
#[derive(Debug, Default)]
pub struct Receivers {
    /// The subscribers of the channel.
    pub channel: Ids,
    /// Those of each pattern that matches its name.
    pub patterns: Vec<(Name, Ids)>,
}

impl Receivers {
    /// How many copies of the message they receive.
    pub fn count(&self) -> usize {
        self.channel.len() + self.patterns.iter().map(|(_, ids)| ids.len()).sum::<usize>()
    }
}

/// The channels and shard channels whose names share a lock.
#[derive(Debug, Default)]
struct Stripe {
    channels: Names,
    shards: Names,
}

impl Stripe {
    fn names(&mut self, kind: Kind) -> &mut Names {
        if kind == Kind::Shard { &mut self.shards } else { &mut self.channels }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Channels {
    hasher: RandomState,
    stripes: Box<[Mutex<Stripe>]>,
    patterns: RwLock<Patterns>,
    /// How many names there are, by kind.
    names: [AtomicUsize; 3],
}

impl Default for Channels {
    fn default() -> Self {
        let stripe = |index| Mutex::indexed(Rank::Channels, index as u32, Stripe::default());
        Channels {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(stripe).collect(),
            patterns: RwLock::new(Rank::Patterns, Patterns::default()),
            names: Default::default(),
        }
    }
}

impl Channels {
    fn stripe(&self, name: &[u8]) -> &Mutex<Stripe> {
        &self.stripes[self.hasher.hash_one(name) as usize % STRIPES]
    }

    /// Adds a subscriber, a client of this worker. Returns the shared name.
    pub fn subscribe(&self, kind: Kind, name: &[u8], worker: usize, client: u64) -> Name {
        let (name, is_new) = match kind {
            Kind::Pattern => self.patterns.write().add(name, worker, client),
            _ => add(self.stripe(name).lock().names(kind), name, worker, client),
        };
        if is_new {
            self.names[kind as usize].fetch_add(1, Relaxed);
        }
        name
    }

    /// Removes a subscriber.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], worker: usize, client: u64) {
        let was_last = match kind {
            Kind::Pattern => self.patterns.write().remove(name, worker, client),
            _ => remove(self.stripe(name).lock().names(kind), name, worker, client),
        };
        if was_last {
            self.names[kind as usize].fetch_sub(1, Relaxed);
        }
    }

    /// Whether nobody has subscribed to anything of the kind.
    #[inline]
    pub fn is_empty(&self, kind: Kind) -> bool {
        self.names[kind as usize].load(Relaxed) == 0
    }

    /// How many channels, patterns or shard channels have subscribers.
    pub fn len(&self, kind: Kind) -> usize {
        self.names[kind as usize].load(Relaxed)
    }

    /// Finds who receives a message on a channel ([`Kind::Channel`]) or shard channel, and has `post` send it to each
    /// worker that has receivers, in the order of the channel. Returns the number of copies.
    pub fn publish(&self, kind: Kind, channel: &[u8], mut post: impl FnMut(usize, Receivers)) -> u64 {
        let has_patterns = kind == Kind::Channel && !self.is_empty(Kind::Pattern);
        if self.is_empty(kind) && !has_patterns {
            return 0;
        }
        let mut stripe = self.stripe(channel).lock();
        let mut workers: SmallVec<[(usize, Receivers); 4]> = SmallVec::new();
        if let Some(subscribers) = stripe.names(kind).get(channel) {
            for (worker, ids) in subscribers.by_worker() {
                workers.push((*worker, Receivers { channel: Arc::clone(ids), patterns: Vec::new() }));
            }
        }
        // Kept until the letters are posted: who has left a pattern receives nothing behind the confirmation.
        let patterns = has_patterns.then(|| self.patterns.read());
        if let Some(patterns) = &patterns {
            patterns.matching(channel, |pattern, subscribers| {
                for (worker, ids) in subscribers.by_worker() {
                    let at = workers.iter().position(|(of, _)| of == worker).unwrap_or_else(|| {
                        workers.push((*worker, Receivers::default()));
                        workers.len() - 1
                    });
                    workers[at].1.patterns.push((Arc::clone(pattern), Arc::clone(ids)));
                }
            });
        }
        let mut copies = 0;
        for (worker, receivers) in workers {
            copies += receivers.count() as u64;
            post(worker, receivers);
        }
        drop(patterns);
        copies
    }

    /// The channels or shard channels with subscribers, those that match the pattern if there is one, in any order.
    pub fn list(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Name> {
        let mut found = Vec::new();
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            let names = stripe.names(kind).keys();
            found.extend(names.filter(|name| pattern.is_none_or(|pattern| glob::matches(pattern, name))).cloned());
        }
        found
    }

    /// How many clients have subscribed to a channel or shard channel.
    pub fn subscribers(&self, kind: Kind, channel: &[u8]) -> usize {
        self.stripe(channel).lock().names(kind).get(channel).map_or(0, Subscribers::count)
    }
}

/// What one client has subscribed to.
#[derive(Debug, Default)]
pub struct Subscriptions([Wide<Name, ()>; 3]);

impl Subscriptions {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|names| names.len() == 0)
    }

    /// How many there are of a kind.
    pub fn len(&self, kind: Kind) -> usize {
        self.0[kind as usize].len()
    }

    /// Whether this is among them.
    pub fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.0[kind as usize].get(name).is_some()
    }

    /// Adds one. Returns the memory that it takes, in bytes.
    pub fn add(&mut self, kind: Kind, name: Name) -> usize {
        let bytes = bytes_of(kind, &name);
        self.0[kind as usize].insert(name, ());
        bytes
    }

    /// Removes one, and returns its memory if it was there.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> Option<usize> {
        self.0[kind as usize].remove(name).map(|(name, ())| bytes_of(kind, &name))
    }

    /// Those of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Name> {
        self.0[kind as usize].iter().map(|(name, ())| name)
    }
}

fn bytes_of(kind: Kind, name: &[u8]) -> usize {
    name.len() + if kind == Kind::Pattern { PATTERN_MORE_BYTES } else { CHANNEL_MORE_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker, the subscribers of the channel, and those of patterns.
    type Posted = (usize, Vec<u64>, Vec<String>);

    /// What was posted, and the number of copies.
    fn publish(channels: &Channels, kind: Kind, channel: &str) -> (Vec<Posted>, u64) {
        let mut posted = Vec::new();
        let copies = channels.publish(kind, channel.as_bytes(), |worker, receivers| {
            let mut patterns: Vec<String> = Vec::new();
            for (pattern, ids) in &receivers.patterns {
                patterns.extend(ids.iter().map(|id| format!("{} {id}", String::from_utf8_lossy(pattern))));
            }
            patterns.sort();
            posted.push((worker, receivers.channel.to_vec(), patterns));
        });
        posted.sort();
        (posted, copies)
    }

    #[test]
    fn a_message_goes_once_to_each_worker_with_all_its_receivers() {
        let channels = Channels::default();
        assert_eq!(publish(&channels, Kind::Channel, "news"), (vec![], 0));
        for (worker, client) in [(0, 5), (1, 2), (0, 3), (0, 5)] {
            channels.subscribe(Kind::Channel, b"news", worker, client);
        }
        channels.subscribe(Kind::Pattern, b"n*", 2, 9);
        channels.subscribe(Kind::Pattern, b"n?ws", 0, 5);
        channels.subscribe(Kind::Pattern, b"other*", 0, 5);
        channels.subscribe(Kind::Shard, b"news", 0, 7);
        let of_patterns = |text: &str| vec![text.to_owned()];
        let expected =
            vec![(0, vec![3, 5], of_patterns("n?ws 5")), (1, vec![2], vec![]), (2, vec![], of_patterns("n* 9"))];
        assert_eq!(publish(&channels, Kind::Channel, "news"), (expected, 5));
        assert_eq!(publish(&channels, Kind::Shard, "news"), (vec![(0, vec![7], vec![])], 1));
        assert_eq!(channels.subscribers(Kind::Channel, b"news"), 3);
        assert_eq!([1, 3, 1], Kind::ALL.map(|kind| channels.len(kind)));
        assert_eq!(channels.list(Kind::Channel, Some(b"*")), [b"news"[..].into()]);
        assert!(channels.list(Kind::Channel, Some(b"x*")).is_empty());
    }

    #[test]
    fn a_message_on_its_way_keeps_its_receivers() {
        let channels = Channels::default();
        channels.subscribe(Kind::Channel, b"c", 0, 1);
        let mut kept = None;
        channels.publish(Kind::Channel, b"c", |_, receivers| kept = Some(receivers));
        channels.subscribe(Kind::Channel, b"c", 0, 2);
        channels.unsubscribe(Kind::Channel, b"c", 0, 1);
        assert_eq!(*kept.expect("there is a receiver").channel, [1]);
        assert_eq!(publish(&channels, Kind::Channel, "c").0, [(0, vec![2], vec![])]);
    }

    #[test]
    fn nothing_remains_of_those_who_have_left() {
        let channels = Channels::default();
        let mut own = Subscriptions::default();
        let mut bytes = 0;
        for number in 0..5000 {
            for kind in Kind::ALL {
                let name = format!("name:{number}");
                bytes += own.add(kind, channels.subscribe(kind, name.as_bytes(), 0, 1));
                assert!(own.has(kind, name.as_bytes()));
            }
        }
        assert_eq!(Kind::ALL.map(|kind| (channels.len(kind), own.len(kind))), [(5000, 5000); 3]);
        for kind in Kind::ALL {
            let names: Vec<Name> = own.of(kind).cloned().collect();
            for name in names {
                channels.unsubscribe(kind, &name, 0, 1);
                bytes -= own.remove(kind, &name).expect("it is there");
                assert_eq!(own.remove(kind, &name), None);
            }
            assert!(channels.is_empty(kind));
        }
        assert!(own.is_empty() && bytes == 0);
        channels.patterns.read().check_invariants();
        assert!(channels.stripes.iter().all(|s| s.lock().channels.is_empty() && s.lock().shards.is_empty()));
    }
}
