/** Keeps a client connected: attempt, serve until the end, decide, wait, attempt again. What travels over the connection is not its business. */

import { AuthenticationError, ConfigurationError, ConnectionError, PermissionDenied, RealtimeError } from "./errors.js";
import { checkToken } from "./options.js";
import { watchPage } from "./page.js";
import { decode } from "./wire.js";

const SUBPROTOCOL = "aibos.realtime.v1";
const LONGEST_DELAY = 20_000; // milliseconds, as all below
const LONGEST_PARTING = 600_000;
const STABLE_AFTER = 5_000; // a connection that lived for so long starts the row of delays anew
const PATIENCE = 5_000; // for a sign of life after the page woke up

/** The error for an end. The number alone says whether a new connection may succeed: 4500–4999 say no, known or not. */
const explainClose = (closeCode, reason, server) => {
  const message =
    server && closeCode == 1006
      ? `No connection to ${server}: is it running, and may this page connect?`
      : `The connection was closed: ${closeCode} ${reason}`;
  const Kind = { 4500: AuthenticationError, 4502: AuthenticationError, 4507: PermissionDenied }[closeCode] ?? ConnectionError;
  return new Kind(message.trim(), { closeCode, reason, retryable: !(closeCode >= 4500 && closeCode <= 4999) });
};

/** Whether the code complains of a message: repeating that one on a new connection would end that one too. */
const isMessageFault = (code) => /^100[2379]$/.test(code);

const isOffline = () => globalThis.navigator?.onLine === false;

/** `onState` hears of "connected" and "reconnecting", `onEnd` of the error after which no attempt comes. */
export const makeConnection = (options, { attach, receive, lose, authenticate }, tell, onState, onEnd) => {
  const { urls, getToken, connectTimeout, reconnectInterval, heartbeat } = options;
  let { token } = options;
  let attempts = 0; // delays since the last stable connection
  let turn = 0;
  let socket, end, cut, parting, heard, since, beat, isOpen, isProbing, isOver, isFrozen, hasConnected, hasAskedAgain;

  // Signs of life. A browser shows no PING, and a timer may come late by a minute or a night: what counts is what was heard meanwhile.

  const beatIn = (delay) => {
    isProbing = false;
    clearTimeout(beat);
    beat = setTimeout(() => {
      const rest = heard + heartbeat.interval - Date.now();
      if (rest > 0 && rest <= heartbeat.interval) beatIn(rest);
      else probe(heartbeat.timeout);
    }, delay);
  };

  /** Ask for a sign of life, and leave a server that gives none. */
  const probe = (patience, isSecond) => {
    const due = Date.now() + patience;
    isProbing = true;
    if (socket.readyState == 1) socket.send('{"event":"ping"}');
    clearTimeout(beat);
    beat = setTimeout(() => {
      // The machine slept meanwhile: what has arrived may not have been read yet.
      if (!isSecond && Date.now() - due > 1000) probe(Math.min(patience, PATIENCE), true);
      else end(new ConnectionError("The server gave no sign of life."));
    }, patience);
  };

  /** The token for the next attempt. */
  const ask = async () => {
    if (!getToken) return token;
    try {
      const given = await getToken();
      return given == null ? "" : checkToken("getToken", given);
    } catch (cause) {
      throw cause instanceof RealtimeError ? cause : new ConnectionError("getToken failed.", { cause });
    }
  };

  /** One connection from beginning to end; `resolve` gets the error that says why it is over. */
  const attempt = (resolve) => {
    const url = urls[turn++ % urls.length];
    const server = new URL(url).host;
    let mine;
    isOpen = false;

    const finish = (error) => {
      if (end != finish) return;
      end = undefined;
      clearTimeout(timer);
      clearTimeout(beat);
      if (mine) mine.onmessage = mine.onclose = null;
      mine?.close(1000);
      resolve(error);
    };
    end = finish;
    const timer = setTimeout(
      () => finish(new ConnectionError(`${server} did not answer within ${connectTimeout} ms.`, { code: "timeout" })),
      connectTimeout,
    );

    const open = (given) => {
      if (end != finish) return;
      try {
        mine = socket = new options.WebSocket(url, given ? [SUBPROTOCOL, "bearer." + given] : [SUBPROTOCOL]);
      } catch (error) {
        throw new ConfigurationError(`No WebSocket to ${server}: ${error?.name}.`);
      }
      mine.onmessage = ({ data }) => {
        heard = Date.now();
        if (isProbing) beatIn(heartbeat.interval);
        try {
          const message = decode(data);
          if (isOpen || message.event != "connected") return receive(message, data.length);
          attach(mine, message.data);
          clearTimeout(timer);
          isOpen = true;
          since = heard;
          parting = undefined;
          beatIn(heartbeat.interval);
          onState("connected");
          tell("connect");
          if (hasConnected) tell("reconnect", attempts);
          hasConnected = true;
        } catch (error) {
          // It may have been an event of a room, and a gap must not be silent: a new connection recovers.
          if (isOpen) tell("error", error);
          finish(error);
        }
      };
      mine.onclose = ({ code, reason }) => finish(explainClose(code, reason, !isOpen && server));
      mine.onerror = () => {}; // `close` follows
    };
    ask().then(open).catch(finish);
  };

  /** Milliseconds until the next attempt. Throws when there will be none. */
  const decide = (failure) => {
    const ceiling = Math.min(Math.max(LONGEST_DELAY, reconnectInterval), reconnectInterval * 2 ** attempts);
    let [low, high] = parting ?? [0, ceiling];
    // A server that closes each connection at once, and says to come back at once, is not asked without a pause.
    if (attempts) high = Math.max(high, low + ceiling);
    parting = undefined;
    if (failure instanceof AuthenticationError && getToken && options.reconnect && !hasAskedAgain) {
      hasAskedAgain = true;
      return 0;
    }
    if (!options.reconnect || !failure.retryable) throw failure;
    if (attempts >= options.reconnectAttempts)
      throw new ConnectionError(`Gave up after ${attempts} attempts. ${failure.message}`, { retryable: false, cause: failure });
    // Without a network an attempt proves nothing, so it costs none.
    if (!isOffline()) attempts++;
    return low + Math.random() * (high - low);
  };

  const unwatch = watchPage(
    () => {
      if (isOpen && end) probe(Math.min(PATIENCE, heartbeat.timeout), true);
      else if (!isOffline() && !isFrozen) cut?.();
    },
    () => {
      isFrozen = true;
      end?.(new ConnectionError("The page was put to sleep."));
    },
    () => {
      isFrozen = false;
      cut?.();
    },
  );

  const run = async () => {
    for (;;) {
      const failure = await new Promise(attempt);
      if (isOpen) {
        if (Math.abs(Date.now() - since) >= STABLE_AFTER) attempts = hasAskedAgain = 0;
        if (!isOver) lose(failure, !isMessageFault(failure.closeCode));
        if (!isOver) onState("reconnecting");
        tell("disconnect", failure.message);
      }
      if (isOver) return;
      const delay = decide(failure);
      if (!isOpen) tell("error", failure);
      isOpen = false;
      do {
        const timer = isFrozen || setTimeout(() => cut(), delay);
        await new Promise((resolve) => (cut = resolve));
        clearTimeout(timer);
        if (isOver) return;
      } while (isFrozen);
      cut = undefined;
    }
  };
  run().catch((error) => {
    unwatch();
    onEnd(error);
  });

  return {
    /** Use this token from now on, if no `getToken` gives them. */
    use: (given) => (token = given),

    /** Present a new token before the old one ends. A failure is told; the server then closes, and the next attempt asks again. */
    refresh() {
      const failed = (error) => error && tell("error", error);
      if (getToken)
        ask()
          .then((given) => authenticate(given, failed))
          .catch(failed);
    },

    /** The server will close soon. `delayMin`, `delayMax`: seconds until a new attempt. */
    plan({ delayMin, delayMax }) {
      parting = [delayMin, delayMax].map((value) => (value > 0 ? Math.min(value * 1000, LONGEST_PARTING) : 0)).sort((one, other) => one - other);
    },

    /** Say goodbye. No attempt follows. */
    stop(error) {
      isOver = true;
      unwatch();
      cut?.();
      end?.(error);
    },
  };
};
