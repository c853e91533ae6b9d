/** A clock that stands still: `advance` moves it, and what was planned for then happens in order, each with all that follows from it. */

const real = { setTimeout, clearTimeout, setImmediate, now: Date.now };

/** Until everything that could happen now has happened. */
export const settle = async (turns = 4) => {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => real.setImmediate(resolve));
};

export class Clock {
  constructor() {
    this.now = 1_700_000_000_000;
    this.timers = new Map();
    this.count = 0;
  }

  /** Take the place of the real one until the test is over. */
  install(test) {
    globalThis.setTimeout = (callback, delay = 0, ...args) => {
      this.timers.set(++this.count, { callback: () => callback(...args), due: this.now + delay });
      return this.count;
    };
    globalThis.clearTimeout = (id) => this.timers.delete(id);
    Date.now = () => this.now;
    test.after(() => {
      Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
      Date.now = real.now;
    });
    return this;
  }

  /** So many milliseconds pass. */
  async advance(milliseconds) {
    const end = this.now + milliseconds;
    await settle();
    for (;;) {
      const next = [...this.timers].filter(([, timer]) => timer.due <= end).sort(([a, one], [b, other]) => one.due - other.due || a - b)[0];
      if (!next) break;
      this.now = Math.max(this.now, next[1].due);
      this.timers.delete(next[0]);
      next[1].callback();
      await settle();
    }
    this.now = end;
  }

  /** The machine sleeps: time passes, and no timer runs. */
  sleep(milliseconds) {
    this.now += milliseconds;
  }
}
