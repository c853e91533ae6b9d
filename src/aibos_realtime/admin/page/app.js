// The frame around the views: navigation, addresses (`#/rooms/…`), keys, the state of the connection, light and dark.

import { fill, h, icon, say } from './dom.js';
import { span } from './format.js';
import { LoginError, remembered, session } from './session.js';
import { beginTheme, isDark, switchTheme, themes } from './theme.js';
import { auditView } from './views/audit.js';
import { connectionView } from './views/connection.js';
import { connectionsView } from './views/connections.js';
import { loginView } from './views/login.js';
import { nodesView, nodeView } from './views/nodes.js';
import { overview } from './views/overview.js';
import { queuesView, queueView } from './views/queues.js';
import { roomView } from './views/room.js';
import { roomsView } from './views/rooms.js';

const SECTIONS = [
  { path: 'overview', name: 'Overview', key: 'o', icon: 'M3 13h4l3-8 4 14 3-8h4' },
  { path: 'nodes', name: 'Nodes', key: 'n', icon: 'M4 5h16v5H4zM4 14h16v5H4zM8 7.5h.01M8 16.5h.01' },
  { path: 'rooms', name: 'Rooms', key: 'r', icon: 'M4 20V4h11v16M15 20h5M4 20h11M15 8h5v12M11 12h.01' },
  { path: 'connections', name: 'Connections', key: 'c', icon: 'M9 7V3M15 7V3M6 7h12v5a6 6 0 0 1-12 0zM12 18v3' },
  { path: 'queues', name: 'Queues', key: 'q', icon: 'M4 6h16M4 12h16M4 18h9M17 16l3 2-3 2' },
  { path: 'audit', name: 'Audit', key: 'a', icon: 'M6 3h9l4 4v14H6zM14 3v5h5M9 12h7M9 16h7' },
];

const ROUTES = [
  [/^overview$/, overview],
  [/^nodes$/, nodesView],
  [/^nodes\/([^/]+)$/, nodeView],
  [/^rooms$/, roomsView],
  [/^rooms\/([^/]+)$/, roomView],
  [/^connections$/, connectionsView],
  [/^connections\/([^/]+)$/, connectionView],
  [/^queues$/, queuesView],
  [/^queues\/([^/]+)$/, queueView],
  [/^audit$/, auditView],
];

const KEYS = [
  ['/', 'search'],
  ['g, then a letter', SECTIONS.map((section) => `${section.key} ${section.name.toLowerCase()}`).join(', ')],
  ['↑ ↓', 'from row to row in a table; Enter opens'],
  ['Esc', 'leave the search, close a dialog, or go one view up'],
  ['t', 'light or dark'],
  ['?', 'this list'],
];

const app = document.getElementById('app');
let leaving = null; // ends what the present view began
let frame = null;

function begin() {
  beginTheme();
  const token = remembered();
  addEventListener('hashchange', () => (location.hash.startsWith('#token=') ? resume(remembered()) : show()));
  addEventListener('keydown', onKey);
  session.addEventListener('state', onState);
  themes.addEventListener('change', tellTheme);
  setInterval(tellExpiry, 5000);
  if (token) resume(token);
  else showLogin(null);
}

/** With a token that was there already: also a server that is down is waited for. */
async function resume(token) {
  leaving?.abort();
  showFrame();
  try {
    await session.logIn(token, { isPatient: true });
    show();
  } catch (error) {
    if (!(error instanceof LoginError)) throw error;
    session.logOut(error.message);
    showLogin(error.message);
  }
}

function onState() {
  if (session.state === 'out' && frame) showLogin(session.reason);
  tellConnection();
}

// — log-in and frame —

function showLogin(reason) {
  leaving?.abort();
  frame = null;
  document.title = 'Log in – aibos-realtime';
  fill(app);
  loginView({
    root: app,
    reason,
    onDone() {
      showFrame();
      show();
    },
  });
}

function showFrame() {
  const link = (section) =>
    h(
      'a',
      { href: `#/${section.path}`, 'data-path': section.path, 'aria-keyshortcuts': `g ${section.key}` },
      icon(section.icon),
      h('span', {}, section.name),
      h('kbd', { 'aria-hidden': 'true' }, `g ${section.key}`),
    );
  const user = h('span', { class: 'user' });
  const state = h('span', { class: 'badge' });
  const expiry = h('p', { class: 'banner warn expiry', role: 'status', hidden: true });
  const lost = h('p', { class: 'banner bad', role: 'alert', hidden: true });
  const main = h('main', { id: 'main' });
  const theme = h('button', { type: 'button', class: 'plain', onclick: switchTheme });
  frame = { user, state, expiry, lost, main, theme };
  tellTheme();
  fill(
    app,
    h('a', { class: 'skip', href: '#main', onclick: skip }, 'To the content'),
    h(
      'div',
      { class: 'frame' },
      h(
        'header',
        { class: 'top' },
        h('a', { class: 'brand', href: '#/overview' }, h('span', { class: 'logo', 'aria-hidden': 'true' }), 'aibos-realtime'),
        state,
      ),
      h('nav', { 'aria-label': 'Views' }, SECTIONS.map(link)),
      h(
        'footer',
        { class: 'foot' },
        user,
        h(
          'div',
          { class: 'actions' },
          theme,
          h('button', { type: 'button', class: 'plain', onclick: showKeys }, 'Keys'),
          h('button', { type: 'button', class: 'plain', onclick: () => session.logOut() }, 'Log out'),
        ),
      ),
      h('div', { class: 'content' }, lost, expiry, main),
    ),
  );
  tellConnection();
}

function tellTheme() {
  if (frame) say(frame.theme, isDark() ? 'Light' : 'Dark');
}

function skip(event) {
  event.preventDefault();
  frame.main.querySelector('h1')?.focus();
}

function tellConnection() {
  if (!frame) return;
  const { state, lost, main, user } = frame;
  const word = { open: 'live', connecting: 'connecting', lost: 'lost', out: '' }[session.state];
  say(state, word);
  state.dataset.tone = { open: 'good', connecting: 'warn', lost: 'bad' }[session.state] ?? '';
  lost.hidden = session.state !== 'lost' && session.state !== 'connecting';
  lost.className = `banner ${session.state === 'lost' ? 'bad' : 'warn'}`;
  say(
    lost,
    session.state === 'lost'
      ? 'The server does not answer. What is shown is the last that was heard; the page tries again by itself.'
      : 'Connecting to the server …',
  );
  main.classList.toggle('stale', session.state === 'lost');
  say(user, session.user ? `${session.user.id}` : '');
  tellExpiry();
}

/** A token that was pasted cannot be renewed by the page: say so in good time. */
function tellExpiry() {
  if (!frame) return;
  const left = session.expiresAt ? session.expiresAt - Date.now() / 1000 : Infinity;
  frame.expiry.hidden = session.state !== 'open' || left > 300;
  if (!frame.expiry.hidden)
    say(frame.expiry, left > 0 ? `This token ends in ${span(Math.ceil(left))}. Then log in with a new one.` : 'This token has ended.');
}

// — views —

function show() {
  if (!frame) return;
  if (session.state === 'out' || session.user === null) return;
  const [path, search = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [, view, params] = find(path);
  leaving?.abort();
  leaving = new AbortController();
  if (!view) {
    history.replaceState(null, '', '#/overview');
    show();
    return;
  }
  const section = path.split('/')[0];
  for (const link of app.querySelectorAll('nav a')) {
    if (link.dataset.path === section) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const root = h('div', { class: `view ${section}` });
  fill(frame.main, root);
  const { signal } = leaving;
  // A search may end after its view was left: then the address is that of another view.
  view({ root, signal, params, query: new URLSearchParams(search), setQuery: (values) => signal.aborted || setQuery(path, values) });
  const title = root.querySelector('h1');
  document.title = `${params[0] ?? title.textContent} – aibos-realtime`;
  scrollTo(0, 0);
  title.focus({ preventScroll: true });
}

function find(path) {
  for (const [pattern, view] of ROUTES) {
    const match = pattern.exec(path);
    if (match) {
      try {
        return [path, view, match.slice(1).map(decodeURIComponent)];
      } catch {
        return [path, null, []];
      }
    }
  }
  return [path, null, []];
}

/** What a view searches for stands in its address, so that it can be kept and sent. */
function setQuery(path, values) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();
  history.replaceState(null, '', `#/${path}${query ? `?${query}` : ''}`);
}

// — keys —

let hasPrefix = false;

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !frame || document.querySelector('dialog[open]')) return;
  const isTyping = event.target.closest?.('input, textarea, select');
  if (event.key === 'Escape') {
    if (isTyping) event.target.blur();
    else app.querySelector('.heading .back')?.click();
    return;
  }
  if (isTyping) return;
  const section = hasPrefix && SECTIONS.find((one) => one.key === event.key);
  hasPrefix = event.key === 'g' && !hasPrefix;
  if (section) location.hash = `#/${section.path}`;
  else if (event.key === '/') app.querySelector('[data-search]')?.focus();
  else if (event.key === 't') switchTheme();
  else if (event.key === '?') showKeys();
  else return;
  event.preventDefault();
}

function showKeys() {
  const dialog = h(
    'dialog',
    { class: 'ask', 'aria-labelledby': 'keys' },
    h('h2', { id: 'keys' }, 'Keys'),
    h(
      'dl',
      { class: 'keys' },
      KEYS.map(([key, meaning]) => h('div', {}, h('dt', {}, h('kbd', {}, key)), h('dd', {}, meaning))),
    ),
    h('div', { class: 'actions' }, h('button', { type: 'button', onclick: () => dialog.close() }, 'Close')),
  );
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

begin();
