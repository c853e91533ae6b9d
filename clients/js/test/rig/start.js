/** A client on a scripted network and a clock that stands still. */

import { RealtimeClient } from "./client.js";
import { Clock, settle } from "./clock.js";
import { Net } from "./net.js";

/** Delays are `jitter` of their ceiling. `heard`: every event of the client's life, with its arguments. */
export const make = (test, options = {}, jitter = 1) => {
  const clock = new Clock().install(test);
  test.mock.method(Math, "random", () => jitter);
  const net = new Net();
  const client = new RealtimeClient({ url: "ws://localhost:3001", token: "TOKEN", WebSocket: net.WebSocket, ...options });
  const heard = [];
  for (const name of ["connect", "disconnect", "reconnect", "error", "resync", "room-closed", "token-expiring", "state-change"]) {
    client.on(name, (...args) => heard.push([name, ...args]));
  }
  test.after(() => client.close());
  return { clock, net, client, heard, names: () => heard.map(([name]) => name).filter((name) => name !== "state-change") };
};

/** The same, connected. */
export const start = async (test, options, greeting) => {
  const made = make(test, options);
  const connecting = made.client.connect();
  (await made.net.socket(1)).greets(greeting);
  await connecting;
  await settle();
  made.heard.length = 0;
  return { ...made, socket: made.net.last };
};

/** The same, in a room that stands at `offset`. `seen`: the data of every event "tick". */
export const startInRoom = async (test, options, place = { offset: 0 }) => {
  const started = await start(test, options);
  const seen = [];
  started.client.on("tick", (data) => seen.push(data));
  const joining = started.client.joinRoom("r");
  started.socket.joins(started.socket.hear("join-room"), place);
  await joining;
  return { ...started, seen };
};

/** Time passes until the client opens another connection. */
export const reopen = async ({ net, clock }) => {
  const count = net.sockets.length;
  for (let step = 0; step < 100 && net.sockets.length === count; step++) await clock.advance(250);
  return net.socket(count + 1);
};

/** What a promise came to: ["done", value], ["failed", error], or ["waits"]. */
export const outcome = async (promise) => {
  let found = ["waits"];
  promise.then(
    (value) => (found = ["done", value]),
    (error) => (found = ["failed", error]),
  );
  await settle();
  return found;
};
