"""redis-py over TLS: `python tls.py PORT CA CERTIFICATE KEY`."""

import sys

import redis

port, ca, certificate, key = sys.argv[1:]
place = {"host": "localhost", "port": int(port), "ssl": True, "ssl_ca_certs": ca, "decode_responses": True, "socket_timeout": 120}
for protocol in (2, 3):
    client = redis.Redis(**place, ssl_certfile=certificate, ssl_keyfile=key, protocol=protocol)
    large = "y" * 3_000_000
    assert client.set("py:large", large)
    assert client.get("py:large") == large
    pipe = client.pipeline(transaction=True)
    for _ in range(1000):
        pipe.incr(f"py:counter:{protocol}")
    assert pipe.execute()[-1] == 1000
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("py:news")
    while client.publish("py:news", "hello") == 0:
        pass
    message = None
    while message is None:
        message = listener.get_message(timeout=10)
    assert message["data"] == "hello"

try:
    redis.Redis(**place).ping()
except redis.exceptions.ConnectionError:
    pass
else:
    raise AssertionError("a client without a certificate got in")
