"""redis-py as a cluster client: `python cluster_redis_py.py PORT write|verify`."""

import sys

import redis
from redis.cluster import RedisCluster


def main():
    port, phase = int(sys.argv[1]), sys.argv[2]
    cluster = RedisCluster(host="127.0.0.1", port=port, decode_responses=True, socket_timeout=120)
    assert len(cluster.get_primaries()) == 1
    assert cluster.cluster_info()["cluster_state"] == "ok"
    assert [node.host for node in cluster.get_nodes()] == ["127.0.0.1"]
    if phase == "write":
        for i in range(500):
            assert cluster.set(f"key:{i}", i)
        assert cluster.mset({"{user}a": 1, "{user}b": 2})
        assert cluster.mget("{user}a", "{user}b") == ["1", "2"]
        try:
            cluster.get_redis_connection(cluster.get_primaries()[0]).mget("a", "b")
        except redis.ResponseError as error:
            assert "hash to the same slot" in str(error), error
        else:
            raise AssertionError("keys of several slots must be refused")
        pipe = cluster.pipeline()
        for i in range(500):
            pipe.incr(f"key:{i}")
        assert pipe.execute() == [i + 1 for i in range(500)]
        slot = cluster.keyslot("{user}a")
        assert cluster.cluster_countkeysinslot(slot) == 2
        assert sorted(cluster.cluster_get_keys_in_slot(slot, 10)) == ["{user}a", "{user}b"]
    else:
        assert [cluster.get(f"key:{i}") for i in range(500)] == [str(i + 1) for i in range(500)]
        assert sorted(cluster.scan_iter(match="{user}*", count=100)) == ["{user}a", "{user}b"]
        assert cluster.dbsize() == 502
    cluster.close()


main()
