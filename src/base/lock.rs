//! Locks that know their rank, so that a test finds a wrong order, and not a deadlock.
//!
//! Every lock of the server has a [`Rank`]. A thread that holds a lock may wait only for locks of a higher rank, or
//! for one of the same rank with a higher index (workers of the gate, shards, journal buffers). Debug builds track
//! the locks of each thread and panic where the order is broken. Release builds track nothing, and a lock costs as
//! much as one of `parking_lot`.
//!
//! Invariants:
//! - Waiting is checked, trying is not, because `try_lock` cannot be part of a deadlock. A lock taken by trying
//!   counts as held.
//! - A thread that is [`alone`] behind the closed gate may lock shards in any order: no other thread holds one for
//!   longer than a moment, and never two.
//! - A guard is not held across an `await`: see `.clippy.toml`.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// The order in which locks are taken, outermost first. It is written only here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rank {
    /// One CONFIG SET at a time.
    ConfigChange,
    /// The listening sockets, while they change.
    Listeners,
    /// One CONFIG REWRITE at a time.
    ConfigFile,
    /// One change of the cluster's node at a time, until it is in its file.
    NodeFile,
    /// The manifest.
    Manifest,
    /// Who makes segments of the log ahead of need, and indexes of those that are full.
    Tending,
    /// One fsync at a time.
    Syncing,
    /// The right to cut the journal into blocks.
    JournalCut,
    /// The writer of the log's file.
    LogWriter,
    /// The data keys of an encrypted store.
    Keyring,
    /// The gate: one lock per worker, by its number. Behind the closed gate, nothing above this line is waited for.
    Gate,
    /// Whether a waiting command has been answered.
    WaiterState,
    /// The shards of the keyspace, by their number.
    Shard,
    /// The register of waiting commands.
    Waiters,
    /// The buffers of the journal, one per worker, by its number.
    JournalBuffer,
    /// Why the log has failed.
    Poison,
    /// Which snapshot is being made, and what follows it.
    Saving,
    /// The right to tell the events of keys.
    EventTelling,
    /// The channels with their subscribers, in stripes by their number.
    Channels,
    /// The patterns with their subscribers.
    Patterns,
    /// The connections that track keys.
    Trackers,
    /// The tracked keys with their readers, in stripes by their number.
    Tracked,
    /// The register of monitors, in whose order commands are shown.
    Monitors,
    /// Short registers that lead to no other lock: clients, errors, labels, subscribers, mailboxes.
    Register,
    /// The settings: held to clone or exchange a pointer.
    Settings,
    /// The wake-up of a thread.
    Signal,
    /// The operator's log.
    OperatorLog,
}

/// The locks that a thread holds; only in debug builds.
#[cfg(debug_assertions)]
mod held {
    use std::cell::{Cell, RefCell};

    use super::Rank;

    thread_local! {
        static HELD: RefCell<Vec<(Rank, u32)>> = const { RefCell::new(Vec::new()) };
        static ALONE: Cell<u32> = const { Cell::new(0) };
        static EXEMPT: Cell<u32> = const { Cell::new(0) };
    }

    /// Panics if the thread must not wait for this lock now.
    #[track_caller]
    pub(super) fn check(rank: Rank, index: u32) {
        // A thread that is ending no longer has a list, and holds nothing.
        if EXEMPT.try_with(Cell::get).unwrap_or(1) > 0 {
            return;
        }
        let wrong = HELD.try_with(|held| {
            let held = held.try_borrow().ok()?;
            let wrong = held.iter().find(|(other, at)| match other.cmp(&rank) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => *at >= index && !(rank == Rank::Shard && is_alone() && *at != index),
            });
            wrong.copied()
        });
        // Not while the list is borrowed: whoever reports the panic takes locks, too.
        if let Ok(Some((other, at))) = wrong
            && !std::thread::panicking()
        {
            panic!("lock order: {rank:?} {index} is waited for while {other:?} {at} is held");
        }
    }

    pub(super) fn add(rank: Rank, index: u32) {
        let _ = HELD.try_with(|held| held.borrow_mut().push((rank, index)));
    }

    pub(super) fn remove(rank: Rank, index: u32) {
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(at) = held.iter().rposition(|entry| *entry == (rank, index)) {
                held.remove(at);
            }
        });
    }

    /// What a thread holds, while it does something else.
    #[derive(Debug, Default)]
    pub(super) struct Lists(Vec<(Rank, u32)>, u32, u32);

    pub(super) fn exchange(lists: Lists) -> Lists {
        let Lists(held, alone, exempt) = lists;
        let held = HELD.try_with(|list| std::mem::replace(&mut *list.borrow_mut(), held)).unwrap_or_default();
        let alone = ALONE.try_with(|count| count.replace(alone)).unwrap_or_default();
        let exempt = EXEMPT.try_with(|count| count.replace(exempt)).unwrap_or_default();
        Lists(held, alone, exempt)
    }

    #[cfg(test)]
    pub(super) fn count() -> usize {
        HELD.try_with(|held| held.borrow().len()).unwrap_or(0)
    }

    pub(super) fn is_alone() -> bool {
        ALONE.try_with(Cell::get).unwrap_or(0) > 0
    }

    pub(super) fn step_exempt(by: i32) {
        let _ = EXEMPT.try_with(|exempt| exempt.set(exempt.get().wrapping_add_signed(by)));
    }

    pub(super) fn step_alone(by: i32) {
        let _ = ALONE.try_with(|alone| alone.set(alone.get().wrapping_add_signed(by)));
    }
}

/// The locks that work holds which its thread has interrupted to do other work.
#[derive(Debug)]
pub struct SetAside {
    #[cfg(debug_assertions)]
    lists: held::Lists,
}

/// Sets the locks of this thread aside, which stay locked: the thread goes on with other work, and must not wait for
/// one of them.
pub fn set_aside() -> SetAside {
    SetAside {
        #[cfg(debug_assertions)]
        lists: held::exchange(held::Lists::default()),
    }
}

impl SetAside {
    /// Goes on with the work that holds them.
    pub fn take_up(self) {
        #[cfg(debug_assertions)]
        held::exchange(self.lists);
    }
}

/// The right to lock shards in any order, for as long as it lives: its thread has closed the gate.
#[derive(Debug)]
pub struct Alone(());

/// Notes that this thread is alone behind the closed gate; see the module.
pub fn alone() -> Alone {
    #[cfg(debug_assertions)]
    held::step_alone(1);
    Alone(())
}

impl Drop for Alone {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        held::step_alone(-1);
    }
}

/// The right to take locks against their order, for as long as it lives.
#[derive(Debug)]
pub struct OutOfOrder(());

/// Lets this thread take locks against their order. `reason` says why no thread can wait the other way round. A
/// reader of the source finds every such place by this name.
pub fn out_of_order(reason: &'static str) -> OutOfOrder {
    debug_assert!(!reason.is_empty());
    #[cfg(debug_assertions)]
    held::step_exempt(1);
    OutOfOrder(())
}

impl Drop for OutOfOrder {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        held::step_exempt(-1);
    }
}

/// A lock with its rank and, among those of one rank, its index.
pub struct Mutex<T> {
    #[cfg(debug_assertions)]
    place: (Rank, u32),
    inner: parking_lot::Mutex<T>,
}

/// The right to use the value of a [`Mutex`].
pub struct MutexGuard<'a, T> {
    inner: parking_lot::MutexGuard<'a, T>,
    #[cfg(debug_assertions)]
    _place: Place,
    // Fields are dropped in this order.
    #[cfg(test)]
    release: super::schedule::Release,
}

/// An entry in the thread's list, removed when dropped.
#[cfg(debug_assertions)]
struct Place(Rank, u32);

#[cfg(debug_assertions)]
impl Place {
    fn new((rank, index): (Rank, u32)) -> Place {
        held::add(rank, index);
        Place(rank, index)
    }
}

#[cfg(debug_assertions)]
impl Drop for Place {
    fn drop(&mut self) {
        held::remove(self.0, self.1);
    }
}

impl<T> Mutex<T> {
    /// A lock of this rank, the only one of its rank that a thread holds at a time.
    pub const fn new(rank: Rank, value: T) -> Mutex<T> {
        Mutex::indexed(rank, 0, value)
    }

    /// One of several locks of a rank, which are taken with ascending index.
    pub const fn indexed(rank: Rank, index: u32, value: T) -> Mutex<T> {
        #[cfg(not(debug_assertions))]
        let _ = (rank, index);
        Mutex {
            #[cfg(debug_assertions)]
            place: (rank, index),
            inner: parking_lot::Mutex::new(value),
        }
    }

    fn guard<'a>(&self, inner: parking_lot::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard {
            inner,
            #[cfg(debug_assertions)]
            _place: Place::new(self.place),
            #[cfg(test)]
            release: super::schedule::Release(address_of(self)),
        }
    }

    /// Waits for the lock.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(debug_assertions)]
        held::check(self.place.0, self.place.1);
        #[cfg(test)]
        if super::schedule::is_on() {
            return self.guard(super::schedule::until(address_of(self), || self.inner.try_lock()));
        }
        self.guard(self.inner.lock())
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.inner.try_lock().map(|guard| self.guard(guard))
    }

    /// Waits for the lock for at most this long. A bounded wait is checked like an unbounded one.
    #[track_caller]
    pub fn try_lock_for(&self, time: Duration) -> Option<MutexGuard<'_, T>> {
        #[cfg(debug_assertions)]
        held::check(self.place.0, self.place.1);
        #[cfg(test)]
        if super::schedule::is_on() {
            return super::schedule::try_some(|| self.try_lock());
        }
        self.inner.try_lock_for(time).map(|guard| self.guard(guard))
    }

    /// Waits for the lock until that time. A bounded wait is checked like an unbounded one.
    #[track_caller]
    pub fn try_lock_until(&self, deadline: std::time::Instant) -> Option<MutexGuard<'_, T>> {
        #[cfg(debug_assertions)]
        held::check(self.place.0, self.place.1);
        #[cfg(test)]
        if super::schedule::is_on() {
            return super::schedule::try_some(|| self.try_lock());
        }
        self.inner.try_lock_until(deadline).map(|guard| self.guard(guard))
    }

    /// Whether it is locked at this moment.
    pub fn is_locked(&self) -> bool {
        self.inner.is_locked()
    }

    /// The guarded value, of a lock that no thread can hold.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// The guarded value.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

/// What a schedule of a test knows a lock or a condition variable by.
#[cfg(test)]
fn address_of<T>(it: &T) -> usize {
    std::ptr::from_ref(it).addr()
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> From<T> for Mutex<T> {
    /// A register: see [`Rank::Register`].
    fn from(value: T) -> Self {
        Mutex::new(Rank::Register, value)
    }
}

impl<T: Default> Default for Mutex<T> {
    /// A register: see [`Rank::Register`].
    fn default() -> Self {
        Mutex::new(Rank::Register, T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A lock for many readers or one writer, with its rank.
pub struct RwLock<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    inner: parking_lot::RwLock<T>,
}

/// The right to read the value of a [`RwLock`].
pub struct ReadGuard<'a, T> {
    inner: parking_lot::RwLockReadGuard<'a, T>,
    #[cfg(debug_assertions)]
    _place: Place,
    #[cfg(test)]
    _release: super::schedule::Release,
}

/// The right to change the value of a [`RwLock`].
pub struct WriteGuard<'a, T> {
    inner: parking_lot::RwLockWriteGuard<'a, T>,
    #[cfg(debug_assertions)]
    _place: Place,
    #[cfg(test)]
    _release: super::schedule::Release,
}

impl<T> RwLock<T> {
    /// A lock of this rank.
    pub const fn new(rank: Rank, value: T) -> RwLock<T> {
        #[cfg(not(debug_assertions))]
        let _ = rank;
        RwLock {
            #[cfg(debug_assertions)]
            rank,
            inner: parking_lot::RwLock::new(value),
        }
    }

    /// Waits until no thread writes.
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        #[cfg(debug_assertions)]
        held::check(self.rank, 0);
        #[cfg(test)]
        let inner = match super::schedule::is_on() {
            true => super::schedule::until(address_of(self), || self.inner.try_read()),
            false => self.inner.read(),
        };
        #[cfg(not(test))]
        let inner = self.inner.read();
        ReadGuard {
            inner,
            #[cfg(debug_assertions)]
            _place: Place::new((self.rank, 0)),
            #[cfg(test)]
            _release: super::schedule::Release(address_of(self)),
        }
    }

    /// Waits until no thread reads or writes.
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        #[cfg(debug_assertions)]
        held::check(self.rank, 0);
        #[cfg(test)]
        let inner = match super::schedule::is_on() {
            true => super::schedule::until(address_of(self), || self.inner.try_write()),
            false => self.inner.write(),
        };
        #[cfg(not(test))]
        let inner = self.inner.write();
        WriteGuard {
            inner,
            #[cfg(debug_assertions)]
            _place: Place::new((self.rank, 0)),
            #[cfg(test)]
            _release: super::schedule::Release(address_of(self)),
        }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Where a thread sleeps until another wakes it.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

impl Condvar {
    /// Releases the lock and sleeps until woken, at most until the deadline. Returns whether that has passed.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: std::time::Instant) -> bool {
        #[cfg(test)]
        if super::schedule::is_on() {
            return self.wait_for_turn(guard, true);
        }
        self.0.wait_until(&mut guard.inner, deadline).timed_out()
    }

    /// Releases the lock and sleeps until woken.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        #[cfg(test)]
        if super::schedule::is_on() {
            self.wait_for_turn(guard, false);
            return;
        }
        self.0.wait(&mut guard.inner);
    }

    /// The same within a schedule of a test: nobody else of it runs between the release and the sleep.
    #[cfg(test)]
    fn wait_for_turn<T>(&self, guard: &mut MutexGuard<'_, T>, timed: bool) -> bool {
        use super::schedule;
        let (lock, address) = (parking_lot::MutexGuard::mutex(&guard.inner), guard.release.0);
        parking_lot::MutexGuard::unlocked(&mut guard.inner, || {
            schedule::released(address);
            let timed_out = schedule::sleep(address_of(self), timed);
            // It is free when this returns, and nobody else of the schedule takes it before the guard has it again.
            drop(schedule::until(address, || lock.try_lock()));
            timed_out
        })
    }

    /// Wakes one sleeping thread.
    pub fn notify_one(&self) {
        #[cfg(test)]
        super::schedule::wake(address_of(self), false);
        self.0.notify_one();
    }

    /// Wakes all sleeping threads.
    pub fn notify_all(&self) {
        #[cfg(test)]
        super::schedule::wake(address_of(self), true);
        self.0.notify_all();
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    fn panics(f: impl FnOnce() + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(f).is_err()
    }

    #[test]
    fn a_wrong_order_panics_and_leaves_nothing_held() {
        let (writer, gate) = (Mutex::new(Rank::LogWriter, ()), Mutex::new(Rank::Gate, ()));
        drop((writer.lock(), gate.lock()));
        let wrong = std::panic::AssertUnwindSafe(|| {
            let _gate = gate.lock();
            let _writer = writer.lock();
        });
        assert!(panics(wrong));
        assert_eq!(held::count(), 0);
        assert!(writer.try_lock().is_some(), "the wrong lock was not taken");
    }

    #[test]
    fn among_one_rank_the_index_ascends_unless_alone() {
        let shards: Vec<_> = (0..3).map(|index| Mutex::indexed(Rank::Shard, index, ())).collect();
        drop((shards[0].lock(), shards[2].lock()));
        let wrong = |first: usize, second: usize| {
            panics(std::panic::AssertUnwindSafe(|| drop((shards[first].lock(), shards[second].lock()))))
        };
        assert!(wrong(1, 0));
        assert!(wrong(1, 1));
        let alone = alone();
        drop((shards[2].lock(), shards[0].lock(), shards[1].lock()));
        drop(alone);
        assert!(wrong(1, 0));
    }

    #[test]
    fn trying_is_not_checked_but_counts() {
        let (poison, writer) = (Mutex::new(Rank::Poison, ()), Mutex::new(Rank::LogWriter, ()));
        let held = poison.lock();
        let tried = writer.try_lock();
        assert!(tried.is_some());
        assert_eq!(held::count(), 2);
        drop(held);
        assert_eq!(held::count(), 1);
        let gate = RwLock::new(Rank::Settings, 7);
        assert_eq!(*gate.read(), 7);
        *gate.write() = 8;
        drop(tried);
        assert_eq!(held::count(), 0);
    }
}
