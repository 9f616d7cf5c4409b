// The page: what is listed, what is open, and what the keys do.

import { $, h, bytes, duration, time, toast, api, copy, outcome, getSession } from './dom.js';
import { facts, notes, half, load, Messages, timing, statusPage } from './view.js';

const mostRows = 400;
const mostKept = 5000;

const items = new Map(); // id → summary
let paused = false;
let missedWhilePaused = false;
let selected = '';
let current = null; // the detail that is shown
let tab = 'exchange';
let messages = null;
let matches = null; // ids that the server found for the text, or null
let page = 'requests';
const bodies = { cache: new Map(), way: new Map() };

// ---- The list.

const filterInputs = { text: $('f-text'), path: $('f-path'), status: $('f-status'), method: $('f-method'), tunnel: $('f-tunnel'), min: $('f-min') };
const wanted = () => Object.fromEntries(Object.entries(filterInputs).map(([k, el]) => [k, el.value.trim()]));

function statusMatches(want, x) {
  want = want.toLowerCase();
  if (want === x.state) return true;
  if (/^\dxx?$/.test(want) || /^\d$/.test(want)) return String(x.status)[0] === want[0];
  return String(x.status) === want;
}

function passes(x, f) {
  const has = (s, part) => s.toLowerCase().includes(part.toLowerCase());
  return (!f.path || has(x.path, f.path)) && (!f.method || x.method.toLowerCase() === f.method.toLowerCase()) &&
    (!f.status || statusMatches(f.status, x)) && (!f.tunnel || x.tunnel === f.tunnel) && (!f.min || x.duration_ms >= Number(f.min)) &&
    (!f.text || matches?.has(x.id) || [x.path, x.method, x.visitor, x.host, x.content_type, x.error || ''].some((s) => has(s, f.text)));
}

function visible() {
  const f = wanted();
  return [...items.values()].filter((x) => passes(x, f)).sort((a, b) => (a.id < b.id ? 1 : -1));
}

let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  // A page that no screen shows gets no frames, and must not fall behind.
  let frame = 0, timer = 0;
  const now = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    drawing = false;
    drawList();
  };
  frame = requestAnimationFrame(now);
  timer = setTimeout(now, 200);
}

const rows = new Map(); // id → row
let newest = ''; // id of the newest row that was drawn
function drawList() {
  const list = visible();
  const shown = list.slice(0, mostRows);
  const box = $('list');
  const keep = new Set(shown.map((x) => x.id));
  for (const [id, row] of rows) if (!keep.has(id)) { row.remove(); rows.delete(id); }
  let next = box.firstChild;
  for (const x of shown) {
    let row = rows.get(x.id);
    if (!row) {
      const fresh = newest && x.id > newest;
      row = h('li', { class: fresh ? 'row fresh' : 'row', onanimationend: (e) => e.currentTarget.classList.remove('fresh'), id: `row-${x.id}`, role: 'option', onclick: () => { location.hash = `#/r/${x.id}`; } });
      rows.set(x.id, row);
    }
    if (row.item !== x) { row.item = x; fillRow(row, x); }
    row.setAttribute('aria-selected', String(x.id === selected));
    if (row === next) next = next.nextSibling; else box.insertBefore(row, next);
  }
  if (shown.length && shown[0].id > newest) newest = shown[0].id;
  if (rows.has(selected)) box.setAttribute('aria-activedescendant', `row-${selected}`); else box.removeAttribute('aria-activedescendant');
  const filtered = Object.values(wanted()).some(Boolean);
  $('shown').textContent = `${list.length} request${list.length === 1 ? '' : 's'}${filtered ? ` of ${items.size}` : ''}${list.length > mostRows ? `, the newest ${mostRows} listed` : ''}`;
  $('empty').replaceChildren(...(list.length ? [] : items.size ? [h('h2', {}, 'Nothing matches'), 'No request passes these filters.'] : welcome));
  const n = Object.entries(wanted()).filter(([k, v]) => k !== 'text' && v).length;
  $('active').hidden = n === 0;
  $('active').textContent = String(n);
  const f = wanted();
  const query = new URLSearchParams(Object.entries({ path: f.path, status: f.status, method: f.method, tunnel: f.tunnel, min_ms: f.min, q: f.text, limit: '10000' }).filter(([, v]) => v));
  $('har').href = `api/v1/har?${query}`;
}

let welcome = [h('h2', {}, 'Waiting for the first request'), 'Whatever visitors ask your tunnels will be listed here as it happens.'];

function fillRow(row, x) {
  const o = outcome(x);
  const sub = [x.tunnel, x.visitor, x.content_type.split(';')[0]].filter(Boolean).join(' · ');
  const tags = [];
  if (x.kind !== 'http') tags.push({ sse: 'events', websocket: 'WebSocket', grpc: 'gRPC', upgrade: 'upgrade', opaque: 'opaque' }[x.kind] + (x.messages ? ` ${x.messages}` : ''));
  if (x.replay_of) tags.push('replay');
  if (x.state === 'open' || x.state === 'waiting') tags.push(x.state === 'open' ? 'open' : 'waiting');
  row.replaceChildren(
    h('span', { class: 'method' }, x.method || '–'), h('span', { class: 'path', title: x.path }, x.path || x.error || ''),
    h('span', { class: 'took' }, duration(x.duration_ms)), h('span', { class: `code ${o.className}` }, o.text),
    h('span', { class: 'sub' }, tags.map((t) => h('span', { class: 'tag' }, t)), sub || '–'),
    h('span', { class: 'when' }, `${time(x.start)}${x.response_bytes ? ` · ${bytes(x.response_bytes)}` : ''}`));
}

let reloads = 0;
let since = null; // what came in while a list was on its way, and is newer than it
async function reload() {
  const mine = ++reloads;
  since = new Map();
  try {
    const { requests } = await api('requests?limit=2000');
    if (mine !== reloads) return;
    items.clear();
    for (const x of [...requests, ...since.values()]) items.set(x.id, x);
  } finally {
    if (mine === reloads) since = null;
  }
  draw();
}

function forget() {
  reloads++; // a list that is on its way is of before
  since = null;
  items.clear();
  bodies.cache.clear();
  if (selected) location.hash = '#/';
  draw();
}

function take(list) {
  for (const x of list) {
    items.set(x.id, x);
    since?.set(x.id, x);
    if (x.id === selected) refresh();
  }
  if (items.size > mostKept) for (const id of [...items.keys()].sort().slice(0, items.size - mostKept)) items.delete(id);
  if (wanted().text) search();
  draw();
}

let searchTimer;
function search() {
  clearTimeout(searchTimer);
  const { text } = wanted();
  if (!text) { matches = null; draw(); return; }
  searchTimer = setTimeout(async () => {
    try {
      const { requests } = await api(`requests?limit=5000&q=${encodeURIComponent(text)}`);
      if (text === wanted().text) matches = new Set(requests.map((x) => x.id));
    } catch (e) { toast(e.message); }
    draw();
  }, 250);
}

for (const el of Object.values(filterInputs)) el.addEventListener('input', () => { if (el === filterInputs.text) search(); draw(); });
$('filters').addEventListener('submit', (e) => e.preventDefault());
$('more').addEventListener('click', () => {
  const open = $('fine').hidden;
  $('fine').hidden = !open;
  $('more').setAttribute('aria-expanded', String(open));
});
$('reset').addEventListener('click', () => { for (const el of Object.values(filterInputs)) el.value = ''; search(); });
$('clear').addEventListener('click', () => attempt(() => api('requests', { method: 'DELETE' })));
$('pause').addEventListener('click', pause);

function pause() {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', String(paused));
  $('pause').textContent = paused ? 'Resume' : 'Pause';
  if (!paused && missedWhilePaused) { missedWhilePaused = false; attempt(reload); }
}

async function attempt(fn) {
  try { return await fn(); } catch (e) { toast(e.message); return undefined; }
}

// ---- What happens meanwhile.

function listen() {
  const source = new EventSource('api/v1/events');
  const live = (on) => {
    $('live').textContent = on ? 'live' : 'not connected';
    $('live').toggleAttribute('data-on', on);
  };
  let before = false;
  source.onopen = () => {
    live(true);
    // What happened before or in between is not in the stream.
    attempt(reload);
    if (before) refresh();
    before = true;
  };
  source.onerror = () => live(false);
  const on = (name, fn) => source.addEventListener(name, (e) => { if (paused) missedWhilePaused = true; else fn(JSON.parse(e.data)); });
  on('requests', take);
  on('reload', () => attempt(reload));
  source.addEventListener('cleared', forget);
}

// ---- The detail.

let refreshing = false;
let refreshAgain = false;
async function refresh() {
  if (!selected) return;
  if (refreshing) { refreshAgain = true; return; }
  refreshing = true;
  do {
    refreshAgain = false;
    const id = selected;
    if (!id) break;
    try {
      const x = await api(`requests/${id}`);
      if (id === selected) showDetail(x);
    } catch (e) {
      if (id === selected) {
        current = null;
        $('detail').replaceChildren(h('div', { class: 'empty' }, h('h2', {}, 'Not here any more'), e.message, h('p', {}, h('a', { href: '#/' }, 'Back to the list'))));
      }
    }
  } while (refreshAgain);
  refreshing = false;
}

function showDetail(x) {
  const same = current?.id === x.id;
  const box = $('detail');
  const scroll = same ? box.scrollTop : 0;
  const focused = same && box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  current = x;
  const hasMessages = x.kind === 'websocket' || x.kind === 'sse';
  if (!same) {
    messages = hasMessages ? new Messages(x.id) : null;
    tab = hasMessages ? 'messages' : tab === 'messages' ? 'exchange' : tab;
  } else if (hasMessages && !messages) messages = new Messages(x.id);
  if (messages) messages.update();
  const o = outcome(x);
  const action = (key, name, fn, title, extra) => h('button', { type: 'button', 'data-key': key, title, onclick: fn, ...extra }, name);
  const tabs = { exchange: 'Exchange', ...(hasMessages ? { messages: `${x.kind === 'sse' ? 'Events' : 'Messages'} ${x.messages}` } : {}), timing: 'Timing' };
  box.replaceChildren(
    h('div', { class: 'head' },
      h('h2', {}, h('a', { id: 'back', class: 'button', href: '#/', 'aria-label': 'Back to the list' }, '←'),
        h('span', { class: 'grow' }, `${x.method || 'Opaque'} ${x.path}`), h('span', { class: `code ${o.className}` }, o.text)),
      h('p', { class: 'facts' }, facts(x)),
      h('div', { class: 'actions' },
        action('replay', 'Replay', replay, 'Send it again (r)', { class: 'primary', disabled: !x.can_replay }),
        action('edit', 'Replay with changes', edit, 'Change it and send it (e)', { disabled: !x.can_replay }),
        action('curl', 'Copy as curl', curl, 'Copy a command for the shell (c)'),
        h('a', { class: 'button', href: `api/v1/har?id=${x.id}`, download: `${x.id}.har` }, 'HAR'))),
    h('div', { class: 'tabs', role: 'tablist' }, Object.entries(tabs).map(([k, name]) => h('button', {
      type: 'button', role: 'tab', id: `tab-${k}`, 'data-key': `tab-${k}`, 'aria-selected': String(k === tab), 'aria-controls': 'panel', onclick: () => { tab = k; showDetail(current); },
    }, name))),
    h('div', { class: 'panel', id: 'panel', role: 'tabpanel', 'aria-labelledby': `tab-${tab}` }, notes(x),
      tab === 'timing' ? timing(x) : tab === 'messages' ? messages.element : [half(x, 'request', bodies), half(x, 'response', bodies)]));
  box.scrollTop = scroll;
  if (focused) box.querySelector(`[data-key="${focused}"]`)?.focus({ preventScroll: true });
  if (bodies.cache.size > 40) bodies.cache.delete(bodies.cache.keys().next().value);
}

async function replay() {
  if (!current?.can_replay) return;
  const from = current.id;
  const done = await attempt(() => api(`requests/${from}/replay`, { method: 'POST', body: {} }));
  if (done) { toast('Sent again.'); location.hash = `#/r/${done.id}`; }
}

async function curl() {
  if (current) await attempt(async () => copy(await api(`requests/${current.id}/curl`), 'The curl command'));
}

// ---- Replay with changes.

const perConnection = /^(connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|expect|content-length)$/i;
let editing = null;

async function edit() {
  const x = current;
  if (!x?.can_replay) return;
  const b = x.request.size > 0 ? await attempt(() => load(x.id, 'request', x.request)) : { text: '', data: [], cut: false };
  if (!b) return;
  $('e-method').value = x.method;
  $('e-path').value = x.path;
  $('e-headers').value = x.request.headers.filter((f) => !perConnection.test(f.name)).map((f) => `${f.name}: ${f.value}`).join('\n');
  $('e-masked').hidden = !x.request.headers.some((f) => f.value.includes('[masked]'));
  $('e-body').value = b.text ?? '';
  $('e-body').disabled = b.text === null;
  $('e-note').textContent = b.text === null ? `This body is binary, ${bytes(x.request.size)}; it is sent as it was.`
    : x.request.cut ? `Only the first ${bytes(x.request.kept)} of ${bytes(x.request.size)} were kept${x.request.cut_why ? ` (${x.request.cut_why})` : ''}; what stands here is sent.`
      : b.decoded ? `This is the body decoded from ${b.decoded}. Changed, it is sent without that encoding.` : '';
  editing = { x, body: $('e-body').value, headers: $('e-headers').value };
  $('editor').showModal();
}

$('e-cancel').addEventListener('click', () => $('editor').close());
$('edit').addEventListener('submit', async (e) => {
  e.preventDefault();
  const { x, body, headers } = editing;
  const change = { method: $('e-method').value.trim(), path: $('e-path').value.trim() };
  if ($('e-headers').value !== headers) {
    change.headers = [];
    for (const line of $('e-headers').value.split('\n')) {
      if (!line.trim()) continue;
      const colon = line.indexOf(':');
      if (colon < 1) { toast(`This is no header: ${line}`); return; }
      change.headers.push({ name: line.slice(0, colon).trim(), value: line.slice(colon + 1).trim() });
    }
  }
  if (!$('e-body').disabled && ($('e-body').value !== body || x.request.cut)) change.body = $('e-body').value;
  const done = await attempt(() => api(`requests/${x.id}/replay`, { method: 'POST', body: change }));
  if (!done) return;
  $('editor').close();
  toast('Sent with changes.');
  location.hash = `#/r/${done.id}`;
});

// ---- Status.

let statusTimer;
async function showStatus() {
  clearTimeout(statusTimer);
  if (page !== 'status') return;
  try { $('status').replaceChildren(statusPage(await api('status'))); } catch (e) {
    $('status').replaceChildren(h('div', { class: 'empty' }, h('h2', {}, 'No status'), e.message));
  }
  statusTimer = setTimeout(showStatus, 2000);
}

// ---- Where we are.

function route() {
  const [, first, id] = location.hash.split('/');
  page = first === 'status' ? 'status' : 'requests';
  selected = first === 'r' ? id || '' : '';
  $('requests').hidden = page !== 'requests';
  $('status').hidden = page !== 'status';
  for (const p of ['requests', 'status']) $(`tab-${p}`).toggleAttribute('aria-current', p === page);
  document.body.classList.toggle('has-detail', Boolean(selected));
  if (selected) refresh();
  else {
    current = null;
    $('detail').replaceChildren(h('div', { class: 'empty' }, h('h2', {}, 'No request selected'), 'Choose one from the list, or press ', h('kbd', {}, 'j'), '.'));
  }
  showStatus();
  draw();
}
addEventListener('hashchange', route);

function move(by) {
  const list = visible().slice(0, mostRows);
  if (!list.length) return;
  const at = list.findIndex((x) => x.id === selected);
  const to = list[at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + by))];
  location.hash = `#/r/${to.id}`;
  rows.get(to.id)?.scrollIntoView({ block: 'nearest' });
}

// ---- Colours and keys.

const themes = ['auto', 'light', 'dark'];
let theme = 'auto';
try { theme = localStorage.getItem('theme') || 'auto'; } catch { /* the browser keeps nothing */ }
function setTheme(t) {
  theme = themes.includes(t) ? t : 'auto';
  if (theme === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
  $('theme').textContent = { auto: '◐', light: '☀', dark: '☾' }[theme];
  $('theme').setAttribute('aria-label', `Colours: ${{ auto: 'as the system', light: 'light', dark: 'dark' }[theme]}`);
  try { localStorage.setItem('theme', theme); } catch { /* it holds until the page is left */ }
}
const nextTheme = () => setTheme(themes[(themes.indexOf(theme) + 1) % themes.length]);
$('theme').addEventListener('click', nextTheme);
$('help').addEventListener('click', () => $('keys').showModal());

const keys = {
  j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1),
  '/': () => { if (selected && matchMedia('(max-width: 820px)').matches) location.hash = '#/'; $('f-text').focus(); $('f-text').select(); },
  r: replay, e: edit, c: curl, p: pause, t: nextTheme,
  g: () => { location.hash = page === 'status' ? '#/' : '#/status'; },
  '?': () => $('keys').showModal(),
  Escape: () => { if (selected || page === 'status') location.hash = '#/'; },
};
addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open]')) return;
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName);
  if (typing) {
    if (e.key === 'Escape') { e.target.blur(); $('list').focus(); }
    return;
  }
  const arrow = e.key.startsWith('Arrow');
  if (arrow && e.target !== $('list') && e.target !== document.body) return;
  const fn = keys[e.key];
  if (!fn || (page === 'status' && !['g', 't', '?', 'Escape'].includes(e.key))) return;
  e.preventDefault();
  fn();
});

setTheme(theme);
route();
listen();
attempt(async () => {
  await getSession();
  const s = await api('status');
  const addresses = s.tunnels.filter((t) => t.inspected);
  for (const t of s.tunnels) $('f-tunnel').append(h('option', { value: t.name }, t.name));
  if (addresses.length) {
    welcome = [h('h2', {}, 'Waiting for the first request'), h('p', {}, 'Open one of these, and it will be listed here as it happens:'),
      addresses.map((t) => h('p', {}, /^https?:/.test(t.public_url) ? h('a', { href: t.public_url, target: '_blank', rel: 'noreferrer' }, t.public_url) : t.public_url))].flat();
    draw();
  }
});
