//! Keyspace events: what happened to keys, on its way to those who listen.
//!
//! ```text
//! handler ── Db::notify ──▶ the unit's events ── under the shards' locks ──▶ the queue ── after the unlock ──▶ tell
//! ```
//!
//! A unit's events are posted into one queue of the server while the shards are still locked, together with the
//! number of the journal block that holds its records. Once the locks are released, the worker takes the right to
//! tell, and tells everything that is in the queue, its own events and those of others.
//!
//! Invariants:
//! - The order of the events of a key is the order of its changes: both follow the lock of its shard. A unit's events
//!   are told without anything in between.
//! - When [`EventQueue::tell`] returns, what this thread has posted has been told. So a reply never leaves before the
//!   events of its command are on their way.
//! - An event names the block that must be safe before it leaves, because it shows a change in that block.
//! - While nobody wants events, none is made, and the queue is not looked at.

use crate::base::config::NotifyFlags;
use crate::base::lock::{Mutex, Rank};
use crate::core::message::Needs;
use crate::events::channels::Kind;

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its kind: one class of `notify-keyspace-events`.
    pub class: NotifyFlags,
    /// The channels on which it is to be published, as letters of `notify-keyspace-events` name them.
    pub wanted: NotifyFlags,
    /// Its name: `set`, `expired`.
    pub name: &'static str,
    /// The database.
    pub db: u32,
    /// The key.
    pub key: Box<[u8]>,
    /// The fields of a hash that it concerns, if they are wanted.
    pub fields: Vec<Box<[u8]>>,
    /// A message that a script has published, which leaves in its turn among the events of the script: the channel,
    /// of this kind, is in the place of the key, and its text in that of the fields.
    pub published: Option<Kind>,
}

impl Event {
    /// A message of a script.
    pub fn published(kind: Kind, channel: &[u8], text: &[u8]) -> Event {
        Event {
            class: NotifyFlags::NONE,
            wanted: NotifyFlags::NONE,
            name: "",
            db: 0,
            key: channel.into(),
            fields: vec![text.into()],
            published: Some(kind),
        }
    }

    /// Gives every message that tells this event: its channel and its content, in Redis' order.
    pub fn messages(&self, mut each: impl FnMut(Kind, &[u8], &[u8])) {
        if let Some(kind) = self.published {
            return each(kind, &self.key, self.fields.first().map(|text| &**text).unwrap_or_default());
        }
        let mut each = |channel: &[u8], message: &[u8]| each(Kind::Channel, channel, message);
        let wanted = self.wanted;
        let (db, name, key) = (itoa::Buffer::new().format(self.db).to_owned(), self.name.as_bytes(), &self.key[..]);
        let channel = |kind: &str, parts: &[&[u8]]| {
            let mut channel = format!("__{kind}@{db}__:").into_bytes();
            parts.iter().for_each(|part| channel.extend_from_slice(part));
            channel
        };
        if wanted.contains(NotifyFlags::KEYSPACE) {
            each(&channel("keyspace", &[key]), name);
        }
        if wanted.contains(NotifyFlags::KEYEVENT) {
            each(&channel("keyevent", &[name]), key);
        }
        if self.fields.is_empty() {
            return;
        }
        let fields = self.encoded_fields();
        if wanted.contains(NotifyFlags::SUBKEYSPACE) {
            each(&channel("subkeyspace", &[key]), &[name, b"|", &fields].concat());
        }
        if wanted.contains(NotifyFlags::SUBKEYEVENT) {
            let length = format!("{}:", key.len());
            each(&channel("subkeyevent", &[name]), &[length.as_bytes(), key, b"|", &fields].concat());
        }
        // A line end separates the key from the field.
        if wanted.contains(NotifyFlags::SUBKEYSPACEITEM) && !key.contains(&b'\n') {
            self.fields.iter().for_each(|field| each(&channel("subkeyspaceitem", &[key, b"\n", field]), name));
        }
        if wanted.contains(NotifyFlags::SUBKEYSPACEEVENT) {
            each(&channel("subkeyspaceevent", &[name, b"|", key]), &fields);
        }
    }

    /// `<len>:<field>`, with commas between.
    fn encoded_fields(&self) -> Vec<u8> {
        let mut encoded = Vec::new();
        for field in &self.fields {
            if !encoded.is_empty() {
                encoded.push(b',');
            }
            encoded.extend_from_slice(itoa::Buffer::new().format(field.len()).as_bytes());
            encoded.push(b':');
            encoded.extend_from_slice(field);
        }
        encoded
    }
}

/// The events of one unit.
#[derive(Debug)]
pub struct Told {
    /// What must be safe before they leave.
    pub needs: Needs,
    /// The events, in order.
    pub events: Vec<Event>,
}

/// See the module.
#[derive(Debug)]
pub struct EventQueue {
    posted: Mutex<Vec<Told>>,
    /// The right to tell.
    telling: Mutex<()>,
}

impl Default for EventQueue {
    fn default() -> Self {
        EventQueue { posted: Mutex::new(Rank::Register, Vec::new()), telling: Mutex::new(Rank::EventTelling, ()) }
    }
}

impl EventQueue {
    /// Posts the events of a unit. The caller holds the shards of its keys, or is alone.
    #[cold]
    pub fn post(&self, told: Told) {
        self.posted.lock().push(told);
    }

    /// Tells everything that was posted, unit by unit. The caller holds no shard.
    ///
    /// Another thread may be telling: it is waited for. It has then told what this thread had posted, or this thread
    /// does.
    #[cold]
    pub fn tell(&self, tell: impl FnMut(&Told)) {
        let _turn = self.telling.lock();
        let posted = std::mem::take(&mut *self.posted.lock());
        posted.iter().for_each(tell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(letters: &str, event: &Event) -> Vec<(String, String)> {
        let wanted = NotifyFlags::parse(letters.as_bytes()).expect("known letters");
        let mut all = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Event { wanted, ..event.clone() }.messages(|_, channel, message| all.push((text(channel), text(message))));
        all
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(channel, message)| ((*channel).to_owned(), (*message).to_owned())).collect()
    }

    #[test]
    fn an_event_is_told_on_each_channel_in_redis_order() {
        let mut event = Event {
            class: NotifyFlags::HASH,
            wanted: NotifyFlags::NONE,
            name: "hset",
            db: 3,
            key: Box::from(&b"my:hash"[..]),
            fields: vec![Box::from(&b"a"[..]), Box::from(&b"b,c"[..])],
            published: None,
        };
        assert_eq!(messages("A", &event), []);
        let keys = [("__keyspace@3__:my:hash", "hset"), ("__keyevent@3__:hset", "my:hash")];
        assert_eq!(messages("AKE", &event), pairs(&keys));
        assert_eq!(messages("hE", &event), pairs(&keys[1..]));
        let fields = [
            ("__subkeyspace@3__:my:hash", "hset|1:a,3:b,c"),
            ("__subkeyevent@3__:hset", "7:my:hash|1:a,3:b,c"),
            ("__subkeyspaceitem@3__:my:hash\na", "hset"),
            ("__subkeyspaceitem@3__:my:hash\nb,c", "hset"),
            ("__subkeyspaceevent@3__:hset|my:hash", "1:a,3:b,c"),
        ];
        assert_eq!(messages("hSTIV", &event), pairs(&fields));
        assert_eq!(messages("AKESTIV", &event), pairs(&[&keys[..], &fields[..]].concat()));
        event.key = Box::from(&b"two\nlines"[..]);
        assert_eq!(messages("hI", &event), [], "key and field could not be told apart");
        assert_eq!(messages("hV", &event).len(), 1);
        event.fields.clear();
        assert_eq!(messages("hSTIV", &event), [], "no field, no message");
    }

    /// Threads change what one lock guards in turn. What is told is in the order of the changes, and each thread finds
    /// its own change told when it goes on.
    #[test]
    fn what_is_told_is_in_the_order_of_the_changes() {
        let (queue, shard) = (EventQueue::default(), Mutex::indexed(Rank::Shard, 0, 0_u64));
        let seen = parking_lot::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let number = {
                            let mut shard = shard.lock();
                            *shard += 1;
                            queue.post(Told { needs: Needs::Block(*shard), events: Vec::new() });
                            *shard
                        };
                        queue.tell(|told| seen.lock().push(told.needs.block()));
                        assert!(seen.lock().len() as u64 >= number);
                    }
                });
            }
        });
        assert_eq!(*seen.lock(), (1..=8000).collect::<Vec<_>>());
    }
}
