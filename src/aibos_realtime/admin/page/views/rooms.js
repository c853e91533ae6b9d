// Rooms by the beginning of their ids.

import { h } from '../dom.js';
import { count, counted, moment } from '../format.js';
import { heading, panel, searchBox, Trouble } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';
import { Table } from '../table.js';

const PAGE = 100;
const MOST = 1000; // rooms of one answer

export const roomLink = (id) => `#/rooms/${encodeURIComponent(id)}`;

export function roomsView({ root, signal, query, setQuery }) {
  let prefix = query.get('prefix') ?? '';
  let shown = PAGE;
  const head = heading('Rooms');
  const trouble = new Trouble();
  const table = new Table({
    label: 'Rooms',
    empty: 'No room begins like this. A room lives as long as somebody is in it; its events stay.',
    key: (row) => row.id,
    columns: [
      { title: 'Room', href: (row) => roomLink(row.id), text: (row) => row.id, kind: 'code wide' },
      { title: 'Type', text: (row) => row.type, level: 2 },
      {
        title: 'Members',
        text: (row) => (row.maxUsers ? `${count(row.userCount)} of ${count(row.maxUsers)}` : count(row.userCount)),
        kind: 'number',
        tone: (row) => (row.maxUsers && row.userCount >= row.maxUsers ? 'warn' : ''),
      },
      { title: 'Connections', text: (row) => count(row.connectionCount), kind: 'number', level: 2 },
      { title: 'Guests', text: (row) => (row.allowGuests ? 'allowed' : 'no'), level: 3 },
      { title: 'Created', text: (row) => moment(row.createdAt).slice(0, 19).replace('T', ' '), level: 3, kind: 'number' },
    ],
  });
  const more = h('button', { type: 'button', hidden: true, onclick: () => ((shown = Math.min(MOST, shown + PAGE)), ask()) }, 'More');
  const box = searchBox({
    label: 'Rooms that begin with …',
    value: prefix,
    onSearch(text) {
      prefix = text;
      shown = PAGE;
      setQuery({ prefix });
      ask();
    },
  });
  const direct = h('a', { class: 'quiet', hidden: true }, '');
  root.append(head.element, trouble.element, h('div', { class: 'tools' }, box, direct), panel('', { wide: true }, table.element, more));
  const ask = poll(
    3,
    async () => {
      const asked = prefix;
      const { rooms, cursor } = await session.ask('rooms', { prefix: asked, limit: shown });
      if (signal.aborted || asked !== prefix) return;
      trouble.clear();
      table.update(rooms);
      head.note(`${counted(rooms.length, 'room')}${cursor ? ' shown, by id; there are more' : ''}`);
      more.hidden = !cursor || shown >= MOST;
      direct.hidden = !prefix || rooms.some((room) => room.id === prefix);
      direct.href = roomLink(prefix);
      direct.textContent = `Look at the log of ${prefix}, nobody being in it`;
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}
