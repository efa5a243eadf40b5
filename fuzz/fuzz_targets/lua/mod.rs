//! A host for scripts that answers every command with its words, and ends them soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironkeep::core::scripts::{Script, Sha};
use ironkeep::resp::request::OwnedArgs;
use ironkeep::resp::{Args, Output, Reply, Resp};
use ironkeep::script::{Access, Failure, Flow, Host, LogLevel, Run, source, with_vm};

/// How often a script is asked whether it ends, and how long it may run. One step of the engine may take longer.
const QUESTIONS_MAX: u32 = 300;
const TIME_MAX: Duration = Duration::from_millis(500);
/// How much memory a script may take, in bytes.
#[allow(dead_code)] // not every target runs scripts
const MEMORY_MAX: usize = 8 << 20;

/// See the module.
pub struct Echo {
    questions: u32,
    until: Instant,
}

impl Echo {
    /// One that has not been asked yet.
    pub fn new() -> Echo {
        Echo { questions: 0, until: Instant::now() + TIME_MAX }
    }
}

impl Host for Echo {
    fn call(&mut self, args: Args<'_>, resp: Resp, out: &mut Output) -> Flow {
        match args.at(0) {
            b"fail" => out.error_bytes(b"ERR on purpose"),
            b"number" => drop(Reply::new(out, resp).number(1.5)),
            b"null" => drop(Reply::new(out, resp).null()),
            _ => {
                let mut words = Reply::new(out, resp).array(args.len());
                args.from(0).for_each(|word| words.bulk(word));
                words.end();
            }
        }
        Flow::GoesOn
    }

    fn may(&self, _: Args<'_>) -> Access {
        Access::Allowed
    }

    fn log(&mut self, _: LogLevel, _: &str) {}

    fn stop(&mut self) -> Option<&'static str> {
        self.questions += 1;
        (self.questions > QUESTIONS_MAX || Instant::now() > self.until).then_some("it is time")
    }
}

/// Runs a script with these arguments, twice: the second time with what the first one has left. Returns the outcome of
/// the second time.
#[allow(dead_code)]
pub fn run(text: &[u8], arguments: &[&[u8]], resp: Resp) -> Result<Vec<u8>, Vec<u8>> {
    let Ok(flags) = source::read(text) else { return Err(b"no script".to_vec()) };
    let script = Arc::new(Script::new(Sha::of(text), text.into(), flags));
    let words = OwnedArgs::new([&b"key"[..]].into_iter().chain(arguments.iter().copied()));
    let mut last = Err(Vec::new());
    for _ in 0..2 {
        let mut out = Output::new();
        let run = Run { script: &script, args: words.args(), keys_at: 0, keys_count: 1, resp, memory_max: MEMORY_MAX };
        last = match with_vm(0, |vm| vm.run(run, &mut Echo::new(), &mut out)).and_then(|ran| ran) {
            Ok(()) => Ok(out.into_bytes()),
            Err(Failure::Compile(error) | Failure::Error(error) | Failure::OfCommand(error)) => Err(error),
            Err(Failure::Engine(error)) => Err(error.into_bytes()),
        };
        if let Err(error) = &last {
            assert!(!error.is_empty(), "an error has a text");
        }
    }
    last
}
