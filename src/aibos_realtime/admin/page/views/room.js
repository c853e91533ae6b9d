// One room: who is in it, its settings, its last events, and those that come, as they come.

import { h, toast } from '../dom.js';
import { clock, count, moment } from '../format.js';
import { badge, confirmAct, heading, panel, sentence, tellState, Trouble } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';
import { Facts, Table } from '../table.js';
import { Tail } from './tail.js';

const SHOWN = 200;

export function roomView({ root, signal, params: [id] }) {
  const state = badge();
  const head = heading(id, { back: ['#/rooms', 'Rooms'], actions: [state] });
  head.element.querySelector('h1').classList.add('code');
  const trouble = new Trouble();
  const about = new Facts('four');
  const members = memberTable(id, () => ask());
  const membersNote = h('p', { class: 'note' });
  const tail = new Tail(id, signal);
  root.append(
    head.element,
    trouble.element,
    h(
      'div',
      { class: 'panels' },
      panel('Settings', { wide: true }, about.element),
      panel('Events', { className: 'double' }, tail.element),
      panel('Members', {}, membersNote, members.element),
    ),
  );
  const ask = poll(
    4,
    async () => {
      const [room, presence] = await Promise.all([find(id), session.ask('presence', { roomId: id, limit: SHOWN })]);
      if (signal.aborted) return;
      trouble.clear();
      tellState(state, room ? 'open' : 'empty');
      head.note(room ? '' : 'Nobody is in it. Its log is still there.');
      if (room) about.update(settings(room));
      about.element.closest('section').hidden = !room;
      members.update(presence.members);
      membersNote.hidden = presence.count <= presence.members.length;
      membersNote.textContent = `The first ${count(presence.members.length)} of ${count(presence.count)}`;
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}

async function find(id) {
  try {
    return await session.ask('room', { roomId: id });
  } catch (error) {
    if (error.code === 'room_not_found') return null;
    throw error;
  }
}

const settings = (room) => [
  ['Name', room.name],
  ['Type', room.type],
  ['Members', `${count(room.userCount)}${room.maxUsers ? ` of ${count(room.maxUsers)}` : ''}`],
  ['Connections', count(room.connectionCount)],
  ['Guests', room.allowGuests ? 'allowed' : 'not allowed'],
  ['Last event', room.position ? `offset ${count(room.position.offset)}` : '–'],
  ['Epoch', room.position?.epoch ?? '–'],
  ['Created', moment(room.createdAt).slice(0, 19).replace('T', ' ')],
];

function memberTable(id, onKicked) {
  return new Table({
    label: 'Members',
    isTall: true,
    empty: 'Nobody.',
    key: (row) => row.userId,
    columns: [
      { title: 'User', href: (row) => `#/connections?search=${encodeURIComponent(row.userId)}`, text: (row) => row.userId, kind: 'code' },
      { title: 'Role', text: (row) => row.role ?? '–', level: 3 },
      {
        title: 'Since',
        text: (row) => (row.since ? clock(row.since) : '–'),
        tip: (row) => (row.since ? moment(row.since) : ''),
        kind: 'number',
      },
      {
        title: '',
        label: 'Act',
        kind: 'act',
        make: (row) =>
          h(
            'button',
            { type: 'button', class: 'small', 'aria-label': `Kick ${row.userId}`, onclick: () => kick(id, row.userId, onKicked) },
            'Kick',
          ),
      },
    ],
  });
}

async function kick(roomId, userId, onKicked) {
  const text = `All connections of ${userId} leave ${roomId} and are told so. Nothing keeps this user from joining again.`;
  if (!(await confirmAct({ title: `Kick ${userId}?`, text, act: 'Kick' }))) return;
  try {
    await session.ask('kick', { roomId, userId });
    toast(`${userId} was taken out of ${roomId}.`);
  } catch (error) {
    toast(sentence(error), 'bad');
  }
  onKicked();
}
