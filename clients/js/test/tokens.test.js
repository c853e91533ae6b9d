import assert from "node:assert/strict";
import { test } from "node:test";

import { AuthenticationError, ConnectionError } from "./rig/client.js";
import { settle } from "./rig/clock.js";
import { make, outcome, start } from "./rig/start.js";

test("getToken is asked before every attempt, sync or async", async (t) => {
  let count = 0;
  const getToken = () => (count++ % 2 ? `T${count}` : Promise.resolve(`T${count}`));
  const { net, client, clock } = make(t, { token: undefined, getToken });
  client.connect().catch(() => {});
  for (const token of ["T1", "T2", "T3"]) {
    const socket = await net.socket(count);
    assert.equal(socket.protocols[1], `bearer.${token}`);
    socket.ends();
    await clock.advance(20000);
  }
});

test("a getToken that fails is tried again, and its error is the cause", async (t) => {
  let isBroken = true;
  const getToken = () => {
    if (isBroken) throw new TypeError("secret");
    return "T";
  };
  const { net, client, clock, heard } = make(t, { token: undefined, getToken });
  client.connect().catch(() => {});
  await settle();
  const [, error] = heard.at(-1);
  assert.ok(error instanceof ConnectionError && error.cause instanceof TypeError);
  assert.equal(error.message, "getToken failed.");
  isBroken = false;
  await clock.advance(5000);
  await net.socket(1);
});

test("a getToken that is too slow is a failed attempt", async (t) => {
  const { client, clock, heard } = make(t, { token: undefined, getToken: () => new Promise(() => {}), connectTimeout: 2000 });
  client.connect().catch(() => {});
  await clock.advance(2000);
  assert.deepEqual([heard.at(-1)[0], heard.at(-1)[1].code], ["error", "timeout"]);
});

test("a getToken that gives no usable token ends it", async (t) => {
  const { client, clock } = make(t, { token: undefined, getToken: () => "two words" });
  client.connect().catch(() => {});
  await clock.advance(0);
  assert.equal(client.state, "disconnected");
});

test("getToken may give nothing: then the connection is without a user", async (t) => {
  const { net, client } = make(t, { token: undefined, getToken: () => null });
  client.connect().catch(() => {});
  assert.deepEqual((await net.socket(1)).protocols, ["aibos.realtime.v1"]);
});

test("a refused token: getToken is asked once more at once, then it is over", async (t) => {
  let count = 0;
  const { net, client, clock } = make(t, { token: undefined, getToken: () => `T${++count}` });
  const connecting = client.connect();
  connecting.catch(() => {});
  (await net.socket(1)).opens();
  net.last.ends(4500, "token invalid");
  await clock.advance(0);
  const second = await net.socket(2);
  assert.equal(second.protocols[1], "bearer.T2");
  second.ends(4500, "token invalid");
  assert.ok((await outcome(connecting))[1] instanceof AuthenticationError);
  assert.equal(client.state, "disconnected");
});

test("a refused fixed token ends it at once", async (t) => {
  const { net, client, clock } = make(t);
  const connecting = client.connect();
  (await net.socket(1)).ends(4500, "token invalid");
  assert.ok((await outcome(connecting))[1] instanceof AuthenticationError);
  await clock.advance(60000);
  assert.equal(net.sockets.length, 1);
});

test("an expired token (4005) is a reconnect with a new one", async (t) => {
  let count = 0;
  const { socket, net, clock } = await start(t, { token: undefined, getToken: () => `T${++count}` });
  socket.ends(4005, "token expired");
  await clock.advance(5000);
  assert.equal((await net.socket(2)).protocols[1], "bearer.T2");
});

test("token-expiring: a new token goes over the same connection", async (t) => {
  let count = 0;
  const { socket, heard } = await start(t, { token: undefined, getToken: async () => `T${++count}` });
  socket.says({ event: "token-expiring", data: { expiresAt: 5 } });
  await settle();
  const message = socket.hear("authenticate");
  assert.deepEqual(message.data, { token: "T2" });
  socket.says({ event: "authenticated", ref: message.ref, data: { success: true, user: { id: "ann", role: "admin", tenantId: "1" }, expiresAt: 9 } });
  await settle();
  assert.deepEqual(
    heard.map(([name, data]) => [name, data]),
    [["token-expiring", { expiresAt: 5 }]],
  );
});

test("token-expiring without getToken is the application's to answer", async (t) => {
  const { client, socket, net, clock } = await start(t);
  socket.says({ event: "token-expiring", data: { expiresAt: 5 } });
  await settle();
  assert.deepEqual(socket.take(), []);
  const presenting = client.authenticate("NEW");
  socket.says({ event: "authenticated", ref: socket.hear("authenticate").ref, data: { success: true, user: { id: "ann", role: "admin" } } });
  await presenting;
  assert.equal(client.user.role, "admin");
  socket.ends(4005);
  await clock.advance(5000);
  assert.equal((await net.socket(2)).protocols[1], "bearer.NEW", "it is used from now on");
});

test("authenticate: refused, unusable, and without a connection", async (t) => {
  const { client, socket } = await start(t);
  const presenting = client.authenticate("BAD");
  socket.says({ event: "authenticated", ref: socket.hear("authenticate").ref, data: { success: false, error: "The token is not valid." } });
  assert.ok((await outcome(presenting))[1] instanceof AuthenticationError);
  await assert.rejects(client.authenticate("two words"), /^ConfigurationError: token: string was given; allowed is a text without/);
  socket.ends();
  await settle();
  await assert.rejects(client.authenticate("T"), ConnectionError);
});

test("authenticate as a first message brings own streams and sends the joins that waited", async (t) => {
  const { client, socket } = await start(t, { token: undefined }, { user: null });
  const presenting = client.authenticate("T");
  const message = socket.hear("authenticate");
  const user = { id: "ann", role: "user", tenantId: "1" };
  socket.says({ event: "authenticated", ref: message.ref, data: { success: true, user, streams: { "user:ann": { epoch: "e", offset: 2 } } } });
  await presenting;
  assert.deepEqual([client.user, client.position("user:ann")], [user, { epoch: "e", offset: 2 }]);
});
