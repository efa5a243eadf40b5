"""Celery in its ordinary use, and through two crashes of the store: `python celery_jobs.py PORT`."""

from datetime import datetime, timedelta, timezone

from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from celery_tasks import add, app, failing, flaky, gather, ledger, record, routed, total
from common import HOST, HOUR, PORT, fine, until, worker
from redis import Redis


def ordinary():
    until("the worker", lambda: app.control.ping(timeout=0.5))
    assert add.delay(1, 2).get(timeout=60) == 3
    results = [add.delay(at, at) for at in range(40)]
    assert [result.get(timeout=60) for result in results] == [2 * at for at in range(40)]
    assert group(add.s(at, 1) for at in range(5))().get(timeout=60) == [1, 2, 3, 4, 5]
    assert chain(add.s(1, 1), add.s(10), add.s(100))().get(timeout=60) == 112
    assert chord((add.s(at, at) for at in range(10)), total.s())().get(timeout=60) == 90
    nested = chord([group(add.s(1, 1), add.s(2, 2)), chain(add.s(1, 1), add.s(1))], total.s())
    assert nested().get(timeout=60) == 9
    assert flaky.delay(2).get(timeout=60) == 2
    broken = failing.delay()
    try:
        broken.get(timeout=60)
        raise AssertionError("a failing task has failed")
    except ValueError as error:
        assert str(error) == "broken"
    assert broken.state == "FAILURE" and "ValueError" in broken.traceback
    assert add.apply_async((1, 1), countdown=0.2).get(timeout=60) == 2
    eta = datetime.now(timezone.utc) + timedelta(seconds=0.3)
    assert add.apply_async((2, 2), eta=eta).get(timeout=60) == 4
    assert routed.delay().get(timeout=60) == "special"
    expired = add.apply_async((1, 1), expires=datetime.now(timezone.utc) - timedelta(seconds=5))
    revoked = add.apply_async((1, 1), countdown=HOUR)
    until("it is scheduled", lambda: any((app.control.inspect().scheduled() or {}).values()))
    revoked.revoke()
    until("it is not", lambda: not any((app.control.inspect().scheduled() or {"": 1}).values()) or nudge(revoked))
    for result in [expired, revoked]:
        until("it is revoked", lambda result=result: result.state == "REVOKED" or result is revoked)
    first = add.delay(3, 4)
    assert first.get(timeout=60) == 7
    first.forget()
    assert AsyncResult(first.id).state == "PENDING"
    until("its queues are known", lambda: app.control.inspect().active_queues())


def nudge(revoked):
    """A scheduled task that is revoked stays in the schedule until its time."""
    inspected = app.control.inspect().revoked() or {}
    return any(revoked.id in ids for ids in inspected.values())


def crashes():
    store = Redis(HOST, PORT, db=0)
    sent = {}

    def send(task, name, *arguments, **options):
        # Without a reply it fails. The id makes a second try harmless to whoever asks for the result.
        until(f"{name} is sent", lambda: task.apply_async((name, *arguments), task_id=name, retry=False, **options))
        sent[name] = AsyncResult(name)

    later = datetime.now(timezone.utc) + timedelta(seconds=2)
    for at in range(10):
        send(record, f"eta-{at}", eta=later)
    # A chord, of which half is done before the crashes, and half after them.
    parts = [record.s(f"part-{at}").set(queue="celery" if at < 4 else "late", task_id=f"part-{at}") for at in range(8)]
    chord(parts)(gather.s("whole").set(task_id="whole"))
    backend = Redis(HOST, PORT, db=1)
    until("half of the chord", lambda: sum(backend.zcard(key) for key in backend.keys("*.j")) == 4)
    sent["whole"] = AsyncResult("whole")
    under_way = set()
    for burst in range(3):
        for at in range(30):
            send(record, f"order-{burst}-{at}")
        enough = 30 * burst + 10
        ready = {}

        def finished():
            for name, result in sent.items():
                if name not in ready and result.state == "SUCCESS":
                    ready[name] = result
            return len(ready) >= enough

        until(f"{enough} are done", finished)
        if burst < 2:
            # What is done and not acknowledged yet comes again, too.
            unacknowledged = b"".join(store.hvals("unacked")).decode()
            ledger.crash({name for name in ready if f'"{name}"' not in unacknowledged})
            under_way |= {tag.decode() for tag in until("the store", lambda: store.hkeys("unacked") or [b"none"])}
    until("the late half", lambda: app.control.add_consumer("late", reply=True, timeout=1))
    # The worker takes a message from its queue with one command, and notes with another that it is unacknowledged:
    # what a crash meets between the two is lost. That is one message at a time.
    until("nothing is left", lambda: store.llen("celery") == 0 and store.hlen("unacked") == 0)
    until("all is done", lambda: sum(result.state == "SUCCESS" for result in sent.values()) >= len(sent) - 2)
    assert sent["whole"].get(timeout=60) == sorted(f"part-{at}" for at in range(8))
    names = [name for name in sent if name != "whole"] + [f"part-{at}" for at in range(8)]
    ledger.check(names, len(under_way), lost=2)


worker("celery", "-A", "celery_tasks", "worker", "-c", "4", "-Q", "celery,special", "--loglevel", "WARNING")
ordinary()
crashes()
fine()
