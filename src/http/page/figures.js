// The figures of the server: asks for them again and again, and shows them.

const POLL_MS = 1000;
const STATUS_MS = 4000;
const TRACK_OF = { 300: 0, 3600: 1 };
const SPANS = [60, 120, 300, 600, 1200, 2400, 3600];
const rate = (name) => (sample) => sample[name];
const tracks = [[], []];
let isPaused = false;
let lastSeen = 0;
let state = 'unknown';

const PLOTS = {
    'plots-now': [
        { id: 'plot-commands', title: 'Commands a second', format: count, series: [{ name: 'commands', of: rate('commands') }] },
        {
            id: 'plot-network', title: 'Network', format: bytesPerSecond, base: 1024,
            series: [{ name: 'received', of: rate('input_bytes') }, { name: 'sent', of: rate('output_bytes') }],
        },
        {
            id: 'plot-hits', title: 'Reads that found their key', format: count,
            series: [{ name: 'hits/s', of: rate('hits') }, { name: 'misses/s', of: rate('misses') }],
        },
        { id: 'plot-cpu', title: 'Busy processors', format: (number) => (isNumber(number) ? number.toFixed(2) : NONE), least: 0.1, series: [{ name: 'processors', of: rate('cpu') }] },
    ],
    'plots-times': [
        {
            id: 'plot-service', title: 'Service time', format: micros, log: true,
            series: ['p50', 'p90', 'p99', 'p999'].map((part) => ({ name: part.replace('p999', 'p99.9'), of: rate(`whole_us_${part}`) })),
        },
        {
            id: 'plot-parts', title: 'Its parts, on average', format: micros, kind: 'layers',
            series: [['wait', 'wait'], ['run', 'run'], ['log', 'log wait'], ['send', 'send']]
                .map(([part, name]) => ({ name, of: rate(`${part}_us_mean`) })),
        },
    ],
    'plots-memory': [
        {
            id: 'plot-memory', title: 'Memory', format: bytes, base: 1024,
            series: [{ name: 'resident', of: rate('resident') }, { name: 'used', of: rate('used_memory') }],
        },
        { id: 'plot-keys', title: 'Keys', format: count, series: [{ name: 'keys', of: rate('keys') }] },
        {
            id: 'plot-gone', title: 'Keys that went', format: count, least: 1,
            series: [{ name: 'expired/s', of: rate('expired') }, { name: 'evicted/s', of: rate('evicted') }],
        },
        {
            id: 'plot-lag', title: 'How late expired keys went', format: millis, least: 1,
            series: [{ name: 'p50', of: rate('expiry_lag_ms_p50') }, { name: 'p99', of: rate('expiry_lag_ms_p99') }],
        },
    ],
    'plots-persistence': [
        { id: 'plot-log', title: 'Log and snapshot on the disk', format: bytes, base: 1024, series: [{ name: 'size', of: rate('log_bytes') }] },
        {
            id: 'plot-behind', title: 'Blocks written and not yet durable', format: count, least: 1,
            series: [{ name: 'blocks', of: (sample) => Math.max(0, sample.written_block - sample.durable_block) }],
        },
    ],
    'plots-clients': [
        {
            id: 'plot-clients', title: 'Clients', format: count, least: 1,
            series: [{ name: 'connected', of: rate('clients') }, { name: 'blocked', of: rate('blocked') }],
        },
        {
            id: 'plot-errors', title: 'Errors and new connections', format: count, least: 1,
            series: [{ name: 'errors/s', of: rate('errors') }, { name: 'connections/s', of: rate('connections') }],
        },
    ],
};
const plots = Object.entries(PLOTS).flatMap(([place, all]) => all.map((one) => {
    const plot = new Plot(one);
    byId(place).append(plot.figure);
    return plot;
}));

// ------------------------------------------------------------------ asking

class Refusal extends Error {
    constructor(status, text) {
        super(text);
        this.status = status;
    }
}

async function ask(path, headers) {
    let response;
    try {
        response = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(30000) });
    } catch {
        throw new Refusal(0, 'The server does not answer.');
    }
    const text = await response.text();
    let json = null;
    try { json = JSON.parse(text); } catch { /* a plain text */ }
    if (!response.ok) throw new Refusal(response.status, json?.error ?? text.trim());
    return json;
}

function say(next, text, problem) {
    byId('problem').textContent = problem ?? '';
    byId('problem').hidden = !problem;
    if (state === text) return;
    state = text;
    byId('state').textContent = text;
    byId('state').dataset.state = next;
    byId('announce').textContent = `The server is ${text.toLowerCase()}.`;
    document.title = next === 'ready' ? 'Ironkeep' : `${text} – Ironkeep`;
}

function fail(error) {
    if (error.status === 503) say('bad', 'Loading', 'The server loads its data. Figures follow once it is done.');
    else if (error.status === 401 || error.status === 403) say('bad', 'Refused', error.message);
    else if (error.status === 0) say('bad', 'Unreachable', 'The server does not answer. The page tries again by itself.');
    else say('bad', 'Failing', error.message);
}

async function pollHistory() {
    const json = await ask(`/history?since=${lastSeen}`);
    for (const [at, track] of json.tracks.entries()) {
        const newest = tracks[at].at(-1)?.time_ms ?? 0;
        for (const row of track.rows) {
            if (row[0] > newest) tracks[at].push(Object.fromEntries(json.columns.map((name, column) => [name, row[column]])));
        }
        tracks[at].splice(0, tracks[at].length - (at === 0 ? 300 : 360));
    }
    // Rows of both tracks are at or before the newest of the finer one.
    lastSeen = tracks[0].at(-1)?.time_ms ?? 0;
    draw();
}

let drawn = '';
function draw() {
    const seconds = Number(byId('window').value);
    const track = tracks[TRACK_OF[seconds]];
    const now = `${seconds} ${track.length} ${track.at(-1)?.time_ms}`;
    if (drawn === now) return;
    drawn = now;
    const end = track.at(-1)?.time_ms ?? 0;
    const samples = track.filter((sample) => sample.time_ms > end - seconds * 1000);
    // A server that runs since a minute has no empty hour before it.
    const span = (end - (samples[0]?.time_ms ?? end)) / 1000;
    const shown = SPANS.find((length) => length >= span) ?? seconds;
    plots.forEach((plot) => plot.show(samples, Math.min(shown, seconds) * 1000));
}

// ------------------------------------------------------------------ tables and lists

const cell = (text, isNumeric) => el('td', { class: isNumeric ? 'num' : null }, text);
const head = (text) => el('th', { scope: 'row' }, text);
function rows(table, all) { byId(table).tBodies[0].replaceChildren(...all.map((cells) => el('tr', {}, ...cells))); }
function pairs(id, all) {
    byId(id).replaceChildren(...all.filter(([, value]) => value !== undefined && value !== null)
        .map(([name, value, more]) => el('div', {}, el('dt', {}, name), el('dd', {}, value, more ? el('small', {}, more) : null))));
}
const yes = (flag) => (flag ? 'yes' : 'no');

function showStatus(status) {
    const { server, clients, memory, stats, keyspace, persistence } = status.sections;
    const is = status.is_ready ? ['ready', 'Ready'] : ['bad', 'Log failed'];
    say(...is, status.is_ready ? null : `The log takes no writes: ${status.log.failure ?? 'it has failed'}`);
    byId('version').textContent = status.version;
    const keys = Object.values(keyspace).reduce((sum, db) => sum + (db.keys ?? 0), 0);
    const reads = stats.keyspace_hits + stats.keyspace_misses;
    const limit = memory.maxmemory;
    pairs('tiles', [
        ['Commands a second', count(stats.instantaneous_ops_per_sec), `${count(stats.total_commands_processed)} in all`],
        ['Service time, p99', micros(tracks[1].at(-1)?.whole_us_p99 ?? status.service_us.whole['p99']),
            `p50 ${micros(tracks[1].at(-1)?.whole_us_p50 ?? status.service_us.whole['p50'])}`],
        ['Memory', bytes(memory.used_memory), limit ? `of ${bytes(limit)}` : 'no limit'],
        ['Keys', count(keys), `${count(stats.expired_keys)} expired, ${count(stats.evicted_keys)} evicted`],
        ['Hit ratio', reads ? `${digits((100 * stats.keyspace_hits) / reads)} %` : NONE, `${count(reads)} reads`],
        ['Clients', count(clients.connected_clients), `${count(clients.blocked_clients)} blocked`],
        ['Running for', duration(server.uptime_in_seconds), `process ${server.process_id}`],
    ]);
    showTimes(status);
    showMemory(status);
    showPersistence(persistence, status.log);
    pairs('client-figures', [
        ['Connected', `${count(clients.connected_clients)} of ${count(clients.maxclients)}`],
        ['Blocked', count(clients.blocked_clients)], ['Subscribers', count(clients.pubsub_clients)],
        ['Tracking keys', count(clients.tracking_clients)], ['Refused', count(stats.rejected_connections)],
        ['Failed logins', count(stats.acl_access_denied_auth)], ['Paused', clients.paused_actions],
    ]);
    if (status.browse !== 'read') showSlow(status.slow_commands);
    byId('updated').textContent = `Last looked at ${clockTime(status.time_ms)}.`;
    browseIs(status.browse);
}

function showTimes(status) {
    const sample = tracks[1].at(-1) ?? tracks[0].at(-1) ?? {};
    const names = [['whole', 'whole'], ['wait', 'wait'], ['run', 'run'], ['log', 'log wait'], ['send', 'send']];
    rows('parts', names.map(([part, name]) => [
        head(name), ...['p50', 'p90', 'p99', 'p999'].map((of) => cell(micros(sample[`${part}_us_${of}`]), true)),
        cell(status.service_us[part].count ? micros(status.service_us[part]['p99.9']) : NONE, true),
    ]));
    const of = Object.entries(status.sections.commandstats ?? {}).map(([name, figures]) => ({ name: name.replace('cmdstat_', ''), ...figures }));
    of.sort((a, b) => b.usec - a.usec);
    rows('commands', of.slice(0, 10).map(({ name, calls, usec, usec_per_call: each, failed_calls: failed }) => [
        head(name.replace('|', ' ')), cell(count(calls), true), cell(micros(each), true), cell(micros(usec), true), cell(count(failed), true),
    ]));
}

const about = (of, number) => (of.is_estimate ? `≈ ${number}` : number);
function showMemory({ memory_by_type: types, sections }) {
    const sorted = [...types].sort((a, b) => b.bytes - a.bytes).slice(0, 30);
    const all = types.reduce((sum, { bytes: of }) => sum + of, 0);
    rows('types', sorted.map((of) => [
        head(`db${of.db}`), cell(of.type), cell(about(of, count(of.keys)), true), cell(about(of, bytes(of.bytes)), true),
        el('td', {}, el('meter', { min: 0, max: Math.max(1, all), value: of.bytes, 'aria-label': `${Math.round((100 * of.bytes) / Math.max(1, all))} %` })),
    ]));
    byId('types-note').hidden = !types.some((of) => of.is_estimate);
    rows('databases', Object.entries(sections.keyspace).slice(0, 30).map(([name, db]) => [
        head(name), cell(count(db.keys), true), cell(count(db.expires), true), cell(db.expires ? duration(db.avg_ttl / 1000) : NONE, true),
    ]));
}

const BACKUP_STEPS = {
    snapshot: 'The snapshot of a backup is being written', seal: 'A backup is being sealed',
    verification: 'A backup is being verified', command: 'A backup is being sent away',
};

function showPersistence(of, log) {
    pairs('log', [
        ['Kept', yes(log.is_active)], ['Last block written', whole.format(log.written_block)],
        ['Last block durable', whole.format(log.durable_block)],
        ['Not yet durable', log.is_active ? `${count(log.written_block - log.durable_block)} blocks` : undefined],
        ['Log and snapshot', isNumber(of.aof_current_size) ? bytes(of.aof_current_size) : undefined],
        ['Waiting to be written', isNumber(of.aof_buffer_length) ? bytes(of.aof_buffer_length) : undefined],
        ['Last write', of.aof_last_write_status], ['Encrypted', yes(of.encrypted)],
    ]);
    const ago = Date.now() / 1000 - of.rdb_last_save_time;
    pairs('snapshot', [
        ['Last one', of.rdb_last_save_time > 0 ? `${duration(Math.max(0, Math.floor(ago)))} ago` : 'none yet'],
        ['It went', of.rdb_last_bgsave_status], ['Took', of.rdb_last_bgsave_time_sec >= 0 ? duration(of.rdb_last_bgsave_time_sec) : NONE],
        ['Changes since', count(of.rdb_changes_since_last_save)], ['Last compaction', of.aof_last_bgrewrite_status],
        ['Backup runs', yes(of.backup_in_progress)], ['Check of the files runs', yes(of.scrub_in_progress)],
        ['Faults found', count(of.scrub_faults)],
    ]);
    const isLoading = Boolean(of.async_loading || of.loading);
    const isSaving = Boolean(of.rdb_bgsave_in_progress || of.aof_rewrite_in_progress);
    const [title, percent, eta] = isLoading ? ['Keys are being loaded', of.loading_loaded_perc, of.loading_eta_seconds]
        : of.backup_current_step ? [BACKUP_STEPS[of.backup_current_step], of.backup_current_perc, of.backup_current_eta_seconds]
        : isSaving ? ['A snapshot is being written', of.current_fork_perc, of.current_save_eta_seconds]
        : of.scrub_in_progress ? ['The files are being checked', of.scrub_current_perc, of.scrub_current_eta_seconds] : [];
    byId('running').hidden = !title;
    if (!title) return;
    byId('running-title').textContent = title;
    byId('running-bar').value = percent ?? 0;
    byId('running-left').textContent = `${digits(percent ?? 0)} %${isNumber(eta) && eta >= 0 ? `, ${duration(eta)} left` : ''}`;
}

function showSlow(all) {
    byId('slow-none').hidden = all.length > 0;
    rows('slow-table', all.map(({ time_s: at, us, command, parts_us: parts }) => [
        head(clockTime(at * 1000)), cell(micros(us), true), el('td', { class: 'text mono' }, command ?? NONE), cell(partsOf(parts)),
    ]));
}
const partsOf = (parts) => (parts ? ['wait', 'run', 'log', 'send'].map((part) => `${part} ${micros(parts[part])}`).join(', ') : NONE);

// ------------------------------------------------------------------ controls

function keep(name, value) {
    try { localStorage.setItem(`ironkeep-${name}`, value); } catch { /* not allowed: then it is not kept */ }
}
function kept(name) {
    try { return localStorage.getItem(`ironkeep-${name}`); } catch { return null; }
}
const prefersDark = matchMedia('(prefers-color-scheme: dark)');
function paint() {
    const wish = byId('theme').value;
    document.documentElement.dataset.theme = wish === 'auto' ? (prefersDark.matches ? 'dark' : 'light') : wish;
}
for (const name of ['theme', 'window']) {
    const control = byId(name);
    const before = kept(name);
    if ([...control.options].some(({ value }) => value === before)) control.value = before;
    control.addEventListener('change', () => {
        keep(name, control.value);
        paint();
        draw();
    });
}
prefersDark.addEventListener('change', paint);
paint();
byId('pause').addEventListener('click', () => {
    isPaused = !isPaused;
    byId('pause').setAttribute('aria-pressed', String(isPaused));
    byId('pause').textContent = isPaused ? 'Paused' : 'Pause';
});

// Asks one after the other, so that a slow server is not asked twice at once.
async function every(ms, work) {
    for (;;) {
        if (!isPaused && !document.hidden) {
            try { await work(); } catch (error) {
                if (!(error instanceof Refusal)) throw error;
                fail(error);
            }
        }
        await new Promise((resolve) => { setTimeout(resolve, ms); });
    }
}
