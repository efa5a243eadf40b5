"""Huey in its ordinary use, and through two crashes of the store: `python huey_jobs.py PORT`."""

import sys

from common import HOST, HOUR, fine, until, worker
from huey.exceptions import TaskException
from huey_tasks import add, flaky, huey, ledger, locked, record


def ordinary():
    sums = [add(at, at) for at in range(40)]
    assert [result.get(blocking=True, timeout=60) for result in sums] == [2 * at for at in range(40)]
    line = huey.enqueue(add.s(1, 2).then(add, 3).then(add, 4))
    assert line.get(blocking=True, timeout=60) == [3, 6, 10]
    assert add.map([(1, 1), (2, 2)]).get(blocking=True, timeout=60) == [2, 4]
    good = flaky("good", 1)
    # The failure of the first try is a result, too, until the second one is there.
    until("the second try", lambda: good.reset() or good.get() == "good")
    bad = flaky.s("bad", 9)
    bad.retries = 0
    try:
        huey.enqueue(bad).get(blocking=True, timeout=60)
        raise AssertionError("a failing task has failed")
    except TaskException as failure:
        assert "not yet" in str(failure)
    assert add.schedule((1, 1), delay=0.5).get(blocking=True, timeout=60) == 2
    far = add.schedule((1, 1), delay=HOUR)
    until("it is scheduled", lambda: huey.scheduled_count() == 1)
    far.revoke()
    assert far.is_revoked()
    with huey.lock_task("one"):
        assert huey.is_locked("one")
        refused = locked("never")
        try:
            refused.get(blocking=True, timeout=60)
            raise AssertionError("somebody else holds the lock")
        except TaskException as failure:
            assert "Lock" in str(failure), failure
    assert locked("then").get(blocking=True, timeout=60) == "then"
    huey.put("counter", 5)
    assert huey.get("counter", peek=True) == 5 and huey.get("counter") == 5 and huey.get("counter") is None


def crashes():
    sent, resent, confirmed = {}, set(), set()

    def send(task, name):
        # Without a reply it fails. The store may have it already, so nothing is sent again but what it has not.
        tries = []

        def attempt():
            if tries and (name in waiting() or ledger.counts("begin")[name]):
                return True
            tries.append(name)
            resent.update(tries[1:])
            return task()

        until(f"{name} is sent", attempt)
        sent[name] = True

    def waiting():
        return {task.args[0] for task in huey.pending() + huey.scheduled() if task.args}

    def finished(enough):
        confirmed.update(name for name in sent if name not in confirmed and ledger.counts("end")[name])
        return len(confirmed) >= enough

    for at in range(10):
        send(lambda at=at: record.schedule((f"later-{at}",), delay=5), f"later-{at}")
    for burst in range(3):
        for at in range(40):
            send(lambda at=at: record(f"order-{burst}-{at}"), f"order-{burst}-{at}")
        until("some are done", lambda: finished(40 * burst + 15))
        if burst < 2:
            ledger.crash(set(confirmed))
    # A task leaves the store before its work begins: what was on its way to one of four workers, or from the
    # schedule to the queue, may be gone, and nothing is done twice.
    until("the queues are empty", lambda: not len(huey) and all(task.name != "record" for task in huey.scheduled()))
    until("all is done", lambda: finished(len(sent) - 2 * 5))
    until("nothing is under way", lambda: ledger.counts("begin") == ledger.counts("end") + unfinished())
    ledger.check(list(sent), len(resent), lost=2 * 5)


def unfinished():
    """What `flaky` began only."""
    counts = ledger.counts("begin")
    return type(counts)({name: counts[name] for name in ("good", "bad")})


worker("huey.bin.huey_consumer", "huey_tasks.huey", "-w", "4", "-s", "1")
ordinary()
crashes()
fine()
