// The queues, and the dead letters of one: to look at, and to send again.

import { fill, h, say, toast } from '../dom.js';
import { clock, count, counted, moment, span } from '../format.js';
import { confirmAct, heading, panel, sentence, Trouble } from '../parts.js';
import { poll } from '../poll.js';
import { session } from '../session.js';
import { Facts, Table } from '../table.js';

const PAGE = 50;
const link = (row) => `#/queues/${encodeURIComponent(row.name)}`;

export function queuesView({ root, signal }) {
  const head = heading('Queues');
  const trouble = new Trouble();
  const table = new Table({
    label: 'Queues',
    empty: 'No queue is declared, and none holds anything.',
    key: (row) => row.name,
    columns: [
      { title: 'Queue', href: link, text: (row) => row.name, kind: 'code wide' },
      { title: 'Waiting', text: (row) => count(row.depth), kind: 'number' },
      { title: 'Dead letters', text: (row) => count(row.dead), kind: 'number', tone: (row) => (row.dead > 0 ? 'bad' : '') },
      { title: 'In flight', text: (row) => count(row.inFlight), kind: 'number', level: 2 },
      { title: 'Delayed', text: (row) => count(row.delayed), kind: 'number', level: 2 },
      { title: 'Oldest', text: (row) => span(row.oldestAge), kind: 'number', tone: (row) => (row.oldestAge > 60 ? 'warn' : '') },
      { title: 'Expired', text: (row) => count(row.expired), kind: 'number', level: 3 },
    ],
  });
  root.append(head.element, trouble.element, panel('', { wide: true }, table.element));
  poll(
    3,
    async () => {
      const { queues } = await session.ask('queues');
      if (signal.aborted) return;
      trouble.clear();
      table.update(queues);
      const dead = queues.reduce((sum, queue) => sum + queue.dead, 0);
      head.note(`${counted(queues.length, 'queue')}${dead ? `, ${counted(dead, 'dead letter')}` : ''}`);
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}

export function queueView({ root, signal, params: [name] }) {
  const all = h('button', { type: 'button', hidden: true, onclick: () => requeue(name, null, begin) }, 'Send all again');
  const head = heading(name, { back: ['#/queues', 'Queues'] });
  head.element.querySelector('h1').classList.add('code');
  const trouble = new Trouble();
  const about = new Facts('four');
  const list = h('ol', { class: 'letters', 'aria-label': 'Dead letters, the latest first' });
  const more = h('button', { type: 'button', hidden: true, onclick: () => readMore() }, 'Earlier ones');
  root.append(
    head.element,
    trouble.element,
    h(
      'div',
      { class: 'panels' },
      panel('', { wide: true }, about.element),
      panel('Dead letters', { wide: true, actions: [all] }, list, more),
    ),
  );
  let letters = [];
  let known = '';

  async function begin() {
    try {
      ({ letters } = await session.ask('dead', { queue: name, limit: PAGE }));
      if (!signal.aborted) draw(letters.length === PAGE);
    } catch (error) {
      trouble.show(error);
    }
  }

  async function readMore() {
    try {
      const { letters: found } = await session.ask('dead', { queue: name, limit: PAGE, before: letters.at(-1).place });
      letters = [...letters, ...found];
      draw(found.length === PAGE);
    } catch (error) {
      trouble.show(error);
    }
  }

  function draw(hasMore) {
    fill(
      list,
      letters.map((letter) => letterLine(letter, () => requeue(name, [letter.id], begin))),
    );
    if (letters.length === 0) list.append(h('li', { class: 'empty' }, 'None: every message was handled.'));
    more.hidden = !hasMore;
    all.hidden = letters.length === 0;
  }

  poll(
    3,
    async () => {
      const queue = (await session.ask('queues')).queues.find((one) => one.name === name);
      if (signal.aborted) return;
      trouble.clear();
      head.note(queue ? '' : 'There is no such queue, or it is empty and nobody declares it.');
      if (queue) {
        about.update([
          ['Waiting', count(queue.depth)],
          ['In flight', count(queue.inFlight)],
          ['Delayed', count(queue.delayed)],
          ['Oldest waits', span(queue.oldestAge), queue.oldestAge > 60 ? 'warn' : ''],
          ['Dead letters', count(queue.dead), queue.dead ? 'bad' : ''],
          ['Expired', count(queue.expired)],
        ]);
      }
      about.element.closest('section').hidden = !queue;
      const mark = `${queue?.dead}`;
      if (mark !== known) {
        known = mark;
        await begin();
      }
    },
    { signal, onError: (error) => trouble.show(error) },
  );
}

function letterLine(letter, onAgain) {
  const text = JSON.stringify(letter.data) ?? 'null';
  const whole = h('pre');
  const details = h('details', {}, h('summary', {}, h('code', {}, text.length > 300 ? `${text.slice(0, 300)}…` : text)), whole);
  details.addEventListener('toggle', () => say(whole, JSON.stringify(letter, null, 2)));
  return h(
    'li',
    {},
    h(
      'div',
      { class: 'letter-head' },
      h('time', { datetime: letter.buriedAt, title: moment(letter.buriedAt) }, clock(letter.buriedAt)),
      h('span', { class: 'reason' }, letter.reason),
      h('span', { class: 'note' }, `${counted(letter.attempts, 'attempt')}${letter.key ? ` · key ${letter.key}` : ''}`),
      h('button', { type: 'button', class: 'small', 'aria-label': `Send ${letter.id} again`, onclick: onAgain }, 'Send again'),
    ),
    details,
  );
}

async function requeue(queue, ids, onDone) {
  const many = ids ? 'This message goes' : 'All dead letters go';
  const text = `${many} back to the end of ${queue}, with all attempts to come.`;
  if (!(await confirmAct({ title: ids ? 'Send again?' : 'Send all again?', text, act: 'Send again' }))) return;
  try {
    const { count: sent } = await session.ask('requeue', ids ? { queue, ids } : { queue });
    toast(`${count(sent)} sent again.`);
  } catch (error) {
    toast(sentence(error), 'bad');
  }
  onDone();
}
