"""redis-py end to end: `python redis_py.py PORT write|verify PROTOCOL`.

`write` uses the server as an application does and leaves data; `verify` finds it after a crash.
"""

import concurrent.futures
import sys
import time

import redis


def write(client, prefix):
    assert client.ping()
    assert client.client_getname() == "py"
    assert client.setex(f"{prefix}:session", 600, "data ☕")
    assert 500 < client.ttl(f"{prefix}:session") <= 600
    assert client.get(f"{prefix}:session") == "data ☕"
    assert client.get(f"{prefix}:none") is None

    assert client.mset({f"{prefix}:a": 1, f"{prefix}:b": 2})
    assert client.mget(f"{prefix}:a", f"{prefix}:b", f"{prefix}:none") == ["1", "2", None]
    assert client.msetnx({f"{prefix}:b": 3, f"{prefix}:c": 4}) is False

    pipe = client.pipeline(transaction=False)
    for i in range(1000):
        pipe.set(f"{prefix}:many:{i}", i)
        pipe.incr(f"{prefix}:counter")
    replies = pipe.execute()
    assert len(replies) == 2000 and replies[-1] == 1000, replies[-1]

    assert client.set(f"{prefix}:lock", "me", nx=True, px=600_000) is True
    assert client.set(f"{prefix}:lock", "you", nx=True, px=600_000) is None
    assert client.set(f"{prefix}:lock", "me again", xx=True, get=True, keepttl=True) == "me"
    assert client.getex(f"{prefix}:lock", pxat=33177117420123) == "me again"
    assert client.pexpiretime(f"{prefix}:lock") == 33177117420123
    assert abs(client.incrbyfloat(f"{prefix}:float", 1.5) - 1.5) < 1e-9
    assert client.setrange(f"{prefix}:range", 5, "x") == 6
    assert client.getrange(f"{prefix}:range", 4, -1) == "\0x"
    assert client.copy(f"{prefix}:a", f"{prefix}:a2")
    assert client.rename(f"{prefix}:a2", f"{prefix}:a3")
    assert client.object("encoding", f"{prefix}:a3") == "int"
    assert client.type(f"{prefix}:a3") == "string"
    assert client.delete(f"{prefix}:a3") == 1

    try:
        client.incr(f"{prefix}:lock")
    except redis.ResponseError as error:
        assert "not an integer" in str(error), error
    else:
        raise AssertionError("INCR of a text must fail")

    assert client.set(f"{prefix}:brief", "v", px=30)
    time.sleep(0.06)
    assert client.get(f"{prefix}:brief") is None


def verify(client, prefix):
    assert client.get(f"{prefix}:counter") == "1000"
    assert client.mget([f"{prefix}:many:{i}" for i in range(1000)]) == [str(i) for i in range(1000)]
    assert client.ttl(f"{prefix}:session") > 0
    assert client.pexpiretime(f"{prefix}:lock") == 33177117420123
    assert client.get(f"{prefix}:a3") is None


def write_collections(client, prefix):
    """Profiles, a queue with a worker that waits, tags, a leaderboard, a stream with a group."""
    assert client.hset(f"{prefix}:user", mapping={"name": "Ada", "visits": 1}) == 2
    assert client.hincrby(f"{prefix}:user", "visits", 2) == 3
    assert client.hexpireat(f"{prefix}:user", 33177117420, "visits") == [1]
    with concurrent.futures.ThreadPoolExecutor() as worker:
        waiting = worker.submit(client.blpop, f"{prefix}:jobs", 30)
        assert client.rpush(f"{prefix}:jobs", *range(100)) in (99, 100)
        assert tuple(waiting.result()) == (f"{prefix}:jobs", "0")
    assert client.sadd(f"{prefix}:red", "a", "b", "c") == 3
    assert client.sadd(f"{prefix}:round", "b", "c", "d") == 3
    assert client.zadd(f"{prefix}:board", {f"p{i}": i * 7 % 1000 for i in range(1000)}) == 1000
    assert client.xgroup_create(f"{prefix}:events", "readers", "0", mkstream=True)
    for number in range(1, 21):
        client.xadd(f"{prefix}:events", {"number": number}, id=f"{number}-0")
    client.xreadgroup("readers", "alice", {f"{prefix}:events": ">"}, count=5)
    assert client.xack(f"{prefix}:events", "readers", "1-0", "2-0") == 2


def verify_collections(client, prefix):
    assert client.hgetall(f"{prefix}:user") == {"name": "Ada", "visits": "3"}
    assert client.hexpiretime(f"{prefix}:user", "visits", "name") == [33177117420, -1]
    assert client.lrange(f"{prefix}:jobs", 0, -1) == [str(job) for job in range(1, 100)]
    assert client.sinter(f"{prefix}:red", f"{prefix}:round") == {"b", "c"}
    top = client.zrevrange(f"{prefix}:board", 0, 1, withscores=True)
    assert [tuple(entry) for entry in top] == [("p857", 999.0), ("p714", 998.0)], top
    assert client.zrank(f"{prefix}:board", "p857") == 999
    assert len(dict(client.zscan_iter(f"{prefix}:board"))) == 1000
    numbers = [int(fields["number"]) for _, fields in client.xrange(f"{prefix}:events")]
    assert numbers == list(range(1, 21))
    pending = client.xpending(f"{prefix}:events", "readers")
    assert (pending["pending"], pending["min"], pending["max"]) == (3, "3-0", "5-0"), pending


def introspect(client, prefix):
    assert sorted(client.scan_iter(match=f"{prefix}:many:*", count=100)) == sorted(f"{prefix}:many:{i}" for i in range(1000))
    info = client.info()
    assert info["db4"]["keys"] >= 1000, info["db4"]
    assert info["redis_version"].count(".") == 2
    assert client.config_get("maxmemory") == {"maxmemory": "0"}
    assert any(entry["name"] == "py" for entry in client.client_list())
    assert client.client_info()["db"] in (4, "4")
    assert client.time()[0] > 1_700_000_000
    assert client.dbsize() >= 1000


def main():
    port, phase, protocol = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    client = redis.Redis(port=port, db=4, protocol=protocol, decode_responses=True, client_name="py", socket_timeout=120)
    prefix = f"py:{protocol}"
    {"write": write, "verify": verify}[phase](client, prefix)
    {"write": write_collections, "verify": verify_collections}[phase](client, prefix)
    introspect(client, prefix)
    client.close()


main()
