// Bee-Queue in its ordinary use, and through two crashes of the store: `node bee-queue.mjs PORT`.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import Queue from 'bee-queue';
import { ask, fine, until } from '../../clients/node/ask.mjs';

const require = createRequire(import.meta.url);
const scripts = require('bee-queue/lib/lua');
const redis = { host: '127.0.0.1', port: Number(process.argv[2]), retry_strategy: () => 50 };
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function queueOf(name, settings) {
    const queue = new Queue(name, {
        redis, stallInterval: 5000, initialRedisFailureRetryDelay: 50, activateDelayedJobs: true, delayedDebounce: 20,
        // A look for delayed jobs that fails is repeated after this time only.
        nearTermWindow: 500, ...settings,
    });
    queue.on('error', () => {});
    await queue.ready();
    // It loads its scripts at its first connection only; a server that starts again has none.
    queue.client.on('ready', () => scripts.buildCache(queue.client).catch(() => {}));
    return queue;
}

async function ordinary() {
    const queue = await queueOf('sums');
    const worker = await queueOf('sums');
    const tries = new Map();
    worker.process(4, async (job) => {
        tries.set(job.id, (tries.get(job.id) ?? 0) + 1);
        job.reportProgress({ part: 1 });
        if (job.data.failures >= tries.get(job.id)) throw new Error('not yet');
        return job.data.a + job.data.b;
    });
    const outcome = (job) => new Promise((resolve) => {
        job.on('succeeded', resolve);
        job.on('failed', resolve);
    });
    const progress = [];
    const sums = await Promise.all(Array.from({ length: 40 }, async (_, at) => {
        const job = queue.createJob({ a: at, b: at }).setId(`sum-${at}`);
        job.on('progress', (part) => progress.push(part));
        const known = outcome(job);
        await job.save();
        return known;
    }));
    assert.deepEqual(sums, sums.map((_, at) => 2 * at));
    await until('all progress', () => progress.length === 40);
    // The same id again is no new job.
    assert.equal((await queue.createJob({ a: 0, b: 0 }).setId('sum-0').save()).id, null);

    const retried = queue.createJob({ a: 1, b: 1, failures: 2 }).retries(3).backoff('fixed', 20);
    const known = outcome(retried);
    await retried.save();
    assert.equal(await known, 2);
    assert.equal(tries.get(retried.id), 3);
    const failing = queue.createJob({ failures: 9 }).retries(1).backoff('immediate');
    const failure = outcome(failing);
    await failing.save();
    assert.equal((await failure).message, 'not yet');

    const late = queue.createJob({ a: 3, b: 4 }).delayUntil(Date.now() + 200);
    const arrived = outcome(late);
    await late.save();
    assert.equal(await arrived, 7);
    const far = await queue.createJob({ a: 1, b: 1 }).delayUntil(Date.now() + 3_600_000).save();
    const health = await queue.checkHealth();
    assert.deepEqual([health.succeeded, health.failed, health.delayed, health.waiting], [42, 1, 1, 0]);
    assert.equal((await queue.getJobs('failed'))[0].id, failing.id);
    await queue.removeJob(far.id);
    assert.equal((await queue.checkHealth()).delayed, 0);
    await Promise.all([queue.close(), worker.close()]);
}

async function crashes() {
    const queue = await queueOf('orders', { getEvents: false });
    const workers = [await queueOf('orders'), await queueOf('orders')];
    const runs = new Map();
    const running = new Set();
    const confirmed = new Set();
    const excused = new Set();
    let isAway = false;
    for (const worker of workers) {
        worker.on('succeeded', (job) => { running.delete(job.id); confirmed.add(job.id); });
        worker.process(4, async (job) => {
            runs.set(job.id, (runs.get(job.id) ?? 0) + 1);
            running.add(job.id);
            // It was handed out before the crash.
            if (isAway) excused.add(job.id);
            await pause(5);
        });
    }
    workers[0].checkStalledJobs(500);

    let saved = 0;
    async function produce(shop) {
        for (let at = 0; at < 100; at++) {
            const job = queue.createJob({ at }).setId(`${shop}-${at}`);
            if (at % 5 === 4) job.delayUntil(Date.now() + 100);
            // Without a reply it says so. The id makes a second try harmless.
            await until(`${job.id} is saved`, () => job.save().then(() => true, () => { job.id = `${shop}-${at}`; }));
            saved += 1;
        }
    }
    const produced = Promise.all([produce('a'), produce('b')]);
    const frozen = [];
    for (const enough of [50, 120]) {
        await until(`${enough} done`, () => confirmed.size >= enough);
        await ask('kill');
        isAway = true;
        for (const id of running) excused.add(id);
        frozen.push([new Set(confirmed), new Map(runs)]);
        await ask('start');
        isAway = false;
    }
    await produced;
    assert.equal(saved, 200);
    await until('all orders', async () => (await queue.checkHealth().catch(() => ({}))).succeeded === 200);
    const { waiting, active, failed, delayed } = await queue.checkHealth();
    assert.deepEqual([waiting, active, failed, delayed], [0, 0, 0, 0]);
    assert.equal(runs.size, 200);
    for (const [id, times] of runs) {
        assert.ok(times === 1 || excused.has(id), `${id} was done ${times} times and not under way at a crash`);
    }
    for (const [sure, before] of frozen) {
        for (const id of sure) assert.equal(runs.get(id), before.get(id), `${id} was confirmed and done again`);
    }
}

await ordinary();
await crashes();
fine();
