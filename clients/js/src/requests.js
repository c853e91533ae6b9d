/**
 * What a client has asked and not yet heard of: refs, deadlines, what waits while offline, and what is sent again after a loss.
 *
 * Messages go out in the order in which they were made. What had to wait (the backlog) goes out `WINDOW` at a time, so that a long outage does
 * not end in refusals for sending too fast; one that is refused for that alone waits for its turn again, and the others with it.
 */

import { RealtimeError, overloaded, readError, retryAfter } from "./errors.js";
import { check } from "./options.js";

const WINDOW = 16; // messages of the backlog that are on their way at once; below the burst that a server allows
const TRIES = 5;

// Kinds of requests. One that acts on a connection goes out at once, or not at all.
export const ACT = 0;
/** A message to a handler: once it was sent, its outcome is unknown. */
export const ONCE = 1;
/** A publish (under its first id), or a question: sent again until it is answered. */
export const REPEAT = 2;

/** `isHeld()`: whether messages have to wait. */
export const makeRequests = ({ bufferSize, requestTimeout }, isHeld) => {
  const requests = new Map(); // by ref
  let last = 0; // ref
  let space = WINDOW;
  let pace = 0; // milliseconds between two of the backlog, once the server has refused one for its rate
  let socket, maxBytes, pause;

  const write = (head, data) => {
    const text = JSON.stringify(head).slice(0, -1) + (data === undefined ? "}" : `,"data":${data}}`);
    if (text.length * 3 > maxBytes && new TextEncoder().encode(text).length > maxBytes) {
      throw new RealtimeError(`The server takes ${maxBytes} bytes.`, { code: "message_too_large" });
    }
    // A browser complains of what is sent into a closing socket; the loss that comes next settles what it was for.
    if (socket.readyState == 1) socket.send(text);
  };

  /** It is over: answered, failed or given up. */
  const close = (request, error, value) => {
    clearTimeout(request._timer);
    if (requests.delete(request._head.ref)) request._then(error, value);
    pump();
  };

  const watch = (request, time) => {
    clearTimeout(request._timer);
    const late = () => close(request, new RealtimeError("No answer came in time: the outcome is unknown.", { code: "timeout", retryable: true }));
    request._timer = setTimeout(late, time);
  };

  const send = (request) => {
    request._isSent = true;
    if (!request._timeout) watch(request, requestTimeout);
    try {
      write(request._head, request._data);
    } catch (error) {
      close(request, error);
    }
  };

  const takeBack = (request) => {
    request._isSent = false;
    request._isBacklog = true;
    if (!request._timeout) clearTimeout(request._timer);
  };

  const backlog = () => [...requests.values()].filter((one) => one._isBacklog);

  /** Send of the backlog what may go. */
  const pump = () => {
    const all = backlog();
    const waiting = all.filter((one) => !one._isSent);
    if (!all[0]) calm();
    if (isHeld() || pause) return;
    const next = waiting.slice(0, Math.max(space + waiting.length - all.length, 0));
    next.forEach(send);
    if (next[0] && pace) rest();
  };

  const calm = () => {
    clearTimeout(pause);
    space = WINDOW;
    pace = pause = 0;
  };

  const rest = () => {
    clearTimeout(pause);
    pause = setTimeout(() => pump((pause = 0)), pace);
  };

  /** A new request; `then(error, answer)` is called once. Returned is what takes it back. Throws when as many messages wait as may. */
  const ask = (kind, head, data, timeout, then) => {
    if (timeout !== undefined) check("timeout", timeout, 1);
    if (kind && requests.size >= bufferSize) throw overloaded();
    const request = { _kind: kind, _head: { ...head, ref: ++last }, _data: data, _timeout: timeout, _then: then, _tries: 0 };
    request._isBacklog = kind && (isHeld() || backlog()[0]);
    requests.set(last, request);
    if (timeout) watch(request, timeout);
    if (!request._isBacklog) send(request);
    return () => {
      request._then = () => {};
      close(request);
    };
  };

  const takeAnswer = (message) => {
    const request = requests.get(message.ref);
    if (!request) return; // a late or second answer
    const error = /^(err|perm)/.test(message.event) && readError(message);
    if (error.code == "rate_limited" && request._isBacklog && request._tries++ < TRIES) {
      takeBack(request);
      space = 1;
      pace = Math.max(pace, retryAfter(error, 1000));
      rest();
    } else close(request, error, message.data);
  };

  return {
    ask,
    pump,
    takeAnswer,

    /** There is a connection. */
    use(to, limit) {
      socket = to;
      maxBytes = limit;
    },

    /** A message without an answer, at most once. */
    emit(head, data) {
      if (socket.bufferedAmount > 2 ** 20) throw overloaded();
      write(head, data);
    },

    /** The connection is gone. What can be repeated waits for the next one, if one comes; the rest is over. */
    drop(error, keepsSent, isFinal) {
      calm();
      for (const request of requests.values()) {
        if (!isFinal && request._kind && (!request._isSent || (keepsSent && request._kind == REPEAT))) takeBack(request);
        else close(request, error);
      }
    },
  };
};
