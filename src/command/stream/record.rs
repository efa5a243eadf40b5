//! What a consumer received, for the log: its pending entries afterwards, with the times.

use smallvec::SmallVec;

use crate::core::Db;
use crate::keyspace::Key;
use crate::persist::verbs::{GroupPosition, PendingEntry};
use crate::value::stream::{AnyStream, StreamId};

/// The consumer that asks, and the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) group: &'a [u8],
    pub(super) consumer: &'a [u8],
    pub(super) now: i64,
}

/// Logs how far a group has come and when its consumer was there; what is pending for that of these ids; and which
/// are pending no more.
pub(super) fn log_delivery(
    db: &mut Db<'_>,
    key: Key<'_>,
    Asker { group, consumer, .. }: Asker<'_>,
    pending: &[StreamId],
    gone: &[StreamId],
) {
    if !db.unit().is_logging() {
        return db.record(key).unwritten();
    }
    let Some(its) = db.viewed::<AnyStream>(key).and_then(|stream| stream.group(group)) else { return };
    let Some((seen, active)) = its.consumer(consumer).map(|consumer| (consumer.seen, consumer.active)) else { return };
    let position = GroupPosition { last_id: its.last_id, entries_read: its.entries_read };
    let pending = pending.iter().filter_map(|id| its.pending.get(id));
    let pending: SmallVec<[PendingEntry; 16]> = pending
        .map(|pending| PendingEntry { id: pending.id, delivered: pending.delivered, count: pending.count })
        .collect();
    db.record(key).group_deliver((group, consumer), &position, (seen, active), pending.into_iter(), gone);
}
