"""What the programs of this folder share: asking for crashes, waiting, workers, and the ledger of what was done."""

import collections
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time

HOST = "127.0.0.1"
PORT = int(os.environ.get("STORE_PORT") or sys.argv[1])
HOUR = 3600
_workers = []


def ask(what):
    """Lets the test kill the store, or start it again."""
    print(what, flush=True)
    assert sys.stdin.readline(), f"{what}: answered"


def fine():
    """All was fine."""
    for worker in _workers:
        os.killpg(worker.pid, signal.SIGKILL)
    print("fine", flush=True)
    os._exit(0)


def until(what, holds):
    """Waits until `holds` gives something true, and gives that. A store that is away is no failure."""
    end = time.monotonic() + 60
    failure = None
    while time.monotonic() < end:
        try:
            if found := holds():
                return found
        except AssertionError:
            raise
        except Exception as error:
            failure = error
        time.sleep(0.02)
    raise TimeoutError(f"in time: {what}; {failure}; {worker_logs()}")


class Ledger:
    """What was done, in the order it was: workers append to one file."""

    def __init__(self):
        self.path = os.environ.get("LEDGER")
        if not self.path:
            handle, self.path = tempfile.mkstemp(prefix="ledger-")
            os.close(handle)
            os.environ["LEDGER"] = self.path
        self.frozen = []

    def note(self, kind, name):
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(handle, f"{kind} {name}\n".encode())
        os.close(handle)

    def counts(self, kind):
        with open(self.path) as file:
            lines = [line.split() for line in file]
        return collections.Counter(name for said, name in lines if said == kind)

    def work(self, name):
        """A job's work."""
        self.note("begin", name)
        time.sleep(0.04)
        self.note("end", name)
        return name

    def crash(self, confirmed):
        """Kills the store and starts it again. What it had confirmed before must not be done again."""
        ask("kill")
        counts = self.counts("begin")
        self.frozen.append({name: counts[name] for name in confirmed})
        ask("start")

    def check(self, names, repeats, lost=0):
        """Everything was done, and at most `repeats` of it twice."""
        begun, ended = self.counts("begin"), self.counts("end")
        missing = [name for name in names if not ended[name]]
        assert len(missing) <= lost, f"lost: {missing}"
        extra = {name: begun[name] for name in names if begun[name] > 1}
        assert len(extra) <= repeats, f"{extra} were done more than once, and {repeats} were under way at the crashes"
        for confirmed in self.frozen:
            again = {name for name, before in confirmed.items() if begun[name] != before}
            assert not again, f"{again} were confirmed and done again"


def worker(*words, **environment):
    """Starts a worker: `python -m words…`. It dies with this program."""

    def with_its_parent():
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    handle, log = tempfile.mkstemp(prefix="worker-")
    environment = {**os.environ, "STORE_PORT": str(PORT), **environment}
    here = os.path.dirname(os.path.abspath(__file__))
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=here, env=environment, preexec_fn=with_its_parent,
        stdin=subprocess.DEVNULL, stdout=handle, stderr=handle,
    )
    os.unlink(log)
    process.log = handle
    _workers.append(process)
    return process


def worker_logs():
    """The ends of what the workers said."""
    return "\n".join(os.pread(process.log, 1 << 20, 0).decode(errors="replace")[-1500:] for process in _workers)
