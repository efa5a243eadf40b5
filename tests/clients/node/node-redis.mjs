// node-redis end to end: `node node-redis.mjs PORT write|verify RESP`.
// `write` uses the server as an application does and leaves data; `verify` finds it after a crash.
import assert from "node:assert/strict";
import { createClient } from "redis";

const [port, phase, resp] = process.argv.slice(2);
const prefix = `node-redis:${resp}`;
const client = createClient({ socket: { port: Number(port), host: "127.0.0.1", connectTimeout: 60_000, reconnectStrategy: false }, RESP: Number(resp), name: "shop" });
client.on("error", (error) => { console.error(error); process.exit(1); });
await client.connect();

async function cacheAside(key, load) {
  const cached = await client.get(key);
  if (cached !== null) return [cached, true];
  const fresh = await load();
  await client.setEx(key, 600, fresh);
  return [fresh, false];
}

async function write() {
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.clientGetName(), "shop");

  const product = JSON.stringify({ id: 17, name: "Tee – ☕", price: 4.5 });
  assert.deepEqual(await cacheAside(`${prefix}:product:17`, async () => product), [product, false]);
  assert.deepEqual(await cacheAside(`${prefix}:product:17`, async () => "never loaded"), [product, true]);
  const ttl = await client.ttl(`${prefix}:product:17`);
  assert.ok(ttl > 500 && ttl <= 600, `ttl ${ttl}`);

  for (let visit = 1; visit <= 50; visit++) assert.equal(await client.incr(`${prefix}:visits`), visit);
  assert.equal(await client.incrBy(`${prefix}:visits`, 50), 100);
  assert.equal(await client.decr(`${prefix}:visits`), 99);
  assert.equal(Number(await client.incrByFloat(`${prefix}:sum`, 0.25)), 0.25);

  await client.mSet({ [`${prefix}:a`]: "1", [`${prefix}:b`]: "2" });
  assert.deepEqual(await client.mGet([`${prefix}:a`, `${prefix}:b`, `${prefix}:none`]), ["1", "2", null]);

  // Commands of one tick travel as one pipeline.
  const replies = await Promise.all(Array.from({ length: 1000 }, (_, i) => client.set(`${prefix}:many:${i}`, `value ${i}`)));
  assert.ok(replies.every((reply) => reply === "OK"));
  const piped = await client.multi().set(`${prefix}:p`, "1").incr(`${prefix}:p`).get(`${prefix}:p`).execAsPipeline();
  assert.deepEqual(piped, ["OK", 2, "2"]);

  assert.equal(await client.set(`${prefix}:lock`, "me", { NX: true, PX: 600000 }), "OK");
  assert.equal(await client.set(`${prefix}:lock`, "you", { NX: true, PX: 600000 }), null);
  assert.equal(await client.getDel(`${prefix}:p`), "2");
  assert.equal(await client.exists([`${prefix}:p`, `${prefix}:lock`]), 1);
  await assert.rejects(client.incr(`${prefix}:lock`), /not an integer/);
}

async function scan() {
  const found = new Set();
  for await (const keys of client.scanIterator({ MATCH: `${prefix}:many:*`, COUNT: 100 })) {
    for (const key of [keys].flat()) found.add(key);
  }
  assert.equal(found.size, 1000);
}

async function verify() {
  assert.equal(await client.get(`${prefix}:visits`), "99");
  assert.equal(JSON.parse(await client.get(`${prefix}:product:17`)).name, "Tee – ☕");
  assert.ok((await client.ttl(`${prefix}:product:17`)) > 0);
  for (let i = 0; i < 1000; i++) assert.equal(await client.get(`${prefix}:many:${i}`), `value ${i}`);
  assert.equal(await client.get(`${prefix}:lock`), "me");
  assert.equal(await client.get(`${prefix}:p`), null);
}

await { write, verify }[phase]();
await scan();
assert.match(await client.info("server"), /redis_version:/);
await client.close();
