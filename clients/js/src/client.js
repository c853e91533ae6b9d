/** `RealtimeClient`: what an application sees of the client. It checks what it is given and passes it on; the work is done beside it. */

import { ConnectionError } from "./errors.js";
import { makeConnection } from "./connection.js";
import { makeInbox } from "./inbox.js";
import { check, checkEvent, checkOwnEvent, checkRoom, checkToken, fail, readOptions } from "./options.js";
import { ONCE, REPEAT } from "./requests.js";
import { makeSession } from "./session.js";
import { isPosition, pack, toEvent, toPosition } from "./wire.js";

/**
 * A promise that a signal can end. `start(then)` begins; `then(error, value)` settles the promise. What it returns is called to take back what
 * nobody waits for any more.
 */
const call = (signal, start) => {
  let abort;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const takeBack = start((error, value) => (error ? reject(error) : resolve(value)));
    abort = () => {
      reject(signal.reason);
      takeBack?.();
    };
    signal?.addEventListener("abort", abort);
  }).finally(() => signal?.removeEventListener("abort", abort));
};

const isReceipt = (data) => data && Object.keys(data).sort().join() == "duplicate,epoch,id,offset";

/** A position that was given. */
const readPosition = (name, value) => {
  if (value === undefined) return;
  return toPosition(isPosition(value) ? value : fail(name, value, "a position, { epoch, offset }"));
};

/**
 * A connection to a realtime server that outlives its sockets. After a loss it connects again, joins its rooms, recovers what was missed, and
 * repeats unacknowledged publishes under their first id. Nothing happens before `connect`.
 */
export class RealtimeClient {
  constructor(given) {
    const options = readOptions(given);
    const client = this;
    const waiters = new Set(); // in `connect`
    const { push, tell, add, drop, discard, places, iterate } = makeInbox();
    let session, connection, failure;

    const setState = (state) => {
      client.state = state;
      tell("state-change", state);
      if (state == "connected") release();
    };

    const release = (error) => {
      for (const waiter of waiters) waiter(error);
      waiters.clear();
    };

    /** No further attempt comes by itself. `lost`: what iterators end with. Rooms and positions are kept for the next `connect`, unless closed. */
    const end = (state, error, lost) => {
      const stopped = connection;
      connection = undefined;
      session?.lose(error instanceof ConnectionError ? error : new ConnectionError(error.message, { retryable: false, cause: error }), false, true);
      setState(state);
      push({ _args: [], _ends: "*", _error: lost });
      release(error);
      stopped?.stop(error);
    };

    const finish = (state, message) => {
      discard();
      end(state, new ConnectionError(message, { retryable: false }));
    };

    const start = () => {
      if (client.state == "closed" || !session) {
        session = makeSession(
          client,
          options,
          push,
          tell,
          (data) => connection.plan(data),
          () => connection.refresh(),
        );
      }
      failure = undefined;
      setState("connecting");
      connection = makeConnection(options, session, tell, setState, (error) => {
        failure = error;
        tell("error", error);
        end("disconnected", error, error);
      });
    };

    /** Throw where nothing could be sent, now or later; and for what is no room. */
    const checkStarted = (room = "all") => {
      checkRoom(room);
      if (connection) return;
      const why = failure ? `has given up. ${failure.message}` : client.state == "closed" ? "was closed" : "is not connected";
      throw new ConnectionError(`The client ${why}: connect() first.`, { retryable: false, cause: failure });
    };

    const ask = (kind, head, data, { timeout, signal } = {}) => call(signal, (then) => session.ask(kind, head, pack(data), timeout, then));

    /** "disconnected" (not yet, or given up), "connecting", "connected", "reconnecting" or "closed". */
    client.state = "disconnected";
    /** The user as the server sees this client; null before the first connection, and without a token. */
    client.user = null;
    /** The id of the present connection, or of the last one. */
    client.socketId = null;

    client._methods = {
      /** Connect; settled once the server is ready, or no attempt is left. */
      connect: ({ signal } = {}) =>
        call(signal, (then) => {
          if (client.state == "connected") return then();
          if (!connection) start();
          waiters.add(then);
          return () => {
            waiters.delete(then);
            if (!waiters.size && client.state == "connecting") finish("disconnected", "The attempt was given up.");
          };
        }),

      /** Say goodbye, after what was sent already. Every waiting call gets a `ConnectionError`; events that nobody has seen are forgotten. */
      async close() {
        if (client.state != "closed") finish("closed", "The client was closed.");
      },

      /** Call `callback(data, event)` for every event of this name. Returned is a function that ends this. */
      on: (event, callback, { once, signal } = {}) => add(checkEvent(event), callback, once, signal),

      /** The same for the next one alone. */
      once: (event, callback, settings) => client.on(event, callback, { ...settings, once: true }),

      /** Call it no more. */
      off: (event, callback) => drop(event, (entry) => entry._callback == callback),

      /** Join a room, until `leaveRoom`: over every loss of the connection it is joined again and recovered. */
      async joinRoom(room, { recover, rewind, presence, signal } = {}) {
        checkStarted(checkRoom(room));
        if (rewind !== undefined) check("rewind", rewind, 1);
        const data = { recover: readPosition("recover", recover), rewind, presence };
        return call(signal, (then) => session.join(room, data, then));
      },

      /** Leave a room: nothing of it is delivered any more. */
      async leaveRoom(room, { signal } = {}) {
        checkStarted(checkRoom(room));
        return call(signal, (then) => void session.leave(room, then));
      },

      /** A page of a room's events: the newest, or those right before or after a position. */
      async history(room, { limit = 50, before, after, ...settings } = {}) {
        checkStarted(checkRoom(room));
        const data = { roomId: room, limit, before: readPosition("before", before), after: readPosition("after", after) };
        const { epoch, events, more } = await ask(REPEAT, { event: "history" }, data, settings);
        return { room, epoch, events: events.map((one) => toEvent(one, epoch, room)), more };
      },

      /** Who is in a room, on all nodes. */
      async presence(room, settings) {
        checkStarted(checkRoom(room));
        return (await ask(REPEAT, { event: "presence" }, { roomId: room }, settings)).members;
      },

      /** Up to where the application is done with a room: for `recover`. Null while that is nowhere. */
      position(room) {
        const handled = session?.positionOf(room);
        // After a new epoch, whoever is still in the old one is the slowest.
        const rank = ({ epoch, offset }) => (epoch == session.epochOf(room) ? offset : -1);
        return handled ? [handled, ...places(room)].filter(Boolean).sort((one, other) => rank(one) - rank(other))[0] : null;
      },

      /** The events of a room from now on, as an async iterator. It does not join the room. */
      events(room, { size = 1000, signal } = {}) {
        const iterator = iterate(checkRoom(room), session?.positionOf(room) ?? null, size);
        if (signal?.aborted) iterator.return();
        signal?.addEventListener("abort", () => iterator.return());
        return iterator;
      },

      /** Publish to a room and return the receipt; without `room`, return the value of the server's handler, or the receipt of the only room. */
      async sendMessage(event, data, { room, id, ...settings } = {}) {
        checkOwnEvent(event);
        checkStarted(room);
        // `crypto.randomUUID` is there in secure contexts only.
        const head = { event, room, id: id ?? "" + crypto.getRandomValues(new Uint32Array(4)) };
        const answer = await ask(room ? REPEAT : ONCE, head, data, settings);
        if (!isReceipt(answer)) return answer ?? null;
        const joined = session.joined();
        return { id: answer.id, room: room ?? (joined[1] ? null : (joined[0] ?? null)), position: toPosition(answer), duplicate: answer.duplicate };
      },

      /** Send without an acknowledgement and at most once. A refusal goes to `error` callbacks. */
      emit(event, data, { room } = {}) {
        checkOwnEvent(event);
        checkStarted(room);
        session.emit({ event, room }, pack(data));
      },

      /** Present a token on the live connection, and use it from now on if no `getToken` gives them. */
      async authenticate(token, { signal } = {}) {
        checkStarted();
        checkToken("token", token);
        await call(signal, (then) => void session.authenticate(token, then));
        connection?.use(token);
      },
    };
  }
}

// Methods stand on the prototype, so that a subclass can have its own.
for (const name of "connect close on once off joinRoom leaveRoom history presence position events sendMessage emit authenticate".split(" ")) {
  RealtimeClient.prototype[name] = function (...values) {
    return this._methods[name](...values);
  };
}
