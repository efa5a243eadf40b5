"""redis-py end to end: `python redis_py.py PORT write|verify PROTOCOL`.

`write` uses the server as an application does and leaves data; `verify` finds it after a crash.
"""

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
    client = redis.Redis(port=port, db=4, protocol=protocol, decode_responses=True, client_name="py")
    prefix = f"py:{protocol}"
    {"write": write, "verify": verify}[phase](client, prefix)
    introspect(client, prefix)
    client.close()


main()
