"""The actors of dramatiq_jobs.py, and how dramatiq is set up."""

import dramatiq
from common import HOST, PORT, Ledger
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as LimitsBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend as ResultsBackend

limits = LimitsBackend(host=HOST, port=PORT)
results = ResultsBackend(host=HOST, port=PORT)
# A worker that is gone is noticed after six seconds, instead of a minute, and at every command.
broker = RedisBroker(host=HOST, port=PORT, heartbeat_timeout=6000, maintenance_chance=1_000_000)
broker.add_middleware(Results(backend=results))
broker.add_middleware(GroupCallbacks(limits))
dramatiq.set_broker(broker)
ledger = Ledger()


@dramatiq.actor(store_results=True)
def add(a, b):
    return a + b


@dramatiq.actor(store_results=True, max_retries=3, min_backoff=20, max_backoff=100)
def flaky(name, failures):
    ledger.note("begin", name)
    if ledger.counts("begin")[name] <= failures:
        raise ValueError("not yet")
    return name


@dramatiq.actor(queue_name="urgent", priority=1, store_results=True)
def record(name):
    return ledger.work(name)


@dramatiq.actor
def whole(name):
    ledger.work(name)
