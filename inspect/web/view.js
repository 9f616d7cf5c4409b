// The detail of one exchange: headers, bodies, messages, timing.

import { h, bytes, duration, time, api, outcome, toast } from './dom.js';

const colourLimit = 200_000; // characters of JSON that get colours
const showLimit = 400_000; // characters that are shown before one asks for more

export function facts(x) {
  const list = [time(x.start, true), duration(x.duration_ms)];
  if (x.visitor) list.push(`from ${x.visitor}`);
  if (x.tunnel) list.push(x.tunnel);
  list.push(`connection ${x.connection}`);
  return list.join(' · ');
}

export function notes(x) {
  const list = [];
  if (x.error) list.push(h('p', { class: 'note bad' }, sentence(x.error)));
  if (x.replay_of) list.push(h('p', { class: 'note' }, 'A replay of ', h('a', { href: `#/r/${x.replay_of}` }, x.replay_of), '.'));
  if (x.interim?.length) list.push(h('p', { class: 'note' }, `Before the response: ${x.interim.join(', ')}.`));
  if (x.upgrade) list.push(h('p', { class: 'note' }, `The connection went on as ${x.upgrade}: ${bytes(x.request_bytes)} to the upstream, ${bytes(x.response_bytes)} to the visitor.`));
  return list;
}

const sentence = (s) => `${s[0].toUpperCase()}${s.slice(1)}.`;

// half is the request's or the response's block.
export function half(x, side, bodies) {
  const m = x[side];
  const o = outcome(x);
  const line = side === 'request'
    ? h('code', {}, `${x.method} ${x.path} ${m.proto}`)
    : h('code', {}, m.proto ? `${m.proto} ${x.status} ${x.reason}` : 'none yet');
  const blocks = [h('div', { class: 'block' },
    h('h3', {}, side === 'request' ? 'Request' : h('span', { class: o.className }, 'Response'), h('span', { class: 'dim' }, line)),
    m.headers.length ? headerTable(m.headers) : null)];
  if (m.trailers?.length) blocks.push(h('div', { class: 'block' }, h('h3', {}, 'Trailers'), headerTable(m.trailers)));
  const upgraded = Boolean(x.upgrade);
  if (m.size > 0 && !upgraded) blocks.push(bodyBlock(x, side, bodies));
  return blocks;
}

function headerTable(list) {
  return h('table', { class: 'headers' }, h('tbody', {}, list.map((f) => h('tr', {}, h('th', { scope: 'row' }, f.name),
    h('td', { class: f.value.includes('[masked]') ? 'masked' : null }, f.value)))));
}

// bodyBlock shows a body in the way that suits it best, and in others.
function bodyBlock(x, side, bodies) {
  const m = x[side];
  const key = `${x.id}/${side}`;
  const box = h('div', {}, h('p', { class: 'dim' }, 'loading …'));
  const views = h('span', { class: 'views' });
  const about = h('span', { class: 'dim' });
  const fill = (b) => {
    const told = [bytes(m.size)];
    if (b.decoded) told.push(`${b.decoded}, ${bytes(b.data.length)} decoded`);
    if (m.content_type) told.push(m.content_type);
    if (m.grpc_messages) told.push(`${m.grpc_messages} gRPC message${m.grpc_messages === 1 ? '' : 's'}`);
    if (!m.done && x.state !== 'failed') told.push('under way');
    if (b.cut && m.done) told.push(`the first ${bytes(m.kept)} are kept${m.cut_why ? `: ${m.cut_why}` : ''}`);
    if (b.note) told.push(b.note);
    about.textContent = told.join(' · ');
    const ways = waysOf(x, side, m, b);
    const show = (way) => {
      bodies.way.set(key, way);
      views.replaceChildren(...Object.keys(ways).map((w) => h('button', { type: 'button', 'aria-pressed': String(w === way), onclick: () => show(w) }, w)));
      Promise.resolve(ways[way]()).then((el) => box.replaceChildren(el), (e) => box.replaceChildren(h('p', { class: 'note bad' }, e.message)));
    };
    const wanted = bodies.way.get(key);
    show(wanted && ways[wanted] ? wanted : Object.keys(ways)[0]);
  };
  const known = bodies.cache.get(key);
  if (known && known.kept === m.kept && known.done === m.done) fill(known);
  else {
    if (known) fill(known); // until the new one is here
    load(x.id, side, m).then((b) => { bodies.cache.set(key, b); fill(b); }, (e) => box.replaceChildren(h('p', { class: 'note bad' }, e.message)));
  }
  return h('div', { class: 'block body', 'data-side': side }, h('h3', {}, side === 'request' ? 'Request body' : 'Response body', about, views), box);
}

export async function load(id, side, m) {
  const answer = await api(`requests/${id}/${side}/body`, { whole: true });
  const data = new Uint8Array(await answer.arrayBuffer());
  return {
    data, kept: m.kept, done: m.done, cut: answer.headers.get('Wgexpose-Cut') === '1',
    decoded: answer.headers.get('Wgexpose-Decoded'), note: answer.headers.get('Wgexpose-Note'), text: asText(data),
  };
}

// asText is the text that bytes are, or null if they are none. A character may
// be cut off at their end.
function asText(data) {
  try {
    const s = new TextDecoder('utf-8', { fatal: true }).decode(data, { stream: true });
    return /[\x00-\x08\x0e-\x1a\x1c-\x1f]/.test(s.slice(0, 5000)) ? null : s;
  } catch {
    return null;
  }
}

function waysOf(x, side, m, b) {
  const type = (m.content_type || '').split(';')[0].trim().toLowerCase();
  const ways = {};
  if (type.startsWith('image/') && b.data.length) {
    ways.Image = () => h('img', { class: 'media', alt: `Body of the ${side}`, src: `api/v1/requests/${x.id}/${side}/body?k=${m.kept}` });
  }
  if (type.startsWith('multipart/')) ways.Parts = () => parts(x, side);
  if (type === 'application/x-www-form-urlencoded' && b.text !== null) ways.Form = () => form(b.text);
  if (b.text !== null) {
    const json = type.endsWith('json') || /^\s*[[{]/.test(b.text) ? pretty(b.text) : null;
    if (json !== null) ways.Pretty = () => coloured(json);
    ways.Text = () => plain(b.text);
  }
  ways.Hex = () => h('pre', { class: 'hex', tabindex: 0 }, hex(b.data));
  return ways;
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return null; }
}

function plain(text) {
  const pre = h('pre', { tabindex: 0 }, text.slice(0, showLimit));
  if (text.length <= showLimit) return pre;
  const more = h('button', { type: 'button', onclick: () => { pre.textContent = text; more.remove(); } }, `Show all ${bytes(text.length)}`);
  return h('div', {}, pre, more);
}

// coloured marks what the parts of JSON are.
function coloured(text) {
  if (text.length > colourLimit) return plain(text);
  const pre = h('pre', { tabindex: 0, class: 'json' });
  const token = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  let from = 0;
  for (const m of text.matchAll(token)) {
    if (m.index > from) pre.append(text.slice(from, m.index));
    if (m[1]) pre.append(h('span', { class: m[2] ? 'j-key' : 'j-str' }, m[1]), m[2] || '');
    else pre.append(h('span', { class: m[3] ? 'j-lit' : 'j-num' }, m[0]));
    from = m.index + m[0].length;
  }
  pre.append(text.slice(from));
  return pre;
}

function form(text) {
  return h('table', { class: 'headers' }, h('tbody', {}, [...new URLSearchParams(text)].map(([k, v]) => h('tr', {}, h('th', { scope: 'row' }, k), h('td', {}, v)))));
}

async function parts(x, side) {
  const { parts: list, cut } = await api(`requests/${x.id}/${side}/parts`);
  return h('div', {}, h('table', { class: 'headers' }, h('tbody', {}, list.map((p) => {
    const type = p.headers.find((f) => f.name.toLowerCase() === 'content-type')?.value;
    return h('tr', {}, h('th', { scope: 'row' }, p.name || '(no name)', p.file ? h('div', { class: 'dim' }, p.file) : null),
      h('td', {}, h('div', { class: 'dim' }, [type, bytes(p.size), p.cut && 'cut'].filter(Boolean).join(' · ')),
        p.text !== undefined ? p.text.slice(0, 4000) : p.data ? h('span', { class: 'dim' }, 'binary') : ''));
  }))), cut ? h('p', { class: 'note' }, `Only the beginning of this body was kept${x[side].cut_why ? `: ${x[side].cut_why}` : ''}.`) : null);
}

function hex(data) {
  const lines = [];
  const most = Math.min(data.length, 16 * 2048);
  for (let at = 0; at < most; at += 16) {
    const row = [...data.subarray(at, Math.min(at + 16, most))];
    lines.push(`${at.toString(16).padStart(6, '0')}  ${row.map((b) => b.toString(16).padStart(2, '0')).join(' ').padEnd(47)}  ${row.map((b) => (b > 31 && b < 127 ? String.fromCharCode(b) : '·')).join('')}`);
  }
  if (most < data.length) lines.push(`… ${bytes(data.length - most)} more`);
  return lines.join('\n');
}

// Messages lists WebSocket messages and events, and adds those that come.
export class Messages {
  constructor(id) {
    this.id = id;
    this.after = 0;
    this.list = h('div', { class: 'messages' });
    this.note = h('p', { class: 'dim' }, 'loading …');
    this.element = h('div', { class: 'block' }, this.note, this.list);
  }

  async update() {
    if (this.busy) { this.again = true; return; }
    this.busy = true;
    try {
      do {
        this.again = false;
        const { messages, count } = await api(`requests/${this.id}/messages?after=${this.after}`);
        const box = this.element.closest('#detail');
        const atEnd = box && box.scrollHeight - box.scrollTop - box.clientHeight < 60 && this.after > 0;
        this.list.append(...messages.map(message));
        while (this.list.childElementCount > 1000) this.list.firstChild.remove();
        if (messages.length) this.after = messages.at(-1).number;
        const shown = this.list.childElementCount;
        this.note.textContent = count === 0 ? 'Nothing yet.' : shown < count ? `The newest ${shown} of ${count}.` : `${count} in all.`;
        if (atEnd) box.scrollTop = box.scrollHeight;
      } while (this.again);
    } catch (e) {
      this.note.textContent = e.message;
    } finally {
      this.busy = false;
    }
  }
}

function message(m) {
  const up = m.direction === 'to_upstream';
  let text = m.text ?? (m.data ? hex(Uint8Array.from(atob(m.data), (c) => c.charCodeAt(0))) : '');
  if (m.type === 'text' || m.type === 'event') text = shortJSON(text);
  const tags = [m.name && `event ${m.name}`, m.id && `id ${m.id}`, m.code && `code ${m.code}`, m.compressed && 'deflate', m.frames > 1 && `${m.frames} frames`, m.cut && 'cut'].filter(Boolean);
  return h('div', { class: 'message' },
    h('span', { class: up ? 'in' : 'out', title: up ? 'from the visitor' : 'to the visitor', role: 'img', 'aria-label': up ? 'from the visitor' : 'to the visitor' }, up ? '↑' : '↓'),
    h('span', { class: 'dim at' }, time(m.at, true)), h('span', { class: 'dim' }, m.type),
    h('span', { class: 'text' }, tags.map((t) => h('span', { class: 'tag' }, t)), m.note ? h('span', { class: 'dim' }, m.note) : text),
    h('span', { class: 'dim' }, bytes(m.size)));
}

function shortJSON(text) {
  return text.length < 4000 && /^\s*[[{]/.test(text) ? pretty(text) ?? text : text;
}

export function timing(x) {
  const t = x.timing;
  const total = Math.max(t.total_ms, 0.001);
  const legs = [['Request sent', 0, t.send_ms, 'fill-a'], ['Waiting for the response', t.send_ms, t.wait_ms, 'fill-b'], ['Response received', t.send_ms + t.wait_ms, t.receive_ms, 'fill-c']];
  return h('div', { class: 'block timing' },
    legs.map(([name, from, took, fill]) => h('div', { class: 'leg' }, h('span', {}, name),
      h('svg', { viewBox: '0 0 1000 10', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
        h('rect', { class: fill, x: (1000 * from) / total, y: 0, width: Math.max(took > 0 ? 4 : 0, (1000 * took) / total), height: 10 })),
      h('span', { class: 'num' }, duration(took)))),
    h('div', { class: 'leg' }, h('strong', {}, 'In all'), h('span', {}), h('strong', { class: 'num' }, duration(t.total_ms))),
    h('dl', { class: 'facts-list' }, Object.entries({
      Began: new Date(x.start).toLocaleString(), URL: x.url, Upstream: x.upstream, Visitor: x.visitor, Connection: x.connection, ID: x.id,
    }).map(([k, v]) => [h('dt', {}, k), h('dd', {}, String(v || '–'))])));
}

export function statusPage(s) {
  const table = (head, rows, none) => rows.length
    ? h('table', {}, h('thead', {}, h('tr', {}, head.map((c) => h('th', { scope: 'col', class: c.startsWith('#') ? 'num' : null }, c.replace('#', ''))))), h('tbody', {}, rows))
    : h('p', { class: 'dim' }, none);
  const num = (v) => h('td', { class: 'num' }, v);
  const state = (v) => h('span', { class: `state ${['up', 'online'].includes(v) ? 'up' : ['down', 'offline', 'error', 'failed'].includes(v) ? 'down' : ''}` }, v);
  const ms = (ns) => (ns ? duration(ns / 1e6) : '–');
  const u = s.inspector;
  return h('div', { class: 'inner' },
    h('section', { class: 'card' }, h('h2', {}, 'Tunnels'),
      table(['Name', 'Public address', 'Upstream', 'State', '#Open', '#Requests', '#Per minute', '#p50', '#p90'], s.tunnels.map((t) => h('tr', {},
        h('td', {}, t.name, t.inspected ? null : h('div', { class: 'dim' }, 'not inspected')),
        h('td', {}, /^https?:/.test(t.public_url) ? h('a', { href: t.public_url, target: '_blank', rel: 'noreferrer' }, t.public_url) : t.public_url, ' ',
          h('button', { type: 'button', onclick: () => navigator.clipboard.writeText(t.public_url).then(() => toast('Address copied.'), () => toast('The browser does not allow copying here.')) }, 'Copy')),
        h('td', {}, t.upstream), h('td', {}, state(t.state), t.detail ? h('div', { class: 'dim' }, t.detail) : null),
        num(t.conns.gauge), num(t.http.count), num((t.http.rate1 * 60).toFixed(1)), num(ms(t.http.p50)), num(ms(t.http.p90)))), 'No tunnel is published.')),
    h('section', { class: 'card' }, h('h2', {}, 'Links'),
      table(['Edge', 'State', 'Transport', '#Latency', 'Since'], s.links.map((l) => h('tr', {},
        h('td', {}, l.edge), h('td', {}, state(l.state), l.detail ? h('div', { class: 'dim' }, l.detail) : null), h('td', {}, l.transport ? l.transport.toUpperCase() : '–'),
        num(l.latency_ms ? duration(l.latency_ms) : '–'), h('td', {}, l.since ? new Date(l.since).toLocaleString() : '–'))), 'There is no link to an edge.')),
    h('section', { class: 'card' }, h('h2', {}, 'Inspector'), h('dl', { class: 'facts-list' },
      Object.entries({
        Agent: s.agent, Version: s.version, Since: new Date(u.started).toLocaleString(), 'Requests kept': u.exchanges,
        Memory: `${bytes(u.bytes)} of at most ${bytes(u.max_bytes)}; the oldest go first`, 'Of each body': `the first ${bytes(u.body_limit)}${u.rush ? ', while so much comes that nothing is kept for long' : ''}`,
      }).map(([k, v]) => [h('dt', {}, k), h('dd', {}, String(v || '–'))])),
    h('p', {}, h('a', { href: 'api/v1/openapi.json' }, 'API description (OpenAPI)'))));
}
