// Live updates: what is published reaches every open page as a server-sent event.
//
// One connection subscribes for all pages. While it is away messages are lost, so every page gets the whole stock again
// when it is back.
export class Live {
    #client;
    #subscriber;
    #stock;
    #pages = new Set();

    constructor(client, subscriber, stock) {
        this.#client = client;
        this.#subscriber = subscriber;
        this.#stock = stock;
    }

    async open() {
        await this.#subscriber.subscribe('stock', (message) => this.#tell('stock', message));
        await this.#subscriber.subscribe('products', (id) => this.#tell('product', id));
        for (const each of [this.#client, this.#subscriber]) {
            each.on('ready', () => this.#state());
            each.on('reconnecting', () => this.#tell('state', 'away'));
        }
    }

    // A page opened its stream of events; it stays open until the page goes.
    async join(request, response) {
        response.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no' });
        response.write('retry: 200\n\n');
        this.#pages.add(response);
        request.on('close', () => this.#pages.delete(response));
        await this.#state([response]);
    }

    // Tells pages whether the store is there, and if so the whole stock.
    async #state(pages = this.#pages) {
        if (!this.#client.isReady || !this.#subscriber.isReady) return this.#tell('state', 'away', pages);
        try {
            const snapshot = JSON.stringify(await this.#stock.snapshot());
            this.#tell('snapshot', snapshot, pages);
            this.#tell('state', 'here', pages);
        } catch {
            this.#tell('state', 'away', pages);
        }
    }

    #tell(event, data, pages = this.#pages) {
        for (const page of pages) page.write(`event: ${event}\ndata: ${data}\n\n`);
    }
}
