// The routes of the shop.
import { fileURLToPath } from 'node:url';
import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import { limit } from './limits.mjs';

const DAY_MS = 24 * 3600 * 1000;
const PIECES_MAX = 99;
const whole = (value, low, high) => Number.isInteger(value) && value >= low && value <= high;
const text = (value) => typeof value === 'string' && value.length > 0 && value.length <= 200;
// Without it, express-session answers first, and a visitor would not hear that the store was away.
const save = (session) => new Promise((resolve, reject) => session.save((error) => (error ? reject(error) : resolve())));

export function createApp({ client, live, stock, catalogue, users, secret, adminKey, limit: allowed }) {
    const app = express();
    app.disable('x-powered-by');
    // A proxy on this machine says who the visitor is.
    app.set('trust proxy', 'loopback');
    app.use(express.static(fileURLToPath(new URL('public', import.meta.url))));
    app.use(express.json());

    // The stream of events comes before the limit: a page that connects again is not a visitor in a hurry.
    app.get('/api/live', (request, response) => live.join(request, response));
    app.use('/api', limit(client, allowed));

    app.get('/api/products', async (_, response) => {
        const { products, cache } = await catalogue.all();
        response.set('X-Cache', cache).json(products);
    });
    app.get('/api/products/:id', async (request, response) => {
        const { product, cache } = await catalogue.find(Number(request.params.id));
        if (!product) return response.status(404).json({ error: 'There is no such product.' });
        response.set('X-Cache', cache).json(product);
    });
    app.put('/api/products/:id', async (request, response) => {
        if (!adminKey || request.get('X-Admin-Key') !== adminKey) return response.status(403).json({ error: 'That is for the shopkeeper.' });
        const { name, description, cents } = request.body ?? {};
        const fine = [name, description].every((each) => each === undefined || text(each)) && (cents === undefined || whole(cents, 0, 1e9));
        if (!fine) return response.status(400).json({ error: 'Texts, and a price in whole cents, please.' });
        if (!await catalogue.change(Number(request.params.id), { name, description, cents })) return response.status(404).json({ error: 'There is no such product.' });
        response.sendStatus(204);
    });
    app.get('/api/bestsellers', async (_, response) => response.json(await stock.bestSellers(5)));
    app.get('/api/stock', async (_, response) => response.json(await stock.snapshot()));

    app.use(session({
        store: new RedisStore({ client, prefix: 'session:' }),
        secret,
        name: 'shop',
        resave: false,
        saveUninitialized: false,
        cookie: { httpOnly: true, sameSite: 'lax', maxAge: DAY_MS },
    }));
    cartRoutes(app, { stock, catalogue });
    userRoutes(app, users);

    // The store is away, or a request was wrong. Nothing of the inside is told.
    app.use((error, _request, response, _next) => {
        // The answer is out: only what follows it failed, such as a longer life for the session.
        if (response.headersSent) return console.error(error.message);
        const status = error.status ?? 503;
        if (status >= 500) console.error(error.message);
        response.status(status).json({ error: status >= 500 ? 'The shop is back in a moment.' : error.message });
    });
    return app;
}

function cartRoutes(app, { stock, catalogue }) {
    app.get('/api/cart', (request, response) => response.json(request.session.cart ?? {}));
    app.put('/api/cart/:id', async (request, response) => {
        const id = Number(request.params.id);
        const quantity = request.body?.quantity;
        if (!whole(quantity, 0, PIECES_MAX)) return response.status(400).json({ error: `From 0 to ${PIECES_MAX} pieces, please.` });
        if (!(await catalogue.find(id)).product) return response.status(404).json({ error: 'There is no such product.' });
        const cart = { ...request.session.cart, [id]: quantity };
        if (quantity === 0) delete cart[id];
        request.session.cart = cart;
        await save(request.session);
        response.json(cart);
    });
    app.post('/api/orders', async (request, response) => {
        const lines = Object.entries(request.session.cart ?? {}).map(([id, quantity]) => ({ id: Number(id), quantity }));
        if (lines.length === 0) return response.status(400).json({ error: 'The cart is empty.' });
        const short = await stock.order(request.session.user, lines);
        if (short.length > 0) return response.status(409).json({ error: 'Not enough pieces left.', short: short.map(({ id }) => id) });
        request.session.cart = {};
        await save(request.session);
        response.status(201).json({ ordered: lines });
    });
}

function userRoutes(app, users) {
    app.get('/api/me', async (request, response) => {
        const { user, cache } = request.session.user ? await users.find(request.session.user) : {};
        if (cache) response.set('X-Cache', cache);
        response.json(user ?? null);
    });
    app.put('/api/me', async (request, response) => {
        const { name, email } = request.body ?? {};
        if (!text(name) || !text(email)) return response.status(400).json({ error: 'A name and an address of mail, please.' });
        if (!await users.save({ name, email }, request.session.user)) return response.status(409).json({ error: 'That name is taken.' });
        request.session.user = name;
        await save(request.session);
        response.json({ name, email });
    });
}
