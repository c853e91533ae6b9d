import assert from "node:assert/strict";
import { test } from "node:test";

import { ConfigurationError, RealtimeClient, RealtimeError } from "./rig/client.js";

class WebSocket {}
const make = (options) => new RealtimeClient({ url: "ws://localhost:3001", WebSocket, ...options });

test("the source document's options are taken as they stand", () => {
  make({
    token: "your_jwt_token",
    reconnect: true,
    reconnectAttempts: 5,
    reconnectInterval: 5000,
    heartbeat: { interval: 30000, timeout: 60000 },
  });
});

const WRONG = [
  [{ reconect: true }, /^options\.reconect: there is no such option; there are .*reconnect/],
  [{ heartbeat: { intervall: 5 } }, /^options\.heartbeat\.intervall: there is no such option; there are interval, timeout/],
  [{ heartbeat: 5 }, /^options\.heartbeat: 5 was given; allowed is a value of type object/],
  [{ heartbeat: null }, /^options\.heartbeat: object was given/],
  [{ heartbeat: { interval: 0 } }, /^options\.heartbeat\.interval: 0 was given; allowed is a number above 0 and below 2\^31/],
  [{ heartbeat: { timeout: "60" } }, /^options\.heartbeat\.timeout: string was given; allowed is a value of type number/],
  [{ reconnect: 1 }, /^options\.reconnect: 1 was given; allowed is a value of type boolean/],
  [{ reconnectAttempts: -1 }, /^options\.reconnectAttempts: -1 was given/],
  [{ reconnectInterval: NaN }, /^options\.reconnectInterval: NaN was given/],
  [{ reconnectInterval: Infinity }, /^options\.reconnectInterval: Infinity was given/],
  [{ requestTimeout: 2 ** 31 }, /^options\.requestTimeout: 2147483648 was given; .*below 2\^31/],
  [{ connectTimeout: -5 }, /^options\.connectTimeout: -5/],
  [{ bufferSize: 0 }, /^options\.bufferSize: 0 was given/],
  [{ getToken: "t" }, /^options\.getToken: string was given; allowed is a value of type function/],
  [{ token: "two words" }, /^options\.token: string was given; allowed is a text without spaces/],
  [{ token: null }, /^options\.token: object was given; allowed is a value of type string/],
  [{ token: "" }, /^options\.token/],
  [{ WebSocket: {} }, /^options\.WebSocket: object was given; allowed is a value of type function/],
  [{ url: "localhost:3001" }, /^options\.url: string was given; allowed is a URL like ws:/],
  [{ url: "ftp://localhost" }, /^options\.url: string was given/],
  [{ url: "/ws" }, /^options\.url: string was given/],
  [{ url: "" }, /^options\.url: string was given/],
  [{ url: 5 }, /^options\.url: 5 was given/],
  [{ url: null }, /^options\.url: object was given/],
  [{ url: undefined }, /^options\.url: undefined was given/],
  [{ url: [] }, /^options\.url: object was given/],
  [{ url: ["ws://a", "b"] }, /^options\.url: string was given/],
];
for (const [options, message] of WRONG) {
  test(`wrong options are named: ${JSON.stringify(options)}`, () => {
    assert.throws(
      () => make(options),
      (error) => error instanceof ConfigurationError && error instanceof RealtimeError && message.test(error.message),
    );
  });
}

test("without options, and with what is none", () => {
  for (const nothing of [undefined, null, "ws://localhost:3001", []]) {
    assert.throws(() => new RealtimeClient(nothing), /(an object with a url|a URL like)/);
  }
});

test("no error shows a secret", () => {
  for (const options of [{ token: "se cret" }, { url: "secret" }, { url: "http://u:secret@" }, { reconnect: "secret" }, { getToken: "secret" }]) {
    assert.throws(
      () => make(options),
      (error) => !error.message.includes("secret") && !error.message.includes("se cret"),
    );
  }
});

test("a runtime without a WebSocket of its own asks for one", { skip: typeof globalThis.WebSocket === "function" && "this runtime has one" }, () => {
  assert.throws(() => new RealtimeClient({ url: "ws://localhost" }), /^ConfigurationError: options\.WebSocket: .* this runtime has none/);
});

test("the runtime's WebSocket is looked up when a client is made, so that a program may bring one", (t) => {
  const before = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  Object.defineProperty(globalThis, "WebSocket", { value: class {}, configurable: true });
  t.after(() => (before ? Object.defineProperty(globalThis, "WebSocket", before) : delete globalThis.WebSocket));
  new RealtimeClient({ url: "ws://localhost" });
});

test("URLs: http and https mean ws and wss, a page's own address completes them", async (t) => {
  const seen = [];
  class Recording {
    constructor(url) {
      seen.push(url);
    }
    close() {}
    addEventListener(name, listener) {
      listener();
    }
  }
  const before = Object.getOwnPropertyDescriptor(globalThis, "location");
  Object.defineProperty(globalThis, "location", { value: { href: "https://app.example.com/books/" }, configurable: true });
  t.after(() => (before ? Object.defineProperty(globalThis, "location", before) : delete globalThis.location));
  for (const url of ["http://localhost:3001", "/ws", "realtime?tenant=1#top", "wss://other.example.com/ws", new URL("https://a.example/x")]) {
    const client = new RealtimeClient({ url, WebSocket: Recording });
    client.connect().catch(() => {});
    await new Promise(setImmediate);
    await client.close();
  }
  assert.deepEqual(seen, [
    "ws://localhost:3001/",
    "wss://app.example.com/ws",
    "wss://app.example.com/books/realtime?tenant=1",
    "wss://other.example.com/ws",
    "wss://a.example/x",
  ]);
});
