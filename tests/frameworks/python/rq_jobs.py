"""RQ in its ordinary use, and through a crash of the store: `python rq_jobs.py PORT`."""

from datetime import datetime, timedelta, timezone

from common import HOST, HOUR, PORT, fine, until, worker
from redis import Redis
from rq import Callback, Queue, RateLimit, Repeat, Retry, Worker
from rq.job import Job
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq_tasks import add, after, failed, flaky, ledger, record, succeeded

store = Redis(HOST, PORT)
queue = Queue(connection=store)
high = Queue("high", connection=store)


def finished(job):
    return until(f"{job.id} is finished", lambda: job.get_status(refresh=True) == "finished")


def ordinary():
    jobs = [queue.enqueue(add, at, at) for at in range(5)]
    for at, job in enumerate(jobs):
        finished(job)
        assert job.return_value(refresh=True) == 2 * at
    first, second = queue.enqueue(add, 1, 2), high.enqueue(add, 3, 4)
    third = queue.enqueue(after, depends_on=[first, second])
    finished(third)
    assert third.return_value(refresh=True) == 10
    good = queue.enqueue(flaky, "good", 2, retry=Retry(max=3), on_success=Callback(succeeded))
    bad = queue.enqueue(flaky, "bad", 9, retry=Retry(max=1), on_failure=Callback(failed))
    finished(good)
    until("the bad one has failed", lambda: bad.get_status(refresh=True) == "failed")
    assert ledger.counts("begin") == {"good": 3, "bad": 2}
    assert bad.id in FailedJobRegistry(queue=queue)
    until("the callbacks", lambda: store.lrange("succeeded", 0, -1) == [good.id.encode()] and store.llen("failed") >= 1)
    soon = queue.enqueue_in(timedelta(seconds=0.5), add, 1, 1)
    far = queue.enqueue_at(datetime.now(timezone.utc) + timedelta(seconds=HOUR), add, 1, 1)
    finished(soon)
    assert far.get_status(refresh=True) == "scheduled" and far.id in ScheduledJobRegistry(queue=queue)
    far.cancel()
    assert far.get_status(refresh=True) == "canceled"
    finished(queue.enqueue(add, 1, 1, repeat=Repeat(times=1, interval=0), job_id="repeated"))
    limited = [queue.enqueue(record, f"limited-{at}", rate_limit=RateLimit("one", 1)) for at in range(4)]
    for job in limited:
        finished(job)
    assert len(Worker.all(connection=store)) == 2
    assert Job.fetch(first.id, connection=store).result_ttl is None


def crash():
    jobs = {}

    def send(name, **options):
        def attempt():
            if not Job.exists(name, connection=store) or Job.fetch(name, connection=store).get_status() is None:
                return queue.enqueue(record, name, job_id=name, retry=Retry(max=5), **options)
            return True
        until(f"{name} is sent", attempt)
        jobs[name] = Job(name, connection=store)

    def done():
        return {name for name, job in jobs.items() if job.get_status(refresh=True) == "finished"}

    until("it is scheduled", lambda: queue.enqueue_in(timedelta(seconds=3), record, "later", job_id="later"))
    jobs["later"] = Job("later", connection=store)
    for at in range(12):
        send(f"order-{at}")
    confirmed = until("some are done", lambda: len(done()) >= 5 and done())
    ledger.crash(confirmed)
    for at in range(12, 18):
        send(f"order-{at}")
    send("last", depends_on=list(jobs.values())[1:4])

    def all_done():
        # A job whose process lost the store counts as failed, and its owner decides.
        for name in FailedJobRegistry(queue=queue).get_job_ids(cleanup=False):
            if name in jobs:
                FailedJobRegistry(queue=queue).requeue(name)
        return len(done()) == len(jobs)

    until("all orders are done", all_done)
    # Each worker does one at a time.
    ledger.check(list(jobs), 2)
    assert len(queue) == 0 and len(high) == 0


for _ in range(2):
    worker("rq_worker")
until("the workers", lambda: len(Worker.all(connection=store)) == 2)
ordinary()
crash()
fine()
