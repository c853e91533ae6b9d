// One connection's life: who and where it is, its rooms, and what the audit log has of it.

import { fill, h, toast } from '../dom.js';
import { ago, bytes, clock, count, NONE } from '../format.js';
import { badge, confirmAct, heading, panel, sentence, tellState, Trouble } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';
import { Facts } from '../table.js';
import { actTable } from './audit.js';
import { roomLink } from './rooms.js';

export function connectionView({ root, signal, params: [id] }) {
  const state = badge();
  let user = null;
  const end = h('button', { type: 'button', class: 'danger', hidden: true, onclick: () => disconnect(id, user, ask) }, 'Disconnect');
  const head = heading('Connection', { back: ['#/connections', 'Connections'], actions: [state, end] });
  const trouble = new Trouble();
  const about = new Facts('four');
  const facts = panel('', { wide: true }, about.element);
  const rooms = h('ul', { class: 'chips' });
  const roomPanel = panel('Rooms', {}, rooms);
  const acts = actTable({ isShort: true, isOfOne: true });
  root.append(
    head.element,
    trouble.element,
    h('div', { class: 'panels' }, facts, panel('Its life', { className: 'double' }, acts.element), roomPanel),
  );
  head.note(id);
  const ask = poll(
    3,
    async () => {
      const { connection, acts: found } = await session.ask('connection', { socketId: id });
      if (signal.aborted) return;
      trouble.clear();
      acts.update(found);
      facts.hidden = roomPanel.hidden = end.hidden = !connection;
      tellState(state, connection?.state ?? 'gone');
      if (!connection) {
        if (found.length === 0) trouble.show({ message: 'This connection is not open, and no node remembers it.' });
        return;
      }
      user = connection.userId;
      head.element.querySelector('h1').textContent = user ?? 'Nobody yet';
      about.update(described(connection));
      fill(
        rooms,
        connection.rooms.map((room) => h('li', {}, h('a', { href: roomLink(room) }, room))),
        connection.roomCount > connection.rooms.length
          ? h('li', { class: 'note' }, `and ${count(connection.roomCount - connection.rooms.length)} more`)
          : null,
        connection.roomCount === 0 ? h('li', { class: 'empty' }, 'None.') : null,
        user ? h('li', {}, h('a', { href: roomLink(`user:${user}`), title: 'What is sent to this user alone' }, `user:${user}`)) : null,
      );
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}

function described(connection) {
  const now = Date.now() / 1000;
  const left = connection.expiresAt ? connection.expiresAt - now : null;
  return [
    ['User', connection.userId ?? NONE],
    ['Role', connection.role ?? NONE],
    ['Tenant', connection.tenantId ?? NONE],
    ['Node', connection.node],
    ['Address', connection.address],
    ['Connected', ago(connection.connectedAt, now)],
    ['Heard', ago(connection.heardAt, now)],
    ['Token ends', left === null ? 'never' : left < 0 ? 'now' : `${clock(connection.expiresAt)}`, left !== null && left < 60 ? 'warn' : ''],
    ['Outbox', bytes(connection.outboxBytes), connection.outboxBytes > 0 ? 'warn' : ''],
    ['Rooms', count(connection.roomCount)],
    ['Codec', connection.codec],
    ['Client', connection.userAgent ?? NONE],
  ];
}

async function disconnect(socketId, user, onDone) {
  const text = `The connection of ${user ?? 'nobody yet'} is closed with 4503: its client stops and tells its application. The token stays good.`;
  if (!(await confirmAct({ title: 'Disconnect?', text, act: 'Disconnect' }))) return;
  try {
    const { count: closed } = await session.ask('disconnect', { socketId });
    toast(closed ? 'The connection was closed.' : 'The connection had gone already.');
  } catch (error) {
    toast(sentence(error), 'bad');
  }
  onDone();
}
