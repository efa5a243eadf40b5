// How a test tells the one who started it what shall happen to the server: `await ask('kill')`, `await ask('start')`,
// and `fine()` at its end. Waiting for a condition is here, too.
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';

// A promise that nothing keeps would hang the test.
setTimeout(() => {
    console.error('stuck');
    process.exit(1);
}, 300_000).unref();

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function ask(what) {
    console.log(what);
    const { done } = await answers.next();
    assert.ok(!done, `${what}: answered`);
}

export function fine() {
    console.log('fine');
    process.exit(0);
}

// Waits until `holds` gives something true, and gives that.
export async function until(what, holds) {
    for (const start = Date.now(); ;) {
        const found = await holds();
        if (found) return found;
        assert.ok(Date.now() - start < 60_000, `in time: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}
