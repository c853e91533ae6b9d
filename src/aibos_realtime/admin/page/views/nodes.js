// The nodes, and one of them.

import { h } from '../dom.js';
import { ago, bytes, count, counted, moment, percent, rate, span } from '../format.js';
import { badge, heading, meter, panel, tellMeter, tellState, Trouble } from '../parts.js';
import { Facts, Table } from '../table.js';
import { charts, Comparison, pollNodes, Reliability } from './figures.js';

const link = (node) => `#/nodes/${encodeURIComponent(node.id)}`;

/** One line for each node; `rows` of `nodeRows`. */
export function nodeTable() {
  return new Table({
    label: 'Nodes',
    empty: 'No node has answered yet.',
    key: (row) => row.id,
    columns: [
      { title: 'Node', href: link, text: (row) => row.name, kind: 'code' },
      { title: 'State', make: badge, refresh: (element, row) => tellState(element, row.state) },
      { title: 'CPU', make: meter, refresh: (element, row) => tellMeter(element, row.cpu) },
      {
        title: 'Connections',
        make: meter,
        refresh: (element, row) =>
          tellMeter(element, row.maxConnections ? row.connections / row.maxConnections : 0, count(row.connections)),
      },
      { title: 'Rooms', text: (row) => count(row.rooms), kind: 'number', level: 2 },
      { title: 'Events in', text: (row) => `${rate(row.latest.events)}/s`, kind: 'number', level: 2 },
      { title: 'Deliveries', text: (row) => `${rate(row.latest.deliveries)}/s`, kind: 'number' },
      { title: 'p50', text: (row) => span(row.latencyP50), kind: 'number', level: 3 },
      { title: 'p99', text: (row) => span(row.latencyP99), kind: 'number', level: 2 },
      {
        title: 'Loop lag',
        text: (row) => span(row.loopLag),
        kind: 'number',
        level: 2,
        tone: (row) => (row.loopLag > 0.25 ? 'bad' : row.loopLag > 0.05 ? 'warn' : ''),
      },
      { title: 'Memory', text: (row) => bytes(row.memory), kind: 'number', level: 2 },
      {
        title: 'Up',
        text: (row) => span(Math.floor(row.now - row.startedAt)),
        kind: 'number',
        level: 3,
        tip: (row) => `since ${moment(row.startedAt)}`,
      },
    ],
  });
}

export const nodeRows = (series) => series.nodes.map((node) => ({ ...node, latest: series.latest(node.id) }));

export function nodesView({ root, signal }) {
  const head = heading('Nodes');
  const trouble = new Trouble();
  const table = nodeTable();
  const comparison = new Comparison(signal);
  root.append(head.element, trouble.element, panel('', { wide: true }, table.element), comparison.element);
  pollNodes({
    signal,
    trouble,
    onNodes(series) {
      const states = series.nodes.map((node) => node.state);
      const ill = states.filter((state) => state !== 'ok').length;
      head.note(`${counted(states.length, 'node')}${ill ? `, ${ill} not ready` : ', all ready'}`);
      table.update(nodeRows(series));
      comparison.update(series);
    },
  });
}

export function nodeView({ root, signal, params: [id] }) {
  const state = badge();
  const head = heading(id, { back: ['#/nodes', 'Nodes'], actions: [state] });
  const trouble = new Trouble();
  const about = new Facts('four');
  const reliability = new Reliability();
  const drawn = charts(signal, true);
  root.append(
    head.element,
    trouble.element,
    h(
      'div',
      { class: 'charts' },
      drawn.map((chart) => chart.element),
    ),
    h('div', { class: 'panels' }, panel('This node', { wide: true }, about.element), reliability.elements),
  );
  const title = head.element.querySelector('h1');
  pollNodes({
    signal,
    trouble,
    onNodes(series) {
      const node = series.nodes.find((one) => one.id === id);
      if (!node) {
        tellState(state, 'gone');
        trouble.show({ message: 'This node does not answer: it has stopped, or it has begun anew under another id.' });
        return;
      }
      title.textContent = node.name;
      tellState(state, node.state);
      head.note([node.url, `version ${node.version}`, `up ${span(Math.floor(node.now - node.startedAt))}`].filter(Boolean).join(' · '));
      const columns = series.columns(id);
      for (const chart of drawn) chart.update(columns);
      about.update([
        ['Id', node.id],
        ['Connections', `${count(node.connections)}${node.maxConnections ? ` of ${count(node.maxConnections)}` : ''}`],
        ['Users', count(node.users)],
        ['Rooms', count(node.rooms)],
        ['Latency p50 / p95 / p99', [node.latencyP50, node.latencyP95, node.latencyP99].map(span).join(' / ')],
        ['CPU', percent(node.cpu)],
        ['Memory', bytes(node.memory)],
        ['Events in', count(node.events)],
        ['Deliveries', count(node.deliveries)],
        ['Messages in / out', `${count(node.messagesIn)} / ${count(node.messagesOut)}`],
        ['Bytes in / out', `${bytes(node.bytesIn)} / ${bytes(node.bytesOut)}`],
        ['Started', ago(node.startedAt, node.now)],
      ]);
      reliability.update([node]);
    },
  });
}
