/** What options and arguments may be, and what is said of wrong ones. No value that may be a secret gets into an error. */

import { ConfigurationError } from "./errors.js";

/** The error shows numbers as they are, of all else the type alone. */
export const fail = (path, value, allowed) => {
  throw new ConfigurationError(`${path}: ${typeof value == "number" ? value : typeof value} was given; allowed is ${allowed}.`);
};

/** The value, which has to be like its model: of its type; a number above 0, and no more than a timer takes. */
export const check = (path, value, model) => {
  const type = typeof model;
  if (type != typeof value || value === null) fail(path, value, "a value of type " + type);
  if (type == "number" && !(value > 0 && (value < 2 ** 31 || value == model))) fail(path, value, "a number above 0 and below 2^31");
  if (type != "object") return value;
  const found = { ...model };
  for (const name in value) {
    if (!Object.hasOwn(model, name))
      throw new ConfigurationError(`${path}.${name}: there is no such option; there are ${Object.keys(model).join(", ")}.`);
    if (value[name] !== undefined) found[name] = check(`${path}.${name}`, value[name], model[name]);
  }
  return found;
};

/** The text, which has to be so. */
const checkText = (path, value, pattern, allowed) => (typeof value == "string" && pattern.test(value) ? value : fail(path, value, allowed));

/** What may stand among the subprotocols (RFC 9110, section 5.6.2). */
export const checkToken = (path, value) => checkText(path, value, /^[\w!#$%&'*+.^`|~-]+$/, "a text without spaces and quotes");

const NAME = "a name of 1–128 letters, digits and _ . : @ / -";
export const checkEvent = (value) => checkText("event", value, /^[\w.:@/-]{1,128}$/, NAME);
/** A user's own stream accepts any user id. */
export const checkRoom = (value) => checkText("room", value, /^([\w.:@/-]{1,128}$|user:)/, NAME);
/** What an application may send under: no name that the protocol keeps for itself. */
export const checkOwnEvent = (value) =>
  checkText(
    "event",
    value,
    /^(?!(ack|authenticated?|connect(ed|ion)|disconnect|error|history|(join(ed)?|leave|left)-room|p[io]ng|permission_denied|presence|reconnect|resync|room-closed|token-expiring|user\.(joined|left))$)[\w.:@/-]{1,128}$/,
    NAME + ", but none of the protocol's own",
  );

const none = () => {};
const URL_LIKE = "a URL like ws://localhost:3001";

/** The defaults, each of the type that is allowed. */
const OPTIONS = {
  url: "",
  token: "",
  getToken: none,
  reconnect: true,
  reconnectAttempts: Infinity,
  reconnectInterval: 5e3,
  heartbeat: { interval: 3e4, timeout: 6e4 },
  connectTimeout: 1e4,
  requestTimeout: 1e4,
  bufferSize: 1e3,
  inboxSize: 2 ** 24,
  WebSocket: none,
};

/** The options, complete; `urls` in place of `url`. Throws `ConfigurationError`. */
export const readOptions = (given) => {
  if (typeof given != "object") fail("options", given, "an object with a url");
  const { url, ...rest } = Object(given);
  const options = check("options", rest, { ...OPTIONS, WebSocket: globalThis.WebSocket ?? none });
  if (!url?.length && !url?.href) fail("options.url", url, URL_LIKE);
  options.urls = [url].flat().map((one) => {
    try {
      const { protocol, host, href } = new URL(one, globalThis.location?.href);
      if (host && /^(ws|http)s?:/.test(protocol)) return href.replace("http", "ws").replace(/#.*/, "");
    } catch {}
    fail("options.url", one, URL_LIKE);
  });
  if (rest.token !== undefined) checkToken("options.token", rest.token);
  if (options.getToken == none) options.getToken = undefined;
  if (options.WebSocket == none) fail("options.WebSocket", undefined, "the class of a package like ws, for this runtime has none");
  return options;
};
