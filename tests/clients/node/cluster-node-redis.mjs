// node-redis as a cluster client: `node cluster-node-redis.mjs PORT write|verify`.
import assert from "node:assert/strict";
import { createCluster } from "redis";

const [port, phase] = process.argv.slice(2);
const cluster = createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${port}` }], defaults: { socket: { connectTimeout: 60_000 } } });
cluster.on("error", (error) => { console.error(error); process.exit(1); });
await cluster.connect();

assert.equal(cluster.masters.length, 1);
assert.equal(cluster.slots.filter(Boolean).length, 16384);

if (phase === "write") {
  await Promise.all(Array.from({ length: 500 }, (_, i) => cluster.set(`key:${i}`, String(i))));
  await cluster.mSet([["{user}a", "1"], ["{user}b", "2"]]);
  assert.deepEqual(await cluster.mGet(["{user}a", "{user}b"]), ["1", "2"]);
  await assert.rejects(cluster.rename("a", "b"), /CROSSSLOT/);
  const replies = await cluster.multi().incr("{user}a").hSet("{user}h", { name: "Ada" }).exec();
  assert.deepEqual(replies, [2, 1]);

  // Channels of shards go to the node of their slot, others to any.
  const heard = [];
  const both = new Promise((resolve) => {
    const listener = (message, channel) => { if (heard.push(`${channel}=${message}`) === 2) resolve(); };
    cluster.sSubscribe("orders", listener).then(() => cluster.subscribe("news", listener)).then(async () => {
      await cluster.sPublish("orders", "1");
      await cluster.publish("news", "2");
    });
  });
  await both;
  assert.deepEqual(heard.sort(), ["news=2", "orders=1"]);
} else {
  const found = await Promise.all(Array.from({ length: 500 }, (_, i) => cluster.get(`key:${i}`)));
  assert.deepEqual(found, Array.from({ length: 500 }, (_, i) => String(i)));
  assert.equal(await cluster.hGet("{user}h", "name"), "Ada");
}
await cluster.close();
