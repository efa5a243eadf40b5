// The page of the shop. The server's events keep stock, prices and best sellers true; the cart lives in the session.
const pictures = {
  1: '<path d="M20 20h24l4 30H16zM24 20v-6h16v6M26 14a6 6 0 0 1 12 0M14 50h36v6H14z"/><path class="fill" d="M32 27c6 7 7 11 7 14a7 7 0 0 1-14 0c0-3 1-7 7-14z"/>',
  2: '<circle cx="20" cy="32" r="11"/><path d="M31 32h26M49 32v9M56 32v7"/><circle class="fill" cx="20" cy="32" r="4.5"/>',
  3: '<path d="M16 54c-6-16-6-44 16-44s22 28 16 44l-7-2c4-14 5-34-9-34s-13 20-9 34z"/><g class="fill"><circle cx="18" cy="28" r="2"/><circle cx="46" cy="28" r="2"/><circle cx="17.5" cy="40" r="2"/><circle cx="46.5" cy="40" r="2"/><circle cx="24" cy="17" r="2"/><circle cx="40" cy="17" r="2"/></g>',
  4: '<path d="M6 20h52c0 8-8 11-15 12-2 6 0 10 6 13v7H18v-7c5-3 7-7 6-13C14 31 8 27 6 20z"/><path class="fill" d="M40 12h14v5H40z"/>',
  5: '<path d="M14 50c-2-16 4-28 18-28s20 12 18 28zM50 34l9-8M24 20c0-12 16-12 16 0M10 50h44v5H10z"/><circle class="fill" cx="32" cy="19" r="3.5"/>',
  6: '<circle cx="32" cy="38" r="16"/><circle cx="32" cy="38" r="10"/><path d="M24 8h16v12H24z"/><circle class="fill" cx="32" cy="14" r="3.5"/>',
};
const element = (id) => document.getElementById(id);
const price = (cents) => `€ ${(cents / 100).toFixed(2)}`;

const products = new Map();
// What is shown of each product's stock, with its version: what is older does not replace it.
const shown = new Map();
let cart = {};

async function call(path, method = 'GET', body = undefined) {
  const options = { method, headers: body ? { 'Content-Type': 'application/json' } : {}, body: body && JSON.stringify(body) };
  const response = await fetch(`/api/${path}`, options).catch(() => ({ ok: false, json: async () => ({ error: 'The shop is back in a moment.' }) }));
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function notice(text, bad = false) {
  element('notice').textContent = text;
  element('notice').classList.toggle('bad', bad);
}

// Runs what a visitor asked for; says so if it could not be done.
const tried = (action) => action().catch((error) => notice(error.message, true));

// ---------------------------------------------------------------- products

function showProduct(product) {
  products.set(product.id, product);
  let card = document.querySelector(`[data-product="${product.id}"]`);
  if (!card) {
    card = element('product').content.firstElementChild.cloneNode(true);
    card.dataset.product = product.id;
    card.querySelector('.picture').innerHTML = `<svg viewBox="0 0 64 64" aria-hidden="true">${pictures[product.id] ?? ''}</svg>`;
    card.querySelector('button').addEventListener('click', () => tried(() => put(product.id, (cart[product.id] ?? 0) + 1)));
    element('products').append(card);
  }
  card.querySelector('h3').textContent = product.name;
  card.querySelector('.description').textContent = product.description;
  card.querySelector('.price').textContent = price(product.cents);
}

function showStock(id, pieces, version) {
  const before = shown.get(id);
  if (before && before.version > version) return;
  shown.set(id, { pieces, version });
  const card = document.querySelector(`[data-product="${id}"]`);
  if (!card) return;
  const left = card.querySelector('.left');
  left.textContent = pieces > 0 ? `${pieces} left` : 'Sold out';
  left.classList.toggle('few', pieces > 0 && pieces <= 10);
  left.classList.toggle('none', pieces === 0);
  card.querySelector('button').disabled = pieces === 0;
  if (before && before.pieces !== pieces) {
    left.classList.remove('changed');
    requestAnimationFrame(() => left.classList.add('changed'));
  }
}

function showBest(best) {
  element('best').replaceChildren(...best.map(({ id, sold }) => {
    const line = document.createElement('li');
    const [name, count] = [document.createElement('span'), document.createElement('span')];
    name.textContent = products.get(id)?.name ?? `Product ${id}`;
    count.className = 'sold';
    count.textContent = `${sold} sold`;
    line.append(name, count);
    return line;
  }));
}

// ---------------------------------------------------------------- cart

function showCart() {
  const lines = Object.entries(cart).map(([id, quantity]) => [products.get(Number(id)), quantity]).filter(([product]) => product);
  element('count').textContent = lines.reduce((sum, [, quantity]) => sum + quantity, 0);
  element('total').textContent = price(lines.reduce((sum, [product, quantity]) => sum + product.cents * quantity, 0));
  element('order').disabled = lines.length === 0;
  element('cart').replaceChildren(...lines.map(([product, quantity]) => {
    const line = document.createElement('li');
    const [name, cost, less] = ['span', 'span', 'button'].map((tag) => document.createElement(tag));
    name.textContent = `${quantity} × ${product.name}`;
    cost.textContent = price(product.cents * quantity);
    less.textContent = '−';
    less.setAttribute('aria-label', `One ${product.name} less`);
    less.addEventListener('click', () => tried(() => put(product.id, quantity - 1)));
    line.append(name, cost, less);
    return line;
  }));
  if (lines.length === 0) {
    const empty = document.createElement('li');
    empty.className = 'empty';
    empty.textContent = 'Nothing in it yet.';
    element('cart').append(empty);
  }
}

async function put(id, quantity) {
  cart = await call(`cart/${id}`, 'PUT', { quantity });
  notice('');
  showCart();
}

element('order').addEventListener('click', () => tried(async () => {
  await call('orders', 'POST', {});
  cart = {};
  showCart();
  notice('Thank you! Your order is on its way.');
}));

// ---------------------------------------------------------------- account

function showUser(user) {
  element('hello').hidden = !user;
  for (const input of element('account').querySelectorAll('input, button')) input.hidden = Boolean(user);
  if (user) element('hello').textContent = `Hello, ${user.name}`;
}

element('account').addEventListener('submit', (event) => {
  event.preventDefault();
  tried(async () => showUser(await call('me', 'PUT', Object.fromEntries(new FormData(event.target)))));
});

// ---------------------------------------------------------------- live

// Everything as the server has it: at first, and again after each time the store was away.
async function refresh() {
  const [all, best, mine, user] = await Promise.all([call('products'), call('bestsellers'), call('cart'), call('me')]);
  all.forEach(showProduct);
  shown.forEach(({ pieces, version }, id) => showStock(id, pieces, version));
  cart = mine;
  showBest(best);
  showCart();
  showUser(user);
}

function state(name) {
  element('state').dataset.state = name;
  element('state').textContent = { here: 'Live', away: 'Reconnecting…' }[name];
}

// Best sellers change with the stock; many changes at once are one question.
let asked = false;
function askBest() {
  if (asked) return;
  asked = true;
  setTimeout(() => {
    asked = false;
    call('bestsellers').then(showBest, () => {});
  }, 250);
}

const events = new EventSource('/api/live');
events.addEventListener('snapshot', ({ data }) => {
  const { version, left } = JSON.parse(data);
  for (const [id, pieces] of Object.entries(left)) showStock(Number(id), pieces, version);
});
events.addEventListener('stock', ({ data }) => {
  const { id, left, version } = JSON.parse(data);
  showStock(id, left, version);
  askBest();
});
events.addEventListener('product', ({ data }) => call(`products/${data}`).then(showProduct).then(showCart).catch(() => {}));
events.addEventListener('state', async ({ data }) => {
  if (data === 'here') await tried(refresh);
  state(data);
});
events.addEventListener('error', () => state('away'));
