// The audit log: who came, who was refused, kicked, disconnected, and what operators did.

import { h } from '../dom.js';
import { clock, count, counted, moment } from '../format.js';
import { heading, panel, searchBox, Trouble } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';
import { Table } from '../table.js';
import { meaningOf } from './figures.js';

const PAGE = 200;
const MOST = 1000;
const TONES = { refuse: 'warn', kick: 'warn', revoke: 'warn', purge: 'bad', destroy: 'warn' };
const QUIET = [1000, 1001, 4001, 4011];
const SEARCHED = ['act', 'userId', 'tenantId', 'socketId', 'roomId', 'address', 'code', 'reason', 'by', 'node'];

/** Acts as a table; `isShort`: without what needs the room; `isOfOne`: of one connection alone. */
export function actTable({ isShort = false, isOfOne = false } = {}) {
  const columns = [
    { title: 'Time', text: (row) => clock(row.time), tip: (row) => moment(row.time), kind: 'number' },
    {
      title: 'Act',
      text: (row) => row.act,
      tone: (row) => TONES[row.act] ?? (row.act === 'disconnect' && row.code && !QUIET.includes(row.code) ? 'warn' : ''),
    },
    { title: 'Who', make: () => h('span'), refresh: who, kind: 'code' },
    { title: 'Room', text: (row) => row.roomId ?? '', kind: 'code', level: isShort ? 3 : 2 },
    { title: 'What', text: what, kind: 'wide', level: isShort ? 2 : undefined },
    { title: 'By', text: (row) => row.by ?? '', kind: 'code', level: 2 },
  ];
  if (isOfOne) columns.splice(2, 1);
  if (!isShort) {
    columns.splice(3, 0, { title: 'Address', text: (row) => row.address ?? '', kind: 'code', level: 2 });
    columns.push({ title: 'Node', text: (row) => row.node, level: 3 });
  }
  return new Table({
    label: 'Acts',
    empty: 'Nothing yet.',
    key: (row) => `${row.node} ${row.time} ${row.act} ${row.socketId ?? ''} ${row.userId ?? ''} ${row.roomId ?? ''}`,
    columns,
  });
}

function who(element, row) {
  const name = row.userId ?? row.socketId ?? row.address ?? '–';
  if (element.firstChild) return;
  element.append(row.socketId ? h('a', { href: `#/connections/${encodeURIComponent(row.socketId)}` }, name) : name);
}

function what(row) {
  const code = row.code ? `${row.code}${row.act === 'disconnect' && meaningOf(row.code) ? ` ${meaningOf(row.code)}` : ''}` : '';
  const reason = row.reason && row.reason !== meaningOf(row.code) ? row.reason : '';
  return [code, reason].filter(Boolean).join(': ');
}

export function auditView({ root, signal, query, setQuery }) {
  let text = query.get('text') ?? '';
  let shown = PAGE;
  let acts = [];
  const head = heading('Audit');
  const trouble = new Trouble();
  const table = actTable();
  const box = searchBox({
    label: 'Act, user, room, address, reason',
    value: text,
    onSearch(search) {
      text = search;
      setQuery({ text });
      draw();
    },
  });
  const more = h(
    'button',
    { type: 'button', hidden: true, onclick: () => ((shown = Math.min(MOST, shown + PAGE)), ask()) },
    'Earlier ones',
  );
  root.append(head.element, trouble.element, h('div', { class: 'tools' }, box), panel('', { wide: true }, table.element, more));

  function draw() {
    const search = text.toLowerCase();
    const fitting = acts.filter((act) =>
      SEARCHED.some((name) =>
        String(act[name] ?? '')
          .toLowerCase()
          .includes(search),
      ),
    );
    table.update(fitting);
    const which = text ? `${count(fitting.length)} of the` : 'The';
    head.note(`${which} latest ${counted(acts.length, 'act')}; nodes keep these in memory, an audit log file keeps all`);
    more.hidden = acts.length < shown || shown >= MOST;
  }

  const ask = poll(
    3,
    async () => {
      ({ acts } = await session.ask('acts', { limit: shown }));
      if (signal.aborted) return;
      trouble.clear();
      draw();
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}
