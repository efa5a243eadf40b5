"""redis-py where more than one connection matters: transactions with WATCH, waiting commands, threads, asyncio,
messages, keyspace events, MONITOR, caching in the client, and connections that come back after `kill -9`.

    python redis_py_live.py PORT PROTOCOL PART…

It says on its output what shall happen to the server (`kill`, `start`), reads a line when it has, and ends with `fine`.
"""

import asyncio
import concurrent.futures
import faulthandler
import sys
import time

import redis
import redis.asyncio
from redis.backoff import ConstantBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

# What hangs must not hang the test.
faulthandler.dump_traceback_later(300, exit=True)
# Five seconds otherwise: a machine may stand still for that long, and commands wait.
PATIENT = {"socket_timeout": 120, "socket_connect_timeout": 120}
PORT, PROTOCOL, PARTS = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]


def connect(**more):
    return redis.Redis(port=PORT, protocol=PROTOCOL, decode_responses=True, **PATIENT, **more)


client = connect()


def ask(what):
    print(what, flush=True)
    assert sys.stdin.readline() == "done\n"


def until(what, holds):
    start = time.monotonic()
    while not (found := holds()):
        assert time.monotonic() - start < 60, f"in time: {what}"
        time.sleep(0.01)
    return found


def blocked(count):
    until(f"{count} wait", lambda: client.info("clients")["blocked_clients"] == count)


def pipelines():
    with client.pipeline(transaction=False) as pipe:
        for at in range(1000):
            pipe.set(f"k{at}", at).incr("n")
        assert pipe.execute()[-1] == 1000
    with client.pipeline() as pipe:
        replies = pipe.set("text", "abc").incr("text").get("text").execute(raise_on_error=False)
    assert replies[0] is True and replies[2] == "abc" and "not an integer" in str(replies[1]), replies
    # A transaction that is wrong from the start does nothing.
    with client.pipeline() as pipe:
        try:
            pipe.set("undone", 1).execute_command("SET", "one").execute()
        except redis.ResponseError as error:
            assert "wrong number of arguments" in str(error), error
        else:
            raise AssertionError("a wrong command must be refused")
    assert client.get("undone") is None


def optimistic():
    """Four threads add by WATCH; no turn is lost."""

    def add(pipe):
        balance = int(pipe.get("balance") or 0)
        pipe.multi()
        pipe.set("balance", balance + 1)

    def turns():
        own = connect()
        for _ in range(50):
            own.transaction(add, "balance")
        own.close()

    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        for done in [workers.submit(turns) for _ in range(4)]:
            done.result()
    assert client.get("balance") == "200"
    with client.pipeline() as pipe:
        pipe.watch("balance")
        client.incr("balance")
        pipe.multi()
        pipe.set("balance", 0)
        try:
            pipe.execute()
        except redis.WatchError:
            pass
        else:
            raise AssertionError("the key has changed")
    with client.pipeline() as pipe:
        pipe.watch("balance")
        assert pipe.get("balance") == "201"
        pipe.unwatch()
        assert pipe.incr("balance").execute() == [202]


def waiting():
    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        jobs = [workers.submit(client.blpop, "jobs", 60) for _ in range(2)]
        smallest = workers.submit(client.bzpopmin, "scores", 60)
        entries = workers.submit(client.xread, {"stream": "$"}, block=60_000)
        blocked(4)
        client.rpush("jobs", 1, 2)
        with client.pipeline() as pipe:
            pipe.zadd("scores", {"b": 2, "a": 1}).xadd("stream", {"f": "v"}, id="1-1").execute()
        assert sorted(job.result()[1] for job in jobs) == ["1", "2"]
        assert list(smallest.result()) == ["scores", "a", 1.0], smallest.result()
        assert "1-1" in str(entries.result())
    lock = client.lock("lock", timeout=600)
    # redis-py takes a lock by SET NX, and gives it back by a script: that is not asked for here.
    assert lock.acquire(blocking=False)
    assert not client.lock("lock", timeout=600).acquire(blocking=False)


def messages():
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    handled = []
    subscriber.subscribe("a", **{"handled": lambda message: handled.append(message["data"])})
    subscriber.psubscribe("a*")
    subscriber.ssubscribe("s")
    # The confirmations come first.
    until("subscribed", lambda: subscriber.get_message(timeout=0.1) is None and client.pubsub_numpat() == 1 and client.pubsub_shardchannels() == ["s"])
    assert sorted(client.pubsub_channels()) == ["a", "handled"]
    assert client.pubsub_numsub("a", "none") == [("a", 1), ("none", 0)]
    with client.pipeline(transaction=False) as pipe:
        for at in range(1000):
            pipe.publish("a", at)
        assert pipe.execute() == [2] * 1000
    heard = []
    while len(heard) < 2000:
        heard.append(until("a message", lambda: subscriber.get_message(timeout=1)))
    for kind in ("message", "pmessage"):
        assert [message["data"] for message in heard if message["type"] == kind] == [str(at) for at in range(1000)]
    client.publish("handled", "by a function")
    until("handled", lambda: subscriber.get_message(timeout=0.1) or handled)
    assert handled == ["by a function"]
    client.spublish("s", "to the shard")
    shard = until("the shard's", lambda: subscriber.get_message(timeout=1))
    assert (shard["type"], shard["data"]) == ("smessage", "to the shard")
    subscriber.unsubscribe()
    subscriber.punsubscribe()
    subscriber.sunsubscribe()
    until("nobody listens", lambda: subscriber.get_message(timeout=0.1) or client.publish("a", "x") == 0)
    subscriber.close()
    # A thread that listens.
    threaded, got = client.pubsub(), []
    threaded.subscribe(**{"t": lambda message: got.append(message["data"])})
    thread = threaded.run_in_thread(sleep_time=0.05, daemon=True)
    until("it listens", lambda: client.publish("t", "x") == 1)
    until("it hears", lambda: got)
    thread.stop()
    thread.join()


def events():
    client.config_set("notify-keyspace-events", "KEA")
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    subscriber.psubscribe("__keyevent@0__:*")
    until("subscribed", lambda: subscriber.get_message(timeout=0.1) is None and client.pubsub_numpat() == 1)
    client.set("k", 1)
    client.hset("h", "f", 1)
    client.pexpire("k", 1)
    heard = []

    def hear():
        message = subscriber.get_message(timeout=1)
        if message:
            heard.append((message["channel"].split(":", 1)[1], message["data"]))
        return ("expired", "k") in heard

    until("the end of the key", hear)
    assert [event for event in heard if event[0] != "new"] == [("set", "k"), ("hset", "h"), ("expire", "k"), ("expired", "k")], heard
    subscriber.close()
    client.config_set("notify-keyspace-events", "")


def monitor():
    with connect().monitor() as watcher:
        client.set("monitored", 'a "quoted" word')
        for line in watcher.listen():
            if "monitored" in line["command"]:
                break
        assert line["db"] == 0 and line["client_type"] == "tcp", line
        assert line["command"].startswith("SET monitored"), line


def caching():
    if PROTOCOL != 3:
        return
    reader = redis.Redis(port=PORT, protocol=3, decode_responses=True, **PATIENT, cache_config=CacheConfig(max_size=100))
    client.set("cached", "1")
    assert reader.get("cached") == "1"
    cache = reader.get_cache()
    assert cache.size == 1
    assert reader.get("cached") == "1"
    for turn in range(2, 20):
        client.set("cached", turn)
        until("the new value", lambda: reader.get("cached") == str(turn))
    client.mset({"x": 1, "y": 2})
    until("both", lambda: reader.mget("x", "y") == ["1", "2"])
    client.delete("y")
    until("one", lambda: reader.mget("x", "y") == ["1", None])
    client.flushdb()
    until("none", lambda: reader.get("cached") is None)
    reader.close()


def reconnect():
    """A client with retries goes on after a crash; a subscriber subscribes again."""
    patient = connect(db=4, retry=Retry(ConstantBackoff(0.02), 3000), retry_on_error=[redis.ConnectionError])
    patient.set("kept", "before")
    subscriber = patient.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe("a")
    subscriber.psubscribe("b*")
    until("subscribed", lambda: subscriber.get_message(timeout=0.1) is None and client.pubsub_numpat() == 1)
    with concurrent.futures.ThreadPoolExecutor(1) as workers:
        job = workers.submit(patient.blpop, "jobs", 0)
        blocked(1)
        ask("kill")
        # Without retries, the error is seen.
        impatient = connect(retry=Retry(ConstantBackoff(0), 0))
        try:
            impatient.ping()
        except redis.ConnectionError:
            pass
        else:
            raise AssertionError("nobody is there")
        later = concurrent.futures.ThreadPoolExecutor(1).submit(patient.get, "kept")
        ask("start")
        assert later.result() == "before"
        blocked(1)
        patient.rpush("jobs", "after")
        assert list(job.result()) == ["jobs", "after"]
    heard = set()

    def hear():
        message = subscriber.get_message(timeout=0.1)
        if message:
            heard.add(message["data"])
        client.publish("a", "x")
        client.publish("bb", "y")
        return heard == {"x", "y"}

    until("messages after the crash", hear)
    subscriber.close()


def asynchronous():
    asyncio.run(asynchronously())


async def asynchronously():
    async with redis.asyncio.Redis(port=PORT, protocol=PROTOCOL, decode_responses=True, **PATIENT) as own:
        await asyncio.gather(*(own.incr("many") for _ in range(50)))
        assert await own.get("many") == "50"
        async with own.pipeline(transaction=True) as pipe:
            assert await pipe.set("a", 1).incr("a").execute() == [True, 2]

        async def add(pipe):
            balance = int(await pipe.get("balance") or 0)
            pipe.multi()
            pipe.set("balance", balance + 1)

        async def turns():
            for _ in range(30):
                await own.transaction(add, "balance")

        await asyncio.gather(*(turns() for _ in range(4)))
        assert await own.get("balance") == "120"
        jobs = [asyncio.create_task(own.blpop("jobs", 60)) for _ in range(3)]
        while (await own.info("clients"))["blocked_clients"] != 3:
            await asyncio.sleep(0.01)
        await own.rpush("jobs", 1, 2, 3)
        assert sorted(element for _, element in await asyncio.gather(*jobs)) == ["1", "2", "3"]
        await own.mset({f"scan:{at}": at for at in range(1000)})
        assert len({key async for key in own.scan_iter("scan:*", count=100)}) == 1000


async def asynchronous_subscriber():
    async with redis.asyncio.Redis(port=PORT, protocol=PROTOCOL, decode_responses=True, **PATIENT) as own:
        async with own.pubsub() as subscriber:
            await subscriber.subscribe("a")
            await subscriber.psubscribe("b*")

            async def listen():
                heard = []
                async for message in subscriber.listen():
                    if message["type"] in ("message", "pmessage"):
                        heard.append(message["data"])
                    if len(heard) == 200:
                        return heard

            listening = asyncio.create_task(listen())
            while await own.pubsub_numpat() != 1:
                await asyncio.sleep(0.01)
            for at in range(100):
                assert await own.publish("a", at) == 1
                assert await own.publish("bb", at) == 1
            assert await listening == [str(at) for at in range(100) for _ in "ab"]


def asynchronous_messages():
    asyncio.run(asynchronous_subscriber())


for part in PARTS:
    client.flushall()
    globals()[part]()
print("fine", flush=True)
