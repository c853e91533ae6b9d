/**
 * What a browser tells of the life of its page: `online`, `offline`, waking up, being frozen or put into the back/forward cache.
 * In Node nothing of it ever happens.
 */

/** `onWake`: look after the connection now. `onFreeze`: it has to be closed. `onThaw`: the page is back. Returned is a function that ends it. */
export const watchPage = (onWake, onFreeze, onThaw) => {
  const ending = new AbortController();
  const page = globalThis.document;
  const listen = (target, name, listener) => target?.addEventListener?.(name, listener, ending);
  listen(globalThis, "online", onWake);
  listen(globalThis, "offline", onWake);
  listen(page, "visibilitychange", () => page.visibilityState == "visible" && onWake());
  listen(page, "freeze", onFreeze);
  listen(page, "resume", onThaw);
  listen(globalThis, "pagehide", ({ persisted }) => persisted && onFreeze());
  listen(globalThis, "pageshow", ({ persisted }) => persisted && onThaw());
  return () => ending.abort();
};
