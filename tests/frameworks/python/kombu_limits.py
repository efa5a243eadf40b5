"""kombu, limits and Flask-Limiter in their ordinary use, and through a crash: `python kombu_limits.py PORT`."""

import asyncio
import socket
import threading

import limits.aio.storage
import limits.aio.strategies
import limits.storage
import limits.strategies
from common import HOST, PORT, ask, fine, until
from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.pools import producers

URL = f"redis://{HOST}:{PORT}"
OPTIONS = {
    "visibility_timeout": 6, "unacked_mutex_expire": 1, "unacked_restore_throttle": 1, "socket_connect_timeout": 5,
    "fanout_prefix": True, "fanout_patterns": True, "queue_order_strategy": "priority",
}


def connect():
    return Connection(f"{URL}/3", transport_options=OPTIONS)


class Inbox:
    """Receives from queues until it has enough."""

    def __init__(self, connection, queues, answer="ack"):
        self.bodies = []
        self.messages = []

        def receive(body, message):
            self.bodies.append(body)
            self.messages.append(message)
            if answer:
                getattr(message, answer)()

        self.connection = connection
        self.consumer = Consumer(connection, queues, callbacks=[receive], prefetch_count=100)
        self.consumer.consume()

    def receive(self, count):
        def arrived():
            try:
                self.connection.drain_events(timeout=0.1)
            except socket.timeout:
                pass
            return len(self.bodies) >= count

        until(f"{count} messages of {self.bodies}", arrived)
        return self.bodies


def messages():
    direct, topic = Exchange("shop", type="direct"), Exchange("news", type="topic")
    fanout = Exchange("all", type="fanout")
    with connect() as connection:
        simple = connection.SimpleQueue("simple")
        for at in range(10):
            simple.put({"number": at})
        for at in range(10):
            message = simple.get(timeout=60)
            assert message.payload == {"number": at}
            message.ack()
        message = simple.put("again") or simple.get(timeout=60)
        message.requeue()
        message = simple.get(timeout=60)
        assert message.payload == "again" and message.delivery_info["routing_key"] == "simple"
        message.reject()

        orders = Queue("orders", direct, routing_key="order")
        inbox = Inbox(connection, [orders])
        with producers[connection].acquire(block=True) as producer:
            for at in range(20):
                producer.publish({"order": at}, exchange=direct, routing_key="order", declare=[orders], serializer="json")
            producer.publish({"order": "nobody's"}, exchange=direct, routing_key="other")
        assert inbox.receive(20) == [{"order": at} for at in range(20)]
        sport, all_news = Queue("sport", topic, routing_key="sport.#"), Queue("news", topic, routing_key="#")
        readers = [Inbox(connection.clone(), [queue]) for queue in (sport, all_news)]
        publish = Producer(connection.default_channel, topic).publish
        publish("goal", routing_key="sport.football")
        publish("rain", routing_key="weather")
        assert readers[0].receive(1) == ["goal"] and sorted(readers[1].receive(2)) == ["goal", "rain"]
        listeners = [Inbox(connection.clone(), [Queue(f"listener-{at}", fanout)]) for at in range(2)]
        for listener in listeners:
            try:
                listener.connection.drain_events(timeout=0.1)
            except socket.timeout:
                pass

        def heard():
            Producer(connection.default_channel, fanout).publish("to all", routing_key="")
            return all(listener.receive(1) for listener in listeners)

        until("all hear", heard)
        urgent = Queue("urgent", direct, routing_key="urgent", max_priority=10)
        urgent(connection.default_channel).declare()
        for priority in (9, 0, 5):
            Producer(connection.default_channel, direct).publish(priority, routing_key="urgent", priority=priority)
        assert Inbox(connection, [urgent]).receive(3) == [0, 5, 9]


def held_messages():
    """Ten messages, of which half are acknowledged, and a consumer that holds the others."""
    connection = connect()
    queue = Queue("held", Exchange("held"), routing_key="held")
    for at in range(10):
        queue(connection.default_channel).declare()
        Producer(connection.default_channel, queue.exchange).publish(at, routing_key="held")
    inbox = Inbox(connection, [queue], answer=None)
    assert sorted(inbox.receive(10)) == list(range(10))
    for message in inbox.messages[:5]:
        message.ack()
    return queue, set(inbox.bodies[5:])


def synchronous(storage, prefix):
    # Some windows begin at a full year, and two of them share what is granted: few tests run at that moment.
    two, large = limits.parse("2/year"), limits.parse("50/year")
    for strategy in (
        limits.strategies.FixedWindowRateLimiter,
        limits.strategies.MovingWindowRateLimiter,
        limits.strategies.SlidingWindowCounterRateLimiter,
    ):
        limiter, user = strategy(storage), f"{prefix}-{strategy.__name__}"
        assert limiter.test(two, user) and [limiter.hit(two, user) for _ in range(4)] == [True, True, False, False]
        assert not limiter.test(two, user) and limiter.get_window_stats(two, user).remaining == 0
        limiter.clear(two, user)
        assert limiter.hit(two, user, cost=2) and not limiter.hit(two, user)
        granted = []

        def exhaust(limiter=limiter, user=user):
            while limiter.hit(large, f"{user}-shared"):
                granted.append(True)

        threads = [threading.Thread(target=exhaust) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(granted) == 50, len(granted)
    assert storage.check()


async def asynchronous():
    storage = limits.storage.storage_from_string(f"async+{URL}/4", implementation="redispy")
    item = limits.parse("3/year")
    for strategy in (
        limits.aio.strategies.FixedWindowRateLimiter,
        limits.aio.strategies.MovingWindowRateLimiter,
        limits.aio.strategies.SlidingWindowCounterRateLimiter,
    ):
        limiter = strategy(storage)
        granted = await asyncio.gather(*(limiter.hit(item, "async", strategy.__name__) for _ in range(10)))
        assert granted.count(True) == 3
        assert (await limiter.get_window_stats(item, "async", strategy.__name__)).remaining == 0


def website(strategy):
    site = Flask(__name__)
    limiter = Limiter(
        get_remote_address, app=site, storage_uri=f"{URL}/5", strategy=strategy, headers_enabled=True,
        default_limits=["100/year"], key_prefix=strategy,
    )

    @site.route("/slow")
    @limiter.limit("3/year")
    def slow():
        return "slow"

    @site.route("/free")
    @limiter.exempt
    def free():
        return "free"

    @site.route("/shared")
    @limiter.shared_limit("2/year", scope="shared")
    def shared():
        return "shared"

    return site.test_client()


def visit(client, path, times):
    return [client.get(path).status_code for _ in range(times)]


def websites():
    clients = [website(strategy) for strategy in ("fixed-window", "moving-window", "sliding-window-counter")]
    for client in clients:
        assert visit(client, "/slow", 5) == [200, 200, 200, 429, 429]
        assert visit(client, "/free", 5) == [200] * 5
        assert visit(client, "/shared", 3) == [200, 200, 429]
        assert client.get("/slow").headers["X-RateLimit-Remaining"] == "0"
    return clients


messages()
storage = limits.storage.storage_from_string(f"{URL}/4")
synchronous(storage, "sync")
asyncio.run(asynchronous())
clients = websites()
moving, item = limits.strategies.MovingWindowRateLimiter(storage), limits.parse("10/hour")
assert [moving.hit(item, "crash") for _ in range(7)] == [True] * 7
queue, unacknowledged = held_messages()
ask("kill")
ask("start")
until("the store", storage.check)
assert [moving.hit(item, "crash") for _ in range(4)] == [True, True, True, False]
for client in clients:
    until("the site", lambda client=client: client.get("/free").status_code == 200)
    assert visit(client, "/slow", 2) == [429, 429]
with connect() as connection:
    # The consumer is gone: what it had not acknowledged comes to the next one.
    inbox = Inbox(connection, [queue])
    assert set(inbox.receive(5)) == unacknowledged and len(inbox.bodies) == 5
fine()
