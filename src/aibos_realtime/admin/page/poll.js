// Asking again and again, as long as somebody looks.

import { session } from './session.js';

/**
 * Run `ask` now, and again `seconds` after it has ended; not while the tab is hidden or the connection is away, and at once when they are back.
 * Returns a function that asks out of turn. `signal` ends it. `onError` hears of a request that was refused.
 */
export function poll(seconds, ask, { signal, onError = () => {} }) {
  let timer = null;
  let isRunning = false;
  let isWanted = false;

  async function run() {
    clearTimeout(timer);
    timer = null;
    if (signal.aborted) return;
    if (isRunning) {
      isWanted = true;
      return;
    }
    if (document.hidden || session.state !== 'open') return;
    isRunning = true;
    try {
      await ask();
    } catch (error) {
      if (!signal.aborted && session.state === 'open') onError(error);
    } finally {
      isRunning = false;
    }
    if (signal.aborted) return;
    if (isWanted) {
      isWanted = false;
      run();
    } else {
      timer = setTimeout(run, seconds * 1000);
    }
  }

  document.addEventListener('visibilitychange', run, { signal });
  session.addEventListener('state', run, { signal });
  signal.addEventListener('abort', () => clearTimeout(timer));
  run();
  return run;
}
