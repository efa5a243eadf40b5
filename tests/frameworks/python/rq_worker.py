"""A worker of rq_jobs.py: `python -m rq_worker`."""

from common import HOST, PORT
from redis import Redis
from rq import Queue, Worker

connection = Redis(HOST, PORT)
queues = [Queue(name, connection=connection) for name in ("high", "default")]
worker = Worker(queues, connection=connection, maintenance_interval=1, worker_ttl=30)
worker.work(with_scheduler=True, logging_level="WARNING")
