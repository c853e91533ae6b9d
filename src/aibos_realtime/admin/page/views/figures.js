// The figures of all nodes, or of one: charts of the last ten minutes, and what there is to say about reliability.

import { Chart } from '../chart.js';
import { fill, h } from '../dom.js';
import { bytes, count, percent, rate, span } from '../format.js';
import { Bars, panel } from '../parts.js';
import { poll } from '../poll.js';
import { Series } from '../series.js';
import { session } from '../session.js';
import { Facts } from '../table.js';

/** Kept while the page lives, so that the charts are full again when one comes back. */
const series = new Series();

/** Ask for the nodes once a second; `onNodes(series)` each time. */
export function pollNodes({ signal, onNodes, trouble }) {
  return poll(
    1,
    async () => {
      const hadNone = series.nodes.length === 0;
      series.add((await session.ask('nodes', series.query)).nodes);
      if (hadNone) series.add((await session.ask('nodes', series.query)).nodes);
      if (signal.aborted) return;
      trouble.clear();
      onNodes(series);
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}

const MEMORY = 32 * 1024 * 1024;
const BINARY = Array.from({ length: 40 }, (_, power) => 2 ** power);
const isOfBytes = ([line]) => ['memory', 'bytesOut'].includes(line.column);
const perSecond = (value) => `${rate(value)}/s`;

export function charts(signal, isOne) {
  const worst = isOne ? '' : ' of the worst node';
  const make = (title, lines, format, least, note) =>
    new Chart({ title, lines, format, least, note, signal, steps: isOfBytes(lines) ? BINARY : undefined });
  const one = (column, name = column) => ({ column, name, tone: 'one', isFilled: true });
  const two = (column, name = column) => ({ column, name, tone: 'two' });
  return [
    make('Connections', [one('connections')], count, 4, 'WebSocket connections that are open'),
    make(
      'Events in',
      [one('events', 'events'), two('messages', 'messages')],
      perSecond,
      4,
      'Events published to rooms, and messages of clients of every kind, per second',
    ),
    make('Deliveries out', [one('deliveries')], perSecond, 4, 'Events × members written to, per second'),
    make('Latency', [two('latencyP99', 'p99'), one('latencyP50', 'p50')], span, 0.002, `From publish to the last member’s write${worst}`),
    make('Loop lag', [one('loopLag')], span, 0.005, `The longest that the event loop was late within each second${worst}`),
    make('CPU', [one('cpu')], percent, 0.1, `Share of a core${isOne ? '' : ' of the busiest node'}`),
    make('Memory', [one('memory')], bytes, MEMORY, isOne ? 'Resident' : 'Resident, of all nodes together'),
    make('Traffic', [one('bytesOut', 'out'), two('bytesIn', 'in')], (value) => `${bytes(value)}/s`, 1024, 'Bytes of frames per second'),
  ];
}

const TONES = ['one', 'two', 'three', 'four', 'five', 'six'];

/** Charts in which every node is a line, of as many nodes as there are colours. `update(series)`. */
export class Comparison {
  constructor(signal) {
    this.element = h('div', { class: 'charts' });
    this._shown = '';
    this._charts = [];
    signal.addEventListener('abort', () => this._drawing?.abort());
  }

  update(series) {
    const nodes = series.nodes.slice(0, TONES.length);
    const mark = nodes.map((node) => `${node.id} ${node.name}`).join('\n');
    if (mark !== this._shown) {
      this._shown = mark;
      this._begin(nodes);
    }
    const columns = nodes.map((node) => series.columns(node.id));
    for (const [chart, figure] of this._charts) {
      chart.update(Object.fromEntries([['times', columns[0].times], ...nodes.map((node, number) => [node.id, columns[number][figure]])]));
    }
  }

  _begin(nodes) {
    this._drawing?.abort();
    this._drawing = new AbortController();
    const lines = nodes.map((node, number) => ({ name: node.name, column: node.id, tone: TONES[number] }));
    const make = (title, figure, format, least) => [new Chart({ title, lines, format, least, signal: this._drawing.signal }), figure];
    this._charts = [
      make('Connections', 'connections', count, 4),
      make('Deliveries out', 'deliveries', perSecond, 4),
      make('CPU', 'cpu', percent, 0.1),
      make('Loop lag', 'loopLag', span, 0.005),
    ];
    fill(
      this.element,
      this._charts.map(([chart]) => chart.element),
    );
  }
}

const MEANINGS = {
  1000: 'normal',
  1001: 'going away',
  1002: 'protocol error',
  1003: 'unsupported data',
  1005: 'no code given',
  1006: 'cut off',
  1007: 'invalid text',
  1008: 'policy',
  1009: 'message too big',
  1011: 'internal error',
  1012: 'restarting',
  4001: 'shutting down',
  4004: 'internal error',
  4005: 'token expired',
  4008: 'too slow',
  4010: 'insufficient state',
  4011: 'moved to another node',
  4012: 'no sign of life',
  4013: 'too many requests',
  4014: 'rights changed',
  4015: 'overloaded',
  4500: 'token invalid',
  4501: 'bad request',
  4502: 'not authenticated in time',
  4503: 'disconnected by an operator',
  4504: 'connection limit',
  4506: 'unsupported version',
  4507: 'permission denied',
  4509: 'too many errors',
};
const QUIET = new Set([1000, 1001, 4001, 4011]);
const REFUSED = {
  400: 'no proper handshake',
  401: 'bad token',
  403: 'forbidden origin',
  404: 'no such path',
  408: 'too slow',
  426: 'no upgrade',
  429: 'too fast',
  431: 'headers too large',
  503: 'no place',
};

export const meaningOf = (code) => MEANINGS[code] ?? '';

/** Panels of close codes, refused handshakes and reliability. `update(nodes)`. */
export class Reliability {
  constructor() {
    this._codes = new Bars('No connection has ended yet.');
    this._refused = new Bars('None was refused.');
    this._kept = new Facts();
    this._limits = new Facts();
    this.elements = [
      panel('Continuity', {}, this._kept.element),
      panel('Limits and failures', {}, this._limits.element),
      panel('How connections ended', {}, this._codes.element, h('h3', {}, 'Handshakes refused'), this._refused.element),
    ];
  }

  update(nodes) {
    const sum = (name) => nodes.reduce((total, node) => total + (node[name] ?? 0), 0);
    const worst = (name) =>
      nodes.reduce((most, node) => (node[name] === null || node[name] === undefined ? most : Math.max(most ?? 0, node[name])), null);
    const fact = (title, name, tone) => [title, count(sum(name)), sum(name) > 0 ? tone : ''];
    this._kept.update([
      fact('Gaps repaired', 'gapsRepaired'),
      fact('Gaps lost', 'gapsLost', 'bad'),
      fact('Recoveries', 'recoveries'),
      fact('Recoveries failed', 'recoveriesFailed', 'warn'),
      fact('Resyncs', 'resyncs', 'warn'),
      fact('Subscriptions repaired', 'subscriptionsRepaired'),
      ['Probe through Redis', worst('probeLag') === null ? 'one node' : span(worst('probeLag')), worst('probeLag') > 1 ? 'warn' : ''],
      ['Waiting for the store', nodes.some((node) => node.storeWaiting !== null) ? count(sum('storeWaiting')) : 'nothing'],
      fact('Commits', 'commits'),
      fact('Commits failed', 'commitFailures', 'bad'),
    ]);
    this._limits.update([
      fact('Slow consumers closed', 'slowCloses', 'warn'),
      ['Waiting in outboxes', bytes(sum('outboxBytes'))],
      fact('Volatile events dropped', 'volatileDropped', 'warn'),
      fact('Rate limited', 'rateLimited', 'warn'),
      fact('Publishes refused', 'publishesRefused', 'warn'),
      fact('Handlers failed', 'handlerFailures', 'bad'),
      fact('Connections failed', 'connectionsFailed'),
      fact('Connections in all', 'connectionsTotal'),
      fact('Most at once', 'peakConnections'),
      fact('Foreign records', 'foreignRecords', 'warn'),
    ]);
    this._codes.update(
      tally(nodes, 'closeCodes', (code) => [code, meaningOf(code) || 'of the application', QUIET.has(Number(code)) ? '' : 'warn']),
      count,
    );
    this._refused.update(
      tally(nodes, 'handshakesRefused', (status) => [status, REFUSED[status] ?? '', 'warn']),
      count,
    );
  }
}

/** `[[code, meaning, count, tone], …]`, the most frequent first. */
function tally(nodes, name, describe) {
  const totals = new Map();
  for (const node of nodes) for (const [code, value] of Object.entries(node[name])) totals.set(code, (totals.get(code) ?? 0) + value);
  const found = [...totals].filter(([, value]) => value > 0).sort((one, other) => other[1] - one[1]);
  return found.map(([code, value]) => {
    const [label, meaning, tone] = describe(code);
    return [label, meaning, value, tone];
  });
}
