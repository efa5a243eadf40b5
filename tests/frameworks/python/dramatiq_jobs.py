"""dramatiq in its ordinary use, and through two crashes of the store: `python dramatiq_jobs.py PORT`."""

import json
import os
import signal
import threading

import redis
from common import HOST, PORT, fine, until, worker
from dramatiq import group, pipeline
from dramatiq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.results import ResultFailure, ResultMissing
from dramatiq_actors import add, broker, flaky, ledger, limits, record, results, whole

store = redis.Redis(HOST, PORT)


def start_worker():
    words = ["dramatiq", "dramatiq_actors", "--processes", "1", "--threads", "4"]
    return worker(*words, dramatiq_restart_delay="100")


def result(message):
    """Its result, or None as long as there is none."""
    try:
        return message.get_result(backend=results)
    except ResultMissing:
        return None


def unacknowledged():
    """The names of what workers have taken and not acknowledged."""
    taken = [identity for key in store.keys("dramatiq:__acks__.*.urgent") for identity in store.smembers(key)]
    messages = [store.hget("dramatiq:urgent.msgs", identity) for identity in taken]
    return [json.loads(message)["args"][0] for message in messages if message]


def ordinary():
    sums = [add.send(at, at) for at in range(40)]
    assert [message.get_result(block=True, timeout=60_000) for message in sums] == [2 * at for at in range(40)]
    line = pipeline([add.message(1, 2), add.message(3), add.message(4)]).run()
    assert line.get_result(block=True, timeout=60_000) == 10
    several = group([add.message(at, 1) for at in range(5)])
    several.add_completion_callback(whole.message("group"))
    assert list(several.run().get_results(block=True, timeout=60_000)) == [1, 2, 3, 4, 5]
    until("the callback of the group", lambda: ledger.counts("end")["group"] == 1)
    assert flaky.send("good", 2).get_result(block=True, timeout=60_000) == "good"
    bad = flaky.send_with_options(args=("bad", 9), max_retries=1)
    try:
        bad.get_result(block=True, timeout=60_000)
        raise AssertionError("a failing actor has failed")
    except ResultFailure as failure:
        assert "not yet" in str(failure)
    until("the dead letter", lambda: store.zcard("dramatiq:default.XQ") == 1)
    soon = record.send_with_options(args=("soon",), delay=200)
    assert soon.get_result(block=True, timeout=60_000) == "soon"
    broker.join("default", timeout=60_000)

    bucket = BucketRateLimiter(limits, "bucket", limit=3, bucket=3_600_000)
    granted = []
    for _ in range(5):
        with bucket.acquire(raise_on_failure=False) as acquired:
            granted.append(acquired)
    assert granted == [True, True, True, False, False]
    window = WindowRateLimiter(limits, "window", limit=2, window=60)
    granted = []
    for _ in range(3):
        with window.acquire(raise_on_failure=False) as acquired:
            granted.append(acquired)
    assert granted == [True, True, False]
    one = ConcurrentRateLimiter(limits, "one", limit=1)
    with one.acquire() as outer, one.acquire(raise_on_failure=False) as inner:
        assert outer and not inner
    with one.acquire() as again:
        assert again
    barrier = Barrier(limits, "barrier")
    assert barrier.create(parties=3)
    waited = []
    thread = threading.Thread(target=lambda: waited.append(barrier.wait(timeout=60_000)))
    assert not barrier.wait(block=False)
    thread.start()
    assert barrier.wait(timeout=60_000)
    thread.join()
    assert waited == [True]


def crashes(first):
    sent = {}

    def send(name, **options):
        message = record.message_with_options(args=(name,), **options)
        # Without a reply it fails. The id of the message makes a second try harmless.
        until(f"{name} is sent", lambda: broker.enqueue(message, delay=options.get("delay")))
        sent[name] = message

    confirmed = set()

    def finished(enough):
        confirmed.update(name for name, message in sent.items() if name not in confirmed and result(message))
        return len(confirmed) >= enough

    for at in range(10):
        send(f"later-{at}", delay=5000)
    for burst in range(3):
        for at in range(40):
            send(f"order-{burst}-{at}")
        until("some are done", lambda burst=burst: finished(40 * burst + 15))
        if burst < 2:
            ledger.crash(set(confirmed))
    # What waits in the memory of a worker whose connection broke is left to its successor.
    until("all but those", lambda: finished(120))
    # What it took when the store died, and never received, it does not acknowledge.
    until("its acknowledgements", lambda: not any(ledger.counts("begin")[name] for name in unacknowledged()))
    os.killpg(first.pid, signal.SIGKILL)
    start_worker()
    until("all are done", lambda: finished(len(sent)))
    assert confirmed == set(sent)
    # Four threads do one each, and each of four more may wait for its acknowledgement.
    ledger.check(list(sent), 8 * 2)
    until("the queues are empty", lambda: all(not store.llen(f"dramatiq:{name}") for name in ("urgent", "urgent.DQ")))


first = start_worker()
ordinary()
crashes(first)
fine()
