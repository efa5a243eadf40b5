//! Consumer groups: the entries that were delivered and not acknowledged yet, and their consumers.
//!
//! Invariants:
//! - An entry that is pending in a group is pending for exactly one of its consumers, and an entry that is pending
//!   for a consumer is pending in its group. One that was handed back is nobody's, and in the queue of those.

use super::id::StreamId;
use super::ordered::{Keyed, Ordered};
use super::released::Released;
use crate::value::entry::SharedBytes;

/// An entry that was delivered and is not acknowledged yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The entry.
    pub id: StreamId,
    /// When it was last delivered, Unix ms.
    pub delivered: i64,
    /// How often it was delivered.
    pub count: u64,
    /// The name of the consumer that owns it; `None` if it was handed back.
    pub consumer: Option<SharedBytes>,
}

impl Pending {
    /// How long ago it was delivered, in milliseconds; `None` if it was handed back.
    pub fn idle(&self, now: i64) -> Option<i64> {
        self.consumer.as_ref().map(|_| now.wrapping_sub(self.delivered))
    }

    /// Whether it may be claimed by those who want what is idle for so long: always if it was handed back.
    pub fn is_idle(&self, now: i64, least: i64) -> bool {
        least == 0 || self.idle(now).is_none_or(|idle| idle >= least)
    }

    /// Whose it is, as clients are told: the empty name if it was handed back.
    pub fn owner(&self) -> &[u8] {
        self.consumer.as_deref().unwrap_or_default()
    }
}

/// The most deliveries that are counted: what clients can be told.
pub const COUNT_MAX: u64 = i64::MAX as u64;

/// One delivery more.
fn once_more(count: u64) -> u64 {
    if count >= COUNT_MAX { count } else { count + 1 }
}

/// A bare id: what a consumer stores of a pending entry.
#[derive(Clone, Copy, Debug)]
pub struct Owned(pub StreamId);

/// A consumer of a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name.
    pub name: SharedBytes,
    /// When it last tried to read, Unix ms.
    pub seen: i64,
    /// When it last received an entry, Unix ms; -1 for never.
    pub active: i64,
    /// The entries pending for it.
    pub pending: Ordered<Owned>,
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: SharedBytes,
    /// The last entry delivered.
    pub last_id: StreamId,
    /// How many of all entries ever added were delivered; `None` if unknown.
    pub entries_read: Option<u64>,
    /// All pending entries.
    pub pending: Ordered<Pending>,
    /// Its consumers.
    pub consumers: Ordered<Consumer>,
    /// Which pending entries were handed back; `None` if none ever was.
    released: Option<Box<Released>>,
}

impl Keyed for Pending {
    type Key = StreamId;
    type Query = StreamId;
    const RUN_MAX: usize = 64;

    fn key(&self) -> StreamId {
        self.id
    }

    fn query(&self) -> &StreamId {
        &self.id
    }
}

impl Keyed for Owned {
    type Key = StreamId;
    type Query = StreamId;
    const RUN_MAX: usize = 128;

    fn key(&self) -> StreamId {
        self.0
    }

    fn query(&self) -> &StreamId {
        &self.0
    }
}

impl Keyed for Consumer {
    type Key = SharedBytes;
    type Query = [u8];
    const RUN_MAX: usize = 16;

    fn key(&self) -> SharedBytes {
        self.name.clone()
    }

    fn query(&self) -> &[u8] {
        &self.name
    }

    fn heap_bytes(run: &[Self]) -> usize {
        run.iter().map(|consumer| consumer.name.len() + 16 + consumer.pending.bytes()).sum()
    }
}

impl Keyed for Group {
    type Key = SharedBytes;
    type Query = [u8];
    const RUN_MAX: usize = 8;

    fn key(&self) -> SharedBytes {
        self.name.clone()
    }

    fn query(&self) -> &[u8] {
        &self.name
    }

    fn heap_bytes(run: &[Self]) -> usize {
        let of = |group: &Group| {
            let released = group.released.as_ref().map_or(0, |released| released.bytes());
            group.name.len() + 16 + group.pending.bytes() + group.consumers.bytes() + released
        };
        run.iter().map(of).sum()
    }
}

/// How a claim changes the number of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// It rises by one.
    OneMore,
    /// It stays.
    Same,
    /// It becomes this.
    Set(u64),
}

/// How entries change their owner.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The time, Unix ms.
    pub now: i64,
    /// The new time of their last delivery.
    pub delivered: i64,
    /// How the number of deliveries changes.
    pub count: Count,
    /// Whether entries that are not pending become pending.
    pub force: bool,
}

impl Group {
    /// A group without consumers.
    pub(super) fn new(name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> Group {
        Group {
            name: SharedBytes::new(name),
            last_id,
            entries_read,
            pending: Ordered::default(),
            consumers: Ordered::default(),
            released: None,
        }
    }

    /// Fills a new group: see [`super::Stream::restore_group`].
    pub(super) fn restore<'n>(
        &mut self,
        consumers: impl IntoIterator<Item = (&'n [u8], i64, i64)>,
        pending: impl IntoIterator<Item = (StreamId, i64, u64, usize)>,
    ) -> bool {
        let mut own: Vec<(Consumer, Vec<Owned>)> = Vec::new();
        for (name, seen, active) in consumers {
            let name = SharedBytes::new(name);
            own.push((Consumer { name, seen, active, pending: Ordered::default() }, Vec::new()));
        }
        let mut all: Vec<Pending> = Vec::new();
        for (id, delivered, count, consumer) in pending {
            let Some((consumer, ids)) = own.get_mut(consumer) else { return false };
            if all.last().is_some_and(|before| before.id >= id) {
                return false;
            }
            all.push(Pending { id, delivered, count, consumer: Some(consumer.name.clone()) });
            ids.push(Owned(id));
        }
        self.pending.extend_back(all);
        for (mut consumer, ids) in own {
            consumer.pending.extend_back(ids);
            let name = consumer.name.clone();
            if self.consumers.insert(&name, consumer).is_some() {
                return false;
            }
        }
        true
    }

    /// A consumer.
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(name)
    }

    /// Adds a consumer unless it exists.
    pub fn add_consumer(&mut self, name: &[u8], now: i64) -> bool {
        if self.consumers.get(name).is_some() {
            return false;
        }
        let name = SharedBytes::new(name);
        self.consumers.insert(&name.clone(), Consumer { name, seen: now, active: -1, pending: Ordered::default() });
        true
    }

    /// Records that a consumer tries to read now; adds the consumer if it does not exist.
    pub fn see(&mut self, name: &[u8], now: i64) {
        if !self.add_consumer(name, now) {
            self.consumers.edit(name, |consumer| consumer.seen = now);
        }
    }

    /// Notes when a consumer, which is added if need be, tried to get something, and when it got something; -1 for
    /// never. Unix ms.
    pub fn set_consumer(&mut self, name: &[u8], seen: i64, active: i64) {
        self.add_consumer(name, seen);
        self.consumers.edit(name, |consumer| (consumer.seen, consumer.active) = (seen, active));
    }

    /// Makes entries pending for an existing consumer, whoever owned them. Each comes with its time and number of
    /// deliveries.
    pub fn assign(&mut self, consumer: &[u8], entries: impl Iterator<Item = (StreamId, i64, u64)>) {
        let Some(name) = self.consumers.get(consumer).map(|consumer| consumer.name.clone()) else { return };
        let pending = |(id, delivered, count)| Pending { id, delivered, count, consumer: Some(name.clone()) };
        let entries: Vec<Pending> = entries.map(pending).collect();
        let rises = entries.windows(2).all(|two| two[0].id < two[1].id);
        let follows = self.pending.last().zip(entries.first()).is_none_or(|(last, first)| last.id < first.id);
        if rises && follows {
            let own: Vec<Owned> = entries.iter().map(|pending| Owned(pending.id)).collect();
            self.pending.extend_back(entries);
            self.consumers.edit(consumer, |consumer| consumer.pending.extend_back(own));
            return;
        }
        for pending in entries {
            let id = pending.id;
            if let Some(old) = self.pending.insert(&id, pending) {
                self.disown(old.consumer, &id);
            }
            self.consumers.edit(consumer, |consumer| {
                consumer.pending.insert(&id, Owned(id));
            });
        }
    }

    /// Removes a consumer with its pending entries. Returns how many those were.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let consumer = self.consumers.remove(name)?;
        for Owned(id) in consumer.pending.iter() {
            self.pending.remove(id);
        }
        Some(consumer.pending.len())
    }

    /// Makes entries pending for an existing consumer as if delivered for the first time, whoever owns them. Ids
    /// rise.
    pub(super) fn give(&mut self, consumer: &[u8], ids: &[StreamId], now: i64) {
        let Some(name) = self.consumers.get(consumer).map(|consumer| consumer.name.clone()) else { return };
        let Some(first) = ids.first() else { return };
        let pending = |id: &StreamId| Pending { id: *id, delivered: now, count: 1, consumer: Some(name.clone()) };
        if self.pending.last().is_none_or(|last| last.id < *first) {
            self.pending.extend_back(ids.iter().map(pending));
            self.consumers.edit(consumer, |consumer| {
                consumer.active = now;
                consumer.pending.extend_back(ids.iter().copied().map(Owned));
            });
            return;
        }
        for id in ids {
            if let Some(old) = self.pending.insert(id, pending(id)) {
                self.disown(old.consumer, id);
            }
            self.consumers.edit(consumer, |consumer| {
                consumer.active = now;
                consumer.pending.insert(id, Owned(*id));
            });
        }
    }

    /// Removes an entry from its owner, or from those that were handed back.
    fn disown(&mut self, owner: Option<SharedBytes>, id: &StreamId) {
        match owner {
            Some(consumer) => {
                self.consumers.edit(&consumer, |consumer| {
                    consumer.pending.remove(id);
                });
            }
            None => self.released.iter_mut().for_each(|released| released.remove(*id)),
        }
    }

    /// The entries that were handed back, the first to be claimed first.
    pub fn released(&self) -> impl Iterator<Item = &Pending> {
        let ids = self.released.iter().flat_map(|released| released.iter());
        ids.filter_map(|id| self.pending.get(&id))
    }

    /// How many those are.
    pub fn released_len(&self) -> usize {
        self.released.as_ref().map_or(0, |released| released.len())
    }

    /// Has an entry pending for nobody, behind all others that were handed back, delivered so often.
    pub fn release(&mut self, id: StreamId, count: u64) {
        if let Some(old) = self.pending.insert(&id, Pending { id, delivered: 0, count, consumer: None }) {
            self.disown(old.consumer, &id);
        }
        self.released.get_or_insert_default().push(id);
    }

    /// Acknowledges an entry. Returns whether it was pending.
    pub fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(pending) = self.pending.remove(&id) else { return false };
        self.disown(pending.consumer, &id);
        true
    }

    /// Gives an existing consumer an entry that is pending, or, if the claim is forced, one that is not. Returns
    /// whether the consumer owns it now.
    pub(super) fn claim(&mut self, consumer: &[u8], id: StreamId, claim: &Claim) -> bool {
        let Some(name) = self.consumers.get(consumer).map(|consumer| consumer.name.clone()) else { return false };
        let update = |pending: &mut Pending| {
            pending.delivered = claim.delivered;
            pending.count = match claim.count {
                Count::OneMore => once_more(pending.count),
                Count::Same => pending.count,
                Count::Set(count) => count,
            };
            pending.consumer.replace(name.clone())
        };
        match self.pending.edit(&id, update) {
            Some(Some(previous)) if previous == name => {
                self.consumers.edit(consumer, |consumer| consumer.active = claim.now);
                return true;
            }
            Some(previous) => self.disown(previous, &id),
            None if claim.force => {
                let mut pending = Pending { id, delivered: 0, count: 1, consumer: None };
                update(&mut pending);
                self.pending.insert(&id, pending);
            }
            None => return false,
        }
        self.consumers.edit(consumer, |consumer| {
            consumer.active = claim.now;
            consumer.pending.insert(&id, Owned(id));
        });
        true
    }

    /// Delivers a pending entry once more.
    pub(super) fn deliver_again(&mut self, id: StreamId, now: i64) {
        self.pending.edit(&id, |pending| {
            pending.delivered = now;
            pending.count = once_more(pending.count);
        });
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        self.pending.check_invariants(|one, two| one.id < two.id);
        self.consumers.check_invariants(|one, two| one.name[..] < two.name[..]);
        let mut owned = 0;
        for consumer in self.consumers.iter() {
            consumer.pending.check_invariants(|one, two| one.0 < two.0);
            owned += consumer.pending.len();
            for Owned(id) in consumer.pending.iter() {
                assert_eq!(self.pending.get(id).and_then(|pending| pending.consumer.as_ref()), Some(&consumer.name));
            }
        }
        self.released.iter().for_each(|released| released.check_invariants());
        assert!(self.released().all(|pending| pending.consumer.is_none() && pending.delivered == 0));
        assert_eq!(self.released().count(), self.released_len(), "what was handed back is pending");
        assert_eq!(owned + self.released_len(), self.pending.len(), "every pending entry has one owner, or none");
    }
}
