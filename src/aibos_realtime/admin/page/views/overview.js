// All nodes together: the last ten minutes, who carries the load, and what went wrong.

import { h } from '../dom.js';
import { bytes, counted } from '../format.js';
import { heading, panel, Trouble } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';
import { Table } from '../table.js';
import { actTable } from './audit.js';
import { charts, pollNodes, Reliability } from './figures.js';
import { nodeRows, nodeTable } from './nodes.js';

const SLOW = 6;
const ACTS = 8;

export function overview({ root, signal }) {
  const head = heading('Overview');
  const trouble = new Trouble();
  const otherTrouble = new Trouble();
  const drawn = charts(signal, false);
  const nodes = nodeTable();
  const reliability = new Reliability();
  const slow = slowTable();
  const acts = actTable({ isShort: true });
  root.append(
    head.element,
    trouble.element,
    otherTrouble.element,
    h(
      'div',
      { class: 'charts' },
      drawn.map((chart) => chart.element),
    ),
    panel('Nodes', { wide: true, actions: [h('a', { href: '#/nodes' }, 'All nodes')] }, nodes.element),
    h(
      'div',
      { class: 'panels' },
      reliability.elements.slice(0, 2),
      h(
        'div',
        { class: 'stack' },
        reliability.elements[2],
        panel('Slow consumers', { actions: [h('a', { href: '#/connections?order=outbox' }, 'By outbox')] }, slow.element),
      ),
      panel('Latest acts', { wide: true, actions: [h('a', { href: '#/audit' }, 'Audit log')] }, acts.element),
    ),
  );
  pollNodes({
    signal,
    trouble,
    onNodes(series) {
      const sum = (name) => series.nodes.reduce((total, node) => total + node[name], 0);
      head.note(`${counted(sum('connections'), 'connection')} · ${counted(series.nodes.length, 'node')} · the last ten minutes`);
      const columns = series.columns();
      for (const chart of drawn) chart.update(columns);
      nodes.update(nodeRows(series));
      reliability.update(series.nodes);
    },
  });
  poll(
    5,
    async () => {
      const { connections } = await session.ask('connections', { order: 'outbox', limit: SLOW });
      slow.update(connections.filter((one) => one.outboxBytes > 0));
      acts.update((await session.ask('acts', { limit: ACTS })).acts);
      otherTrouble.clear();
    },
    { signal, onError: (error) => otherTrouble.show(error) },
  );
}

function slowTable() {
  return new Table({
    label: 'Slow consumers',
    empty: 'No connection has anything waiting to be sent.',
    key: (row) => row.id,
    columns: [
      { title: 'User', href: (row) => `#/connections/${encodeURIComponent(row.id)}`, text: (row) => row.userId ?? row.id, kind: 'code' },
      { title: 'Node', text: (row) => row.node, level: 3 },
      { title: 'Waiting', text: (row) => bytes(row.outboxBytes), kind: 'number' },
    ],
  });
}
