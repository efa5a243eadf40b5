// node-redis where more than one connection matters: messages, transactions with WATCH, pools, blocking, iterators,
// caching in the client, keyspace events, MONITOR, and connections that come back after `kill -9`.
//
//   node node-redis-live.mjs PORT PROTOCOL PART…
import assert from 'node:assert/strict';
import { BasicClientSideCache, BasicPooledClientSideCache, createClient, createClientPool, RESP_TYPES, WatchError } from 'redis';
import { ask, fine, until } from './ask.mjs';

const [port, protocol, ...parts] = process.argv.slice(2);
const options = (more = {}) => ({ socket: { host: '127.0.0.1', port: Number(port), connectTimeout: 60_000, reconnectStrategy: 20 }, RESP: Number(protocol), ...more });
async function connect(more) {
    const client = createClient(options(more));
    // Errors of the connection come here while the server is away.
    client.on('error', () => {});
    return client.connect();
}
const client = await connect();

// ------------------------------------------------------------------ messages

async function pubsub() {
    const MESSAGES = 2000;
    const subscriber = await connect();
    const other = await connect();
    const [news, all, binary, shard] = [[], [], [], []];
    await subscriber.subscribe('news', (message, channel) => news.push([channel, message]));
    await subscriber.subscribe(['sport', 'weather'], (message, channel) => all.push([channel, message]));
    await subscriber.pSubscribe('n*', (message, channel) => all.push([channel, message]));
    await subscriber.subscribe('binary', (message) => binary.push(message), true);
    await subscriber.sSubscribe('shard', (message) => shard.push(message));
    assert.deepEqual((await client.pubSubChannels()).sort(), ['binary', 'news', 'sport', 'weather']);
    assert.deepEqual({ ...await client.pubSubNumSub(['news', 'none']) }, { news: 1, none: 0 });
    assert.equal(await client.pubSubNumPat(), 1);
    assert.deepEqual(await client.pubSubShardChannels(), ['shard']);

    // Two publishers: each one's messages come in its order, whatever lies between them.
    const publish = (by, name) => Promise.all(Array.from({ length: MESSAGES / 2 }, (_, at) => by.publish('news', `${name} ${at}`)));
    const receivers = await Promise.all([publish(client, 'a'), publish(other, 'b')]);
    assert.ok(receivers.flat().every((count) => count === 2), 'by its channel and by its pattern');
    await until('all messages', () => news.length === MESSAGES && all.length === MESSAGES);
    for (const name of ['a', 'b']) {
        assert.deepEqual(news.map(([, message]) => message).filter((message) => message.startsWith(name)), Array.from({ length: MESSAGES / 2 }, (_, at) => `${name} ${at}`));
    }
    assert.deepEqual(all, news, 'one order for all');
    const bytes = Buffer.from([0, 255, 13, 10, 36]);
    assert.equal(await client.publish('binary', bytes), 1);
    assert.equal(await client.sPublish('shard', 'to the shard'), 1);
    await until('the rest', () => binary.length === 1 && shard.length === 1);
    assert.deepEqual([binary, shard], [[bytes], ['to the shard']]);
    // A message of a transaction is sent when it is executed.
    assert.deepEqual(await client.multi().set('k', '1').publish('news', 'changed').incr('k').exec(), ['OK', 2, 2]);
    await until('that of the transaction', () => news.at(-1)[1] === 'changed');

    if (protocol === '3') assert.equal(await subscriber.get('k'), '2', 'with RESP3 a subscriber may ask, too');
    await subscriber.unsubscribe('news');
    await subscriber.pUnsubscribe();
    await subscriber.sUnsubscribe('shard');
    assert.equal(await client.publish('news', 'unheard'), 0);
    await subscriber.unsubscribe();
    // In RESP2, this client gives the replies of such a connection as bytes.
    assert.equal(String(await subscriber.get('k')), '2', 'an ordinary connection again');
    assert.deepEqual(await client.pubSubChannels(), []);
    await Promise.all([subscriber.close(), other.close()]);
}

// ------------------------------------------------------------------ connections that come back

async function reconnect() {
    const subscriber = await connect();
    const heard = [];
    await subscriber.subscribe('a', (message) => heard.push(message));
    await subscriber.pSubscribe('b*', (message) => heard.push(message));
    await client.select(3);
    await client.set('kept', 'before');
    await client.publish('a', 'one');
    await until('the first message', () => heard.length === 1);
    const lost = once(client, 'reconnecting');
    await ask('kill');
    await lost;
    // These wait in the client until the connection is back.
    const waiting = [client.get('kept'), client.set('late', 'x'), client.multi().incr('n').incr('n').exec()];
    await ask('start');
    assert.deepEqual(await Promise.all(waiting), ['before', 'OK', [1, 2]], 'in the database that was selected');
    await until('subscribed again', async () => (await client.publish('a', 'ping')) === 1 && (await client.publish('bb', 'ping')) === 1);
    heard.length = 0;
    await client.publish('a', 'two');
    await client.publish('b2', 'three');
    await until('messages after the crash', () => heard.includes('two') && heard.includes('three'));
    await client.select(0);
    await subscriber.close();
}

const once = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

// ------------------------------------------------------------------ transactions

// Many clients raise one counter by WATCH: no turn is lost.
async function optimistic() {
    const [CLIENTS, TURNS] = [4, 50];
    let conflicts = 0;
    async function raise() {
        const own = await connect();
        for (let turn = 0; turn < TURNS;) {
            await own.watch('balance');
            const balance = Number(await own.get('balance') ?? 0);
            try {
                const [reply] = await own.multi().set('balance', String(balance + 1)).exec();
                assert.equal(reply, 'OK');
                turn += 1;
            } catch (error) {
                assert.ok(error instanceof WatchError, error);
                conflicts += 1;
            }
        }
        await own.close();
    }
    await Promise.all(Array.from({ length: CLIENTS }, raise));
    assert.equal(await client.get('balance'), String(CLIENTS * TURNS), `${conflicts} conflicts`);
    await client.set('text', 'abc');
    await assert.rejects(client.multi().set('x', '1').incr('text').exec(), /1 commands failed/);
    assert.equal(await client.get('x'), '1', 'a command that fails stops no other');
    await client.watch('x');
    await client.unwatch();
    await (await connect()).set('x', '2');
    assert.deepEqual(await client.multi().get('x').exec(), ['2']);
}

// ------------------------------------------------------------------ pools, blocking, iterators

async function pool() {
    const many = createClientPool(options(), { minimum: 2, maximum: 8 });
    many.on('error', () => {});
    await many.connect();
    const counts = await Promise.all(Array.from({ length: 500 }, () => many.incr('pooled')));
    assert.deepEqual(counts.sort((a, b) => a - b), Array.from({ length: 500 }, (_, at) => at + 1));
    // A client of its own for what blocks and for WATCH.
    const jobs = Array.from({ length: 4 }, () => many.execute((one) => one.blPop('work', 60)));
    await until('four wait', async () => (await client.info('clients')).includes('blocked_clients:4'));
    await client.rPush('work', ['1', '2', '3', '4']);
    assert.deepEqual((await Promise.all(jobs)).map(({ element }) => element).sort(), ['1', '2', '3', '4']);
    assert.deepEqual(await many.multi().set('p', '1').get('p').exec(), ['OK', '1']);
    await many.close();
}

async function iterators() {
    await Promise.all(Array.from({ length: 3000 }, (_, at) => client.set(`scan:${at}`, 'v')));
    await client.hSet('scanned:hash', Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`f${at}`, String(at)])));
    await client.sAdd('scanned:set', Array.from({ length: 1000 }, (_, at) => `m${at}`));
    await client.zAdd('scanned:zset', Array.from({ length: 1000 }, (_, at) => ({ score: at, value: `m${at}` })));
    const seen = async (iterator, name = (each) => each) => {
        const found = new Set();
        for await (const page of iterator) for (const each of page) found.add(name(each));
        return found.size;
    };
    assert.equal(await seen(client.scanIterator({ MATCH: 'scan:*', COUNT: 100 })), 3000);
    assert.equal(await seen(client.scanIterator({ TYPE: 'hash' })), 1);
    assert.equal(await seen(client.hScanIterator('scanned:hash'), ({ field }) => field), 1000);
    assert.equal(await seen(client.hScanNoValuesIterator('scanned:hash')), 1000);
    assert.equal(await seen(client.sScanIterator('scanned:set')), 1000);
    assert.equal(await seen(client.zScanIterator('scanned:zset'), ({ value }) => value), 1000);
    const buffers = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    assert.deepEqual(await buffers.get('scan:7'), Buffer.from('v'));
}

// ------------------------------------------------------------------ caching in the client

// With RESP3 the server says which keys that were read have changed.
async function caching() {
    const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 0 });
    const reader = await connect({ RESP: 3, clientSideCache: cache });
    await client.set('cached', '1');
    assert.equal(await reader.get('cached'), '1');
    assert.equal(await reader.get('cached'), '1');
    assert.ok(cache.stats().hitCount >= 1);
    const { missCount } = cache.stats();
    for (let turn = 2; turn < 20; turn++) {
        await client.set('cached', String(turn));
        await until('the new value', async () => (await reader.get('cached')) === String(turn));
    }
    assert.ok(cache.stats().missCount >= missCount + 18, 'each change is asked for again');
    await client.hSet('hash', { a: '1' });
    assert.deepEqual({ ...await reader.hGetAll('hash') }, { a: '1' });
    await client.hSet('hash', { b: '2' });
    await until('both fields', async () => Object.keys(await reader.hGetAll('hash')).length === 2);
    await reader.get('cached');
    const flushed = once(cache, 'invalidate');
    await client.flushDb();
    await flushed;
    await until('nothing', async () => (await reader.get('cached')) === null);
    // A lost connection empties the cache: nobody told it what changed.
    await client.set('cached', 'old');
    await until('the old value', async () => (await reader.get('cached')) === 'old');
    const lost = Promise.all([client, reader].map((each) => once(each, 'reconnecting')));
    await ask('kill');
    await lost;
    await ask('start');
    await client.set('cached', 'new');
    await until('the value after the crash', async () => (await reader.get('cached')) === 'new');
    await reader.close();

    const many = createClientPool({ ...options(), RESP: 3 }, { clientSideCache: new BasicPooledClientSideCache(), minimum: 2, maximum: 4 });
    many.on('error', () => {});
    await many.connect();
    await Promise.all(Array.from({ length: 50 }, () => many.get('cached')));
    await client.set('cached', 'pooled');
    await until('the pool knows', async () => (await many.get('cached')) === 'pooled');
    await many.close();
}

// ------------------------------------------------------------------ keyspace events, MONITOR

async function events() {
    await client.configSet('notify-keyspace-events', 'KEA');
    const subscriber = await connect();
    const heard = [];
    await subscriber.pSubscribe('__keyevent@0__:*', (key, channel) => heard.push([channel.split(':')[1], key]));
    await subscriber.pSubscribe('__keyspace@0__:watched', (event) => heard.push(['keyspace', event]));
    await client.set('watched', '1');
    await client.lPush('watched:list', 'a');
    await client.rename('watched', 'renamed');
    await client.pExpire('renamed', 1);
    await until('its end', () => heard.some(([event]) => event === 'expired'));
    assert.deepEqual(heard.filter(([event]) => event !== 'new'), [
        ['keyspace', 'set'], ['set', 'watched'], ['lpush', 'watched:list'], ['keyspace', 'rename_from'], ['rename_from', 'watched'],
        ['rename_to', 'renamed'], ['expire', 'renamed'], ['expired', 'renamed'],
    ]);
    await subscriber.close();
    await client.configSet('notify-keyspace-events', '');
}

async function monitor() {
    const watcher = await connect();
    const seen = [];
    await watcher.monitor((line) => seen.push(String(line)));
    await client.set('monitored', 'a "quoted" word');
    await client.multi().incr('m').incr('m').exec();
    await until('all commands', () => seen.filter((line) => line.includes('"incr"') || line.includes('"INCR"')).length === 2);
    assert.ok(seen.some((line) => /^\d+\.\d{6} \[0 127\.0\.0\.1:\d+\] "SET" "monitored" "a \\"quoted\\" word"$/.test(line)), seen.join('\n'));
    await watcher.destroy();
}

const known = { pubsub, reconnect, optimistic, pool, iterators, caching, events, monitor };
for (const part of parts) {
    await client.flushAll();
    await known[part]();
}
fine();
