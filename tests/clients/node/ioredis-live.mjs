// ioredis where more than one connection matters: pipelines by themselves and by hand, streams of SCAN, waiting
// commands, messages, keyspace events, MONITOR, transactions, and connections that come back after `kill -9`.
//
//   node ioredis-live.mjs PORT PROTOCOL PART…
import assert from 'node:assert/strict';
import { Redis } from 'ioredis';
import { ask, fine, until } from './ask.mjs';

const [port, protocol, ...parts] = process.argv.slice(2);
function connect(more = {}) {
    const client = new Redis({ host: '127.0.0.1', port: Number(port), protocol: Number(protocol), retryStrategy: () => 20, maxRetriesPerRequest: null, ...more });
    // Errors of the connection come here while the server is away.
    client.on('error', () => {});
    return client;
}
const redis = connect();
const once = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

async function pipelines() {
    const auto = connect({ enableAutoPipelining: true, keyPrefix: 'auto:' });
    await auto.ping();
    const replies = await Promise.all(Array.from({ length: 2000 }, (_, at) => (at % 2 ? auto.get(`k${at - 1}`) : auto.set(`k${at}`, at))));
    assert.ok(replies.every((reply, at) => reply === (at % 2 ? String(at - 1) : 'OK')));
    assert.equal(await redis.get('auto:k4'), '4', 'with the prefix');
    const results = await redis.pipeline(Array.from({ length: 1000 }, () => ['incr', 'piped'])).exec();
    assert.deepEqual(results.map(([error, count]) => [error, count]), Array.from({ length: 1000 }, (_, at) => [null, at + 1]));
    await auto.quit();
}

async function transactions() {
    assert.deepEqual(await redis.multi().set('a', 1).incr('a').get('a').exec(), [[null, 'OK'], [null, 2], [null, '2']]);
    // Without a pipeline, each command goes by itself and is queued by the server.
    await redis.multi({ pipeline: false });
    assert.equal(await redis.set('b', 1), 'QUEUED');
    assert.equal(await redis.incr('b'), 'QUEUED');
    assert.deepEqual(await redis.exec(), [[null, 'OK'], [null, 2]]);
    await redis.multi({ pipeline: false });
    assert.equal(await redis.set('b', 'discarded'), 'QUEUED');
    assert.equal(await redis.discard(), 'OK');
    const mixed = await redis.multi().set('text', 'abc').incr('text').get('text').exec();
    assert.match(mixed[1][0].message, /not an integer/);
    assert.deepEqual(mixed[2], [null, 'abc']);
    await assert.rejects(redis.multi().set('one').exec(), /EXECABORT/);
    const other = connect();
    await redis.watch('b');
    await other.set('b', 5);
    assert.equal(await redis.multi().set('b', 6).exec(), null, 'the key has changed');
    assert.equal(await redis.get('b'), '5');
    // Many at once: each adds, none is lost.
    const clients = Array.from({ length: 4 }, () => connect());
    await Promise.all(clients.map(async (client) => {
        for (let turn = 0; turn < 40;) {
            await client.watch('sum');
            const sum = Number(await client.get('sum') ?? 0);
            if (await client.multi().set('sum', sum + 1).exec() !== null) turn += 1;
        }
        await client.quit();
    }));
    assert.equal(await redis.get('sum'), '160');
    await other.quit();
}

async function scans() {
    await redis.mset(Object.fromEntries(Array.from({ length: 3000 }, (_, at) => [`scan:${at}`, 'v'])));
    await redis.hset('hash', Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`f${at}`, at])));
    await redis.sadd('set', Array.from({ length: 1000 }, (_, at) => `m${at}`));
    const seen = async (stream, step) => {
        const found = new Set();
        for await (const page of stream) page.forEach((each, at) => at % step || found.add(each));
        return found.size;
    };
    assert.equal(await seen(redis.scanStream({ match: 'scan:*', count: 100 }), 1), 3000);
    assert.equal(await seen(redis.scanStream({ type: 'set' }), 1), 1);
    assert.equal(await seen(redis.hscanStream('hash', { count: 50 }), 2), 1000);
    assert.equal(await seen(redis.sscanStream('set', { match: 'm1*' }), 1), 111);
    // Keys are removed while a stream runs: what stays is seen.
    const found = new Set();
    for await (const page of redis.scanStream({ match: 'scan:*', count: 50 })) {
        for (const key of page) found.add(key);
        await redis.del(...page.filter((key) => Number(key.slice(5)) % 2), 'none');
    }
    for (let at = 0; at < 3000; at += 2) assert.ok(found.has(`scan:${at}`));
}

async function waiting() {
    const workers = Array.from({ length: 4 }, () => connect());
    const blocked = (count) => until(`${count} wait`, async () => (await redis.info('clients')).includes(`blocked_clients:${count}`));
    const first = workers.map((worker) => worker.blpop('jobs', 60));
    await blocked(4);
    await redis.rpush('jobs', 1, 2, 3, 4);
    assert.deepEqual((await Promise.all(first)).map(([, job]) => Number(job)).sort(), [1, 2, 3, 4]);
    const smallest = workers[0].bzpopmin('scores', 60);
    const entry = workers[1].xread('BLOCK', 60000, 'STREAMS', 'stream', '$');
    const moved = workers[2].blmove('from', 'to', 'LEFT', 'RIGHT', 60);
    await blocked(3);
    await redis.multi().zadd('scores', 2, 'b', 1, 'a').xadd('stream', '1-1', 'f', 'v').rpush('from', 'x').exec();
    assert.deepEqual((await smallest).map(String), ['scores', 'a', '1']);
    // RESP3 gives a map of the streams.
    const [name, [[id]]] = [await entry].map((reply) => (Array.isArray(reply) ? reply[0] : Object.entries(reply)[0]))[0];
    assert.deepEqual([name, id], ['stream', '1-1']);
    assert.equal(await moved, 'x');
    await Promise.all(workers.map((worker) => worker.quit()));
}

async function messages() {
    const MESSAGES = 2000;
    // This client takes a count of 0, of whatever kind, for the end of all subscriptions: the shard has its own.
    const [subscriber, sharded] = [connect(), connect()];
    const [heard, patterns, shard] = [[], [], []];
    subscriber.on('message', (channel, message) => heard.push([channel, message]));
    subscriber.on('pmessage', (pattern, channel, message) => patterns.push([pattern, channel, message]));
    sharded.on('smessage', (_, message) => shard.push(message));
    assert.equal(await subscriber.subscribe('a', 'b'), 2);
    assert.equal(await subscriber.psubscribe('a*'), 3);
    assert.equal(await sharded.ssubscribe('s'), 1);
    const pipeline = redis.pipeline();
    for (let at = 0; at < MESSAGES; at++) pipeline.publish('a', at);
    assert.ok((await pipeline.exec()).every(([error, count]) => error === null && count === 2));
    await redis.publish('b', 'last');
    await redis.spublish('s', 'to the shard');
    await until('all', () => heard.length === MESSAGES + 1 && patterns.length === MESSAGES && shard.length === 1);
    assert.deepEqual(heard.slice(0, -1), Array.from({ length: MESSAGES }, (_, at) => ['a', String(at)]));
    assert.deepEqual(patterns[7], ['a*', 'a', '7']);
    assert.equal(await subscriber.unsubscribe('a', 'b'), 1);
    assert.equal(await subscriber.punsubscribe('a*'), 0);
    assert.equal(await sharded.sunsubscribe('s'), 0);
    assert.equal(await redis.publish('a', 'unheard'), 0);
    for (const each of [subscriber, sharded]) {
        assert.equal(await each.ping(), 'PONG');
        await each.quit();
    }
}

async function reconnect() {
    const subscriber = connect({ db: 1 });
    const heard = [];
    subscriber.on('message', (_, message) => heard.push(message));
    subscriber.on('pmessage', (_, channel, message) => heard.push(`${channel} ${message}`));
    await subscriber.subscribe('a');
    await subscriber.psubscribe('b*');
    const client = connect({ db: 5, connectionName: 'phoenix' });
    await client.set('kept', 'before');
    // A command that waits is sent again.
    const worker = connect({ db: 5 });
    const job = worker.blpop('jobs', 0);
    await until('it waits', async () => (await redis.info('clients')).includes('blocked_clients:1'));
    const lost = once(client, 'close');
    await ask('kill');
    await lost;
    const offline = [client.get('kept'), client.incr('n'), client.multi().incr('n').get('kept').exec()];
    await ask('start');
    assert.deepEqual(await Promise.all(offline), ['before', 1, [[null, 2], [null, 'before']]]);
    assert.match(await client.client('INFO'), /name=phoenix .*db=5/);
    await client.rpush('jobs', 'after');
    assert.deepEqual(await job, ['jobs', 'after']);
    await until('subscribed again', async () => (await redis.publish('a', 'x')) === 1 && (await redis.publish('bb', 'y')) === 1);
    await until('messages after the crash', () => heard.includes('x') && heard.includes('bb y'));
    for (const each of [subscriber, client, worker]) await each.quit();
}

async function events() {
    await redis.config('SET', 'notify-keyspace-events', 'Ex$lgh');
    const subscriber = connect();
    const heard = [];
    subscriber.on('pmessage', (_, channel, key) => heard.push(`${channel.split(':')[1]} ${key}`));
    await subscriber.psubscribe('__keyevent@*__:*');
    const other = connect({ db: 3, keyPrefix: 'p:' });
    await other.set('k', 1, 'PX', 1);
    await until('its end', () => heard.includes('expired p:k'));
    assert.deepEqual(heard, ['set p:k', 'expire p:k', 'expired p:k']);
    await other.hset('h', 'f', 1);
    await other.sadd('unheard', 'm');
    await other.del('h', 'unheard');
    await until('the hash', () => heard.includes('del p:unheard'));
    assert.deepEqual(heard.slice(3), ['hset p:h', 'del p:h', 'del p:unheard']);
    await redis.config('SET', 'notify-keyspace-events', '');
    await Promise.all([subscriber.quit(), other.quit()]);
}

async function monitor() {
    // This client takes what comes in one piece with the OK of MONITOR for a reply to nothing. So the connection that
    // it makes the monitor from must have said all that it says by itself.
    const original = connect();
    await original.ping();
    const watcher = await original.monitor();
    const seen = [];
    watcher.on('monitor', (time, words, source, database) => seen.push({ words, database, source }));
    const other = connect({ db: 2 });
    await other.set('seen', 'by the monitor');
    await until('it', () => seen.some(({ words }) => words[1] === 'seen'));
    const { words, database, source } = seen.find((each) => each.words[1] === 'seen');
    assert.deepEqual([words, database], [['set', 'seen', 'by the monitor'], '2']);
    assert.match(source, /^127\.0\.0\.1:\d+$/);
    watcher.disconnect();
    await Promise.all([original.quit(), other.quit()]);
}

const known = { pipelines, transactions, scans, waiting, messages, reconnect, events, monitor };
for (const part of parts) {
    await redis.flushall();
    await known[part]();
}
fine();
