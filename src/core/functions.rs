//! What the server keeps for functions besides their libraries, which are a part of the keyspace: the machine of
//! those that run alone.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::base::lock::Mutex;

/// The machine, which `script` alone knows.
pub type AnyMachine = Box<dyn Any + Send>;

/// See the module.
#[derive(Debug, Default)]
pub struct Functions {
    /// `None` before the first use, and while a thread uses it: one that is alone behind the gate.
    machine: Mutex<Option<AnyMachine>>,
    memory_bytes: AtomicUsize,
    /// A call has changed in it what all libraries share: the options of `cjson`.
    is_altered: AtomicBool,
}

impl Functions {
    /// Takes the machine, if there is one.
    pub fn take(&self) -> Option<AnyMachine> {
        self.machine.lock().take()
    }

    /// Puts the machine back, which takes so many bytes.
    pub fn put_back(&self, machine: AnyMachine, memory_bytes: usize) {
        let other = self.machine.lock().replace(machine);
        self.memory_bytes.store(memory_bytes, Relaxed);
        drop(other);
    }

    /// Drops the machine: the libraries are loaded anew when they are used next.
    pub fn drop_machine(&self) {
        let machine = self.take();
        self.memory_bytes.store(0, Relaxed);
        self.is_altered.store(false, Relaxed);
        drop(machine);
    }

    /// Notes that a call has changed what all libraries share.
    pub fn note_altered(&self) {
        self.is_altered.store(true, Relaxed);
    }

    /// Whether a call has, so that every function must run in this machine.
    #[inline]
    pub fn is_altered(&self) -> bool {
        self.is_altered.load(Relaxed)
    }

    /// The bytes that the machine takes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Relaxed)
    }
}
