// Users: write-through. Every change goes to the database and to the cache, so a read of a known user never touches
// the database.
const key = (name) => `user:${name}`;

export class Users {
    #client;
    #save;
    #load;

    constructor(client, database) {
        this.#client = client;
        this.#save = database.prepare('INSERT INTO users (name, email) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET email = excluded.email');
        this.#load = database.prepare('SELECT name, email FROM users WHERE name = ?');
    }

    // False if somebody else has that name.
    async save(user, asWhom) {
        if (user.name !== asWhom && this.#load.get(user.name)) return false;
        this.#save.run(user.name, user.email);
        await this.#write(user);
        return true;
    }

    async find(name) {
        const cached = await this.#client.hGetAll(key(name));
        if (cached.name !== undefined) return { user: { ...cached }, cache: 'hit' };
        const user = this.#load.get(name);
        if (user) await this.#write(user);
        return { user, cache: 'miss' };
    }

    #write(user) {
        return this.#client.hSet(key(user.name), { name: user.name, email: user.email });
    }
}
