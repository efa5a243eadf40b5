//! The data keys of a store, and the file `KEYS` that holds them wrapped.
//!
//! Invariants:
//! - A data key is durable before a file is written under it, and stays as long as a file of the directory needs it.
//! - With a new master key comes a new data key: what was learned of the old one opens nothing that is written since.

use std::sync::Arc;

use aes_gcm_siv::Nonce;
use aes_gcm_siv::aead::{Aead as _, Payload};
use zeroize::Zeroizing;

use crate::base::lock::{Mutex, Rank};
use crate::base::random::os_bytes;
use crate::persist::error::PersistError;
use crate::persist::format::{KEYS, KEYS_MAGIC, KEYS_TMP, VERSION_ENCRYPTED};
use crate::persist::storage::Storage;
use crate::persist::wire::{FrameFault, KeysWire, WrappedKeyWire, frame_of_version, unframe};

use super::master::fingerprint;
use super::{Encryption, FileCipher, FileKind, KEY, Key, MasterKeys, aead};

/// Bytes of the hash seed, which is wrapped behind each data key.
const SEED: usize = 16;

/// The data keys of a store, unwrapped.
pub(crate) struct Keyring {
    storage: Arc<dyn Storage>,
    store: [u8; 16],
    encryption: Encryption,
    hash_seed: Zeroizing<[u8; SEED]>,
    keys: Mutex<Keys>,
}

#[derive(Default, Clone)]
struct Keys {
    /// Each with its number, oldest first; the last one seals.
    data: Vec<(u32, Key)>,
    /// The first master key, under which all are wrapped.
    master: Key,
    /// Whether the file holds what is here.
    is_saved: bool,
}

impl Keyring {
    /// The keys of a store, or `None` if it has none and is not to be encrypted. Nothing is written before
    /// [`Keyring::save`]. A store without keys whose files already depend on its hash seed keeps that seed.
    ///
    /// # Errors
    /// The master keys are missing, or do not open the file.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        store: [u8; 16],
        is_fresh: bool,
        encryption: Option<&Encryption>,
    ) -> Result<Option<Self>, PersistError> {
        let path = storage.path(KEYS);
        let is_there = storage.exists(KEYS).map_err(PersistError::io("look for", &path))?;
        let refused = |why: String| PersistError::Refused { file: path.clone(), why };
        let Some(encryption) = encryption else {
            let why = "the store is encrypted: `encryption-key-file` or `encryption-key-command` must give its key";
            return if is_there { Err(refused(why.to_owned())) } else { Ok(None) };
        };
        if !is_there && !encryption.writes {
            return Ok(None);
        }
        let masters = (encryption.source)().map_err(refused)?;
        let mut keys = Keys { master: masters.first().clone(), ..Keys::default() };
        let hash_seed = if is_there {
            let bytes = storage.read(KEYS).map_err(PersistError::io("read", &path))?;
            let (wire, _) = unframe::<KeysWire>(KEYS_MAGIC, &bytes).map_err(|fault| match fault {
                FrameFault::Corrupt(what) => PersistError::corrupt(&path, 0, what),
                FrameFault::Version(found) => {
                    PersistError::Version { file: path.clone(), found, supported: VERSION_ENCRYPTED }
                }
            })?;
            if wire.store != store {
                return Err(refused("it holds the keys of another store".into()));
            }
            keys.unwrap(&wire, &masters).map_err(refused)?
        } else {
            Zeroizing::new(if is_fresh { os_bytes() } else { store })
        };
        if !keys.is_saved && encryption.writes {
            keys.add();
        }
        let (storage, encryption) = (Arc::clone(storage), encryption.clone());
        Ok(Some(Self { storage, store, encryption, hash_seed, keys: Mutex::new(Rank::Keyring, keys) }))
    }

    /// Whether new files are encrypted.
    pub(crate) fn writes(&self) -> bool {
        self.encryption.writes
    }

    /// How many data keys there are.
    pub(crate) fn count(&self) -> usize {
        self.keys.lock().data.len()
    }

    /// The seed that places the keys of the keyspace.
    pub(crate) fn hash_seed(&self) -> [u8; SEED] {
        *self.hash_seed
    }

    /// The cipher of a new file, or `None` if new files are not to be encrypted.
    pub(crate) fn seal(&self, kind: FileKind, number: u64, generation: u64) -> Option<FileCipher> {
        let keys = self.keys.lock();
        let (id, key) = keys.data.last().filter(|_| self.encryption.writes)?;
        Some(FileCipher::derive(key, *id, kind, number, generation))
    }

    /// The cipher of a file that was written under the data key of this number, or `None` if that is not there.
    pub(crate) fn open_file(&self, id: u32, kind: FileKind, number: u64, generation: u64) -> Option<FileCipher> {
        let keys = self.keys.lock();
        let (_, key) = keys.data.iter().find(|(other, _)| *other == id)?;
        Some(FileCipher::derive(key, id, kind, number, generation))
    }

    /// Makes the keys durable, unless they are.
    ///
    /// # Errors
    /// A failed write: no file may be written under a key that was added last.
    pub(crate) fn save(&self) -> Result<(), PersistError> {
        let mut keys = self.keys.lock();
        self.write(&mut keys)
    }

    /// Asks for the master keys again. If there is a new first one, wraps the data keys under it and adds a new one,
    /// for the files from now on.
    ///
    /// # Errors
    /// They cannot be had, or not be written down. Everything goes on under the old ones.
    pub(crate) fn refresh(&self) -> Result<(), PersistError> {
        let refused = |why: String| PersistError::Refused { file: self.storage.path(KEYS), why };
        let masters = (self.encryption.source)().map_err(refused)?;
        let mut keys = self.keys.lock();
        if fingerprint(masters.first()) == fingerprint(&keys.master) {
            return Ok(());
        }
        let mut next = Keys { master: masters.first().clone(), is_saved: false, ..keys.clone() };
        next.add();
        self.write(&mut next)?;
        *keys = next;
        Ok(())
    }

    /// Forgets the data keys that are not used. A failure keeps them.
    pub(crate) fn prune(&self, used: &[u32]) {
        let mut keys = self.keys.lock();
        let last = keys.data.last().map(|(id, _)| *id);
        let mut next = keys.clone();
        next.data.retain(|(id, _)| used.contains(id) || Some(*id) == last);
        if next.data.len() < keys.data.len() {
            next.is_saved = false;
            if self.write(&mut next).is_ok() {
                *keys = next;
            }
        }
    }

    fn write(&self, keys: &mut Keys) -> Result<(), PersistError> {
        if keys.is_saved {
            return Ok(());
        }
        let storage = &*self.storage;
        let (path, temporary) = (storage.path(KEYS), storage.path(KEYS_TMP));
        let bytes = frame_of_version(VERSION_ENCRYPTED, KEYS_MAGIC, &keys.wrap(self.store, &self.hash_seed));
        if storage.exists(KEYS_TMP).map_err(PersistError::io("look for", &temporary))? {
            storage.remove(KEYS_TMP).map_err(PersistError::io("remove", &temporary))?;
        }
        let file = storage.create(KEYS_TMP).map_err(PersistError::io("create", &temporary))?;
        file.append(&bytes).map_err(PersistError::io("write", &temporary))?;
        file.sync_data().map_err(PersistError::io("sync", &temporary))?;
        storage.rename(KEYS_TMP, KEYS).map_err(PersistError::io("rename", &path))?;
        storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
        keys.is_saved = true;
        Ok(())
    }
}

impl Keys {
    /// Adds a new data key.
    fn add(&mut self) {
        let mut id = 0;
        while id == 0 || self.data.iter().any(|(other, _)| *other == id) {
            id = u32::from_le_bytes(os_bytes());
        }
        self.data.push((id, Zeroizing::new(os_bytes())));
        self.is_saved = false;
    }

    fn wrap(&self, store: [u8; 16], hash_seed: &[u8; SEED]) -> KeysWire {
        let cipher = aead(&self.master);
        let wrapped = |(id, key): &(u32, Key)| {
            let text = Zeroizing::new([&key[..], hash_seed].concat());
            let nonce: [u8; 12] = os_bytes();
            let payload = Payload { msg: &text, aad: &associated(store, *id) };
            let sealed = cipher.encrypt(&Nonce::from(nonce), payload).expect("a key is short enough");
            WrappedKeyWire { id: *id, master: fingerprint(&self.master), nonce, sealed }
        };
        KeysWire { store, keys: self.data.iter().map(wrapped).collect() }
    }

    /// Takes the keys of the file. Returns the hash seed.
    fn unwrap(&mut self, wire: &KeysWire, masters: &MasterKeys) -> Result<Zeroizing<[u8; SEED]>, String> {
        self.is_saved = true;
        let mut seed = None;
        for wrapped in &wire.keys {
            let master = masters.find(wrapped.master).ok_or_else(|| {
                let digits: String = wrapped.master.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("the store is encrypted under the master key {digits}, which is not among those given")
            })?;
            self.is_saved &= wrapped.master == fingerprint(&self.master);
            let payload = Payload { msg: &wrapped.sealed, aad: &associated(wire.store, wrapped.id) };
            let text = aead(master).decrypt(&Nonce::from(wrapped.nonce), payload).map(Zeroizing::new);
            let text = text.ok().filter(|text| text.len() == KEY + SEED);
            let text = text.ok_or("a data key does not decrypt: the file is damaged or was changed")?;
            let (mut key, mut this_seed) = (Zeroizing::new([0; KEY]), Zeroizing::new([0; SEED]));
            key.copy_from_slice(&text[..KEY]);
            this_seed.copy_from_slice(&text[KEY..]);
            self.data.push((wrapped.id, key));
            seed = Some(this_seed);
        }
        seed.ok_or_else(|| "it holds no key".to_owned())
    }
}

/// What a wrapped key belongs to.
fn associated(store: [u8; 16], id: u32) -> Vec<u8> {
    [&b"ironkeep data key"[..], &store, &id.to_le_bytes()].concat()
}
