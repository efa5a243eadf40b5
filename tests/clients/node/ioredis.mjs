// ioredis end to end: `node ioredis.mjs PORT write|verify`.
import assert from "node:assert/strict";
import { Redis } from "ioredis";

const [port, phase] = process.argv.slice(2);
const redis = new Redis({ port: Number(port), host: "127.0.0.1", db: 2, keyPrefix: "ioredis:", connectionName: "worker", retryStrategy: null });
redis.on("error", (error) => { console.error(error); process.exit(1); });

async function write() {
  assert.equal(await redis.ping(), "PONG");
  assert.equal(await redis.client("GETNAME"), "worker");
  assert.equal(await redis.setex("session", 600, "data"), "OK");
  assert.ok((await redis.ttl("session")) > 500);
  assert.equal(await redis.mset("a", 1, "b", 2), "OK");
  assert.deepEqual(await redis.mget("a", "b", "none"), ["1", "2", null]);

  const pipeline = redis.pipeline();
  for (let i = 0; i < 1000; i++) pipeline.set(`many:${i}`, i).incr("counter");
  const results = await pipeline.exec();
  assert.equal(results.length, 2000);
  assert.ok(results.every(([error]) => error === null));
  assert.deepEqual(results.at(-1), [null, 1000]);

  // A failing command fails alone.
  const mixed = await redis.pipeline().set("text", "abc").incr("text").get("text").exec();
  assert.match(mixed[1][0].message, /not an integer/);
  assert.deepEqual(mixed[2], [null, "abc"]);

  const binary = Buffer.from([0, 255, 13, 10, 128]);
  await redis.set("binary", binary);
  assert.deepEqual(await redis.getBuffer("binary"), binary);
  assert.equal(await redis.set("large", "x".repeat(2_000_000)), "OK");
}

async function verify() {
  assert.equal(await redis.get("counter"), "1000");
  assert.equal(await redis.get("many:999"), "999");
  assert.ok((await redis.ttl("session")) > 0);
  assert.deepEqual(await redis.getBuffer("binary"), Buffer.from([0, 255, 13, 10, 128]));
  assert.equal((await redis.get("large")).length, 2_000_000);
}

async function scan() {
  const found = new Set();
  for await (const keys of redis.scanStream({ match: "ioredis:many:*", count: 100 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 1000);
}

await { write, verify }[phase]();
await scan();
await redis.quit();
