// The samples of all nodes of the last ten minutes, and what is drawn of them. Nothing here touches the page.

export const WINDOW = 600;
/** Samples of a request at the most, of all nodes together: an answer has to fit the connection's outbox. */
const SAMPLES = 3000;
const SHORTEST = 60; // seconds that are drawn of a server that has just started
const HELD = 3; // seconds for which a node's last value stands in for a missing one

/** How the figures of several nodes make one: counts and rates are added up, of what hurts the worst node counts. */
const FIGURES = {
  connections: { from: 'connections', join: 'sum' },
  rooms: { from: 'rooms', join: 'max' },
  messages: { from: 'messagesIn', join: 'sum', isTotal: true },
  events: { from: 'events', join: 'sum', isTotal: true },
  deliveries: { from: 'deliveries', join: 'sum', isTotal: true },
  bytesIn: { from: 'bytesIn', join: 'sum', isTotal: true },
  bytesOut: { from: 'bytesOut', join: 'sum', isTotal: true },
  latencyP50: { from: 'latencyP50', join: 'max' },
  latencyP99: { from: 'latencyP99', join: 'max' },
  loopLag: { from: 'loopLag', join: 'max' },
  cpu: { from: 'cpu', join: 'max' },
  memory: { from: 'memory', join: 'sum' },
};

/** The nodes as they were last told, with the samples of each. */
export class Series {
  constructor() {
    this.nodes = [];
    this._kept = new Map(); // node id → Map(second → sample as an object)
  }

  /** What the next request asks for. */
  get query() {
    if (this.nodes.length === 0) return { samples: 1 };
    const isFirst = [...this._kept.values()].every((kept) => kept.size <= 1);
    const lasts = this.nodes.map((node) => Math.max(0, ...(this._kept.get(node.id)?.keys() ?? [])));
    return { samples: Math.min(WINDOW, Math.floor(SAMPLES / this.nodes.length)), since: isFirst ? 0 : Math.min(...lasts) };
  }

  /** Take an answer in. */
  add(nodes) {
    this.nodes = nodes;
    const living = new Set(nodes.map((node) => node.id));
    for (const id of this._kept.keys()) if (!living.has(id)) this._kept.delete(id);
    for (const node of nodes) {
      const kept = this._kept.get(node.id) ?? new Map();
      const { time, ...columns } = node.samples;
      time.forEach((at, number) => {
        const sample = { time: at };
        for (const [name, values] of Object.entries(columns)) sample[name] = values[number];
        kept.set(Math.floor(at), sample);
      });
      const newest = Math.max(...kept.keys());
      for (const second of kept.keys()) if (second < newest - WINDOW) kept.delete(second);
      this._kept.set(node.id, kept);
    }
  }

  /** The newest second of any node. */
  get end() {
    return Math.max(0, ...[...this._kept.values()].flatMap((kept) => (kept.size ? [Math.max(...kept.keys())] : [])));
  }

  /** `{times, connections, events, …}`, one value a second (null: not known) as far back as any node knows, of all nodes or of one. */
  columns(id = null) {
    const end = this.end;
    const known = [...this._kept.values()].flatMap((kept) => [...kept.keys()]).reduce((least, second) => Math.min(least, second), end);
    const length = Math.min(WINDOW, Math.max(SHORTEST, end - known + 1));
    const times = Array.from({ length }, (_, number) => end - length + 1 + number);
    const nodes = [...this._kept].filter(([node]) => id === null || node === id).map(([, kept]) => of(kept, times));
    const found = { times };
    for (const [name, { join }] of Object.entries(FIGURES)) {
      found[name] = times.map((_, number) =>
        joined(
          nodes.map((node) => node[name][number]),
          join,
        ),
      );
    }
    return found;
  }

  /** The newest values of one node, rates included. */
  latest(id) {
    const kept = this._kept.get(id);
    if (!kept?.size) return {};
    const second = Math.max(...kept.keys());
    const columns = of(kept, [second - 1, second]);
    return Object.fromEntries(Object.keys(FIGURES).map((name) => [name, columns[name][1]]));
  }
}

/** One node's figures at these seconds. */
function of(kept, times) {
  const found = Object.fromEntries(Object.keys(FIGURES).map((name) => [name, []]));
  let before = null;
  for (const second of times) {
    const sample = kept.get(second);
    const previous = previousOf(kept, second);
    for (const [name, { from, isTotal }] of Object.entries(FIGURES)) {
      let value = null;
      if (sample) value = isTotal ? perSecond(sample, previous, from) : (sample[from] ?? null);
      else if (before && second - Math.floor(before.time) <= HELD) value = found[name].at(-1) ?? null;
      found[name].push(value);
    }
    if (sample) before = sample;
  }
  return found;
}

function previousOf(kept, second) {
  for (let back = 1; back <= HELD; back += 1) {
    const sample = kept.get(second - back);
    if (sample) return sample;
  }
  return null;
}

/** Null for a node that has begun anew, whose totals are smaller. */
function perSecond(sample, previous, from) {
  const passed = previous ? sample.time - previous.time : 0;
  const grown = previous ? sample[from] - previous[from] : -1;
  return passed > 0 && grown >= 0 ? grown / passed : null;
}

function joined(values, join) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.length === 0) return null;
  return join === 'sum' ? known.reduce((sum, value) => sum + value, 0) : Math.max(...known);
}

/** The last value of a column that is known. */
export const last = (column) => column.findLast((value) => value !== null) ?? null;
