//! The file of the cluster's node: who this server is, as cluster clients know it. Drawn in `format.rs`.
//!
//! It has the form of Redis' `nodes.conf`, so that a node can come from there. It is replaced as a whole: temporary
//! file, fsync, rename, fsync of the directory. The rename is the commit point; a crash leaves the old file or the new
//! one.
//!
//! Invariant: a file that cannot be used is an error that names it. Nothing makes a new node in its place.

use super::error::PersistError;
use super::format::{MANIFEST, is_own_name};
use super::storage::Storage;

/// How many hexadecimal digits an id has.
const ID_DIGITS: usize = 40;

/// A node, as its file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// Forty hexadecimal digits, chosen once.
    pub id: String,
    /// The same, for its shard. `None` in a file of Redis 7.0.
    pub shard_id: Option<String>,
    /// The epoch of its slots.
    pub config_epoch: u64,
    /// The newest epoch that it knows.
    pub current_epoch: u64,
}

impl NodeFile {
    fn text(&self) -> String {
        let shard = self.shard_id.as_ref().map(|id| format!(",,shard-id={id}")).unwrap_or_default();
        let NodeFile { id, config_epoch, current_epoch, .. } = self;
        format!(
            "{id} :0@0{shard} myself,master - 0 0 {config_epoch} connected 0-16383\n\
             vars currentEpoch {current_epoch} lastVoteEpoch 0\n"
        )
    }

    /// Reads the content of a file. What is wrong with it is the error.
    fn parse(text: &str) -> Result<NodeFile, String> {
        let (mut node, mut current_epoch) = (None, 0);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            if let ["vars", vars @ ..] = &words[..] {
                let named = |pair: &[&str]| pair.first() == Some(&"currentEpoch");
                if let Some(pair) = vars.chunks(2).find(|pair| named(pair)) {
                    current_epoch = number(pair.get(1).copied().unwrap_or_default())?;
                }
                continue;
            }
            let [id, address, node_flags, _, _, _, epoch, ..] = words[..] else {
                return Err(format!("the line '{line}' is not of a node"));
            };
            let has = |flag| node_flags.split(',').any(|word| word == flag);
            if !has("myself") {
                return Err(format!("it names another node, {id}: this is a cluster of one node"));
            }
            if !has("master") {
                return Err("its node is a replica: this is a cluster of one node".to_owned());
            }
            if node.is_some() {
                return Err("it names this node twice".to_owned());
            }
            let shard_id = address.split(',').find_map(|part| part.strip_prefix("shard-id="));
            if let Some(id) = [Some(id), shard_id].into_iter().flatten().find(|id| !is_id(id)) {
                return Err(format!("'{id}' is not the id of a node"));
            }
            node = Some((id.to_owned(), shard_id.map(str::to_owned), number(epoch)?));
        }
        let (id, shard_id, config_epoch) = node.ok_or("it names no node")?;
        Ok(NodeFile { id, shard_id, config_epoch, current_epoch: current_epoch.max(config_epoch) })
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn number(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|&epoch: &u64| epoch < i64::MAX as u64);
    number.ok_or_else(|| format!("'{text}' is not an epoch"))
}

/// Reads the file; `None` if there is none, or if it is empty, as Redis leaves one that it has only locked.
///
/// # Errors
/// It cannot be read, names other nodes, or is damaged.
pub fn read(storage: &dyn Storage, name: &str) -> Result<Option<NodeFile>, PersistError> {
    let path = storage.path(name);
    if is_own_name(name) {
        let why = format!("'cluster-config-file {name}' names a file of the store beside {MANIFEST}");
        return Err(PersistError::Refused { file: path, why });
    }
    if !storage.exists(name).map_err(PersistError::io("look for", &path))? {
        return Ok(None);
    }
    let bytes = storage.read(name).map_err(PersistError::io("read", &path))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not a text".to_owned());
    let node = text.and_then(NodeFile::parse);
    node.map(Some).map_err(|why| PersistError::Refused { file: path, why })
}

/// Replaces the file, durably.
///
/// # Errors
/// The disk refuses. The old file or the new one is there.
pub fn replace(storage: &dyn Storage, name: &str, node: &NodeFile) -> Result<(), PersistError> {
    let temporary_name = format!("{name}.tmp");
    let (path, temporary) = (storage.path(name), storage.path(&temporary_name));
    // A failed attempt, or a crash, may have left one.
    if storage.exists(&temporary_name).map_err(PersistError::io("look for", &temporary))? {
        storage.remove(&temporary_name).map_err(PersistError::io("remove", &temporary))?;
    }
    let file = storage.create(&temporary_name).map_err(PersistError::io("create", &temporary))?;
    file.append(node.text().as_bytes()).map_err(PersistError::io("write", &temporary))?;
    file.sync_data().map_err(PersistError::io("sync", &temporary))?;
    storage.rename(&temporary_name, name).map_err(PersistError::io("rename", &path))?;
    storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::storage::SimStorage;

    const NAME: &str = "nodes.conf";

    fn node(config_epoch: u64) -> NodeFile {
        let (id, shard_id) = ("a1".repeat(20), Some("b2".repeat(20)));
        NodeFile { id, shard_id, config_epoch, current_epoch: config_epoch + 2 }
    }

    fn refusal(text: &str) -> String {
        let storage = SimStorage::new();
        storage.put(NAME, text.as_bytes());
        read(&storage, NAME).unwrap_err().to_string()
    }

    #[test]
    fn the_bytes_are_pinned_and_come_back() {
        let text = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 :0@0,,shard-id=b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2 \
                    myself,master - 0 0 7 connected 0-16383\nvars currentEpoch 9 lastVoteEpoch 0\n";
        assert_eq!(node(7).text(), text);
        assert_eq!(NodeFile::parse(text), Ok(node(7)));
    }

    #[test]
    fn files_of_redis_are_read() {
        let id = "abaf06b2d79aec5b7aa0e6fb348e1b50260dbc8c";
        let old = format!(
            "{id} :27001@37001 myself,master - 0 0 3 connected 0-100 200\nvars currentEpoch 5 lastVoteEpoch 0\n"
        );
        let read = NodeFile::parse(&old).unwrap();
        assert_eq!((&*read.id, read.shard_id, read.config_epoch, read.current_epoch), (id, None, 3, 5));
        let new = format!(
            "{id} 10.0.0.1:1@2,host,tls-port=0,shard-id={id} myself,master - 0 0 3 connected\nvars currentEpoch 0\n"
        );
        let read = NodeFile::parse(&new).unwrap();
        assert_eq!((read.shard_id.as_deref(), read.current_epoch), (Some(id), 3), "no epoch is newer than the newest");
    }

    #[test]
    fn what_is_no_node_of_one_is_refused_by_name() {
        let other = "c".repeat(40);
        for (text, why) in [
            (format!("{other} 1.2.3.4:5@6 master - 0 0 1 connected\n"), "another node"),
            (node(1).text() + &format!("{other} 1.2.3.4:5@6 slave x 0 0 1 connected\n"), "another node"),
            (node(1).text() + &node(1).text(), "twice"),
            (format!("{other} :0@0 myself,slave {other} 0 0 1 connected\n"), "replica"),
            ("short :0@0 myself,master - 0 0 1 connected\n".to_owned(), "not the id"),
            (format!("{other} :0@0,,shard-id=x myself,master - 0 0 1 connected\n"), "not the id"),
            (format!("{other} :0@0 myself,master - 0 0 x connected\n"), "not an epoch"),
            (format!("{other} :0@0 myself,master - 0 0 18446744073709551615 connected\n"), "not an epoch"),
            ("vars currentEpoch 1\n".to_owned(), "names no node"),
            ("vars currentEpoch\n".to_owned(), "not an epoch"),
            ("some words\n".to_owned(), "is not of a node"),
        ] {
            let told = refusal(&text);
            assert!(told.contains(why) && told.contains(NAME), "{text}: {told}");
        }
        assert_eq!(read(&SimStorage::new(), NAME).unwrap(), None);
        let storage = SimStorage::new();
        storage.put(NAME, b"");
        assert_eq!(read(&storage, NAME).unwrap(), None);
        storage.put(NAME, b"\xff");
        assert!(read(&storage, NAME).is_err());
        for own in ["MANIFEST", "MANIFEST.tmp", "LOCK", "log-0000000000000001.ik", "snapshot-0000000000000001.ik"] {
            assert!(read(&storage, own).is_err(), "{own}");
        }
    }

    #[test]
    fn a_cut_or_flipped_file_never_panics_and_never_becomes_another_node() {
        let good = node(7).text();
        for at in 0..good.len() {
            let mut flipped = good.clone().into_bytes();
            flipped[at] ^= 1;
            let cut = good.as_bytes()[..at].to_vec();
            for bytes in [flipped, cut] {
                let read = std::str::from_utf8(&bytes).map_err(|_| String::new()).and_then(NodeFile::parse);
                assert!(read.is_err() || read.is_ok_and(|node| is_id(&node.id)));
            }
        }
    }

    #[test]
    fn a_replacement_is_all_or_nothing_at_every_crash() {
        for crash in 0..12 {
            let storage = SimStorage::new();
            replace(&storage, NAME, &node(1)).unwrap();
            storage.crash_at(storage.operations() + crash);
            let done = replace(&storage, NAME, &node(2)).is_ok();
            for seed in 0..30 {
                let image = storage.recover_image(seed);
                let found = read(&image, NAME).unwrap().unwrap();
                assert!(found == node(2) || (!done && found == node(1)), "crash {crash}, seed {seed}: {found:?}");
                replace(&image, NAME, &node(3)).unwrap();
                assert_eq!(read(&image, NAME).unwrap(), Some(node(3)), "what a crash left is in nobody's way");
            }
        }
    }
}
