/**
 * Every error that this package raises: one root, a few kinds, and a `code` that is the same on the wire and in every language.
 * No error holds a token, a URL's password or a payload.
 */

/**
 * Root of them all. `message` is a sentence for people, `code` a word for programs; `retryable`: the same may succeed later; `details`: what
 * else came with it: `retryAfter` (seconds), `resource` and `action`, `errors`, `id`, …
 */
export class RealtimeError extends Error {
  constructor(message, options, name = "RealtimeError") {
    super(message);
    Object.assign(this, { name, code: "internal", retryable: false, details: {} }, options);
  }
}

const kind = (name, code, retryable) =>
  class extends RealtimeError {
    constructor(message, options) {
      super(message, { code, retryable, ...options }, name);
    }
  };

/** An option or an argument is wrong. The message names it, what was given, and what is allowed. */
export const ConfigurationError = kind("ConfigurationError", "configuration", false);
/** The token is missing or no good, and never why. */
export const AuthenticationError = kind("AuthenticationError", "not_authenticated", false);
/** The user may not do this here. `details`: `resource`, `action`. */
export const PermissionDenied = kind("PermissionDenied", "permission_denied", false);
/** There is no connection, or it ended before the answer came. `closeCode` and `reason`: as the server closed it. */
export const ConnectionError = kind("ConnectionError", "unavailable", true);

/** The error that an `error` or `permission_denied` message speaks of. Its data may be anything. */
export const readError = ({ event, data }) => {
  const { code = "internal", message, retryable, ...details } = Object(data);
  const word = event == "error" ? "" + code : event;
  const Kind = word == "not_authenticated" ? AuthenticationError : word == "permission_denied" ? PermissionDenied : RealtimeError;
  return new Kind((message?.trim && message) || word, { code: word, retryable: retryable === true, details });
};

export const protocolError = (what) => new RealtimeError(what + " is not of the protocol.", { code: "bad_request", retryable: true });

export const overloaded = () => new RealtimeError("Too many messages wait already.", { code: "overloaded", retryable: true });

export const unconnected = () => new ConnectionError("There is no connection.");

export const notIn = () => new RealtimeError("You are not in this room.", { code: "not_in_room" });

/** Milliseconds that the server asks to wait, or these. */
export const retryAfter = ({ details }, otherwise) => (details.retryAfter > 0 ? Math.min(details.retryAfter, 600) * 1000 : otherwise);
