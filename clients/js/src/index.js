/** The browser's and Node's client of `aibos.realtime.v1`. */

export { RealtimeClient } from "./client.js";
export { AuthenticationError, ConfigurationError, ConnectionError, PermissionDenied, RealtimeError } from "./errors.js";
