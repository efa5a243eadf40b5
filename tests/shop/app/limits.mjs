// A limit of requests per visitor, by a counter that lives for one window.
//
// The counter and its expiry are one transaction: no crash leaves a counter that never ends. The first request starts
// the window (`NX`); the ones after it do not prolong it. While the store is away nothing can be counted, and everybody
// may read.
export function limit(client, { requests, seconds }) {
    return async (request, response, next) => {
        const key = `limit:${request.ip}`;
        let count, left;
        try {
            [count, , left] = await client.multi().incr(key).expire(key, seconds, 'NX').ttl(key).exec();
        } catch {
            return next();
        }
        response.set('RateLimit-Remaining', String(Math.max(requests - count, 0)));
        if (count <= requests) return next();
        response.set('Retry-After', String(left)).status(429).json({ error: 'Too many requests. Please come back later.' });
    };
}
