// What people learn the data types with: profiles in hashes, a queue with several waiting workers, tags with set
// operations, a leaderboard of 100,000 players, a stream with a consumer group; half before a crash, half after it.
//
//   node tutorial.mjs PORT write|verify PROTOCOL
import assert from 'node:assert/strict';
import { createClient } from 'redis';

const [port, phase, protocol] = process.argv.slice(2);
const connect = async () => {
    const client = createClient({ socket: { host: '127.0.0.1', port: Number(port), connectTimeout: 60_000, reconnectStrategy: false }, RESP: Number(protocol) });
    client.on('error', (error) => { throw error; });
    await client.connect();
    return client;
};
const client = await connect();

const JOBS = 2000;
const WORKERS = 4;
const PLAYERS = 100_000;
const score = (player) => (player * 7919) % 1_000_003;

// ------------------------------------------------------------------ profiles

async function writeProfiles() {
    await Promise.all(Array.from({ length: 200 }, (_, id) => client.hSet(`user:${id}`, { name: `User ${id}`, email: `u${id}@example.com`, visits: id })));
    for (let visit = 0; visit < 10; visit++) await client.hIncrBy('user:7', 'visits', 1);
    await client.hIncrByFloat('user:7', 'balance', 10.5);
    assert.equal(await client.hSetNX('user:7', 'name', 'other'), 0);
    assert.equal(await client.hDel('user:8', 'email'), 1);
}

async function verifyProfiles() {
    const profile = await client.hGetAll('user:7');
    assert.deepEqual({ ...profile }, { name: 'User 7', email: 'u7@example.com', visits: '17', balance: '10.5' });
    assert.deepEqual(await client.hmGet('user:8', ['name', 'email']), ['User 8', null]);
    assert.deepEqual((await client.hKeys('user:9')).sort(), ['email', 'name', 'visits']);
    let fields = 0;
    for await (const page of client.hScanIterator('user:7')) fields += page.length;
    assert.equal(fields, 4);
}

// ------------------------------------------------------------------ a queue

// Workers move jobs to a list of those in progress, and wait for new ones.
async function work(name, until, taken) {
    const worker = await connect();
    while (taken.length < until) {
        const job = await worker.blMove('jobs', 'progress', 'LEFT', 'RIGHT', 0.2);
        if (job !== null) taken.push(Number(job));
    }
    await worker.close();
}

async function writeQueue() {
    const taken = [];
    const workers = Array.from({ length: WORKERS }, (_, name) => work(name, JOBS / 2, taken));
    for (let job = 0; job < JOBS; job += 10) {
        await client.rPush('jobs', Array.from({ length: 10 }, (_, at) => String(job + at)));
    }
    await Promise.all(workers);
    assert.equal(new Set(taken).size, taken.length, 'no job is given out twice');
}

async function verifyQueue() {
    const progress = (await client.lRange('progress', 0, -1)).map(Number);
    const waiting = (await client.lRange('jobs', 0, -1)).map(Number);
    const expected = Array.from({ length: JOBS }, (_, job) => job);
    assert.deepEqual([...progress, ...waiting], expected, 'nothing is lost and the order is kept');
    const rest = [];
    const before = await client.lLen('jobs');
    await Promise.all(Array.from({ length: WORKERS }, (_, name) => work(name, before, rest)));
    assert.equal(await client.lLen('jobs'), 0);
    assert.deepEqual((await client.lRange('progress', 0, -1)).map(Number), expected);
    assert.equal(await client.lPos('progress', '1999'), 1999);
}

// ------------------------------------------------------------------ tags

async function writeTags() {
    const transaction = client.multi();
    for (let article = 0; article < 1000; article++) {
        for (const [tag, every] of [['even', 2], ['three', 3], ['five', 5]]) {
            if (article % every === 0) transaction.sAdd(`tag:${tag}`, String(article));
        }
        transaction.sAdd(`words`, `word${article}`);
    }
    await transaction.exec();
}

async function verifyTags() {
    const numbers = (members) => [...members].map(Number).sort((a, b) => a - b);
    const all = Array.from({ length: 1000 }, (_, article) => article);
    assert.deepEqual(numbers(await client.sInter(['tag:even', 'tag:three', 'tag:five'])), all.filter((n) => n % 30 === 0));
    assert.deepEqual(numbers(await client.sDiff(['tag:three', 'tag:even'])), all.filter((n) => n % 3 === 0 && n % 2));
    assert.equal(await client.sUnionStore('tag:any', ['tag:even', 'tag:three']), all.filter((n) => n % 2 === 0 || n % 3 === 0).length);
    assert.equal(await client.sInterCard(['tag:even', 'tag:five']), 100);
    assert.deepEqual(await client.smIsMember('tag:five', ['5', '6']), [1, 0]);
    assert.equal(await client.sCard('words'), 1000);
}

// ------------------------------------------------------------------ a leaderboard

async function writeLeaderboard() {
    for (let start = 0; start < PLAYERS; start += 1000) {
        await client.zAdd('board', Array.from({ length: 1000 }, (_, at) => ({ score: score(start + at), value: `player:${start + at}` })));
    }
    await client.zIncrBy('board', 2_000_000, 'player:77');
}

async function verifyLeaderboard() {
    assert.equal(await client.zCard('board'), PLAYERS);
    const ranked = Array.from({ length: PLAYERS }, (_, player) => ({ score: score(player) + (player === 77 ? 2_000_000 : 0), value: `player:${player}` }))
        .sort((a, b) => b.score - a.score || (a.value < b.value ? 1 : -1));
    const top = await client.zRangeWithScores('board', 0, 99, { REV: true });
    assert.deepEqual(top.map((entry) => ({ ...entry })), ranked.slice(0, 100));
    for (const rank of [0, 1, 99, 50_000, PLAYERS - 1]) {
        assert.equal(await client.zRevRank('board', ranked[rank].value), rank);
    }
    assert.equal(await client.zScore('board', 'player:5'), score(5));
    const few = await client.zRangeByScore('board', 1000, 1100);
    assert.equal(few.length, ranked.filter((entry) => entry.score >= 1000 && entry.score <= 1100).length);
    assert.equal(await client.zCount('board', '(1000', '+inf'), ranked.filter((entry) => entry.score > 1000).length);
    const best = await client.zPopMax('board');
    assert.equal(best.value, 'player:77');
}

// ------------------------------------------------------------------ a stream

async function writeStream() {
    await client.xGroupCreate('events', 'readers', '0', { MKSTREAM: true });
    for (let number = 0; number < 500; number++) await client.xAdd('events', '*', { number: String(number) });
    const read = await client.xReadGroup('readers', 'alice', { key: 'events', id: '>' }, { COUNT: 100 });
    const ids = read[0].messages.map((message) => message.id);
    assert.equal(await client.xAck('events', 'readers', ids.slice(0, 60)), 60);
}

async function verifyStream() {
    assert.equal(await client.xLen('events'), 500);
    const entries = await client.xRange('events', '-', '+');
    assert.deepEqual(entries.map((entry) => Number(entry.message.number)), Array.from({ length: 500 }, (_, number) => number));
    const pending = await client.xPending('events', 'readers');
    assert.equal(pending.pending, 40);
    const claimed = await client.xAutoClaim('events', 'readers', 'bob', 0, '0-0', { COUNT: 100 });
    assert.deepEqual(claimed.messages.map((entry) => Number(entry.message.number)), Array.from({ length: 40 }, (_, at) => 60 + at));
    const reader = await connect();
    const waiting = reader.xReadGroup('readers', 'bob', { key: 'events', id: '>' }, { COUNT: 1000, BLOCK: 0 });
    const [{ messages }] = await waiting;
    assert.equal(messages.length, 400);
    const next = reader.xReadGroup('readers', 'bob', { key: 'events', id: '>' }, { BLOCK: 0 });
    const id = await client.xAdd('events', '*', { number: 'late' });
    assert.equal((await next)[0].messages[0].id, id);
    await reader.close();
}

// ------------------------------------------------------------------

if (phase === 'write') {
    await writeProfiles();
    await writeQueue();
    await writeTags();
    await writeLeaderboard();
    await writeStream();
} else {
    await verifyProfiles();
    await verifyQueue();
    await verifyTags();
    await verifyLeaderboard();
    await verifyStream();
}
await client.close();
