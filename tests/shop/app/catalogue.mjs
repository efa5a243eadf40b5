// Product details: cache-aside. A read looks into the cache first and fills it for an hour; a change goes to the
// database, then removes what is cached.
const HOUR = 3600;
const key = (id) => `product:${id}`;

export class Catalogue {
    #client;
    #byId;
    #ids;
    #change;

    constructor(client, database) {
        this.#client = client;
        this.#byId = database.prepare('SELECT id, name, description, cents FROM products WHERE id = ?');
        this.#ids = database.prepare('SELECT id FROM products ORDER BY id').pluck();
        this.#change = database.prepare('UPDATE products SET name = ?, description = ?, cents = ? WHERE id = ?');
    }

    // One product and where it came from: `hit`, `miss`, or `down` while the cache cannot be reached. The shop sells
    // from its database then.
    async find(id) {
        let cached;
        try {
            cached = await this.#client.get(key(id));
        } catch {
            return { product: this.#byId.get(id), cache: 'down' };
        }
        if (cached !== null) return { product: JSON.parse(cached), cache: 'hit' };
        const product = this.#byId.get(id);
        if (product) await this.#client.set(key(id), JSON.stringify(product), { expiration: { type: 'EX', value: HOUR } }).catch(() => {});
        return { product, cache: 'miss' };
    }

    // All products in order, with one look into the cache; what it lacks is filled in one pipeline.
    async all() {
        const ids = this.#ids.all();
        let cached;
        try {
            cached = await this.#client.mGet(ids.map(key));
        } catch {
            return { products: ids.map((id) => this.#byId.get(id)), cache: 'down' };
        }
        const products = cached.map((text, at) => (text === null ? this.#byId.get(ids[at]) : JSON.parse(text)));
        const missing = products.filter((_, at) => cached[at] === null);
        if (missing.length > 0) {
            const fill = this.#client.multi();
            for (const product of missing) fill.setEx(key(product.id), HOUR, JSON.stringify(product));
            await fill.execAsPipeline().catch(() => {});
        }
        return { products, cache: missing.length > 0 ? 'miss' : 'hit' };
    }

    // False if there is no such product.
    async change(id, { name, description, cents }) {
        const known = this.#byId.get(id);
        if (!known) return false;
        this.#change.run(name ?? known.name, description ?? known.description, cents ?? known.cents, id);
        await this.#client.multi().del(key(id)).publish('products', String(id)).exec();
        return true;
    }
}
