// ioredis as a cluster client: `node cluster-ioredis.mjs PORT write|verify`.
import assert from "node:assert/strict";
import { Cluster } from "ioredis";

const [port, phase] = process.argv.slice(2);
const cluster = new Cluster([{ host: "127.0.0.1", port: Number(port) }], { clusterRetryStrategy: () => null, redisOptions: { connectTimeout: 60_000 } });
cluster.on("error", (error) => { console.error(error); process.exit(1); });
await new Promise((resolve) => cluster.once("ready", resolve));

assert.equal(cluster.nodes("master").length, 1);

if (phase === "write") {
  await Promise.all(Array.from({ length: 500 }, (_, i) => cluster.set(`key:${i}`, i)));
  assert.equal(await cluster.mset("{user}a", 1, "{user}b", 2), "OK");
  assert.deepEqual(await cluster.mget("{user}a", "{user}b"), ["1", "2"]);
  await assert.rejects(cluster.mget("a", "b"), /CROSSSLOT/);
  const results = await cluster.multi().incr("{user}a").rpush("{user}l", "x", "y").exec();
  assert.deepEqual(results, [[null, 2], [null, 2]]);
  const pipeline = await cluster.pipeline().incr("{user}a").get("{user}b").exec();
  assert.deepEqual(pipeline, [[null, 3], [null, "2"]]);
} else {
  const found = await Promise.all(Array.from({ length: 500 }, (_, i) => cluster.get(`key:${i}`)));
  assert.deepEqual(found, Array.from({ length: 500 }, (_, i) => String(i)));
  assert.deepEqual(await cluster.lrange("{user}l", 0, -1), ["x", "y"]);
}
await cluster.quit();
