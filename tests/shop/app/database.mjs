// The embedded SQL database: products, users and orders. It is the truth for all of them but the stock.
import Database from 'better-sqlite3';

const PRODUCTS = [
    ['Storm lantern', 'Burns for twelve hours, in any wind.', 4900, 40],
    ['Iron key', 'Opens one door. Which one is up to you.', 1250, 120],
    ['Horseshoe', 'Forged by hand. Brings luck to those who hang it upright.', 1800, 75],
    ['Travel anvil', 'Nine kilograms, for work on the road.', 15900, 12],
    ['Copper kettle', 'Two litres. Whistles in B flat.', 7200, 25],
    ['Door knocker', 'A ring of iron. Heard on every floor.', 3600, 60],
];

export function openDatabase(file) {
    const database = new Database(file);
    database.pragma('journal_mode = WAL');
    database.exec(`
        CREATE TABLE IF NOT EXISTS products (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL, cents INTEGER NOT NULL,
            delivered INTEGER NOT NULL
        );
        CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, email TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS orders (
            id INTEGER PRIMARY KEY, user TEXT, product INTEGER NOT NULL REFERENCES products (id),
            quantity INTEGER NOT NULL, cents INTEGER NOT NULL
        );
    `);
    const add = database.prepare('INSERT INTO products (name, description, cents, delivered) VALUES (?, ?, ?, ?)');
    database.transaction(() => {
        if (database.prepare('SELECT count(*) AS count FROM products').get().count > 0) return;
        for (const product of PRODUCTS) add.run(...product);
    })();
    return database;
}
