// Connections of all nodes: by what is searched for, the newest first, or those with the most waiting to be sent.

import { h } from '../dom.js';
import { ago, bytes, count, moment } from '../format.js';
import { badge, heading, panel, searchBox, tellState, Trouble } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';
import { Table } from '../table.js';

const PAGE = 100;
const MOST = 500;

export const connectionLink = (id) => `#/connections/${encodeURIComponent(id)}`;

export function connectionsView({ root, signal, query, setQuery }) {
  let search = query.get('search') ?? '';
  let order = query.get('order') === 'outbox' ? 'outbox' : 'newest';
  let shown = PAGE;
  const head = heading('Connections');
  const trouble = new Trouble();
  const table = connectionTable();
  const more = h('button', { type: 'button', hidden: true, onclick: () => ((shown = Math.min(MOST, shown + PAGE)), ask()) }, 'More');
  const box = searchBox({
    label: 'User, tenant, address, or id',
    value: search,
    onSearch(text) {
      search = text;
      shown = PAGE;
      setQuery({ search, order });
      ask();
    },
  });
  const orders = h(
    'select',
    {
      'aria-label': 'Order',
      onchange(event) {
        order = event.target.value;
        setQuery({ search, order });
        ask();
      },
    },
    h('option', { value: 'newest', selected: order === 'newest' }, 'Newest first'),
    h('option', { value: 'outbox', selected: order === 'outbox' }, 'Slow consumers first'),
  );
  root.append(head.element, trouble.element, h('div', { class: 'tools' }, box, orders), panel('', { wide: true }, table.element, more));
  const ask = poll(
    3,
    async () => {
      const asked = `${search} ${order}`;
      const page = await session.ask('connections', { search, order, limit: shown });
      if (signal.aborted || asked !== `${search} ${order}`) return;
      trouble.clear();
      table.update(page.connections);
      const few = page.matching > page.connections.length ? `, the first ${count(page.connections.length)} shown` : '';
      head.note(search ? `${count(page.matching)} of ${count(page.total)} fit${few}` : `${count(page.total)} open${few}`);
      more.hidden = page.matching <= shown || shown >= MOST;
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}

function connectionTable() {
  const now = () => Date.now() / 1000;
  return new Table({
    label: 'Connections',
    empty: 'No connection fits.',
    key: (row) => row.id,
    columns: [
      { title: 'User', href: (row) => connectionLink(row.id), text: (row) => row.userId ?? '(nobody yet)', kind: 'code wide' },
      { title: 'Role', text: (row) => row.role ?? '–', level: 3 },
      { title: 'Tenant', text: (row) => row.tenantId ?? '–', level: 2 },
      { title: 'State', make: badge, refresh: (element, row) => tellState(element, row.state), level: 2 },
      { title: 'Address', text: (row) => row.address, kind: 'code', level: 2 },
      { title: 'Node', text: (row) => row.node, level: 2 },
      { title: 'Rooms', text: (row) => count(row.roomCount), kind: 'number', level: 3 },
      {
        title: 'Outbox',
        text: (row) => bytes(row.outboxBytes),
        kind: 'number',
        tone: (row) => (row.outboxBytes > 262144 ? 'bad' : row.outboxBytes > 0 ? 'warn' : ''),
      },
      { title: 'Heard', text: (row) => ago(row.heardAt, now()), kind: 'number', level: 3 },
      { title: 'Connected', text: (row) => ago(row.connectedAt, now()), kind: 'number', tip: (row) => moment(row.connectedAt) },
    ],
  });
}
