// The shop: starts the store's clients, the catalogue and the web server.
//
//   REDIS_URL=redis://127.0.0.1:6379 PORT=3000 node shop.mjs
//
// | variable             | meaning                                                      |
// |----------------------|--------------------------------------------------------------|
// | REDIS_URL            | the store: cache, sessions, limits, stock, best sellers      |
// | PORT                 | where to listen; 0 takes a free port, which is printed       |
// | SHOP_ADDRESS         | the address to listen at; 127.0.0.1 without one              |
// | SHOP_DATABASE        | the file of the SQL database                                 |
// | SHOP_SECRET          | signs the cookies of sessions                                |
// | SHOP_ADMIN_KEY       | what changes of products must carry; none: nobody may        |
// | SHOP_LIMIT           | requests that a visitor may make in one window               |
// | SHOP_LIMIT_SECONDS   | the length of a window                                       |
import { createClient } from 'redis';
import { createApp } from './app.mjs';
import { Catalogue } from './catalogue.mjs';
import { Live } from './live.mjs';
import { Stock } from './stock.mjs';
import { Users } from './users.mjs';
import { openDatabase } from './database.mjs';

const environment = process.env;

// While the store is away, a command fails at once: a visitor rather reads "back in a moment" than waits. The clients
// connect again by themselves, without end.
const client = createClient({
    url: environment.REDIS_URL ?? 'redis://127.0.0.1:6379',
    RESP: 3,
    name: 'shop',
    disableOfflineQueue: true,
    socket: { reconnectStrategy: (attempts) => Math.min(25 * 2 ** attempts, 1000) },
});
const subscriber = client.duplicate({ name: 'shop-live' });
for (const each of [client, subscriber]) each.on('error', (error) => console.error(`store: ${error.code ?? error.message}`));
await Promise.all([client.connect(), subscriber.connect()]);

const database = openDatabase(environment.SHOP_DATABASE ?? 'shop.sqlite');
const stock = new Stock(client, database);
await stock.open();
const live = new Live(client, subscriber, stock);
await live.open();

const app = createApp({
    client,
    live,
    stock,
    catalogue: new Catalogue(client, database),
    users: new Users(client, database),
    secret: environment.SHOP_SECRET ?? 'a secret of the shop',
    adminKey: environment.SHOP_ADMIN_KEY,
    limit: { requests: Number(environment.SHOP_LIMIT ?? 100), seconds: Number(environment.SHOP_LIMIT_SECONDS ?? 60) },
});
const server = app.listen(Number(environment.PORT ?? 3000), environment.SHOP_ADDRESS ?? '127.0.0.1', () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
        server.close();
        server.closeAllConnections();
        client.destroy();
        subscriber.destroy();
        database.close();
    });
}
