"""The tasks of celery_jobs.py, and how Celery is set up."""

from celery import Celery
from common import HOST, PORT, Ledger

app = Celery("tasks", broker=f"redis://{HOST}:{PORT}/0", backend=f"redis://{HOST}:{PORT}/1")
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # What a crash leaves unacknowledged comes again after eight seconds, instead of an hour.
    broker_transport_options={
        "visibility_timeout": 8,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 2,
    },
    result_backend_always_retry=True,
    result_extended=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_routes={"celery_tasks.routed": {"queue": "special"}},
)
ledger = Ledger()


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def routed():
    return routed.request.delivery_info["routing_key"]


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=0.05, exc=ValueError("not yet"))
    return self.request.retries


@app.task
def failing():
    raise ValueError("broken")


@app.task
def record(name):
    return ledger.work(name)


@app.task
def gather(names, name):
    ledger.work(name)
    return sorted(names)
