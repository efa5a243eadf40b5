// BullMQ in its ordinary use, and through two crashes of the store: `node bullmq.mjs PORT`.
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker } from 'bullmq';
import { ask, fine, until } from '../../clients/node/ask.mjs';

// Commands wait for the store however long it is away.
const store = { host: '127.0.0.1', port: Number(process.argv[2]) };
const connection = { ...store, retryStrategy: () => 50, maxRetriesPerRequest: null };
const hour = 3_600_000;

EventEmitter.defaultMaxListeners = 100;

// They say that their connection is gone, and come back.
const quiet = (made) => made.on('error', () => {});
const queueOf = (name, options) => quiet(new Queue(name, { connection, ...options }));
const workerOf = (name, work, options) => quiet(new Worker(name, work, { connection, ...options }));
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function jobs() {
    const queue = queueOf('jobs', { defaultJobOptions: { removeOnComplete: false } });
    const heard = {};
    const events = quiet(new QueueEvents('jobs', { connection, lastEventId: '0' }));
    await events.waitUntilReady();
    for (const event of ['added', 'waiting', 'active', 'progress', 'completed', 'failed', 'drained']) {
        events.on(event, ({ jobId, returnvalue }) => (heard[event] ??= []).push(returnvalue ?? jobId));
    }
    const worker = workerOf('jobs', async (job) => {
        if (job.name === 'broken') throw new UnrecoverableError('broken for good');
        await job.log(`adds ${job.data.a} and ${job.data.b}`);
        await job.updateProgress(50);
        return job.data.a + job.data.b;
    }, { concurrency: 4, metrics: { maxDataPoints: 60 } });

    const one = await queue.add('sum', { a: 1, b: 2 }, { jobId: 'one' });
    assert.equal(await one.waitUntilFinished(events), 3);
    // The same id again is the same job.
    await queue.add('sum', { a: 5, b: 5 }, { jobId: 'one' });
    assert.equal((await queue.getJob('one')).returnvalue, 3);
    assert.deepEqual((await queue.getJobLogs('one')).logs, ['adds 1 and 2']);
    const many = await queue.addBulk(Array.from({ length: 50 }, (_, at) => ({ name: 'sum', data: { a: at, b: at } })));
    const sums = await Promise.all(many.map((job) => job.waitUntilFinished(events)));
    assert.deepEqual(sums, many.map((_, at) => 2 * at));
    const broken = await queue.add('broken', {}, { attempts: 5 });
    await assert.rejects(broken.waitUntilFinished(events), /broken for good/);
    assert.equal((await queue.getJob(broken.id)).attemptsMade, 1);
    assert.deepEqual(await queue.getJobCounts('completed', 'failed', 'waiting', 'active'),
        { completed: 51, failed: 1, waiting: 0, active: 0 });
    assert.equal((await queue.getMetrics('completed')).meta.count, 51);
    await until('all events', () => heard.completed?.length === 51 && heard.progress?.length === 51 && heard.drained);
    assert.ok(heard.added.length === 52 && heard.active.length === 52 && heard.failed.length === 1);

    // The same thing asked for twice is one job.
    await worker.pause();
    const twin = { deduplication: { id: 'twin', ttl: hour } };
    const [first, second] = [await queue.add('sum', { a: 1, b: 1 }, twin), await queue.add('sum', { a: 1, b: 1 }, twin)];
    assert.equal(first.id, second.id);
    worker.resume();
    assert.equal(await first.waitUntilFinished(events), 2);

    assert.equal((await queue.clean(0, 10, 'completed')).length, 10);
    await queue.obliterate({ force: true });
    assert.equal(await queue.getCompletedCount(), 0);
    await Promise.all([worker.close(), events.close()]);
    await queue.close();
}

async function delays() {
    const queue = queueOf('delays');
    const done = [];
    const worker = workerOf('delays', async (job) => { done.push(job.name); });
    const far = await queue.add('far', {}, { delay: hour });
    await queue.add('soon', {}, { delay: 100 });
    await queue.add('now', {});
    await until('now and soon', () => done.length === 2);
    assert.deepEqual(done.toSorted(), ['now', 'soon']);
    assert.equal(await far.getState(), 'delayed');
    await far.changeDelay(2 * hour);
    await far.promote();
    await until('far', () => done.includes('far'));
    await worker.close();
}

async function retries() {
    const queue = queueOf('retries');
    const waits = [];
    const worker = workerOf('retries', async (job) => {
        if (job.attemptsMade < job.data.failures) throw new Error('not yet');
        return job.attemptsMade;
    }, { settings: { backoffStrategy: (made) => { waits.push(made); return 10 * made; } } });
    const settings = [{ type: 'exponential', delay: 10 }, { type: 'fixed', delay: 10 }, { type: 'custom' }, 10];
    const good = await Promise.all(settings.map((backoff) => queue.add('good', { failures: 2 }, { attempts: 3, backoff })));
    const bad = await queue.add('bad', { failures: 3 }, { attempts: 3, backoff: 10 });
    await until('all attempts', async () => (await queue.getCompletedCount()) === 4 && (await queue.getFailedCount()) === 1);
    for (const job of good) assert.equal((await queue.getJob(job.id)).returnvalue, 2);
    assert.deepEqual(waits, [1, 2]);
    const failed = await queue.getJob(bad.id);
    assert.equal(failed.failedReason, 'not yet');
    assert.equal(failed.attemptsMade, 3);
    assert.equal(failed.stacktrace.length, 3);
    await failed.retry('failed');
    await until('its fourth attempt', async () => (await queue.getCompletedCount()) === 5);
    await worker.close();
}

async function schedulers() {
    const queue = queueOf('schedulers');
    const ticks = [];
    const worker = workerOf('schedulers', async (job) => { ticks.push(job.name); });
    await queue.upsertJobScheduler('beat', { every: 50, limit: 5 }, { name: 'beat', data: {} });
    await queue.upsertJobScheduler('nightly', { pattern: '0 3 * * *' }, { name: 'report', data: { kind: 'full' } });
    await until('five beats', () => ticks.length === 5);
    assert.deepEqual((await queue.getJobSchedulers()).map(({ key }) => key).filter((key) => key === 'nightly'), ['nightly']);
    const [next] = await queue.getDelayed();
    assert.equal(next.name, 'report');
    assert.deepEqual(next.data, { kind: 'full' });
    assert.equal(await queue.removeJobScheduler('nightly'), true);
    assert.equal(await queue.getDelayedCount(), 0);
    assert.equal(ticks.length, 5);
    await worker.close();
}

async function flows() {
    const producer = quiet(new FlowProducer({ connection }));
    const queue = queueOf('meals');
    const worker = workerOf('meals', async (job) => {
        const parts = Object.values(await job.getChildrenValues());
        return parts.reduce((sum, part) => sum + part, 1);
    });
    const kitchen = workerOf('dishes', async (job) => {
        if (job.data.burnt) throw new Error('burnt');
        return job.data.price + Object.values(await job.getChildrenValues()).reduce((sum, part) => sum + part, 0);
    }, { concurrency: 3 });
    const dish = (price, children) => ({ name: 'dish', queueName: 'dishes', data: { price }, children });
    const meal = { name: 'meal', queueName: 'meals', children: [dish(10), dish(20, [dish(5), dish(6)]), dish(30)] };
    const { job } = await producer.add(meal);
    await until('the meal', async () => (await job.getState()) === 'completed');
    assert.equal((await queue.getJob(job.id)).returnvalue, 72);
    assert.equal((await job.getDependenciesCount()).processed, 3);

    const burnt = { name: 'dish', queueName: 'dishes', data: { burnt: true } };
    const spoilt = await producer.add({ ...meal, children: [{ ...burnt, opts: { failParentOnFailure: true } }] });
    await until('the spoilt meal', async () => (await spoilt.job.getState()) === 'failed');
    const poor = await producer.add({ ...meal, children: [dish(1), { ...burnt, opts: { ignoreDependencyOnFailure: true } }] });
    await until('the poor meal', async () => (await poor.job.getState()) === 'completed');
    assert.equal((await queue.getJob(poor.job.id)).returnvalue, 2);
    await Promise.all([worker.close(), kitchen.close(), producer.close()]);
}

async function limits() {
    const queue = queueOf('limits');
    let done = 0;
    const options = { limiter: { max: 3, duration: hour }, maximumRateLimitDelay: 50, concurrency: 5, drainDelay: 1 };
    await queue.addBulk(Array.from({ length: 5 }, () => ({ name: 'call', data: {} })));
    const worker = workerOf('limits', async () => { done += 1; }, options);
    await until('three calls', () => done === 3);
    await until('the limit', async () => (await queue.getRateLimitTtl(3)) > 0);
    await pause(150);
    assert.equal(done, 3);
    assert.equal(await queue.getWaitingCount(), 2);
    await queue.removeRateLimitKey();
    await until('five calls', () => done === 5);
    await worker.close();
}

async function order() {
    const queue = queueOf('order');
    const done = [];
    const add = (name, priority) => queue.add(name, {}, { priority });
    await queue.pause();
    assert.equal(await queue.isPaused(), true);
    const worker = workerOf('order', async (job) => { done.push(job.name); });
    await add('third', 30);
    await add('second', 2);
    const late = await add('first', 100);
    await late.changePriority({ priority: 1 });
    await add('fourth', 30);
    await queue.add('plain', {});
    await queue.add('latest', {}, { lifo: true });
    await pause(100);
    assert.deepEqual(done, []);
    await queue.resume();
    await until('all of them', () => done.length === 6);
    assert.deepEqual(done, ['latest', 'plain', 'first', 'second', 'third', 'fourth']);
    await worker.close();
}

// What shall be done, what was, and what may be done once more.
const ledger = { expected: new Map(), runs: new Map(), running: new Set(), confirmed: new Set(), excused: new Set(), isAway: false };

function note(worker) {
    const over = (job) => { ledger.running.delete(job.id); };
    worker.on('completed', (job) => { over(job); ledger.confirmed.add(job.id); });
    worker.on('failed', (job) => job && over(job));
    return worker;
}

// Nothing answers now, so all that is confirmed was confirmed before. What is under way may be done again, and so may
// what begins while the store is away: it was handed out before.
async function crash() {
    await ask('kill');
    ledger.isAway = true;
    for (const id of ledger.running) ledger.excused.add(id);
    const confirmed = new Set(ledger.confirmed);
    await ask('start');
    ledger.isAway = false;
    return confirmed;
}

async function work(job) {
    assert.ok(ledger.expected.has(job.id), job.id);
    ledger.runs.set(job.id, (ledger.runs.get(job.id) ?? 0) + 1);
    ledger.running.add(job.id);
    if (ledger.isAway) ledger.excused.add(job.id);
    await pause(5);
    if (job.data.failures > job.attemptsMade) throw new Error('once more');
    return job.id;
}

async function crashes() {
    const queue = queueOf('orders');
    // A lock that lapses because this program stands still would have a job done twice.
    const options = { concurrency: 8, lockDuration: 15_000, stalledInterval: 500, maxStalledCount: 9 };
    const shops = [1, 2].map(() => note(workerOf('orders', work, options)));
    const wholes = note(workerOf('wholes', work, options));
    const producer = quiet(new FlowProducer({ connection }));
    const beats = [];
    await queueOf('beats').upsertJobScheduler('beat', { every: 200 }, { name: 'beat' });
    const clock = workerOf('beats', async (job) => { beats.push(job.id); }, { drainDelay: 1, stalledInterval: 500 });
    await queueOf('later').add('later', {}, { delay: hour, jobId: 'later' });
    await queueOf('held').pause();
    await queueOf('held').add('held', {}, { jobId: 'held' });

    let added = 0;
    async function produce(shop) {
        for (let at = 0; at < 60; at++) {
            const jobId = `order-${shop}-${at}`;
            const failures = at % 7 === 3 ? 1 : 0;
            ledger.expected.set(jobId, 1 + failures);
            const given = { jobId, attempts: 3, backoff: 20, priority: at % 4, delay: at % 5 === 4 ? 100 : 0 };
            await queue.add('order', { failures }, given);
            added += 1;
        }
    }
    async function produceFlows() {
        for (let at = 0; at < 20; at++) {
            const child = (part) => {
                const jobId = `part-${at}-${part}`;
                ledger.expected.set(jobId, 1);
                return { name: 'part', queueName: 'orders', data: {}, opts: { jobId, attempts: 3 } };
            };
            const jobId = `whole-${at}`;
            ledger.expected.set(jobId, 1);
            const opts = { jobId, attempts: 3 };
            const whole = { name: 'whole', queueName: 'wholes', data: {}, opts, children: [0, 1, 2].map(child) };
            // A transaction without a reply fails. The ids make a second try harmless.
            await until(jobId, () => producer.add(whole).then(() => true, () => false));
            added += 4;
            await pause(10);
        }
    }
    const produced = Promise.all([produce(0), produce(1), produce(2), produceFlows()]);
    for (const enough of [60, 150]) {
        await until(`${enough} done`, () => ledger.confirmed.size >= enough);
        const confirmed = await crash();
        ledger.frozen = [...(ledger.frozen ?? []), [confirmed, new Map(ledger.runs)]];
    }
    await produced;
    assert.equal(added, 260);
    const wholesQueue = queueOf('wholes');
    await until('all orders', async () => (await queue.getCompletedCount()) === 240);
    await until('all wholes', async () => (await wholesQueue.getCompletedCount()) === 20);
    assert.deepEqual(await queue.getJobCounts('failed', 'waiting', 'active', 'delayed', 'prioritized'),
        { failed: 0, waiting: 0, active: 0, delayed: 0, prioritized: 0 });

    for (const [id, expected] of ledger.expected) {
        const runs = ledger.runs.get(id) ?? 0;
        assert.ok(runs >= expected, `${id} was done ${runs} times of ${expected}`);
        assert.ok(runs === expected || ledger.excused.has(id), `${id} was done ${runs} times and not under way at a crash`);
    }
    for (const [confirmed, runs] of ledger.frozen) {
        for (const id of confirmed) assert.equal(ledger.runs.get(id), runs.get(id), `${id} was confirmed and done again`);
    }
    const before = beats.length;
    await until('the beat goes on', () => beats.length > before + 2);
    assert.equal(new Set(beats).size, beats.length);
    assert.equal(await queueOf('later').getJobState('later'), 'delayed');
    assert.equal(await queueOf('held').isPaused(), true);
    assert.equal(await queueOf('held').getJobState('held'), 'waiting');
    await Promise.all([...shops, wholes, clock].map((worker) => worker.close(true)));
}

await Promise.all([jobs(), delays(), retries(), schedulers(), flows(), limits(), order()]);
await crashes();
fine();
