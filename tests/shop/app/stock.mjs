// Stock, orders and best sellers.
//
// The stock is a hash, product to pieces left; best sellers are a sorted set, product to pieces sold. An order reserves
// all its pieces in one transaction and gives them back if one product runs short, so nothing is ever sold twice.
// Each change of the stock has a version: whoever shows stock ignores what is older than what it shows.
export class Stock {
    #client;
    #delivered;
    #record;

    constructor(client, database) {
        this.#client = client;
        this.#delivered = database.prepare('SELECT id, delivered, cents FROM products');
        const add = database.prepare('INSERT INTO orders (user, product, quantity, cents) VALUES (?, ?, ?, ?)');
        this.#record = database.transaction((user, lines, prices) => {
            for (const { id, quantity } of lines) add.run(user ?? null, id, quantity, quantity * prices.get(id));
        });
    }

    // Puts up for sale what was delivered, unless it already is.
    async open() {
        const fill = this.#client.multi();
        for (const { id, delivered } of this.#delivered.all()) fill.hSetNX('stock', String(id), String(delivered));
        await fill.exec();
    }

    // Pieces left of every product, and the version of that state.
    async snapshot() {
        const [version, left] = await this.#client.multi().get('stock:version').hGetAll('stock').exec();
        return { version: Number(version ?? 0), left: Object.fromEntries(Object.entries(left).map(([id, pieces]) => [id, Number(pieces)])) };
    }

    // Sells `lines` of `{ id, quantity }`. Gives the lines that were short of pieces; none: the order stands.
    async order(user, lines) {
        const left = await this.#move(lines, -1);
        const short = lines.filter((_, at) => left[at] < 0);
        if (short.length > 0) {
            await this.#move(lines, 1);
            return short;
        }
        this.#record(user, lines, new Map(this.#delivered.all().map((product) => [product.id, product.cents])));
        return [];
    }

    // Moves pieces out of the stock (-1) or back into it (1), and tells everybody who watches.
    async #move(lines, direction) {
        const move = this.#client.multi().incr('stock:version');
        for (const { id, quantity } of lines) move.hIncrBy('stock', String(id), direction * quantity);
        for (const { id, quantity } of lines) move.zIncrBy('bestsellers', -direction * quantity, String(id));
        const [version, ...rest] = await move.exec();
        const left = rest.slice(0, lines.length);
        const tell = this.#client.multi();
        for (const [at, { id }] of lines.entries()) tell.publish('stock', JSON.stringify({ version, id, left: Math.max(left[at], 0) }));
        await tell.execAsPipeline();
        return left;
    }

    async bestSellers(count) {
        const best = await this.#client.zRangeWithScores('bestsellers', 0, count - 1, { REV: true });
        return best.filter(({ score }) => score > 0).map(({ value, score }) => ({ id: Number(value), sold: score }));
    }
}
