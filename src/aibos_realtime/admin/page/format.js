// Numbers, sizes and times for people. What is not known is a dash.

export const NONE = '–';

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat('en', { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const known = (value) => typeof value === 'number' && Number.isFinite(value);

/** 12,345 */
export const count = (value) => (known(value) ? WHOLE.format(value) : NONE);

/** "1 node", "3 nodes". */
export const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** 0.4, 12, 3,456: of things per second. */
export function rate(value) {
  if (!known(value)) return NONE;
  return value > 0 && value < 10 && !Number.isInteger(value) ? TENTHS.format(value) : WHOLE.format(value);
}

/** 512 B, 1.5 KiB, 48 MiB: two digits at least. */
export function bytes(value) {
  if (!known(value)) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${step > 0 && value < 10 ? TENTHS.format(value) : WHOLE.format(value)} ${units[step]}`;
}

/** Of seconds: 85 µs, 1.2 ms, 35 s, 2 min 10 s, 3 h 5 min, 4 d 2 h. */
export function span(value) {
  if (!known(value)) return NONE;
  if (value < 0) value = 0;
  if (value < 0.001) return `${WHOLE.format(value * 1e6)} µs`;
  if (value < 1) return `${value < 0.1 ? TENTHS.format(value * 1e3) : WHOLE.format(value * 1e3)} ms`;
  if (value < 10) return `${TENTHS.format(value)} s`;
  const seconds = Math.round(value);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return pair(seconds, 60, 'min', 's');
  if (seconds < 86400) return pair(Math.floor(seconds / 60), 60, 'h', 'min');
  return pair(Math.floor(seconds / 3600), 24, 'd', 'h');
}

function pair(value, base, large, small) {
  const rest = value % base;
  return rest ? `${Math.floor(value / base)} ${large} ${rest} ${small}` : `${Math.floor(value / base)} ${large}`;
}

/** 0.123 as 12.3 %. */
export function percent(value) {
  if (!known(value)) return NONE;
  return `${value < 0.1 ? TENTHS.format(value * 100) : WHOLE.format(value * 100)} %`;
}

/** How long before `now` (both Unix seconds): "5 s ago". In whole seconds, so that it changes no more than once a second. */
export function ago(time, now) {
  return known(time)
    ? `${span(Math.max(0, Math.round(now - time)) || 0)
        .replace('0 µs', '0 s')
        .replace('.0 s', ' s')} ago`
    : NONE;
}

/** 14:03:27, with the day where it is not today's. `time`: Unix seconds, or a text of RFC 3339. */
export function clock(time) {
  const date = typeof time === 'string' ? new Date(time) : new Date(time * 1000);
  if (Number.isNaN(date.getTime())) return NONE;
  const text = date.toLocaleTimeString('en-GB');
  return date.toDateString() === new Date().toDateString() ? text : `${day(date)} ${text}`;
}

const day = (date) => date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });

/** With everything, for titles. */
export function moment(time) {
  const date = typeof time === 'string' ? new Date(time) : new Date(time * 1000);
  return Number.isNaN(date.getTime()) ? NONE : date.toISOString();
}
