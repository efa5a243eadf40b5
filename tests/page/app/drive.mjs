// Looks at the page as people do. Run by `../main.rs`.
//
//   node drive.mjs ADDRESS FOLDER under-load     reads a line for each that it prints
//   node drive.mjs ADDRESS FOLDER closed         looks at a server that shows no data, with a token
//
// It prints what it wants done: `kill`, `start`. The screenshots go into FOLDER.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [address, folder, wish] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
const CHROMIUM = '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };

// A promise that nothing keeps would hang the test.
setTimeout(() => {
    console.error('stuck');
    process.exit(1);
}, 900_000).unref();

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ask(what) {
    console.log(what);
    const { done } = await answers.next();
    assert.ok(!done, `${what}: answered`);
}

const executablePath = process.env.CHROMIUM ?? CHROMIUM;
assert.ok(existsSync(executablePath), 'chromium is missing: start with `tests/run`');
const profile = mkdtempSync(join(tmpdir(), 'ironkeep-page-'));
const browser = await chromium.launchPersistentContext(profile, {
    executablePath, headless: true, args: FLAGS, viewport: DESK, colorScheme: 'light', timeout: PATIENCE_MS,
    httpCredentials: wish === 'closed' ? { username: 'anybody', password: 'a-token' } : undefined,
});
try {
    const page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const [errors, elsewhere] = [[], []];
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => { if (message.type() === 'error') errors.push(message.text()); });
    page.on('request', (request) => {
        const url = request.url();
        if (!url.startsWith(`${address}/`) && !url.startsWith('data:')) elsewhere.push(url);
    });
    if (wish === 'closed') await closed(page, errors);
    else await underLoad(page, errors);
    assert.equal(await page.evaluate(() => window.pwned), undefined, 'nothing of a key has run');
    assert.deepEqual(elsewhere, []);
} finally {
    await browser.close();
    rmSync(profile, { recursive: true, force: true });
}
console.log('fine');
process.exit(0);

async function underLoad(page, errors) {
    await page.goto(address);
    await figuresMove(page);
    await structure(page);
    await keys(page);
    await keyboard(page);
    await colours(page);
    await screens(page);
    assert.equal(await page.evaluate(() => window.pwned), undefined, 'nothing of a key has run');
    assert.deepEqual(errors, []);
    // From here on, requests are refused or fail, and the browser says so in its console.
    await guest(page);
    const isRefused = await page.evaluate(() => {
        try { document.body.insertAdjacentHTML('beforeend', '<b>made of text</b>'); } catch { return true; }
        return false;
    });
    assert.ok(isRefused, 'the browser makes no markup of text');
    await comesBack(page);
}

function until(page, what, holds, argument) {
    return page.waitForFunction(holds, argument, { timeout: PATIENCE_MS }).catch((error) => {
        throw new Error(`${what}: ${error.message}`);
    });
}

async function figuresMove(page) {
    await until(page, 'the server is ready', () => document.querySelector('#state').textContent === 'Ready');
    await until(page, 'commands are counted', () => {
        const tile = document.querySelector('#tiles dd')?.firstChild?.textContent;
        return tile && tile !== '0' && tile !== '–';
    });
    const total = () => document.querySelector('#tiles dd small').textContent;
    const before = await page.evaluate(total);
    await until(page, 'the total grows', (last) => document.querySelector('#tiles dd small').textContent !== last, before);
    for (const plot of ['plot-commands', 'plot-network', 'plot-hits', 'plot-service', 'plot-parts', 'plot-memory', 'plot-gone', 'plot-clients', 'plot-errors']) {
        const isDrawn = (id) => [...document.querySelectorAll(`#${id} path`)].some((path) => (path.getAttribute('d') ?? '').length > 40);
        await until(page, `${plot} is drawn`, isDrawn, plot);
    }
    await until(page, 'service times are known', () => /µs|ms/.test(document.querySelector('#parts tbody td')?.textContent ?? ''));
    await until(page, 'commands have rows', () => {
        const cells = [...document.querySelectorAll('#commands tbody th')].map((cell) => cell.textContent);
        return cells.includes('set') && cells.includes('hincrby');
    });
    await until(page, 'types have rows', () => {
        const types = [...document.querySelectorAll('#types tbody tr')].map((row) => row.textContent);
        return types.some((row) => row.startsWith('db0stream')) && types.some((row) => row.startsWith('db1string'));
    });
    const durable = page.locator('#log dd').nth(2);
    const first = await durable.textContent();
    await until(page, 'blocks become durable', (last) => document.querySelectorAll('#log dd')[2].textContent !== last, first);
    assert.match(await page.locator('#snapshot dd').first().textContent(), /ago/);
    // The hour has its own samples.
    await page.selectOption('#window', '3600');
    await page.click('#plot-commands summary');
    const apart = () => {
        const times = [...document.querySelectorAll('#plot-commands tbody th')].map((time) => Date.parse(`2000-01-01T${time.textContent}Z`));
        return times.length > 1 && times[0] - times[1] >= 9000;
    };
    await until(page, 'the hour is drawn, by ten seconds', apart);
    await page.click('#plot-commands summary');
    await page.selectOption('#window', '300');
    // Paused, nothing moves, once what was asked for before has come.
    await page.click('#pause');
    const drawn = () => page.evaluate(() => document.querySelector('#plot-commands path').getAttribute('d'));
    let [last, now, tries] = ['', await drawn(), 0];
    while (last !== now && tries < 10) {
        await page.waitForTimeout(2500);
        [last, now, tries] = [now, await drawn(), tries + 1];
    }
    assert.equal(now, last);
    await page.click('#pause');
}

// A server that shows figures alone, to whom knows the token.
async function closed(page, errors) {
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    await page.goto(address);
    await until(page, 'the server is ready', () => document.querySelector('#state').textContent === 'Ready');
    await until(page, 'slow commands are shown', () => document.querySelectorAll('#slow-table tbody tr').length > 0);
    await until(page, 'there is history', () => document.querySelector('#plot-memory path.line')?.getAttribute('d'));
    await until(page, 'SET is among them', () => [...document.querySelectorAll('#slow-table tbody td:nth-child(3)')].some((cell) => cell.textContent === 'set'));
    assert.equal(await page.locator('.needs-browse:visible').count(), 2);
    assert.equal(await page.locator('.browse:visible, #clients-card:visible').count(), 0);
    assert.match(await page.locator('#browser .needs-browse').textContent(), /http-browse/);
    assert.ok(!(await page.locator('body').innerText()).includes('secret'));
    assert.ok(asked.includes('/history') && !asked.some((path) => path.startsWith('/data')), String(asked));
    assert.deepEqual(errors, []);
}

// What a screen reader goes by.
async function structure(page) {
    const problems = await page.evaluate(() => {
        const found = [];
        const all = (selector) => [...document.querySelectorAll(selector)];
        for (const [selector, wanted] of [['main', 1], ['h1', 1], ['header', 1], ['footer', 1], ['nav[aria-label]', 1]]) {
            if (all(selector).length !== wanted) found.push(`${selector}: ${all(selector).length}`);
        }
        const ids = all('[id]').map((element) => element.id);
        if (new Set(ids).size !== ids.length) found.push('an id is there twice');
        for (const th of all('th')) if (!th.scope) found.push(`a heading without scope: ${th.textContent}`);
        for (const table of all('main table')) {
            const isNamed = table.caption || table.closest('[aria-label]');
            if (!isNamed) found.push(`a table without a name: ${table.id}`);
        }
        for (const control of all('input, select')) if (control.labels.length === 0) found.push(`no label: ${control.id}`);
        for (const named of all('[aria-labelledby], [aria-controls]')) {
            for (const id of `${named.getAttribute('aria-labelledby') ?? ''} ${named.getAttribute('aria-controls') ?? ''}`.split(' ')) {
                if (id && !document.getElementById(id)) found.push(`nothing is called ${id}`);
            }
        }
        for (const chart of all('.chart')) {
            if (!/\d/.test(chart.getAttribute('aria-valuetext'))) found.push(`${chart.getAttribute('aria-label')} says nothing`);
        }
        const live = all('[aria-live], [role=status], [role=alert]').map((element) => element.id);
        if (live.join() !== 'announce,problem') found.push(`these speak by themselves: ${live}`);
        return found;
    });
    assert.deepEqual(problems, []);
    // The text of a plot.
    await page.click('#plot-commands summary');
    await until(page, 'the table is filled', () => document.querySelectorAll('#plot-commands tbody tr').length > 1);
    await page.click('#plot-commands summary');
}

function listed(page) { return page.locator('#keys-table tbody th').allTextContents(); }

async function search(page, pattern) {
    await page.fill('#pattern', pattern);
    await page.click('#search button');
    await until(page, `${pattern} is found`, () => /\d+ keys?( so far)?\.|^0/.test(document.querySelector('#keys-note').textContent));
}

async function keys(page) {
    await until(page, 'it is the default user', () => document.querySelector('#who').textContent.includes('default'));
    await search(page, 'hostile:*');
    const names = await listed(page);
    assert.equal(names.length, 4);
    assert.ok(names.includes('hostile:<script>window.pwned=1</script>'), String(names));
    assert.ok(names.some((name) => name.includes('\\u{202e}exe\\u{0}\\u{d}')), String(names));
    for (let at = 0; at < 4; at += 1) {
        const name = names[at];
        await page.locator('#keys-table .key-link').nth(at).click();
        await until(page, 'the key is open', (wanted) => document.querySelector('#key-title').textContent === wanted, name);
        await until(page, 'its value is shown', () => document.querySelectorAll('#value-table tbody td').length === 2);
        const value = await page.locator('#value-table tbody td').first().textContent();
        assert.equal(`hostile:${value}`, name);
    }
    const made = await page.evaluate(() => document.querySelectorAll('main script, main img, main b + b, main [onload], main [onerror]').length);
    assert.equal(made, 0, 'no element was made of a name');

    // Names in pages.
    await search(page, 'page:*');
    const some = (await listed(page)).length;
    assert.ok(some >= 100 && some < 1500, String(some));
    while (await page.locator('#keys-more').isVisible()) {
        const before = (await listed(page)).length;
        await page.click('#keys-more');
        await until(page, 'more come', (last) => document.querySelectorAll('#keys-table tbody tr').length > last
            || document.querySelector('#keys-more').hidden, before);
    }
    assert.equal(new Set(await listed(page)).size, 1500);

    // A value in pages.
    await search(page, 'long-list');
    await page.click('#keys-table .key-link');
    await until(page, 'the list is open', () => document.querySelectorAll('#value-table tbody tr').length === 100);
    assert.match(await page.locator('#key-facts').textContent(), /Typelist.*Elements300/);
    for (const [first, rows] of [['element 100', 100], ['element 200', 100]]) {
        await page.click('#value-more');
        await until(page, 'the next part', (wanted) => document.querySelector('#value-table tbody td:last-child').textContent === wanted, first);
        assert.equal(await page.locator('#value-table tbody tr').count(), rows);
    }
    assert.ok(await page.locator('#value-more').isHidden());
    for (const [pattern, type, shown] of [['board', 'zset', 'player 0'], ['events', 'stream', 'kind: visit'], ['tags', 'set', 'tag '], ['counters', 'hash', 'load:']]) {
        await page.selectOption('#type', type);
        await search(page, pattern);
        await page.click('#keys-table .key-link');
        await until(page, `${pattern} is open`, (wanted) => document.querySelector('#value-table tbody')?.textContent.includes(wanted), shown);
    }
    await page.selectOption('#type', '');
    await page.fill('#db', '1');
    await search(page, '*');
    assert.deepEqual(await listed(page), ['elsewhere']);
    await page.fill('#db', '0');
    await page.locator('#top-keys').scrollIntoViewIfNeeded();
    await page.selectOption('#top-by', 'elements');
    await until(page, 'big keys are told', () => document.querySelectorAll('#top-table .key-link').length > 0);
    await page.locator('#clients').scrollIntoViewIfNeeded();
    await until(page, 'clients are told', () => document.querySelectorAll('#clients-table tbody tr').length > 0);
}

// Tab reaches everything that can be used, in order, and never gets caught.
async function keyboard(page) {
    await page.evaluate(() => {
        document.activeElement?.blur();
        window.scrollTo(0, 0);
    });
    await page.click('#pause');
    let [wanted, reached] = [0, []];
    do {
        [wanted, reached] = await walkByTab(page);
        // What was asked for before the pause may have come meanwhile, and replaces what was numbered.
    } while (await page.locator('[data-stop]').count() !== wanted);
    assert.ok(wanted > 40, String(wanted));
    const missed = [...Array(wanted).keys()].filter((stop) => !reached.includes(stop));
    const names = await page.evaluate((stops) => stops.map((stop) => document.querySelector(`[data-stop="${stop}"]`)?.outerHTML.slice(0, 120)), missed);
    assert.deepEqual(names, []);
    assert.deepEqual(reached.slice(0, 20), [...Array(20).keys()], 'in the order of the page');
    // The moment of a plot by arrow keys.
    const chart = page.locator('#plot-commands .chart');
    await chart.focus();
    const text = () => chart.getAttribute('aria-valuetext');
    await page.keyboard.press('Home');
    const first = await text();
    await page.keyboard.press('ArrowRight');
    assert.notEqual(await text(), first);
    assert.match(await text(), /commands/);
    await page.keyboard.press('Escape');
    await page.click('#pause');
    // A search and a key without a mouse.
    await page.focus('#pattern');
    await page.keyboard.press('Control+A');
    await page.keyboard.type('board');
    await page.keyboard.press('Enter');
    await until(page, 'the search has run', () => document.querySelector('#keys-table tbody')?.textContent.startsWith('board'));
    await page.locator('#keys-table .key-link').focus();
    await page.keyboard.press('Enter');
    await until(page, 'the key is open and read out', () => document.activeElement?.id === 'key-title');
}

// Numbers what can be used, and goes from one to the next. Gives how many there are, and which were met.
async function walkByTab(page) {
    const wanted = await page.evaluate(() => {
        document.querySelectorAll('[data-stop]').forEach((element) => { delete element.dataset.stop; });
        const usable = 'a[href], button, select, input, summary, [tabindex="0"]';
        const all = [...document.querySelectorAll(usable)].filter((element) => element.checkVisibility() && !element.disabled);
        all.forEach((element, at) => { element.dataset.stop = at; });
        document.querySelector('.skip').focus();
        return all.length;
    });
    const reached = [];
    for (let at = 0; at < wanted + 5; at += 1) {
        const stop = await page.evaluate(() => document.activeElement?.dataset.stop);
        if (stop !== undefined) reached.push(Number(stop));
        await page.keyboard.press('Tab');
    }
    return [wanted, reached];
}

// Contrast of two colours, by the rule of WCAG.
function contrast(one, other) {
    const light = (colour) => {
        const [r, g, b] = colour.match(/\d+(\.\d+)?/g).map((part) => Number(part) / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
}

async function colours(page) {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const isReadable = async () => {
        const pairs = await page.evaluate(() => {
            const style = (selector) => getComputedStyle(document.querySelector(selector));
            const card = style('.card').backgroundColor;
            const body = style('body').backgroundColor;
            return [
                ['text', style('body').color, body], ['muted', style('.muted').color, body], ['muted on a card', style('.tiles dt').color, card],
                ['link', style('footer a').color, body], ['link on a card', style('.key-link').color, card],
                ['state', style('#state').color, style('#state').backgroundColor],
                ['button', style('#search button').color, style('#search button').backgroundColor],
            ];
        });
        for (const [what, front, back] of pairs) assert.ok(contrast(front, back) >= 4.5, `${what}: ${front} on ${back}`);
    };
    const light = await ground();
    await isReadable();
    await page.emulateMedia({ colorScheme: 'dark' });
    await until(page, 'it is dark', (last) => getComputedStyle(document.body).backgroundColor !== last, light);
    const dark = await ground();
    await isReadable();
    await page.selectOption('#theme', 'light');
    assert.equal(await ground(), light);
    await page.reload();
    await until(page, 'the choice is kept', (wanted) => getComputedStyle(document.body).backgroundColor === wanted, light);
    await page.emulateMedia({ colorScheme: 'light' });
    await page.selectOption('#theme', 'dark');
    assert.equal(await ground(), dark);
    await page.selectOption('#theme', 'auto');
    await until(page, 'it follows the system', (wanted) => getComputedStyle(document.body).backgroundColor === wanted, light);
}

async function screens(page) {
    const open = async () => {
        await search(page, 'long-name*');
        await page.click('#keys-table .key-link');
        await until(page, 'the value is there', () => document.querySelector('#value-table tbody')?.textContent.includes('long value'));
    };
    // How wide it is in how much room, and what is out of sight.
    const sizes = () => page.evaluate(() => {
        const out = [...document.querySelectorAll('body *')].filter((element) => {
            const inside = element.closest('.scroll, .sections, .hidden, .skip, svg');
            return (!inside || inside === element) && element.checkVisibility() && element.getBoundingClientRect().right > innerWidth + 1
                && !element.matches('.skip, .hidden');
        }).map((element) => element.outerHTML.slice(0, 100));
        return [document.documentElement.scrollWidth, document.documentElement.clientWidth, out];
    });
    const fits = async (what) => {
        // The plots are drawn anew a moment after there is another width.
        let [wide, seen, out] = await sizes();
        for (const start = Date.now(); (wide > seen || out.length > 0) && Date.now() - start < PATIENCE_MS;) {
            await page.waitForTimeout(100);
            [wide, seen, out] = await sizes();
        }
        assert.ok(wide <= seen, `${what}: ${wide} of ${seen}`);
        assert.deepEqual(out, [], what);
    };
    const shoot = (name) => page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
    const figures = () => until(page, 'it has figures', () => document.querySelectorAll('#plot-service path').length > 0 && document.querySelectorAll('#tiles dd').length > 0);
    await figures();
    await open();
    await fits('a desk');
    await page.evaluate(() => window.scrollTo(0, 0));
    await shoot('light');
    await page.screenshot({ path: join(folder, 'first-sight.png') });
    await page.selectOption('#theme', 'dark');
    await shoot('dark');
    await page.setViewportSize(PHONE);
    await fits('a telephone in the dark');
    await shoot('phone-dark');
    await page.selectOption('#theme', 'auto');
    await fits('a telephone');
    await shoot('phone');
    await page.setViewportSize(DESK);
}

// Another user sees what that user may see.
async function guest(page) {
    await page.click('#switch');
    await page.fill('#user', 'guest');
    await page.fill('#password', 'welcome');
    await page.click('#login button');
    await until(page, 'it is the guest', () => document.querySelector('#who').textContent.includes('guest'));
    // The page searches by itself for what was shown before, which a guest does not see.
    await until(page, 'that was searched for', () => document.querySelector('#keys-note').textContent === '0 keys.');
    await search(page, '*');
    while (await page.locator('#keys-more').isVisible()) {
        const before = (await listed(page)).length;
        await page.click('#keys-more');
        await until(page, 'more come', (last) => document.querySelectorAll('#keys-table tbody tr').length > last
            || document.querySelector('#keys-more').hidden, before);
    }
    const names = await listed(page);
    assert.equal(names.length, 611, 'page:1, page:10 to page:19, page:100 to page:199, page:1000 to page:1499');
    assert.ok(names.every((name) => name.startsWith('page:1')), String(names));
    await page.reload();
    await until(page, 'it is the default user again', () => document.querySelector('#who').textContent.includes('default'));
}

async function comesBack(page) {
    const process = () => [...document.querySelectorAll('#tiles dd small')].at(-1)?.textContent;
    await until(page, 'there are figures', () => document.querySelectorAll('#tiles dd small').length > 0);
    const before = await page.evaluate(process);
    await ask('kill');
    await until(page, 'it is seen that the server is gone', () => document.querySelector('#state').textContent === 'Unreachable');
    assert.ok(await page.locator('#problem').isVisible());
    await ask('start');
    await until(page, 'the page finds the server again', () => document.querySelector('#state').textContent === 'Ready'
        && document.querySelector('#problem').hidden);
    await until(page, 'the figures are those of another process', (last) => [...document.querySelectorAll('#tiles dd small')].at(-1)?.textContent !== last, before);
    await until(page, 'figures move again', () => document.querySelector('#tiles dd')?.firstChild?.textContent !== '0');
}
