'use strict';
// Elements, numbers as people read them, and plots. Text from the server becomes text nodes, never markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
        if (value === true) element.setAttribute(name, '');
        else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);

// ------------------------------------------------------------------ numbers

const whole = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const isNumber = (number) => typeof number === 'number' && Number.isFinite(number);
const NONE = '–';

function digits(number) {
    return number.toFixed(number !== 0 && number < 10 && !Number.isInteger(number) ? 1 : 0);
}
function count(number) {
    if (!isNumber(number)) return NONE;
    if (number < 1) return number === 0 ? '0' : number.toFixed(2);
    return number < 10000 ? whole.format(Math.round(number)) : short.format(number);
}
function bytes(number) {
    if (!isNumber(number)) return NONE;
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
    let at = 0;
    while (number >= 1024 && at < units.length - 1) [number, at] = [number / 1024, at + 1];
    return `${digits(number)} ${units[at]}`;
}
const bytesPerSecond = (number) => (isNumber(number) ? `${bytes(number)}/s` : NONE);
function micros(number) {
    if (!isNumber(number)) return NONE;
    if (number < 1000) return `${digits(number)} µs`;
    return number < 1e6 ? `${digits(number / 1000)} ms` : `${digits(number / 1e6)} s`;
}
const millis = (number) => (isNumber(number) ? micros(number * 1000) : NONE);
function duration(seconds) {
    if (!isNumber(seconds)) return NONE;
    const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
    const at = units.findIndex(([length]) => seconds >= length);
    if (at < 0) return `${Math.round(Math.max(0, seconds) * 10) / 10} s`;
    const [length, name] = units[at];
    const first = `${Math.floor(seconds / length)} ${name}`;
    const rest = units[at + 1] && Math.floor((seconds % length) / units[at + 1][0]);
    return rest ? `${first} ${rest} ${units[at + 1][1]}` : first;
}
const clockTime = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

// ------------------------------------------------------------------ plots

// A round number at or above this one.
function roundUp(number, base) {
    if (!(number > 0)) return base === 1024 ? 1024 : 1;
    const power = base === 1024 ? 1024 ** Math.floor(Math.log(number) / Math.log(1024)) : 10 ** Math.floor(Math.log10(number));
    const steps = base === 1024 ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] : [1, 2, 4, 6, 8, 10];
    return power * (steps.find((step) => step * power >= number * 0.999) ?? steps.at(-1));
}

// A plot over time. `series` are { name, of: (sample) => number }; a sample is an object of columns.
class Plot {
    constructor({ id, title, series, format, kind = 'line', log = false, base = 10, least = 0 }) {
        Object.assign(this, { title, series, format, kind, log, base, least, samples: [], windowMs: 300000, moment: null });
        this.svg = svg('svg', { 'aria-hidden': 'true' });
        this.chart = el('div', {
            class: 'chart', tabindex: 0, role: 'slider', 'aria-label': `${title}: moment`, 'aria-valuemin': 0,
            'aria-valuemax': 0, 'aria-valuenow': 0, 'aria-valuetext': 'no figures yet',
        }, this.svg);
        this.values = series.map(() => el('b', {}, NONE));
        const mark = (at) => svg('svg', { viewBox: '0 0 18 8', 'aria-hidden': 'true' },
            svg('line', { x1: 0, y1: 4, x2: 18, y2: 4, class: `s${at}`, 'stroke-dasharray': kind === 'line' ? dash(at) : null }));
        this.legend = el('ul', { class: 'legend' },
            ...series.map(({ name }, at) => el('li', {}, mark(at), name, ' ', this.values[at])));
        this.when = el('span', { class: 'note' });
        this.body = el('tbody');
        const head = el('tr', {}, el('th', { scope: 'col' }, 'Time'),
            ...series.map(({ name }) => el('th', { scope: 'col', class: 'num' }, name)));
        this.numbers = el('details', {}, el('summary', {}, el('span', {}, 'As a table'), el('span', { class: 'hidden' }, `: ${title}`)),
            el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `${title}, table` },
                el('table', {}, el('thead', {}, head), this.body)));
        this.figure = el('figure', { class: 'plot card', id, 'aria-labelledby': `${id}-title` },
            el('figcaption', {}, el('h3', { id: `${id}-title` }, title), this.when), this.chart, this.legend, this.numbers);
        this.chart.addEventListener('pointermove', (event) => this.point(event));
        this.chart.addEventListener('pointerleave', () => this.choose(null));
        this.chart.addEventListener('keydown', (event) => this.press(event));
        this.chart.addEventListener('blur', () => this.choose(null));
        this.numbers.addEventListener('toggle', () => this.tabulate());
        new ResizeObserver(() => this.draw()).observe(this.chart);
    }

    show(samples, windowMs) {
        Object.assign(this, { samples, windowMs });
        if (this.moment !== null && !samples.some((sample) => sample.time_ms === this.moment)) this.moment = null;
        this.draw();
        if (this.numbers.open) this.tabulate();
    }

    press(event) {
        const step = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -10, ArrowUp: 10, Home: -Infinity, End: Infinity, Escape: 0 }[event.key];
        if (step === undefined || this.samples.length === 0) return;
        event.preventDefault();
        if (step === 0) return this.choose(null);
        const last = this.samples.length - 1;
        const at = this.moment === null ? last : this.samples.findIndex((sample) => sample.time_ms === this.moment);
        this.choose(this.samples[Math.min(last, Math.max(0, at + step))].time_ms);
    }

    point(event) {
        if (this.samples.length === 0) return;
        const { left } = this.chart.getBoundingClientRect();
        const time = this.time(event.clientX - left);
        const nearer = (best, sample) => (Math.abs(sample.time_ms - time) < Math.abs(best.time_ms - time) ? sample : best);
        this.choose(this.samples.reduce(nearer).time_ms);
    }

    choose(moment) {
        if (this.moment !== moment) {
            this.moment = moment;
            this.draw();
        }
    }

    get end() { return this.samples.at(-1)?.time_ms ?? Date.now(); }
    x(time) { return this.left + (1 - (this.end - time) / this.windowMs) * (this.width - this.left - 6); }
    time(x) { return this.end - (1 - (x - this.left) / (this.width - this.left - 6)) * this.windowMs; }

    // The number of a series in a sample; of layers, with those below it.
    at(sample, series) {
        const of = (number) => this.series[number].of(sample);
        if (this.kind !== 'layers') return of(series);
        let sum = 0;
        for (let below = 0; below <= series; below += 1) sum += isNumber(of(below)) ? of(below) : 0;
        return isNumber(of(series)) ? sum : null;
    }

    scale() {
        const all = this.samples.flatMap((sample) => this.series.map((_, at) => this.at(sample, at))).filter(isNumber);
        const largest = Math.max(this.least, ...all);
        if (!this.log) {
            const top = roundUp(largest * 1.05, this.base);
            return { ticks: [0, top / 2, top], y: (number) => 1 - number / top };
        }
        const positive = all.filter((number) => number > 0);
        const low = Math.floor(Math.log10(positive.length ? Math.min(...positive) : 1));
        const high = Math.max(low + 1, Math.ceil(Math.log10(positive.length ? Math.max(...positive) : 10)));
        const step = Math.ceil((high - low) / 4);
        const ticks = [];
        for (let power = low; power <= high; power += step) ticks.push(10 ** power);
        return { ticks, y: (number) => 1 - (Math.log10(Math.max(number, 10 ** low)) - low) / (high - low) };
    }

    draw() {
        this.width = this.chart.clientWidth || 320;
        this.left = 58;
        const [top, bottom, height] = [8, 20, 150];
        const { ticks, y } = this.scale();
        const down = (number) => top + y(number) * (height - top - bottom);
        const parts = [];
        for (const tick of ticks) {
            const level = down(tick);
            parts.push(svg('line', { class: 'grid', x1: this.left, x2: this.width - 6, y1: level, y2: level }));
            parts.push(svg('text', { class: 'tick', x: this.left - 6, y: level + 4, 'text-anchor': 'end' }, this.format(tick)));
        }
        const minutes = this.windowMs / 60000;
        const label = (share) => (share === 1 ? 'now' : `−${Math.round(minutes * (1 - share) * 10) / 10} min`);
        for (const share of [0, 0.5, 1]) {
            const x = this.left + share * (this.width - this.left - 6);
            const anchor = ['start', 'middle', 'end'][share * 2];
            parts.push(svg('text', { class: 'tick', x, y: height - 5, 'text-anchor': anchor }, label(share)));
        }
        // Lower layers are drawn over higher ones.
        const order = this.series.map((_, at) => at);
        for (const at of this.kind === 'layers' ? order.reverse() : order) parts.push(...this.paths(at, down));
        const chosen = this.samples.find((sample) => sample.time_ms === this.moment) ?? this.samples.at(-1);
        if (this.moment !== null) {
            const x = this.x(this.moment);
            parts.push(svg('line', { class: 'cursor', x1: x, x2: x, y1: top, y2: height - bottom }));
        }
        this.svg.replaceChildren(...parts);
        this.describe(chosen);
    }

    // The paths of a series: a line, or an area down to the bottom.
    paths(at, down) {
        const runs = [[]];
        for (const sample of this.samples) {
            const number = this.at(sample, at);
            if (isNumber(number)) runs.at(-1).push(`${this.x(sample.time_ms).toFixed(1)},${down(number).toFixed(1)}`);
            else if (runs.at(-1).length) runs.push([]);
        }
        const filled = runs.filter((run) => run.length);
        // A point alone is seen, too.
        const line = filled.map((run) => `M${run.join('L')}${run.length === 1 ? 'h1' : ''}`).join('');
        const x = (point) => point.split(',')[0];
        const floor = down(0);
        const area = filled.map((run) => `M${x(run[0])},${floor}L${run.join('L')}L${x(run.at(-1))},${floor}Z`).join('');
        if (this.kind === 'layers') return [svg('path', { class: `layer s${at}`, d: area })];
        const paths = [svg('path', { class: `line s${at}`, d: line, 'stroke-dasharray': dash(at) })];
        return this.series.length === 1 && !this.log ? [svg('path', { class: `area s${at}`, d: area }), ...paths] : paths;
    }

    // The values in the legend, and the same for those who do not see them.
    describe(sample) {
        const shown = this.series.map(({ of }) => (sample ? this.format(of(sample)) : NONE));
        this.values.forEach((value, at) => { value.textContent = shown[at]; });
        this.when.textContent = this.moment === null ? '' : clockTime(this.moment);
        if (!sample) return;
        const at = this.samples.indexOf(sample);
        const said = this.series.map(({ name }, series) => `${name} ${shown[series]}`).join(', ');
        this.chart.setAttribute('aria-valuemax', String(this.samples.length - 1));
        this.chart.setAttribute('aria-valuenow', String(at));
        this.chart.setAttribute('aria-valuetext', `${clockTime(sample.time_ms)}: ${said}`);
    }

    tabulate() {
        if (!this.numbers.open) return;
        const step = Math.max(1, Math.ceil(this.samples.length / 60));
        const rows = this.samples.filter((_, at) => (this.samples.length - 1 - at) % step === 0).reverse();
        this.body.replaceChildren(...rows.map((sample) => el('tr', {}, el('th', { scope: 'row' }, clockTime(sample.time_ms)),
            ...this.series.map(({ of }) => el('td', { class: 'num' }, this.format(of(sample)))))));
    }
}

// Lines differ by more than their colour.
function dash(at) { return [null, '6 3', '2 3', '9 3 2 3'][at]; }
