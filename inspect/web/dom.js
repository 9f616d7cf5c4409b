// What the page is built with: elements from data, never from markup, so that
// nothing that passed the tunnel can become part of the page.

export const $ = (id) => document.getElementById(id);

// h makes an element. Attributes: on* are listeners, class and other names are
// set, true is an empty value, false, null and undefined leave it out.
export function h(tag, attributes, ...children) {
  const svg = tag === 'svg' || tag === 'rect';
  const el = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value == null) continue;
    if (name.startsWith('on')) el.addEventListener(name.slice(2), value);
    else if (name === 'value') el.value = value;
    else el.setAttribute(name, value === true ? '' : value);
  }
  el.append(...children.flat(9).filter((c) => c != null && c !== false && c !== ''));
  return el;
}

export function bytes(n) {
  if (n < 1000) return `${n} B`;
  for (const unit of ['kB', 'MB', 'GB']) {
    n /= 1000;
    if (n < 999.5 || unit === 'GB') return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${unit}`;
  }
}

export function duration(ms) {
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 100) return `${ms.toFixed(1)} ms`;
  if (ms < 10000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  return s < 120 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

export function time(iso, withMillis) {
  const d = new Date(iso);
  const two = (n) => String(n).padStart(2, '0');
  const s = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return withMillis ? `${s}.${String(d.getMilliseconds()).padStart(3, '0')}` : s;
}

let toastTimer;
export function toast(text) {
  $('toast').textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $('toast').textContent = ''; }, 5000);
}

let session;
export async function getSession() {
  session ||= await api('session');
  return session;
}

// api calls /api/v1. What fails throws an Error with the server's words.
export async function api(path, options = {}) {
  const headers = {};
  if (options.method) {
    const s = await getSession();
    headers[s.header] = s.token;
    if (options.body !== undefined) headers['Content-Type'] = 'application/json';
  }
  let answer;
  try {
    answer = await fetch(`api/v1/${path}`, { ...options, headers, body: options.body === undefined ? undefined : JSON.stringify(options.body) });
  } catch {
    throw new Error('The agent does not answer. Is it still running?');
  }
  if (!answer.ok) {
    // After a restart of the agent the token is another one.
    if (answer.status === 403 && options.method && !options.again) {
      session = undefined;
      return api(path, { ...options, again: true });
    }
    let reason = `${answer.status} ${answer.statusText}`;
    try { reason = (await answer.json()).msg || reason; } catch { /* no JSON: the status says it */ }
    const failure = new Error(reason);
    failure.status = answer.status;
    throw failure;
  }
  if (options.whole) return answer;
  if (answer.status === 204) return null;
  return (answer.headers.get('Content-Type') || '').startsWith('application/json') ? answer.json() : answer.text();
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied.`);
  } catch {
    toast('The browser does not allow copying here.');
  }
}

// statusClass and statusText are how an exchange's outcome is shown.
export function outcome(x) {
  if (x.state === 'failed') return { text: x.status ? String(x.status) : 'failed', className: 'sx' };
  if (!x.status) return { text: '…', className: 's0' };
  return { text: String(x.status), className: `s${Math.floor(x.status / 100)}` };
}
