// A small chart of the last minutes, with its present value beside the title; under the pointer, the values of that moment, in all charts at once.

import { h, say } from './dom.js';
import { last } from './series.js';
import { clock } from './format.js';
import { themes } from './theme.js';

const HEIGHT = 104;
const all = new Set();

themes.addEventListener('change', () => all.forEach((chart) => chart.redraw()));

export class Chart {
  /**
   * `lines`: `[{name, column, tone, isFilled}]`, tones `one` to `six`; `format`: of a value; `least`: the smallest top of the scale; `steps`:
   * between the lines of its grid.
   */
  constructor({ title, note, lines, format, least = 1, steps, signal }) {
    this._lines = lines;
    this._format = format;
    this._title = title;
    this._least = least;
    this._steps = steps;
    this._columns = null;
    this._values = lines.map(() => h('strong', { class: 'value' }, '–'));
    const named = lines.map((line, number) =>
      lines.length > 1 ? h('span', { class: `mark ${line.tone}` }, line.name, ' ', this._values[number]) : this._values[number],
    );
    this._at = h('span', { class: 'at' });
    this._box = h('div', { class: 'plot', role: 'img', 'aria-label': title });
    this.element = h(
      'figure',
      { class: 'chart' },
      h(
        'figcaption',
        { title: note ?? null },
        h('span', { class: 'title' }, title),
        h('span', { class: lines.length > 2 ? 'values many' : 'values' }, named),
      ),
      this._box,
      this._at,
    );
    this._resize = new ResizeObserver(() => this._fit());
    this._resize.observe(this._box);
    all.add(this);
    signal.addEventListener('abort', () => {
      this._resize.disconnect();
      this._plot?.destroy();
      all.delete(this);
    });
  }

  update(columns) {
    this._columns = columns;
    if (this._plot) this._plot.setData(this._data());
    else this._fit();
    if (this._plot?.cursor.idx === null || this._plot?.cursor.idx === undefined) this._tell(null);
  }

  redraw() {
    this._plot?.redraw(false, true);
  }

  _data() {
    return [this._columns.times, ...this._lines.map((line) => this._columns[line.column])];
  }

  _fit() {
    const width = this._box.clientWidth;
    if (!this._columns || width === 0) return;
    if (this._plot) this._plot.setSize({ width, height: HEIGHT });
    else this._plot = new window.uPlot(this._options(width), this._data(), this._box);
  }

  _tell(index) {
    const values = this._lines.map((line) => (index === null ? last(this._columns[line.column]) : this._columns[line.column][index]));
    values.forEach((value, number) => say(this._values[number], this._format(value)));
    say(this._at, index === null ? '' : clock(this._columns.times[index]));
    const text = this._lines.map((line, number) => `${line.name} ${this._format(values[number])}`).join(', ');
    if (index === null) this._box.setAttribute('aria-label', `${this._title}, the last ten minutes; now: ${text}`);
  }

  _options(width) {
    const shade = (name) => () => {
      const probe = this._probe ?? (this._probe = this._box.appendChild(h('i', { class: 'probe', 'aria-hidden': 'true' })));
      probe.dataset.ink = name;
      return getComputedStyle(probe).color;
    };
    const axis = { stroke: shade('quiet'), font: '11px system-ui, sans-serif', ticks: { show: false } };
    const grid = { stroke: shade('grid'), width: 1 };
    return {
      width,
      height: HEIGHT,
      padding: [8, 6, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: 'dashboard' }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
      select: { show: false },
      scales: {
        x: { time: true },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(this._least, (high ?? 0) * 1.08)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 22,
          gap: 6,
          space: 80,
          values: (_, times) => times.map((time) => (times[1] - times[0] < 60 ? clock(time) : clock(time).slice(0, 5))),
        },
        {
          ...axis,
          grid,
          size: 54,
          gap: 4,
          space: 34,
          incrs: this._steps,
          values: (_, values) => values.map((value) => this._format(value).replace('.0', '')),
        },
      ],
      series: [
        {},
        ...this._lines.map((line) => ({
          label: line.name,
          stroke: shade(line.tone),
          fill: line.isFilled ? shade(`${line.tone}-fill`) : undefined,
          width: 1.5,
          spanGaps: false,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [(plot) => this._tell(plot.cursor.idx ?? null)] },
    };
  }
}
