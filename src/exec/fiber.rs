//! Scripts run in fibers: on stacks of their own, so that a worker can leave one in the middle and come back to it.
//!
//! ```text
//! worker ─ EVAL ─▶ resume ─▶ fiber: lock, run … time slice over ─┐
//!    ▲                                                          │ the connection waits (`Wait::Script`)
//!    ├──────────────────────────────────────────────────────────┘
//!    ├─ serves other connections; keys that the script holds are busy for them, as for those of other workers
//!    └─ resume ─▶ … ends ─▶ the reply goes to the connection
//! ```
//!
//! A fiber has an executor of its own, with a unit of its own, and serves one script after another. A transaction with
//! a script in it runs in a fiber as a whole.
//!
//! Invariants:
//! - A fiber belongs to its worker's thread. While it is left, it holds shards, or the closed gate, and nothing else.
//! - The client of a script is one made for it, and not that of the connection, which may end meanwhile. A transaction
//!   has the connection's own, which goes back to the connection whenever the worker does ([`Client::lend`]).
//! - A fiber is never dropped in the middle of a script.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corosensei::{Coroutine, CoroutineResult, Yielder};
use tokio::sync::oneshot;

use crate::base::{lock, logging};
use crate::core::CommandError;
use crate::core::client::Client;
use crate::core::error::Remains;
use crate::core::hooks::HookSet;
use crate::core::scripts::{RunningScript, Script};
use crate::keyspace::Closing;
use crate::resp::request::Span;
use crate::resp::{Args, Output};
use crate::script::WORKER_STACK_BYTES;

/// How many fibers without work are kept.
const IDLE_MAX: usize = 8;
/// How often a script is used before the register is told.
const USES_PER_LOOK: u32 = 64;
/// The room for words that is kept, in bytes.
const WORDS_KEPT_BYTES: usize = 64 << 10;

/// What goes into a fiber.
pub(super) enum Go {
    /// A script to run.
    Run(Box<Task>),
    /// The worker has come back, with the client of a transaction, unless its connection is gone.
    On(Option<Box<Client>>),
}

/// What comes out of it.
pub(super) enum Stop {
    /// A time slice is over, or it waits for a lock.
    Slice {
        /// Whether it waits.
        waits: bool,
        /// The client of a transaction.
        lent: Option<Box<Client>>,
    },
    /// The script, or the transaction, has ended.
    Done(Box<Task>),
}

/// One script that runs, or one transaction.
pub(super) struct Task {
    /// `None` for EXEC.
    pub(super) script: Option<Arc<Script>>,
    pub(super) args: Words,
    pub(super) keys_count: usize,
    pub(super) read_only: bool,
    pub(super) client: Client,
    pub(super) out: Output,
    pub(super) outcome: Result<(), CommandError>,
    pub(super) patience: Duration,
    pub(super) closing: Closing,
    /// When a transaction began. Of a script, those that run know it.
    pub(super) began: Instant,
    /// The hooks by which it was checked.
    pub(super) hooks: HookSet,
    /// Whether monitors have been shown that EXEC has run.
    pub(super) has_shown: bool,
}

/// Words of a command, copied into room that is reused.
#[derive(Default)]
pub(super) struct Words {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl Words {
    pub(super) fn set(&mut self, args: Args<'_>) {
        if self.bytes.capacity() > WORDS_KEPT_BYTES || self.spans.capacity() > WORDS_KEPT_BYTES / size_of::<Span>() {
            *self = Words::default();
        }
        self.bytes.clear();
        self.spans.clear();
        for word in args.from(0) {
            self.spans.push(Span { start: self.bytes.len(), len: word.len() });
            self.bytes.extend_from_slice(word);
        }
    }

    pub(super) fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }
}

/// How a script gives its worker back.
#[derive(Clone, Copy)]
pub(super) struct Pausing<'a> {
    /// The way out of its fiber.
    yielder: &'a Yielder<Go, Stop>,
    /// Whether its client goes back to the connection meanwhile.
    lends: bool,
    /// The script as others see it.
    pub(super) me: &'a Arc<RunningScript>,
}

impl Pausing<'_> {
    /// Whether its client goes back to the connection meanwhile: in a transaction.
    pub(super) fn lends(self) -> bool {
        self.lends
    }

    /// Gives the worker back until it returns.
    pub(super) fn pause(self, client: &mut Client) {
        self.leave(false, client);
    }

    /// The same because a lock is busy.
    pub(super) fn wait(self, client: &mut Client) {
        self.leave(true, client);
    }

    fn leave(self, waits: bool, client: &mut Client) {
        self.me.note_pause();
        let lent = self.lends.then(|| client.lend());
        let locks = lock::set_aside();
        let back = self.yielder.suspend(Stop::Slice { waits, lent });
        locks.take_up();
        match back {
            Go::On(Some(back)) => client.take_back(*back),
            Go::On(None) if self.lends => client.be_alone(),
            Go::On(None) => {}
            Go::Run(_) => unreachable!("it has a script"),
        }
    }
}

/// See the module.
pub(super) struct Fiber {
    coroutine: Coroutine<Go, Stop, ()>,
    me: Arc<RunningScript>,
}

/// A script in the middle of which its worker has left it.
pub struct Suspended {
    pub(super) fiber: Fiber,
    /// Takes the reply, and the block of the log that holds what it has changed.
    pub(super) answer: oneshot::Sender<(Output, Option<u64>)>,
    /// See [`Suspended::borrows_from`].
    pub(super) lender: Option<u64>,
    /// Whether it waits for a lock.
    pub(super) waits: bool,
    pub(super) ended: Option<Box<Task>>,
}

impl std::fmt::Debug for Suspended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suspended").field("waits", &self.waits).finish_non_exhaustive()
    }
}

/// The fibers of a worker.
#[derive(Default)]
pub(super) struct Fibers {
    pub(super) idle: Vec<(Fiber, Box<Task>)>,
    pub(super) suspended: Vec<Suspended>,
    recent: Option<Recent>,
}

/// The script that EVALSHA has named last, which often is the next one, too.
struct Recent {
    /// Its name, as the client wrote it.
    name: [u8; 40],
    /// The generation of the scripts.
    generation: u64,
    script: Arc<Script>,
    /// How often it may be used without a look at the register, which notes who is used.
    uses: u32,
}

impl std::fmt::Debug for Fibers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fibers").field("idle", &self.idle.len()).field("suspended", &self.suspended).finish()
    }
}

impl Fiber {
    /// A fiber that runs its tasks by `run`.
    pub(super) fn new(mut run: impl FnMut(&mut Task, Pausing<'_>) + 'static) -> std::io::Result<Fiber> {
        let stack = corosensei::stack::DefaultStack::new(WORKER_STACK_BYTES)?;
        let me = Arc::new(RunningScript::default());
        let inner = Arc::clone(&me);
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<Go, Stop>, first: Go| {
            let mut go = first;
            loop {
                let Go::Run(mut task) = go else { unreachable!("a fiber without work is given some") };
                let pausing = Pausing { yielder, lends: task.script.is_none(), me: &inner };
                if catch_unwind(AssertUnwindSafe(|| run(&mut task, pausing))).is_err() {
                    logging::warning(format_args!("BUG: a panic stopped a script"));
                    task.outcome = Err(CommandError::Internal(Remains::Unknown));
                    task.client.leave_exec();
                }
                go = yielder.suspend(Stop::Done(task));
            }
        });
        Ok(Fiber { coroutine, me })
    }

    /// Lets it run until it comes out again.
    pub(super) fn resume(&mut self, go: Go) -> Stop {
        match self.coroutine.resume(go) {
            CoroutineResult::Yield(stop) => stop,
            CoroutineResult::Return(()) => unreachable!("a fiber does not end"),
        }
    }
}

impl Suspended {
    /// Lets it run for a time slice, with the client of [`Suspended::borrows_from`]. Returns whether it has ended.
    pub fn resume(&mut self, client: Option<&mut Client>) -> bool {
        let is_gone = self.answer.is_closed();
        if is_gone {
            // Nobody waits for a reply.
            self.fiber.me.kill();
        }
        let mut client = client.filter(|_| self.lender.is_some() && !is_gone);
        let lent = client.as_mut().map(|client| {
            debug_assert!(client.wait.is_none(), "its connection waits for it");
            let stand_in = Client::for_script(client);
            Box::new(std::mem::replace(*client, stand_in))
        });
        match self.fiber.resume(Go::On(lent)) {
            Stop::Slice { waits, lent } => {
                self.waits = waits;
                if let (Some(client), Some(lent)) = (client, lent) {
                    *client = *lent;
                }
            }
            Stop::Done(mut task) => {
                if let Some(client) = client {
                    std::mem::swap(client, &mut task.client);
                }
                self.ended = Some(task);
            }
        }
        self.ended.is_some()
    }

    /// The connection whose client it needs to go on, while that lasts: that of a transaction.
    pub fn borrows_from(&self) -> Option<u64> {
        self.lender
    }

    /// Whether it waits for a lock, so that there is no hurry.
    pub fn waits(&self) -> bool {
        self.waits
    }
}

impl Fibers {
    /// The script of this name, if it is the one that was named last.
    #[inline]
    pub(super) fn recent(&mut self, name: &[u8], generation: u64) -> Option<Arc<Script>> {
        let recent = self.recent.as_mut()?;
        let is_it = recent.uses > 0 && recent.generation == generation && recent.name[..] == *name;
        recent.uses = recent.uses.saturating_sub(1);
        is_it.then(|| Arc::clone(&recent.script))
    }

    /// Notes which script was named last.
    pub(super) fn note_recent(&mut self, name: &[u8], generation: u64, script: &Arc<Script>) {
        if let Ok(name) = name.try_into() {
            self.recent = Some(Recent { name, generation, script: Arc::clone(script), uses: USES_PER_LOOK });
        }
    }

    /// Keeps a fiber without work, with its task, for the next script.
    pub(super) fn give_back(&mut self, fiber: Fiber, task: Box<Task>) {
        if self.idle.len() < IDLE_MAX {
            self.idle.push((fiber, task));
        }
    }
}

impl Task {
    pub(super) fn new(client: &Client) -> Task {
        Task {
            script: None,
            args: Words::default(),
            keys_count: 0,
            read_only: false,
            client: Client::for_script(client),
            out: Output::new(),
            outcome: Ok(()),
            patience: Duration::ZERO,
            closing: Closing::default(),
            began: Instant::now(),
            hooks: HookSet::default(),
            has_shown: false,
        }
    }
}
