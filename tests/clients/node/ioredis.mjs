// ioredis end to end: `node ioredis.mjs PORT write|verify`.
import assert from "node:assert/strict";
import { Redis } from "ioredis";

const [port, phase] = process.argv.slice(2);
const redis = new Redis({ port: Number(port), host: "127.0.0.1", db: 2, keyPrefix: "ioredis:", connectionName: "worker", connectTimeout: 60_000, retryStrategy: null });
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

// Profiles, a queue with a worker that waits, tags, a leaderboard, a stream with a group.
async function writeCollections() {
  await redis.hset("user:1", { name: "Ada", visits: 1 });
  assert.equal(await redis.hincrby("user:1", "visits", 2), 3);
  const worker = redis.duplicate();
  const waiting = worker.blpop("jobs", 30);
  await redis.rpush("jobs", ...Array.from({ length: 100 }, (_, job) => job));
  assert.deepEqual(await waiting, ["ioredis:jobs", "0"]);
  await worker.quit();
  await redis.sadd("tag:red", "a", "b", "c");
  await redis.sadd("tag:round", "b", "c", "d");
  await redis.zadd("board", ...Array.from({ length: 1000 }, (_, at) => [(at * 7) % 1000, `p${at}`]).flat());
  await redis.xgroup("CREATE", "events", "readers", "0", "MKSTREAM");
  const pipeline = redis.pipeline();
  for (let number = 1; number <= 20; number++) pipeline.xadd("events", `${number}-0`, "number", number);
  await pipeline.exec();
  const [[, read]] = await redis.xreadgroup("GROUP", "readers", "alice", "COUNT", 5, "STREAMS", "events", ">");
  assert.deepEqual(read.map(([id]) => id), ["1-0", "2-0", "3-0", "4-0", "5-0"]);
  assert.equal(await redis.xack("events", "readers", "1-0", "2-0"), 2);
}

async function verifyCollections() {
  assert.deepEqual(await redis.hgetall("user:1"), { name: "Ada", visits: "3" });
  assert.deepEqual((await redis.lrange("jobs", 0, -1)).map(Number), Array.from({ length: 99 }, (_, job) => job + 1));
  assert.deepEqual((await redis.sinter("tag:red", "tag:round")).sort(), ["b", "c"]);
  assert.deepEqual(await redis.zrevrange("board", 0, 1, "WITHSCORES"), ["p857", "999", "p714", "998"]);
  assert.equal(await redis.zrank("board", "p857"), 999);
  const members = new Set();
  for await (const page of redis.zscanStream("board")) page.forEach((word, at) => at % 2 || members.add(word));
  assert.equal(members.size, 1000);
  assert.deepEqual((await redis.xrange("events", "-", "+")).map(([, fields]) => Number(fields[1])), Array.from({ length: 20 }, (_, at) => at + 1));
  assert.deepEqual(await redis.xpending("events", "readers"), [3, "3-0", "5-0", [["alice", "3"]]]);
}

await { write, verify }[phase]();
await { write: writeCollections, verify: verifyCollections }[phase]();
await scan();
await redis.quit();
