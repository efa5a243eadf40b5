"""The tasks of huey_jobs.py, and how Huey is set up."""

import os

from common import HOST, PORT, Ledger
from huey import PriorityRedisHuey, RedisHuey, crontab

kind = PriorityRedisHuey if os.environ.get("HUEY") == "priority" else RedisHuey
huey = kind("tasks", host=HOST, port=PORT)
ledger = Ledger()


@huey.task()
def add(a, b):
    return a + b


@huey.task(retries=3, retry_delay=1)
def flaky(name, failures):
    ledger.note("begin", name)
    if ledger.counts("begin")[name] <= failures:
        raise ValueError("not yet")
    return name


@huey.task()
def record(name):
    return ledger.work(name)


@huey.task()
@huey.lock_task("one")
def locked(name):
    ledger.note("inside", name)
    return name


@huey.periodic_task(crontab(minute="*"))
def minutely():
    ledger.note("minute", "passed")
