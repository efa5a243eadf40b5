// Uses the shop as its visitors do: one in a real browser, others by the hundred. Run by `../main.rs`.
//
//   node drive.mjs FOLDER     reads a line for each that it prints
//
// It prints what it wants done: `app start`, `store kill`, `store start`, `app restart`. The answer to `app …` is the
// shop's address, that to `store …` is `done`. The screenshots go into FOLDER.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [folder] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
const LIMIT = 100;
const CHROMIUM = '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];

// A promise that nothing keeps would hang the test.
setTimeout(() => {
    console.error('stuck');
    process.exit(1);
}, 900_000).unref();

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ask(what) {
    console.log(what);
    const { value, done } = await answers.next();
    assert.ok(!done, `${what}: answered`);
    return value;
}
const shop = await ask('app start');

// ------------------------------------------------------------------ visitors without a browser

// A visitor behind the proxy: an address of its own, and the cookie of its session.
function visitor(address) {
    let cookie;
    return async (path, method = 'GET', body = undefined, headers = {}) => {
        const response = await fetch(`${shop}/api/${path}`, {
            method,
            // A connection that is kept may be closed by the shop, which has waited for five seconds, as it is used again.
            headers: { Connection: 'close', 'X-Forwarded-For': address, 'Content-Type': 'application/json', ...(cookie && { Cookie: cookie }), ...headers },
            body: body && JSON.stringify(body),
        });
        cookie = response.headers.get('set-cookie')?.split(';')[0] ?? cookie;
        const text = await response.text();
        let json;
        try { json = JSON.parse(text); } catch { /* 204, or plain text */ }
        return { status: response.status, headers: response.headers, json };
    };
}

async function until(what, holds) {
    for (const start = Date.now(); ;) {
        const found = await holds().catch(() => false);
        if (found) return found;
        assert.ok(Date.now() - start < PATIENCE_MS, `in time: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

async function cacheAside() {
    const ask = visitor('203.0.113.1');
    assert.equal((await ask('products/3')).headers.get('x-cache'), 'miss');
    const second = await ask('products/3');
    assert.equal(second.headers.get('x-cache'), 'hit');
    assert.equal(second.json.cents, 1800);
    assert.equal((await ask('products/3', 'PUT', { cents: 1 })).status, 403, 'only the shopkeeper');
    assert.equal((await ask('products/3', 'PUT', { cents: 2100 }, { 'X-Admin-Key': 'shopkeeper' })).status, 204);
    const third = await ask('products/3');
    assert.deepEqual([third.headers.get('x-cache'), third.json.cents], ['miss', 2100], 'a change removes what is cached');
    assert.equal((await ask('products/3')).headers.get('x-cache'), 'hit');
    assert.equal((await ask('products/99')).status, 404);
}

async function writeThrough() {
    const ask = visitor('203.0.113.2');
    assert.equal((await ask('me')).json, null);
    assert.equal((await ask('me', 'PUT', { name: 'Grace', email: 'grace@example.com' })).status, 200);
    const me = await ask('me');
    assert.deepEqual([me.headers.get('x-cache'), me.json.email], ['hit', 'grace@example.com'], 'never read from the database');
    await ask('me', 'PUT', { name: 'Grace', email: 'hopper@example.com' });
    assert.equal((await ask('me')).json.email, 'hopper@example.com');
    assert.equal((await visitor('203.0.113.3')('me', 'PUT', { name: 'Grace', email: 'e@example.com' })).status, 409);
    return ask;
}

// Of many requests at once, exactly as many pass as the limit allows.
async function limits() {
    const ask = visitor('203.0.113.4');
    const replies = await Promise.all(Array.from({ length: 2.5 * LIMIT }, () => ask('bestsellers')));
    const count = (status) => replies.filter((reply) => reply.status === status).length;
    assert.deepEqual([count(200), count(429)], [LIMIT, 1.5 * LIMIT]);
    const refused = replies.find((reply) => reply.status === 429);
    assert.ok(Number(refused.headers.get('retry-after')) > 0);
    const other = visitor('203.0.113.5');
    for (let request = 0; request < 3; request++) await other('bestsellers');
    return [ask, other];
}

// Twenty pieces more are wanted than there are: what is sold is what there was.
async function oversold() {
    const buyers = Array.from({ length: 32 }, (_, at) => visitor(`203.0.113.${100 + at}`));
    const replies = await Promise.all(buyers.map(async (ask) => {
        await ask('cart/4', 'PUT', { quantity: 1 });
        return (await ask('orders', 'POST')).status;
    }));
    const sold = replies.filter((status) => status === 201).length;
    const { left } = (await visitor('203.0.113.6')('stock')).json;
    assert.ok(replies.every((status) => status === 201 || status === 409), String(replies));
    assert.ok(sold > 0 && sold <= 12 && left[4] === 12 - sold, `sold ${sold}, left ${left[4]}`);
    assert.deepEqual(await soldOf(4), sold);
}

async function soldOf(id) {
    const best = (await visitor('203.0.113.6')('bestsellers')).json;
    return best.find((each) => each.id === id)?.sold ?? 0;
}

// Many visitors buy until the store goes: counts orders that were asked for and those acknowledged.
function crowd(id) {
    const count = { asked: 0, sold: 0, stop: false };
    const buyers = Array.from({ length: 4 }, async (_, at) => {
        const ask = visitor(`203.0.113.${200 + at}`);
        for (let turn = 0; turn < 40 && !count.stop; turn++) {
            const cart = await ask(`cart/${id}`, 'PUT', { quantity: 1 }).catch(() => undefined);
            if (cart?.status !== 200) break;
            count.asked += 1;
            const reply = await ask('orders', 'POST').catch(() => undefined);
            if (reply?.status !== 201) break;
            count.sold += 1;
        }
    });
    count.done = Promise.all(buyers);
    return count;
}

// ------------------------------------------------------------------ the visitor with the browser

const text = (page, selector) => page.locator(selector).innerText();
const card = (id) => `[data-product="${id}"]`;

async function shows(page, selector, expected) {
    await page.waitForFunction(([where, what]) => document.querySelector(where)?.textContent.trim() === what, [selector, String(expected)], { timeout: PATIENCE_MS });
}

const live = (page) => page.waitForSelector('#state[data-state="here"]', { timeout: PATIENCE_MS });
// How often the page has shown everything as the shop has it.
const refreshes = (page) => page.evaluate(() => window.refreshes);
function countRefreshes() {
    window.refreshes = 0;
    addEventListener('DOMContentLoaded', () => {
        const state = document.getElementById('state');
        new MutationObserver(() => { if (state.dataset.state === 'here') window.refreshes += 1; })
            .observe(state, { attributes: true, attributeFilter: ['data-state'] });
    });
}
const away = (page) => page.waitForSelector('#state[data-state="away"]', { timeout: PATIENCE_MS });

// On a slow machine the page asks more often: for the visitor in the browser, a new address counts anew.
let addresses = 20;
const moves = (page) => page.setExtraHTTPHeaders({ 'X-Forwarded-For': `203.0.113.${addresses++}` });

async function visit(page) {
    await page.goto(shop);
    await live(page);
    assert.equal(await page.locator('.product').count(), 6);
    await shows(page, `${card(1)} .left`, '40 left');
    await page.locator(`${card(1)} button`).click();
    await shows(page, '#count', 1);
    await page.locator(`${card(1)} button`).click();
    await shows(page, '#count', 2);
    await page.locator(`${card(2)} button`).click();
    await shows(page, '#count', 3);
    await shows(page, '#total', '€ 110.50');
    await page.fill('[name=name]', 'Ada');
    await page.fill('[name=email]', 'ada@example.com');
    await page.click('#account button');
    await shows(page, '#hello', 'Hello, Ada');
}

// What others do is seen without a reload.
async function seesOthers(page) {
    const other = visitor('203.0.113.7');
    await other('cart/5', 'PUT', { quantity: 3 });
    assert.equal((await other('orders', 'POST')).status, 201);
    await shows(page, `${card(5)} .left`, '22 left');
    await page.waitForFunction(() => document.querySelector('#best')?.textContent.includes('Copper kettle3 sold'), undefined, { timeout: PATIENCE_MS });
    await other('products/6', 'PUT', { cents: 2950 }, { 'X-Admin-Key': 'shopkeeper' });
    await shows(page, `${card(6)} .price`, '€ 29.50');
}

async function orders(page) {
    const before = (await visitor('203.0.113.8')('stock')).json.left;
    await page.click('#order');
    await shows(page, '#notice', 'Thank you! Your order is on its way.');
    await shows(page, '#count', 0);
    await shows(page, `${card(1)} .left`, `${before[1] - 2} left`);
}

// ------------------------------------------------------------------

const profile = mkdtempSync(join(tmpdir(), 'ironkeep-shop-'));
const executablePath = process.env.CHROMIUM ?? CHROMIUM;
assert.ok(existsSync(executablePath), 'chromium is missing: start with `tests/run`');
const browser = await chromium.launchPersistentContext(profile, {
    executablePath, headless: true, args: FLAGS, viewport: { width: 1280, height: 860 }, timeout: PATIENCE_MS,
});
try {
    const page = await browser.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(error));
    await page.addInitScript(countRefreshes);
    await moves(page);
    await cacheAside();
    const grace = await writeThrough();
    const [spent, fresh] = await limits();
    await visit(page);
    await seesOthers(page);
    await moves(page);
    await oversold();
    await page.screenshot({ path: join(folder, 'shop.png') });

    // The store is killed while a crowd buys horseshoes.
    await moves(page);
    const buyers = crowd(3);
    await until('the crowd buys', async () => buyers.sold >= 8);
    await ask('store kill');
    buyers.stop = true;
    await buyers.done;
    await away(page);
    const reader = visitor('203.0.113.9');
    assert.equal((await reader('products/3')).headers.get('x-cache'), 'down', 'products come from the database');
    assert.equal((await grace('cart')).status, 503);
    await page.screenshot({ path: join(folder, 'shop-away.png') });
    await moves(page);
    await ask('store start');
    await live(page);

    // Everything acknowledged is there; of what was under way, whatever happened, stock and sales agree.
    const { left } = (await reader('stock')).json;
    const sold = await soldOf(3);
    assert.ok(buyers.sold <= sold && sold <= buyers.asked, `${buyers.sold} <= ${sold} <= ${buyers.asked}`);
    assert.equal(left[3], 75 - sold);
    // The crowd may have been quicker than the end of the store.
    await shows(page, `${card(3)} .left`, left[3] > 0 ? `${left[3]} left` : 'Sold out');
    assert.equal((await spent('bestsellers')).status, 429, 'the limit is still used up');
    assert.equal((await fresh('bestsellers')).headers.get('ratelimit-remaining'), String(LIMIT - 4));
    assert.equal((await grace('me')).json.email, 'hopper@example.com');
    assert.equal((await reader('products/3')).headers.get('x-cache'), 'hit', 'the cache is warm');
    await shows(page, '#count', 3);
    await page.reload();
    await live(page);
    await shows(page, '#count', 3);
    await shows(page, '#hello', 'Hello, Ada');
    await seesOthersAgain(page);

    // The page finds the shop again when that is started anew.
    const seen = await refreshes(page);
    assert.equal(await ask('app restart'), shop);
    await page.waitForFunction((before) => window.refreshes > before, seen, { timeout: PATIENCE_MS });
    await live(page);
    await shows(page, '#count', 3);
    await orders(page);
    await page.screenshot({ path: join(folder, 'shop-ordered.png') });
    assert.deepEqual(errors, []);
} finally {
    await browser.close();
    rmSync(profile, { recursive: true, force: true });
}
console.log('fine');
process.exit(0);

async function seesOthersAgain(page) {
    const other = visitor('203.0.113.7');
    await other('cart/5', 'PUT', { quantity: 2 });
    assert.equal((await other('orders', 'POST')).status, 201);
    await shows(page, `${card(5)} .left`, '20 left');
    assert.match(await text(page, '#best'), /sold/);
}
