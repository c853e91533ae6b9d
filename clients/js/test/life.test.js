/** Reconnecting, signs of life, and the life of a page. */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";

import { settle } from "./rig/clock.js";
import { make, outcome, start, startInRoom } from "./rig/start.js";

/** A page: its window is the global object, as in browsers. */
const openPage = (t) => {
  const page = new EventTarget();
  page.visibilityState = "visible";
  const window = new EventTarget();
  const navigator = { onLine: true };
  const globals = { document: page, navigator, addEventListener: window.addEventListener.bind(window) };
  const before = Object.fromEntries(Object.keys(globals).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]));
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  t.after(() => {
    for (const [name, descriptor] of Object.entries(before)) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else delete globalThis[name];
    }
  });
  const fire = async (target, name, members = {}) => {
    target.dispatchEvent(Object.assign(new Event(name), members));
    await settle();
  };
  return { page, window, navigator, fire };
};

test("a row of delays begins anew only after a connection that lasted", async (t) => {
  const { net, client, clock } = make(t);
  client.connect().catch(() => {});
  const delays = [];
  for (const lived of [100, 100, 100, 6000, 100]) {
    (await net.socket(net.sockets.length || 1)).greets();
    await clock.advance(lived);
    const count = net.sockets.length;
    net.last.ends();
    let delay = 0;
    for (; net.sockets.length === count; delay += 500) await clock.advance(500);
    delays.push(delay);
  }
  assert.deepEqual(delays, [5000, 10000, 20000, 5000, 10000]);
});

test("attempts are spent: everybody hears why", async (t) => {
  const { client, socket, net, clock, heard } = await start(t, { reconnectAttempts: 1 });
  socket.ends();
  await clock.advance(5000);
  (await net.socket(2)).ends();
  await settle();
  assert.equal(client.state, "disconnected");
  const errors = heard.filter(([name]) => name === "error").map(([, error]) => error.message);
  assert.match(errors.at(-1), /^Gave up after 1 attempts\. No connection to localhost:3001/);
  await assert.rejects(client.sendMessage("x"), /has given up\. Gave up after 1 attempts/);
});

test("states in their order", async (t) => {
  const { client, net, clock, heard } = make(t);
  const connecting = client.connect();
  (await net.socket(1)).greets();
  await connecting;
  net.last.ends();
  await clock.advance(5000);
  net.last.greets();
  await settle();
  await client.close();
  await settle();
  const states = heard.filter(([name]) => name === "state-change").map(([, state]) => state);
  assert.deepEqual(states, ["connecting", "connected", "reconnecting", "connected", "closed"]);
});

test("a planned close: the delay is the server's, not a row's", async (t) => {
  const { socket, net, clock } = await start(t, {}, {});
  socket.says({ event: "reconnect", data: { delayMin: 1, delayMax: 3, reason: "shutting down" } });
  socket.ends(4001, "shutting down");
  await clock.advance(2999);
  await net.socket(1);
  await clock.advance(1);
  await net.socket(2);
});

test("a server that closes each connection at once, and says to come back at once, is not asked without a pause", async (t) => {
  const { net, client, clock } = make(t);
  client.connect().catch(() => {});
  const delays = [];
  for (let round = 0; round < 4; round++) {
    (await net.socket(net.sockets.length || 1)).greets();
    net.last.says({ event: "reconnect", data: { delayMin: 0, delayMax: 0, reason: "shutting down" } });
    const count = net.sockets.length;
    net.last.ends(4001);
    let delay = 0;
    for (await clock.advance(0); net.sockets.length === count; delay += 500) await clock.advance(500);
    delays.push(delay);
  }
  assert.deepEqual(delays, [0, 10000, 20000, 20000]);
});

test("what a server says of delays is bounded, and may be anything", async (t) => {
  for (const data of [{ delayMin: -5, delayMax: "x" }, null, 7, { delayMin: NaN }]) {
    await t.test(JSON.stringify(data), async (t) => {
      const { socket, net, clock } = await start(t);
      socket.says({ event: "reconnect", data });
      socket.ends(4001);
      await clock.advance(0);
      await net.socket(2);
    });
  }
  const { socket, net, clock } = await start(t);
  socket.says({ event: "reconnect", data: { delayMin: 1e9, delayMax: 1e9 } });
  socket.ends(4001);
  await clock.advance(600_000);
  await net.socket(2);
});

test("a ping after an interval of silence; no answer: the server is left", async (t) => {
  const { socket, net, clock, heard } = await start(t, { heartbeat: { interval: 1000, timeout: 2000 } });
  await clock.advance(999);
  assert.deepEqual(socket.take(), []);
  await clock.advance(1);
  assert.deepEqual(socket.take(), [{ event: "ping" }]);
  socket.says({ event: "pong" });
  await clock.advance(999);
  assert.deepEqual(socket.take(), []);
  await clock.advance(1);
  assert.deepEqual(socket.take(), [{ event: "ping" }]);
  await clock.advance(1999);
  assert.equal(socket.isClosedByClient, false);
  await clock.advance(1);
  assert.equal(socket.isClosedByClient, true);
  assert.deepEqual(heard.at(-1), ["disconnect", "The server gave no sign of life."]);
  await clock.advance(5000);
  await net.socket(2);
});

test("while the server speaks there are no pings", async (t) => {
  const { socket, clock } = await startInRoom(t, { heartbeat: { interval: 1000, timeout: 2000 } });
  for (let offset = 1; offset < 20; offset++) {
    socket.event("r", offset);
    await clock.advance(600);
  }
  assert.deepEqual(socket.take(), []);
});

test("timers that come late by a minute do not end a connection that is alive", async (t) => {
  const { socket, clock, client } = await start(t, { heartbeat: { interval: 1000, timeout: 2000 } });
  for (let minute = 0; minute < 10; minute++) {
    clock.sleep(60_000); // timers are throttled, messages are not
    await clock.advance(0);
    for (const { event } of socket.take()) if (event === "ping") socket.says({ event: "pong" });
    await settle();
  }
  assert.equal(client.state, "connected");
});

test("after a sleep of the machine in the middle of a ping the server gets a second chance", async (t) => {
  const { socket, clock, client } = await start(t, { heartbeat: { interval: 1000, timeout: 2000 } });
  await clock.advance(1000);
  socket.hear("ping");
  clock.sleep(3_600_000);
  await clock.advance(0);
  socket.hear("ping");
  assert.equal(client.state, "connected");
  socket.says({ event: "pong" });
  await clock.advance(2000);
  assert.equal(client.state, "connected");
});

test("after a sleep a dead connection is left within seconds", async (t) => {
  const { socket, clock, client } = await start(t, { heartbeat: { interval: 1000, timeout: 60000 } });
  clock.sleep(3_600_000);
  await clock.advance(0);
  clock.sleep(3_600_000);
  await clock.advance(5000);
  assert.equal(client.state, "reconnecting");
  assert.ok(socket.isClosedByClient);
});

test("online: an attempt at once", async (t) => {
  const { window, navigator, fire } = openPage(t);
  const { socket, net, clock } = await start(t);
  navigator.onLine = false;
  socket.ends();
  await fire(window, "offline");
  await clock.advance(100);
  await net.socket(1);
  navigator.onLine = true;
  await fire(window, "online");
  await net.socket(2);
});

test("offline attempts are made, and cost none of reconnectAttempts", async (t) => {
  const { navigator } = openPage(t);
  const { socket, net, clock, client } = await start(t, { reconnectAttempts: 2 });
  navigator.onLine = false;
  socket.ends();
  for (let count = 2; count < 12; count++) {
    await clock.advance(5000);
    (await net.socket(count)).ends();
  }
  assert.equal(client.state, "reconnecting");
});

test("offline and waking up look whether the connection is alive", async (t) => {
  const { page, window, fire } = openPage(t);
  const { socket, clock, client } = await start(t);
  await fire(window, "offline");
  socket.hear("ping");
  socket.says({ event: "pong" });
  await clock.advance(5000);
  page.visibilityState = "hidden";
  await fire(page, "visibilitychange");
  assert.deepEqual(socket.take(), []);
  page.visibilityState = "visible";
  await fire(page, "visibilitychange");
  socket.hear("ping");
  await clock.advance(5000);
  assert.equal(client.state, "reconnecting");
});

test("a tab that is shown again tries at once", async (t) => {
  const { page, fire } = openPage(t);
  const { socket, net, clock } = await start(t);
  socket.ends();
  await clock.advance(100);
  await fire(page, "visibilitychange");
  await net.socket(2);
});

for (const [target, away, back] of [
  ["window", "pagehide", "pageshow"],
  ["page", "freeze", "resume"],
]) {
  test(`${away}: the connection is closed; ${back}: it comes back at once, and nothing is lost`, async (t) => {
    const opened = openPage(t);
    const started = await startInRoom(t);
    const { socket, net, clock, client, seen } = started;
    socket.event("r", 1);
    await opened.fire(opened[target], away, { persisted: true });
    assert.ok(socket.isClosedByClient);
    assert.equal(client.state, "reconnecting");
    socket.event("r", 2);
    await clock.advance(3_600_000);
    await net.socket(1);
    await opened.fire(opened.window, "online");
    await net.socket(1);
    await opened.fire(opened[target], back, { persisted: true });
    const next = await net.socket(2);
    next.greets();
    await settle();
    const message = next.hear("join-room");
    assert.deepEqual(message.data.recover, { epoch: "e1", offset: 1 });
    next.joins(message, { offset: 3, recovered: true });
    next.event("r", 2);
    next.event("r", 3);
    await settle();
    assert.deepEqual(seen, [1, 2, 3]);
  });
}

test("a page that is left for good, or shown for the first time, is left alone", async (t) => {
  const { window, fire } = openPage(t);
  const { socket } = await start(t);
  await fire(window, "pagehide", { persisted: false });
  await fire(window, "pageshow", { persisted: false });
  assert.equal(socket.isClosedByClient, false);
});

test("a closed client hears nothing of the page, and leaves no timer", async (t) => {
  const { window, page, fire } = openPage(t);
  const { client, net, clock } = await startInRoom(t);
  await client.close();
  await fire(window, "online");
  await fire(page, "resume");
  await net.socket(1);
  assert.equal(clock.timers.size, 0);
  for (const target of [page, window])
    assert.deepEqual(
      ["freeze", "online", "pageshow"].flatMap((name) => getEventListeners(target, name)),
      [],
    );
});

test("a client that gave up leaves no timer", async (t) => {
  const { socket, clock } = await startInRoom(t);
  socket.ends(4503);
  await settle();
  assert.equal(clock.timers.size, 0);
});

test("frozen while it waits for the next attempt", async (t) => {
  const { page, fire } = openPage(t);
  const { socket, net, clock } = await start(t);
  socket.ends();
  await clock.advance(100);
  await fire(page, "freeze");
  await clock.advance(60000);
  await net.socket(1);
  await fire(page, "resume");
  await net.socket(2);
});

test("frozen while it was connecting", async (t) => {
  const { page, fire } = openPage(t);
  const { net, client, clock } = make(t);
  const connecting = client.connect();
  await net.socket(1);
  await fire(page, "freeze");
  await clock.advance(60000);
  await net.socket(1);
  await fire(page, "resume");
  (await net.socket(2)).greets();
  assert.deepEqual(await outcome(connecting), ["done", undefined]);
});
