import assert from "node:assert/strict";
import { test } from "node:test";

import { AuthenticationError, ConfigurationError, ConnectionError, PermissionDenied } from "./rig/client.js";
import { settle } from "./rig/clock.js";
import { make, outcome, reopen, start } from "./rig/start.js";

test("connect: the token stands among the subprotocols, and it is done when the server is ready", async (t) => {
  const { net, client, names } = make(t);
  assert.equal(client.state, "disconnected");
  const connecting = client.connect();
  assert.equal(client.state, "connecting");
  const socket = await net.socket(1);
  assert.equal(socket.url, "ws://localhost:3001/");
  assert.deepEqual(socket.protocols, ["aibos.realtime.v1", "bearer.TOKEN"]);
  socket.opens();
  assert.deepEqual(await outcome(connecting), ["waits"]);
  socket.greets();
  assert.deepEqual(await outcome(connecting), ["done", undefined]);
  assert.deepEqual([client.state, client.user.id, client.socketId], ["connected", "ann", "s1"]);
  await client.connect();
  await settle();
  assert.deepEqual(names(), ["connect"]);
});

test("without a token only the protocol is asked for", async (t) => {
  const { net, client } = make(t, { token: undefined });
  const connecting = client.connect();
  const socket = await net.socket(1);
  assert.deepEqual(socket.protocols, ["aibos.realtime.v1"]);
  socket.greets({ user: null });
  await connecting;
  assert.equal(client.user, null);
});

test("two callers wait for one connection", async (t) => {
  const { net, client } = make(t);
  const both = [client.connect(), client.connect()];
  (await net.socket(1)).greets();
  await Promise.all(both);
});

test("calls need no await before: they wait for the connection", async (t) => {
  const { net, client } = make(t);
  client.connect().catch(() => {});
  const joining = client.joinRoom("r");
  const socket = await net.socket(1);
  socket.greets();
  await settle();
  socket.joins(socket.hear("join-room"));
  assert.deepEqual(await joining, { room: "r", position: { epoch: "e1", offset: 0 }, members: [], recovered: null });
});

test("before connect and after close every call says so", async (t) => {
  const { client } = make(t);
  await assert.rejects(client.joinRoom("r"), /^ConnectionError: The client is not connected: connect\(\) first/);
  await assert.rejects(client.sendMessage("x"), { code: "unavailable", retryable: false });
  assert.throws(() => client.emit("x"), ConnectionError);
  await client.close();
  await assert.rejects(client.leaveRoom("r"), /The client was closed: connect\(\) first/);
});

test("a failed attempt is told, and the next one comes after a random delay that doubles to 20 seconds", async (t) => {
  const { net, client, clock, heard } = make(t);
  client.connect().catch(() => {});
  for (const [attempt, delay] of [5000, 10000, 20000, 20000].entries()) {
    (await net.socket(attempt + 1)).ends();
    await clock.advance(delay - 1);
    await net.socket(attempt + 1);
    await clock.advance(1);
    await net.socket(attempt + 2);
  }
  const errors = heard.filter(([name]) => name === "error").map(([, error]) => error);
  assert.equal(errors.length, 4);
  assert.match(errors[0].message, /^No connection to localhost:3001: is it running/);
  assert.deepEqual([errors[0].closeCode, errors[0].retryable], [1006, true]);
});

test("full jitter: half a random number is half the delay", async (t) => {
  const { net, client, clock } = make(t, { reconnectInterval: 1000 }, 0.5);
  client.connect().catch(() => {});
  (await net.socket(1)).ends();
  await clock.advance(499);
  await net.socket(1);
  await clock.advance(1);
  await net.socket(2);
});

test("reconnectAttempts bounds the first connection too", async (t) => {
  const { net, client, clock, heard } = make(t, { reconnectAttempts: 2 });
  const connecting = client.connect();
  connecting.catch(() => {});
  for (let attempt = 1; attempt <= 3; attempt++) {
    (await net.socket(attempt)).ends();
    await clock.advance(20000);
  }
  const [, error] = await outcome(connecting);
  assert.ok(error instanceof ConnectionError);
  assert.equal(client.state, "disconnected");
  assert.equal(heard.filter(([name]) => name === "error").length, 3, "the last error is told once");
  await assert.rejects(client.joinRoom("r"), /^ConnectionError: The client has given up\./);
});

test("reconnect: false makes one attempt", async (t) => {
  const { net, client } = make(t, { reconnect: false });
  const connecting = client.connect();
  (await net.socket(1)).ends();
  assert.ok((await outcome(connecting))[1] instanceof ConnectionError);
});

test("a server that says nothing for connectTimeout is left", async (t) => {
  const { net, client, clock, heard } = make(t, { connectTimeout: 3000, reconnectInterval: 1000 });
  client.connect().catch(() => {});
  (await net.socket(1)).opens();
  await clock.advance(3000);
  assert.deepEqual([heard.at(-1)[1].code, heard.at(-1)[1].message], ["timeout", "localhost:3001 did not answer within 3000 ms."]);
  assert.ok(net.last.isClosedByClient);
  await clock.advance(1000);
  await net.socket(2);
});

test("events that came before `connected` are not lost", async (t) => {
  const { net, client } = make(t);
  const seen = [];
  client.on("welcome", (data) => seen.push(data));
  const connecting = client.connect();
  const socket = await net.socket(1);
  socket.opens();
  socket.says({ event: "welcome", data: 1 });
  socket.greets();
  await connecting;
  await settle();
  assert.deepEqual(seen, [1]);
});

test("another version of the protocol ends it", async (t) => {
  const { net, client } = make(t);
  const connecting = client.connect();
  (await net.socket(1)).greets({ protocol: 2 });
  const [, error] = await outcome(connecting);
  assert.deepEqual([error.code, error.retryable], ["bad_request", false]);
});

test("a server that speaks something else is tried again", async (t) => {
  const { net, client, clock, heard } = make(t);
  client.connect().catch(() => {});
  const socket = await net.socket(1);
  socket.opens();
  socket.says("<html>");
  await settle();
  assert.deepEqual([heard.at(-1)[0], heard.at(-1)[1].code], ["error", "bad_request"]);
  await clock.advance(5000);
  await net.socket(2);
});

test("several URLs are tried in turn", async (t) => {
  const { net, client, clock } = make(t, { url: ["ws://a.example:1", "ws://b.example:2/ws"] });
  client.connect().catch(() => {});
  await net.socket(1);
  for (const url of ["ws://a.example:1/", "ws://b.example:2/ws", "ws://a.example:1/"]) {
    assert.equal(net.last.url, url);
    net.last.ends();
    await reopen({ net, clock });
  }
});

test("a WebSocket that cannot be made ends it, without the token in the error", async (t) => {
  class Refusing {
    constructor() {
      throw new DOMException("bearer.TOKEN is bad", "SecurityError");
    }
  }
  const { client } = make(t, { WebSocket: Refusing });
  const [, error] = await outcome(client.connect());
  assert.ok(error instanceof ConfigurationError);
  assert.equal(error.message, "No WebSocket to localhost:3001: SecurityError.");
});

test("connect with a signal: the last one who gives up ends the attempts", async (t) => {
  const { net, client, clock } = make(t);
  const [one, other] = [new AbortController(), new AbortController()];
  const waiting = [client.connect({ signal: one.signal }), client.connect({ signal: other.signal })];
  await net.socket(1);
  one.abort();
  assert.equal((await outcome(waiting[0]))[1].name, "AbortError");
  assert.equal(client.state, "connecting");
  other.abort("enough");
  assert.equal((await outcome(waiting[1]))[1], "enough");
  assert.equal(client.state, "disconnected");
  await clock.advance(60000);
  assert.equal(net.sockets.length, 1);
  const again = client.connect();
  (await net.socket(2)).greets();
  await again;
  await assert.rejects(client.connect({ signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("close says goodbye, ends every wait, and connect begins anew", async (t) => {
  const { client, socket, net, heard, names } = await start(t);
  const sending = client.sendMessage("x", 1, { room: "r" });
  sending.catch(() => {});
  const events = client.events("r");
  const next = events.next();
  await client.close();
  assert.equal(socket.closedWith, 1000);
  assert.match((await outcome(sending))[1].message, /The client was closed/);
  assert.deepEqual(await next, { value: undefined, done: true });
  await settle();
  assert.deepEqual(names(), ["disconnect"]);
  assert.deepEqual(
    heard.filter(([name]) => name === "state-change").map(([, state]) => state),
    ["closed"],
  );
  await client.close();
  const connecting = client.connect();
  (await net.socket(2)).greets();
  await connecting;
  assert.equal(client.state, "connected");
});

test("close during an attempt, a wait, and a token that does not come", async (t) => {
  for (const stage of ["attempt", "wait", "token"]) {
    await t.test(stage, async (t) => {
      const { client, net, clock } = make(t, stage === "token" ? { token: undefined, getToken: () => new Promise(() => {}) } : {});
      const connecting = client.connect();
      if (stage === "wait") (await net.socket(1)).ends();
      await settle();
      await client.close();
      assert.match((await outcome(connecting))[1].message, /The client was closed/);
      await clock.advance(60000);
      assert.ok(net.sockets.length <= 1);
    });
  }
});

test("what a close code means", async (t) => {
  const cases = [
    [4500, AuthenticationError, "not_authenticated"],
    [4502, AuthenticationError, "not_authenticated"],
    [4503, ConnectionError, "unavailable"],
    [4504, ConnectionError, "unavailable"],
    [4507, PermissionDenied, "permission_denied"],
    [4501, ConnectionError, "unavailable"],
    [4506, ConnectionError, "unavailable"],
    [4999, ConnectionError, "unavailable"],
  ];
  for (const [code, Kind, word] of cases) {
    await t.test(`${code}`, async (t) => {
      const { client, socket, net, clock, heard, names } = await start(t);
      socket.ends(code, "because");
      await clock.advance(60000);
      assert.equal(net.sockets.length, 1);
      assert.equal(client.state, "disconnected");
      assert.deepEqual(names(), ["disconnect", "error"]);
      const error = heard.find(([name]) => name === "error")[1];
      assert.ok(error instanceof Kind);
      assert.deepEqual([error.code, error.retryable, error.name], [word, false, error.name]);
      assert.match(error.message, new RegExp(`${code} because`));
    });
  }
});

test("after giving up, connect goes on where it was", async (t) => {
  const { client, socket, net } = await start(t);
  const joining = client.joinRoom("r");
  socket.joins(socket.hear("join-room"), { offset: 3 });
  await joining;
  socket.ends(4503);
  await settle();
  const connecting = client.connect();
  const next = await net.socket(2);
  next.greets();
  await connecting;
  assert.deepEqual(next.hear("join-room").data, { roomId: "r", recover: { epoch: "e1", offset: 3 } });
});
