// A table that is brought up to date in place: rows keep their elements, and so the focus, while their values change.

import { fill, h, say } from './dom.js';

/**
 * A column: `{title, text(row)}`, with `href(row)` a link, with `tip(row)` a longer text under the pointer, `kind`: `number`, `code` or `wide`,
 * `level`: 2 is left out on narrow screens, 3 on all but wide ones, `tone(row)`: `good`, `warn`, `bad` or nothing.
 * Or `{title, make(row), refresh(element, row)}`: an element of its own. `isTall`: it scrolls in itself.
 */
export class Table {
  constructor({ label, columns, key, empty, isTall = false }) {
    this._columns = columns;
    this._key = key;
    this._rows = new Map();
    this._body = h('tbody');
    this._empty = h('p', { class: 'empty', hidden: true }, empty);
    const heads = columns.map((column) =>
      h('th', { scope: 'col', class: classes(column) }, column.title || h('span', { class: 'unseen' }, column.label)),
    );
    this._table = h('table', {}, h('thead', {}, h('tr', {}, heads)), this._body);
    this._scroll = h(
      'div',
      { class: `scroll ${isTall ? 'tall' : ''}`.trim(), role: 'group', 'aria-label': label, tabindex: '0' },
      this._table,
    );
    this.element = h('div', { class: 'table' }, this._scroll, this._empty);
    this._table.addEventListener('keydown', move);
  }

  update(rows) {
    const keys = new Set();
    let before = null;
    for (const row of rows) {
      const key = String(this._key(row));
      keys.add(key);
      let line = this._rows.get(key);
      if (!line) {
        line = this._make(row);
        this._rows.set(key, line);
      }
      this._refresh(line, row);
      const next = before ? before.nextSibling : this._body.firstChild;
      if (next !== line.element) this._body.insertBefore(line.element, next);
      before = line.element;
    }
    for (const [key, line] of this._rows) {
      if (keys.has(key)) continue;
      line.element.remove();
      this._rows.delete(key);
    }
    this._scroll.hidden = rows.length === 0;
    this._empty.hidden = rows.length > 0;
  }

  _make(row) {
    const cells = this._columns.map((column) => {
      const inner = column.make ? column.make(row) : column.href ? h('a', { href: column.href(row) }) : null;
      return { inner, element: h('td', { class: classes(column) }, inner) };
    });
    return {
      cells,
      element: h(
        'tr',
        {},
        cells.map((cell) => cell.element),
      ),
    };
  }

  _refresh(line, row) {
    this._columns.forEach((column, number) => {
      const { inner, element } = line.cells[number];
      if (column.make) {
        column.refresh?.(inner, row);
        return;
      }
      say(inner ?? element, column.text(row));
      if (column.tip) element.title = column.tip(row);
      if (column.tone) element.dataset.tone = column.tone(row) ?? '';
    });
  }
}

const classes = ({ kind, level }) => [kind, level ? `level${level}` : ''].filter(Boolean).join(' ') || null;

/** Arrow keys go from row to row, along the first thing in each that can have the focus. */
function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.closest('input, select, textarea')) return;
  const stops = [...event.currentTarget.querySelectorAll('tbody tr')].map((row) => row.querySelector('a, button, summary')).filter(Boolean);
  const at = stops.findIndex((stop) => stop.closest('tr').contains(event.target));
  const next = stops[at + step];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

/** Names and values, two columns, brought up to date in place. `entries`: `[[name, text, tone?], …]`, always the same names. */
export class Facts {
  constructor(className = '') {
    this.element = h('dl', { class: `facts ${className}`.trim() });
    this._values = new Map();
  }

  update(entries) {
    if (entries.length !== this._values.size || entries.some(([name]) => !this._values.has(name))) {
      this._values = new Map(entries.map(([name]) => [name, h('dd')]));
      fill(
        this.element,
        entries.map(([name]) => h('div', {}, h('dt', {}, name), this._values.get(name))),
      );
    }
    for (const [name, value, tone] of entries) {
      const element = this._values.get(name);
      if (typeof value === 'string') say(element, value);
      else if (element.firstChild !== value) fill(element, value);
      element.dataset.tone = tone ?? '';
    }
  }
}
