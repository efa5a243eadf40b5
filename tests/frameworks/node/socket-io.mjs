// Socket.IO on two nodes with each of its adapters, and through a crash of the store: `node socket-io.mjs PORT`.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createAdapter as createPubSubAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { Emitter } from '@socket.io/redis-emitter';
import { createAdapter as createStreamsAdapter } from '@socket.io/redis-streams-adapter';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { io as connect } from 'socket.io-client';
import { ask, fine, until } from '../../clients/node/ask.mjs';

const port = Number(process.argv[2]);

async function nodeRedis() {
    const socket = { port, host: '127.0.0.1', connectTimeout: 60_000, reconnectStrategy: () => 20 };
    const client = createClient({ socket }).on('error', () => {});
    await client.connect();
    return client;
}

function ioredis() {
    return new Redis({ port, host: '127.0.0.1', retryStrategy: () => 20, maxRetriesPerRequest: null }).on('error', () => {});
}

// A node with an HTTP server of its own.
async function node(adapter, options) {
    const http = createServer();
    const io = new Server(http, { adapter, ...options });
    await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
    io.on('connection', (socket) => {
        socket.data.name = socket.handshake.auth.name;
        socket.on('join', async (room, done) => { await socket.join(room); done(); });
        socket.on('say', (room, text) => socket.to(room).emit('said', text));
    });
    return { io, address: `http://127.0.0.1:${http.address().port}` };
}

async function guest(at, name) {
    const socket = connect(at.address, { transports: ['websocket'], reconnectionDelay: 20, auth: { name } });
    const heard = [];
    socket.on('said', (text) => heard.push(text));
    socket.on('asked', (text, answer) => answer(`${name}: ${text}`));
    await new Promise((resolve) => socket.once('connect', resolve));
    return { socket, heard, join: (room) => socket.timeout(20_000).emitWithAck('join', room) };
}

// Two nodes, three guests: ada and bob on the first, carol on the second.
async function open(adapters, options) {
    const nodes = [await node(adapters[0], options), await node(adapters[1], options)];
    await until('the nodes know each other', async () => (await nodes[0].io.of('/').adapter.serverCount()) === 2);
    const guests = [await guest(nodes[0], 'ada'), await guest(nodes[0], 'bob'), await guest(nodes[1], 'carol')];
    for (const one of guests) await one.join('hall');
    return { nodes, guests };
}

async function everybodyHears(house, text, emit) {
    // Subscriptions that return after a crash take a moment; what is said to nobody is said again.
    await until(`everybody hears ${text}`, async () => {
        emit();
        for (let wait = 0; wait < 50; wait++) {
            if (house.guests.every(({ heard }) => heard.includes(text))) return true;
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
        return false;
    });
}

async function converse(house, twice = false) {
    const [{ io: near }, { io: far }] = house.nodes;
    const [ada, bob, carol] = house.guests;
    const text = twice ? 'again' : 'at first';
    await everybodyHears(house, `${text} to all`, () => near.emit('said', `${text} to all`));
    // The first node listens again, too.
    await everybodyHears(house, `${text} to all from afar`, () => far.emit('said', `${text} to all from afar`));
    far.to('hall').emit('said', `${text} to the hall`);
    await until('the hall', () => house.guests.every(({ heard }) => heard.includes(`${text} to the hall`)));
    ada.socket.emit('say', 'hall', `${text} by ada`);
    await until('the others', () => [bob, carol].every(({ heard }) => heard.includes(`${text} by ada`)));
    assert.ok(!ada.heard.includes(`${text} by ada`));
    const one = (what) => house.guests.map(({ heard }) => heard.filter((said) => said === what).length);
    assert.deepEqual(one(`${text} to the hall`), [1, 1, 1]);
    assert.deepEqual(one(`${text} by ada`), [0, 1, 1]);

    const answers = await far.timeout(20_000).emitWithAck('asked', text);
    assert.deepEqual(answers.toSorted(), ['ada', 'bob', 'carol'].map((name) => `${name}: ${text}`));
    const sockets = await near.fetchSockets();
    assert.deepEqual(sockets.map(({ data }) => data.name).toSorted(), ['ada', 'bob', 'carol']);
    far.socketsJoin('attic');
    await until('all are in the attic', async () => (await near.in('attic').fetchSockets()).length === 3);
    near.in(carol.socket.id).socketsLeave('attic');
    await until('carol is not', async () => (await far.in('attic').fetchSockets()).length === 2);
    near.to('attic').except(bob.socket.id).emit('said', `${text} to ada`);
    await until('ada', () => ada.heard.includes(`${text} to ada`));
    const asked = new Promise((resolve) => {
        far.removeAllListeners('count');
        far.once('count', (number, answer) => { answer(number + 1); resolve(); });
    });
    assert.deepEqual(await near.serverSideEmitWithAck('count', 1), [2]);
    await asked;
    far.in('hall').socketsLeave('attic');
    await until('nobody is in the attic', async () => (await near.in('attic').fetchSockets()).length === 0);
}

const houses = [];
const pubSub = async (client) => { const other = client.duplicate(); await other.connect?.(); return [client, other]; };
async function add(name, adapter, options, emitter) {
    const house = await open([await adapter(), await adapter()], options);
    houses.push({ name, emitter, ...house });
}

const quiet = (client) => client.on('error', () => {});
const nodePair = async () => { const pair = [await nodeRedis(), await nodeRedis()]; pair.forEach(quiet); return pair; };
const ioPair = () => [ioredis(), ioredis()];
const emitted = await nodeRedis();
const key = (name) => ({ key: name, publishOnSpecificResponseChannel: true });
const sharded = (name, subscriptionMode) => ({ channelPrefix: name, subscriptionMode });
const streams = (name, more) => ({ streamName: name, channelPrefix: name, sessionKeyPrefix: `${name}:`, ...more });
await Promise.all([
    add('classic', async () => createPubSubAdapter(...await nodePair()), {}, new Emitter(emitted)),
    add('ioredis', async () => createPubSubAdapter(...ioPair(), key('io')), {}, new Emitter(ioredis(), { key: 'io' })),
    add('static', async () => createShardedAdapter(...await nodePair(), sharded('static', 'static'))),
    add('dynamic', async () => createShardedAdapter(...ioPair(), sharded('dynamic', 'dynamic-private'))),
    add('streams', async () => createStreamsAdapter(await nodeRedis(), streams('streams', { blockTimeInMs: 500 })),
        { connectionStateRecovery: { maxDisconnectionDuration: 600_000 } }),
    add('many streams', async () => createStreamsAdapter(ioredis(), streams('many', { streamCount: 2, useShardedPubSub: true }))),
]);

async function all(twice) {
    await Promise.all(houses.map(async (house) => {
        await converse(house, twice);
        const text = `from outside ${twice}`;
        if (house.emitter) await everybodyHears(house, text, () => house.emitter.to('hall').emit('said', text));
    }));
}
await all(false);

// Carol's connection breaks before the crash. She comes back to the other node and misses nothing.
const house = houses.find(({ name }) => name === 'streams');
const [ada, , carol] = house.guests;
house.nodes[0].io.emit('said', 'before she leaves');
await until('carol', () => carol.heard.includes('before she leaves'));
const id = carol.socket.id;
carol.socket.io.reconnection(false);
carol.socket.io.engine.close();
await until('she has left', async () => (await house.nodes[0].io.fetchSockets()).length === 2);
house.nodes[0].io.emit('said', 'while she is away');
await until('ada', () => ada.heard.includes('while she is away'));
await ask('kill');
await ask('start');
carol.socket.io.uri = house.nodes[0].address;
carol.socket.connect();
await until('she is back', () => carol.socket.connected);
assert.equal(carol.socket.recovered, true);
assert.equal(carol.socket.id, id);
await until('what she missed', () => carol.heard.includes('while she is away'));
assert.equal(carol.heard.filter((text) => text === 'while she is away').length, 1);
await all(true);
fine();
