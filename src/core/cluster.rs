//! Who this server is to cluster clients: the only node of its cluster, which owns all slots.
//!
//! Invariants:
//! - The id is chosen once and kept in a file of the data directory, so that a restart is the same node.
//! - A change counts once it is in the file. Readers see the node before it or after it.

use std::sync::{Arc, OnceLock};

use crate::base::lock::{Mutex, Rank};
use crate::base::random;
use crate::base::slot::SLOTS;
use crate::core::stats::Counter;
use crate::persist::PersistError;
use crate::persist::nodes::{self, NodeFile};
use crate::persist::storage::Storage;

/// The node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Forty hexadecimal digits.
    pub id: String,
    /// The same, for its shard.
    pub shard_id: String,
    /// The epoch of its slots.
    pub config_epoch: u64,
    /// The newest epoch that it knows.
    pub current_epoch: u64,
}

impl Node {
    /// A node of its own.
    pub fn new() -> Node {
        Node { id: random::run_id(), shard_id: random::run_id(), config_epoch: 0, current_epoch: 0 }
    }

    fn file(&self) -> NodeFile {
        let Node { id, shard_id, config_epoch, current_epoch } = self.clone();
        NodeFile { id, shard_id: Some(shard_id), config_epoch, current_epoch }
    }
}

impl Default for Node {
    fn default() -> Node {
        Node::new()
    }
}

impl From<NodeFile> for Node {
    fn from(file: NodeFile) -> Node {
        let NodeFile { id, shard_id, config_epoch, current_epoch } = file;
        Node { id, shard_id: shard_id.unwrap_or_else(random::run_id), config_epoch, current_epoch }
    }
}

/// See the module.
pub struct Cluster {
    storage: Arc<dyn Storage>,
    file_name: String,
    node: Mutex<Arc<Node>>,
    /// Held from a change's beginning until it is in the file.
    changing: Mutex<()>,
    /// How slots are used, while `cluster-slot-stats-enabled` is set.
    pub usage: SlotUsage,
}

/// What the commands of each slot have cost.
#[derive(Debug, Default)]
pub struct SlotUsage(OnceLock<Box<[SlotCounters]>>);

/// What the commands of one slot have cost.
#[derive(Debug, Default)]
pub struct SlotCounters {
    /// How long they took, in nanoseconds.
    pub cpu_ns: Counter,
    /// The bytes of the requests.
    pub bytes_in: Counter,
    /// The bytes of the replies.
    pub bytes_out: Counter,
}

impl SlotUsage {
    /// The counters of a slot.
    pub fn of(&self, slot: u16) -> &SlotCounters {
        &self.0.get_or_init(|| (0..SLOTS).map(|_| SlotCounters::default()).collect())[usize::from(slot)]
    }

    /// Sets all to zero.
    pub fn reset(&self) {
        for counters in self.0.get().into_iter().flatten() {
            [&counters.cpu_ns, &counters.bytes_in, &counters.bytes_out].into_iter().for_each(|counter| counter.set(0));
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("node", &self.node()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The node that its file names, or a new one, which is in the file when this returns.
    ///
    /// # Errors
    /// The file cannot be read, used or written.
    pub fn open(storage: &Arc<dyn Storage>, file_name: &str) -> Result<Cluster, PersistError> {
        let (storage, file_name) = (Arc::clone(storage), file_name.to_owned());
        let found = nodes::read(&*storage, &file_name)?;
        let is_whole = found.as_ref().is_some_and(|file| file.shard_id.is_some());
        let node = found.map_or_else(Node::new, Node::from);
        if !is_whole {
            nodes::replace(&*storage, &file_name, &node.file())?;
        }
        let (node, changing) = (Mutex::new(Rank::Register, Arc::new(node)), Mutex::new(Rank::NodeFile, ()));
        Ok(Cluster { storage, file_name, node, changing, usage: SlotUsage::default() })
    }

    /// The node now.
    pub fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node.lock())
    }

    /// Changes the node, and waits for the disk. `change` returns what the caller wants to know. It returns `None` to
    /// leave everything as it is. Never call this behind the closed gate.
    ///
    /// # Errors
    /// The file cannot be written. The node is as before.
    pub fn change<T>(&self, change: impl FnOnce(&mut Node) -> Option<T>) -> Result<Option<T>, PersistError> {
        let _changing = self.changing.lock();
        let mut node = Node::clone(&self.node());
        let Some(outcome) = change(&mut node) else { return Ok(None) };
        nodes::replace(&*self.storage, &self.file_name, &node.file())?;
        *self.node.lock() = Arc::new(node);
        Ok(Some(outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::storage::SimStorage;

    const FILE: &str = "nodes.conf";

    fn open(storage: &SimStorage) -> Result<Cluster, PersistError> {
        Cluster::open(&(Arc::new(storage.clone()) as Arc<dyn Storage>), FILE)
    }

    #[test]
    fn a_restart_is_the_same_node_with_its_changes() {
        let storage = SimStorage::new();
        let first = open(&storage).unwrap();
        let new = first.node();
        assert_eq!((new.id.len(), new.config_epoch), (40, 0));
        assert_ne!(new.id, new.shard_id);
        assert_eq!(*open(&storage).unwrap().node(), *new);
        let bumped = first.change(|node| {
            node.config_epoch = 3;
            node.current_epoch = 4;
            Some("bumped")
        });
        assert_eq!(bumped.unwrap(), Some("bumped"));
        assert_eq!(first.change(|_| None::<()>).unwrap(), None);
        assert_eq!(*open(&storage).unwrap().node(), *first.node());
        assert_eq!((&first.node().id, first.node().config_epoch), (&new.id, 3));
    }

    #[test]
    fn a_node_of_redis_7_0_gets_a_shard_once() {
        let storage = SimStorage::new();
        let id = "a".repeat(40);
        storage.put(FILE, format!("{id} :7000@17000 myself,master - 0 0 1 connected 0-16383\n").as_bytes());
        let node = open(&storage).unwrap().node();
        assert_eq!(node.id, id);
        assert_eq!(open(&storage).unwrap().node(), node);
    }

    #[test]
    fn a_change_that_is_not_on_the_disk_has_not_happened() {
        for crash in 0..12 {
            let storage = SimStorage::new();
            let cluster = open(&storage).unwrap();
            let before = cluster.node();
            storage.crash_at(storage.operations() + crash);
            let change = |node: &mut Node| {
                node.config_epoch = 9;
                Some(())
            };
            let done = cluster.change(change).is_ok();
            assert_eq!(cluster.node().config_epoch, if done { 9 } else { 0 });
            for seed in 0..10 {
                let node = open(&storage.recover_image(seed)).unwrap().node();
                assert_eq!(node.id, before.id);
                assert!(!done || node.config_epoch == 9);
            }
        }
    }

    #[test]
    fn a_disk_that_refuses_leaves_no_node_without_a_file() {
        for crash in 0..8 {
            let storage = SimStorage::new();
            storage.crash_at(storage.operations() + crash);
            if let Ok(cluster) = open(&storage) {
                let image = storage.recover_image(crash);
                assert_eq!(open(&image).unwrap().node(), cluster.node());
            }
        }
    }
}
