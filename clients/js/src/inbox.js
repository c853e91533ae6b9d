/**
 * What the application is told: callbacks and iterators, one thing after the other, outside the reader of the connection.
 *
 * A callback may take its time (the next one waits for its promise) and may await the client's own calls: answers do not come this way.
 */

import { check } from "./options.js";
import { overloaded } from "./errors.js";
import { toPosition } from "./wire.js";

/** Turns of the microtask queue before each delivery, so that code which awaits an answer goes on before the events that follow the answer.
 * In browsers each message is a task of its own and this costs nothing; in Node several messages may come in one. */
const TURNS = 9;

/**
 * An item has `_name` and `_args`; perhaps `_event` (of a room), `_ends` (the room whose iterators end here, "*" for all) with `_error`, and
 * `_done(answer)`, called once the callbacks have returned or failed; `answer` is `[value]` of the first one that returned.
 */
export const makeInbox = () => {
  const callbacks = new Map();
  const iterators = new Set();
  let items = [];
  let isRunning;

  const of = (name) => callbacks.get(name) ?? [];

  const drop = (name, test) =>
    void callbacks.set(
      name,
      of(name).filter((one) => !test(one)),
    );

  const end = ({ _ends: ends, _error: error }) => {
    for (const iterator of iterators) if (ends == "*" || ends == iterator._room) iterator._finish(error);
  };

  const run = async () => {
    isRunning = true;
    while (items[0]) {
      for (let turn = 0; turn < TURNS; turn++) await 0;
      const item = items.shift() ?? { _args: [] };
      const name = item._name;
      let answer;
      for (const iterator of iterators) if (iterator._room == item._event?.room) iterator._push(item._event);
      for (const entry of of(name)) {
        if (entry._once) drop(name, (one) => one == entry);
        try {
          const value = await entry._callback(...item._args);
          answer ??= [value];
        } catch (error) {
          // Ahead of what waits: the failure belongs to what was just told.
          if (name != "error" && of("error")[0]) items.unshift({ _name: "error", _args: [error] });
          else console.error(`aibos-realtime: a callback for "${name}" failed.`, error);
        }
      }
      end(item);
      item._done?.(answer);
    }
    isRunning = false;
  };

  /** Tell it after everything that waits already. */
  const push = (item) => {
    items.push(item);
    if (!isRunning) run();
  };

  return {
    drop,
    push,
    tell: (name, ...args) => push({ _name: name, _args: args }),

    /** Call it for `name` from now on. Returned is a function that ends this. */
    add(name, callback, once, signal) {
      const entry = { _callback: check("callback", callback, drop), _once: once };
      const off = () => drop(name, (one) => one == entry);
      if (!signal?.aborted) callbacks.set(name, [...of(name), entry]);
      signal?.addEventListener("abort", off);
      return off;
    },

    /** Tell nothing of what waits. */
    discard: () => items.splice(0).forEach(end),

    /** Where the iterators of a room are. */
    places: (room) => [...iterators].filter((one) => one._room == room).map((one) => one.position),

    /**
     * The events of a room from now on. It ends when the room is left or the client closed, after the events that came before; it throws the
     * client's error when the client gave up, and `overloaded` when more than `size` events wait: a consumer that is slow costs only itself.
     * `position`: up to where the consumer is done; an event counts as done when the next one is asked for.
     */
    iterate(room, position, size) {
      const waiting = [];
      let hasEnded, failure, wake;

      const run = async function* () {
        for (;;) {
          const event = waiting.shift();
          if (event) {
            yield event;
            if (event.epoch) iterator.position = toPosition(event);
          } else if (!hasEnded) await new Promise((resolve) => (wake = resolve));
          else if (failure) throw failure;
          else return;
        }
      };

      const iterator = run();
      const stop = iterator.return.bind(iterator);
      iterator.position = position;
      iterator._room = room;
      iterator._finish = (error) => {
        hasEnded = true;
        failure = error;
        iterators.delete(iterator);
        wake?.();
      };
      iterator._push = (event) => {
        if (waiting.push(event) > size) iterator._finish(overloaded(waiting.pop()));
        wake?.();
      };
      /** Take no more events, and forget the waiting ones. A `break` out of the loop does it. */
      iterator.return = () => {
        waiting.length = 0;
        iterator._finish();
        return stop();
      };
      iterators.add(iterator);
      return iterator;
    },
  };
};
