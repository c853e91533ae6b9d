// What several views are made of: headings, panels, badges, meters, and the question before an act that cannot be taken back.

import { fill, h, say } from './dom.js';
import { NONE, percent } from './format.js';

/** The top of a view. `back`: `[href, name]` of the view above. */
export function heading(title, { note = '', back = null, actions = [] } = {}) {
  const noteElement = h('p', { class: 'note' }, note);
  const element = h(
    'header',
    { class: 'heading' },
    h(
      'div',
      { class: 'names' },
      back && h('a', { class: 'back', href: back[0] }, `‹ ${back[1]}`),
      h('h1', { tabindex: '-1' }, title),
      noteElement,
    ),
    h('div', { class: 'actions' }, actions),
  );
  return { element, note: (text) => say(noteElement, text) };
}

export function panel(title, { actions = [], wide = false, className = '' } = {}, ...children) {
  const head = title ? h('div', { class: 'panel-head' }, h('h2', {}, title), h('div', { class: 'actions' }, actions)) : null;
  return h('section', { class: `panel ${wide ? 'wide' : ''} ${className}`.trim(), 'aria-label': title || null }, head, children);
}

/** A line that says what went wrong with asking; empty while nothing did. */
export class Trouble {
  constructor() {
    this.element = h('p', { class: 'trouble', role: 'status', hidden: true });
  }

  show(error) {
    this.element.hidden = false;
    say(this.element, sentence(error));
  }

  clear() {
    this.element.hidden = true;
  }
}

/** An error, as a sentence: the server's own message, and which member of the data it is about. */
export function sentence(error) {
  const errors = error.details?.errors ?? [];
  const where = errors.map((one) => `${one.path.replace('$.', '')}: ${one.message}`).join('; ');
  if (error.code === 'rate_limited') return 'The server takes no more requests of this connection for now; the page goes on asking.';
  return where ? `${error.message} (${where})` : error.message || 'Something went wrong.';
}

/** A word with a colour. */
export function badge() {
  return h('span', { class: 'badge' });
}

export function tellState(element, state) {
  say(element, state);
  element.dataset.tone =
    { ok: 'good', open: 'good', draining: 'warn', closing: 'warn', unauthenticated: 'warn', unavailable: 'bad', gone: '' }[state] ?? '';
}

/** A share of something, as a bar with its figure. */
export function meter() {
  return h('span', { class: 'meter' }, h('span', { class: 'bar', 'aria-hidden': 'true' }, h('i')), h('span', { class: 'figure' }));
}

export function tellMeter(element, share, text = null) {
  const bar = element.querySelector('i');
  const known = typeof share === 'number' && Number.isFinite(share);
  bar.style.width = `${known ? Math.min(100, Math.max(0, share * 100)) : 0}%`;
  element.dataset.tone = !known || share < 0.7 ? '' : share < 0.9 ? 'warn' : 'bad';
  say(element.querySelector('.figure'), text ?? (known ? percent(share) : NONE));
}

/** Bars side by side for a few counts: `[[name, meaning, count, tone], …]`. */
export class Bars {
  constructor(empty) {
    this.element = h('ul', { class: 'bars' });
    this._empty = empty;
    this._shown = '';
  }

  update(entries, format) {
    const mark = JSON.stringify(entries);
    if (mark === this._shown) return;
    this._shown = mark;
    const most = Math.max(1, ...entries.map((entry) => entry[2]));
    fill(
      this.element,
      entries.map(([name, meaning, value, tone]) => {
        const bar = h('i', { 'data-tone': tone ?? '' });
        bar.style.width = `${Math.max(1, (value / most) * 100)}%`;
        return h(
          'li',
          {},
          h('code', {}, name),
          h('span', { class: 'meaning' }, meaning),
          h('span', { class: 'bar', 'aria-hidden': 'true' }, bar),
          h('b', {}, format(value)),
        );
      }),
      entries.length === 0 ? h('li', { class: 'empty' }, this._empty) : null,
    );
  }
}

/** Ask before an act. True where it was confirmed. */
export function confirmAct({ title, text, act }) {
  return new Promise((resolve) => {
    const close = (answer) => {
      resolve(answer);
      dialog.close();
      dialog.remove();
      before?.focus();
    };
    const before = document.activeElement;
    const dialog = h(
      'dialog',
      { 'aria-labelledby': 'ask', class: 'ask' },
      h('h2', { id: 'ask' }, title),
      h('p', {}, text),
      h(
        'div',
        { class: 'actions' },
        h('button', { type: 'button', onclick: () => close(false) }, 'Cancel'),
        h('button', { type: 'button', class: 'danger', onclick: () => close(true) }, act),
      ),
    );
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      close(false);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A search box, `/` leads to it; `onSearch` hears of its text a moment after the last key. */
export function searchBox({ label, value, onSearch }) {
  let timer = null;
  const input = h('input', {
    type: 'search',
    'aria-label': label,
    placeholder: label,
    value,
    maxlength: '128',
    autocomplete: 'off',
    spellcheck: 'false',
    'data-search': true,
  });
  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => onSearch(input.value.trim()), 250);
  });
  return h('span', { class: 'search' }, input, h('kbd', { 'aria-hidden': 'true' }, '/'));
}
