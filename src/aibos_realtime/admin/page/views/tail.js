// The end of a room's log, read on once a second from the last position: every event once, in order, whether or not the page looked away.

import { fill, h, say } from '../dom.js';
import { clock, count, counted, moment } from '../format.js';
import { searchBox, sentence } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';

const PAGE = 50;
const KEPT = 500;
const SHORT = 240; // characters of data in a line

export class Tail {
  constructor(roomId, signal) {
    this._roomId = roomId;
    this._signal = signal;
    this._events = []; // by rising offset
    this._epoch = null;
    this._isPaused = false;
    this._isAll = true; // whether the first event of the log is among them
    this._filter = '';
    this._list = h('ol', { class: 'events', 'aria-label': 'Events, the newest first' });
    this._status = h('span', { class: 'note' });
    this._older = h('button', { type: 'button', hidden: true, onclick: () => this._readOlder() }, 'Older events');
    this._pause = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => this.pause(!this._isPaused) }, 'Pause');
    const filter = searchBox({
      label: 'Filter: event, user, data',
      value: '',
      onSearch: (text) => ((this._filter = text.toLowerCase()), this._draw()),
    });
    this._scroll = h('div', { class: 'scroll tall', tabindex: '0', role: 'group', 'aria-label': 'Events' }, this._list);
    this.element = h('div', { class: 'tail' }, h('div', { class: 'tools' }, filter, this._pause, this._status), this._scroll, this._older);
    this._ask = poll(1, () => this._read(), { signal, onError: (error) => say(this._status, sentence(error)) });
  }

  pause(isPaused) {
    this._isPaused = isPaused;
    this._pause.setAttribute('aria-pressed', String(isPaused));
    say(this._pause, isPaused ? 'Go on' : 'Pause');
    this._tell();
    if (!isPaused) this._ask();
  }

  async _read() {
    if (this._isPaused) return;
    if (this._epoch === null) {
      await this._begin();
      return;
    }
    const after = { epoch: this._epoch, offset: this._events.at(-1)?.offset ?? 0 };
    let found;
    try {
      found = await session.ask('history', { roomId: this._roomId, limit: 200, after });
    } catch (error) {
      if (error.code !== 'unrecoverable_position') throw error;
      await this._begin(); // the log has begun anew, or no longer has what came after the last one
      return;
    }
    if (this._signal.aborted || this._isPaused) return;
    this._take(found.events);
    if (found.more) this._ask();
  }

  async _begin() {
    const found = await session.ask('history', { roomId: this._roomId, limit: PAGE });
    if (this._signal.aborted) return;
    this._epoch = found.epoch;
    this._events = found.events;
    this._isAll = !found.more;
    this._draw();
  }

  async _readOlder() {
    const first = this._events[0];
    if (!first) return;
    try {
      const before = { epoch: this._epoch, offset: first.offset };
      const found = await session.ask('history', { roomId: this._roomId, limit: PAGE, before });
      this._events = [...found.events, ...this._events];
      this._isAll = !found.more;
      this._draw();
    } catch (error) {
      say(this._status, sentence(error));
    }
  }

  _take(events) {
    if (events.length === 0) {
      this._tell();
      return;
    }
    this._events.push(...events);
    if (this._events.length > KEPT) {
      this._events.splice(0, this._events.length - KEPT);
      this._isAll = false;
    }
    const lines = events.filter((event) => this._fits(event)).map((event) => line(event, true));
    this._list.querySelector('.empty')?.remove();
    this._list.prepend(...lines.reverse());
    while (this._list.children.length > this._events.length) this._list.lastChild.remove();
    this._tell();
  }

  _draw() {
    const fitting = this._events.filter((event) => this._fits(event));
    fill(this._list, fitting.map((event) => line(event, false)).reverse());
    if (fitting.length === 0) this._list.append(h('li', { class: 'empty' }, this._filter ? 'No event fits the filter.' : 'No event yet.'));
    this._tell();
  }

  _tell() {
    this._older.hidden = this._isAll || this._events.length === 0;
    say(this._status, this._isPaused ? 'paused' : `${counted(this._events.length, 'event')}, live`);
  }

  _fits(event) {
    if (!this._filter) return true;
    return `${event.event} ${event.userId ?? ''} ${event.id} ${JSON.stringify(event.data)}`.toLowerCase().includes(this._filter);
  }
}

function line(event, isNew) {
  const text = JSON.stringify(event.data) ?? 'null';
  const whole = h('pre');
  const details = h(
    'details',
    {},
    h('summary', {}, h('b', {}, event.event), ' ', h('code', {}, text.length > SHORT ? `${text.slice(0, SHORT)}…` : text)),
    whole,
  );
  details.addEventListener('toggle', () => {
    if (details.open) whole.textContent = JSON.stringify(event, null, 2);
  });
  return h(
    'li',
    { class: isNew ? 'new' : null },
    h('span', { class: 'offset', title: 'offset' }, count(event.offset)),
    h('time', { datetime: event.timestamp, title: moment(event.timestamp) }, clock(event.timestamp)),
    h('span', { class: 'who' }, event.userId ?? '–'),
    details,
  );
}
