// What names keys and clients: for those who may see them.

const TABLES_MS = 8000;
let browse = 'no';
let login = null;
// `turn` counts what was asked for: only the last answer is shown.
let page = { next: null, query: '', turn: 0 };
let open = null;

const headers = () => (login ? { 'X-Ironkeep-User': login } : {});
const data = (path) => ask(`/data/${path}`, headers());

// A text of the server with a note on what was done to show it.
function text(of) {
    const notes = [of.is_cut ? `${bytes(of.bytes)} in all` : null, of.is_escaped ? 'escaped' : null].filter(Boolean);
    return notes.length ? [of.text, ' ', el('span', { class: 'note' }, `(${notes.join(', ')})`)] : [of.text];
}
const textCell = (of) => el('td', { class: 'text mono' }, ...text(of));
const ttl = (ms) => (!isNumber(ms) ? NONE : ms < 0 ? 'for ever' : duration(ms / 1000));

// The name of a key, which opens it.
function keyLink(name, db) {
    if (name.code === null) return el('th', { scope: 'row', class: 'text mono' }, ...text(name), el('span', { class: 'note' }, ' too long to be opened'));
    const button = el('button', { type: 'button', class: 'key-link mono' }, ...(name.text === '' ? ['(empty name)'] : text(name)));
    button.addEventListener('click', () => openKey(name, db));
    return el('th', { scope: 'row', class: 'text' }, button);
}

function browseIs(now) {
    if (now === browse && document.querySelector('.browse').hidden === (now !== 'read') && page.isBegun) return;
    browse = now;
    page.isBegun = true;
    const isShown = browse === 'read';
    document.querySelectorAll('.browse').forEach((part) => { part.hidden = !isShown; });
    document.querySelectorAll('.needs-browse').forEach((part) => {
        part.hidden = isShown;
        part.textContent = 'Keys and values are not shown here. Set http-browse to read to show them, with the rights of a user.';
    });
    byId('clients-card').hidden = !isShown;
    if (isShown) whoAmI();
}

// Whether the same request may succeed a moment later.
function isPassing(error) { return error.status === 0 || error.status === 503; }

async function whoAmI() {
    const who = byId('who');
    refused.clear();
    try {
        const { user } = await data('me');
        who.replaceChildren(...(user ? ['You look as the user ', el('b', {}, ...text(user)), '.'] : ['Log in to see keys.']));
        showLogin(!user);
        if (user) await tables();
        return Boolean(user);
    } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        who.textContent = error.message;
        // The server was busy or away: it is asked again with the next figures.
        if (isPassing(error)) page.isBegun = false;
        return false;
    }
}

function showLogin(isShown) {
    byId('login').hidden = !isShown;
    byId('switch').setAttribute('aria-expanded', String(isShown));
}
byId('switch').addEventListener('click', () => {
    showLogin(byId('login').hidden);
    if (!byId('login').hidden) byId('user').focus();
});
byId('login').addEventListener('submit', async (event) => {
    event.preventDefault();
    const before = login;
    const pair = new TextEncoder().encode(`${byId('user').value}:${byId('password').value}`);
    login = btoa(String.fromCharCode(...pair));
    byId('password').value = '';
    if (await whoAmI()) {
        byId('key').hidden = true;
        search();
    } else {
        login = before;
    }
});

// ------------------------------------------------------------------ tables

// The tables that this user may not see: asking again would only fill the server's log of refusals.
const refused = new Set();

async function table(id, work) {
    // Nothing changes under the focus of somebody who works with it.
    if (byId(id).contains(document.activeElement) || refused.has(id)) return;
    // Nobody sees it now.
    const { top, bottom } = byId(id).closest('section').getBoundingClientRect();
    if (bottom < 0 || top > window.innerHeight) return;
    try { await work(); } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        if (isPassing(error)) return;
        refused.add(id);
        const columns = byId(id).tHead.rows[0].cells.length || 1;
        rows(id, [[el('td', { colspan: columns, class: 'muted' }, error.message)]]);
    }
}

async function tables() {
    if (browse !== 'read') return;
    await table('clients-table', async () => {
        const { columns, rows: all, count: number } = await data('clients');
        byId('clients-caption').textContent = number > all.length ? `Connections: ${all.length} of ${number}` : 'Connections';
        byId('clients-table').tHead.rows[0].replaceChildren(...columns.map((name) => el('th', { scope: 'col' }, name)));
        rows('clients-table', all.map((row) => row.map((of) => el('td', {}, ...text(of)))));
    });
    await table('slow-table', async () => {
        const { commands } = await data('slow');
        byId('slow-none').hidden = commands.length > 0;
        rows('slow-table', commands.filter(Boolean).map((of) => [
            head(clockTime(of.time_s * 1000)), cell(micros(of.us), true),
            el('td', { class: 'text mono' }, ...of.words.flatMap((word, at) => [at ? ' ' : '', ...text(word)])),
            el('td', {}, partsOf(of.parts_us)),
        ]));
    });
    await table('top-table', topKeys);
}
async function topKeys() {
    const by = byId('top-by').value;
    const { keys } = await data(`top?by=${by}`);
    const [name, show] = {
        bytes: ['Memory', (key) => bytes(key.bytes)], elements: ['Elements', (key) => count(key.elements)],
        calls: ['Calls, about', (key) => count(key.calls)], time: ['Time, about', (key) => micros(key.usec)],
    }[by];
    byId('top-figure').textContent = name;
    byId('top-none').hidden = keys.length > 0;
    byId('top-none').textContent = by === 'bytes' || by === 'elements' ? 'No key is large.' : 'No key has been busy.';
    rows('top-table', keys.map((key) => [keyLink(key.key, key.db), cell(String(key.db)), cell(key.type || NONE), cell(show(key), true)]));
}
byId('top-by').addEventListener('change', () => table('top-table', topKeys));

// ------------------------------------------------------------------ keys

async function search() {
    const [db, pattern, type] = [byId('db').value || '0', byId('pattern').value, byId('type').value];
    page.query = `db=${encodeURIComponent(db)}&match=${encodeURIComponent(pattern)}&type=${encodeURIComponent(type)}`;
    page.db = db;
    page.count = 0;
    rows('keys-table', []);
    await moreKeys('');
}
async function moreKeys(cursor) {
    const [note, more, body] = [byId('keys-note'), byId('keys-more'), byId('keys-table').tBodies[0]];
    const { query, db } = page;
    const turn = page.turn += 1;
    note.textContent = 'Searching.';
    try {
        const found = await data(`keys?${query}&cursor=${cursor}`);
        if (turn !== page.turn) return;
        body.append(...found.keys.map((key) => el('tr', {}, keyLink(key.key, db), cell(key.type || NONE), cell(ttl(key.ttl_ms), true), cell(bytes(key.bytes), true))));
        page.count += found.keys.length;
        page.next = found.next;
        note.textContent = `${count(page.count)} ${page.count === 1 ? 'key' : 'keys'}${found.next ? ' so far' : ''}.`;
        byId('announce').textContent = note.textContent;
    } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        if (turn !== page.turn) return;
        note.textContent = error.message;
        page.next = null;
        if (error.message.startsWith('NOAUTH')) showLogin(true);
    }
    more.hidden = !page.next;
}
byId('search').addEventListener('submit', (event) => {
    event.preventDefault();
    search();
});
byId('keys-more').addEventListener('click', () => moreKeys(encodeURIComponent(page.next)));

async function openKey(name, db) {
    open = { name, db };
    byId('key').hidden = false;
    byId('key-title').replaceChildren(...(name.text === '' ? ['(empty name)'] : text(name)));
    byId('key-facts').replaceChildren();
    rows('value-table', []);
    byId('value-table').tHead.rows[0].replaceChildren();
    await part('');
    byId('key-title').focus();
    byId('key').scrollIntoView({ block: 'nearest' });
}

async function part(cursor) {
    const [problem, mine] = [byId('key-problem'), open];
    problem.hidden = true;
    try {
        const key = await data(`key?db=${encodeURIComponent(mine.db)}&key=${mine.name.code}&cursor=${encodeURIComponent(cursor)}`);
        if (mine !== open) return;
        pairs('key-facts', [
            ['Type', key.type], ['Database', String(mine.db)], ['Encoding', key.encoding], ['Time to live', ttl(key.ttl_ms)],
            ['Memory', bytes(key.bytes)], [key.type === 'string' ? 'Length' : 'Elements', key.type === 'string' ? bytes(key.length) : count(key.length)],
        ]);
        byId('value-table').tHead.rows[0].replaceChildren(...key.columns.map((column, at) => el('th', { scope: 'col', class: typeof key.rows[0]?.[at] === 'number' ? 'num' : null }, column)));
        rows('value-table', key.rows.map((row) => row.map(valueCell)));
        mine.next = key.next;
        byId('value-first').hidden = cursor === '';
        byId('value-more').hidden = key.next === null;
        problem.hidden = !key.error;
        problem.textContent = key.error ?? '';
        byId('announce').textContent = `${key.type}, ${key.rows.length} ${key.rows.length === 1 ? 'row' : 'rows'} shown.`;
    } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        problem.hidden = false;
        problem.textContent = error.status === 404 ? 'The key is gone.' : error.message;
        rows('value-table', []);
        byId('value-more').hidden = true;
    }
}
function valueCell(of) {
    if (Array.isArray(of)) {
        return el('td', { class: 'text mono' }, ...of.flatMap(([field, value], at) => [at ? '\n' : '', ...text(field), ': ', ...text(value)]));
    }
    return typeof of === 'object' ? textCell(of) : cell(String(of), true);
}
byId('value-more').addEventListener('click', () => part(open.next));
byId('value-first').addEventListener('click', () => part(''));

// ------------------------------------------------------------------ begin

every(POLL_MS, pollHistory);
every(STATUS_MS, async () => showStatus(await ask('/status')));
every(TABLES_MS, tables);
// What comes into sight is not eight seconds old, unless nothing is to move.
let settling = null;
addEventListener('scroll', () => {
    clearTimeout(settling);
    settling = setTimeout(() => { if (!isPaused) tables(); }, 200);
}, { passive: true });
