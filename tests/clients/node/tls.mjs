// node-redis and ioredis over TLS: `node tls.mjs PORT CA CERTIFICATE KEY`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Redis } from "ioredis";
import { createClient } from "redis";

const [port, ...files] = process.argv.slice(2);
const [ca, cert, key] = files.map((file) => readFileSync(file));
const large = "x".repeat(3_000_000);

const client = createClient({ socket: { tls: true, host: "localhost", port: Number(port), ca, cert, key, connectTimeout: 60_000, reconnectStrategy: false }, RESP: 3 });
client.on("error", (error) => { console.error(error); process.exit(1); });
await client.connect();
assert.equal(await client.set("large", large), "OK");
assert.equal(await client.get("large"), large);
const replies = await Promise.all(Array.from({ length: 1000 }, () => client.incr("counter")));
assert.equal(replies.at(-1), 1000);
const subscriber = client.duplicate();
await subscriber.connect();
const heard = new Promise((resolve) => subscriber.subscribe("news", resolve));
while (await client.publish("news", "hello") === 0);
assert.equal(await heard, "hello");
await subscriber.close();
await client.close();

const redis = new Redis({ host: "localhost", port: Number(port), tls: { ca, cert, key }, connectTimeout: 60_000, retryStrategy: null });
redis.on("error", (error) => { console.error(error); process.exit(1); });
assert.equal(await redis.get("large"), large);
const results = await redis.multi().incr("counter").get("counter").exec();
assert.deepEqual(results, [[null, 1001], [null, "1001"]]);
redis.disconnect();

// Without a certificate, nobody gets in.
const stranger = createClient({ socket: { tls: true, host: "localhost", port: Number(port), ca, connectTimeout: 60_000, reconnectStrategy: false } });
stranger.on("error", () => {});
await assert.rejects(stranger.connect().then(() => stranger.ping()));
