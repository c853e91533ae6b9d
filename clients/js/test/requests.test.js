import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionError, RealtimeError } from "./rig/client.js";
import { settle } from "./rig/clock.js";
import { outcome, reopen, start, startInRoom } from "./rig/start.js";

/** Lose the connection; the next one is there, and every room is recovered. */
const lose = async (started, code = 1006) => {
  const { net } = started;
  if (net.last.readyState === 1) net.last.ends(code);
  const next = await reopen(started);
  next.greets();
  await settle();
  for (const message of next.take()) next.joins(message, { recovered: true });
  await settle();
  return next;
};

test("publish, and its receipt", async (t) => {
  const { client, socket } = await start(t);
  const sending = client.sendMessage("invoice.created", { amount: 1000 }, { room: "r" });
  const message = socket.hear("invoice.created");
  assert.deepEqual(Object.keys(message).sort(), ["data", "event", "id", "ref", "room"]);
  assert.deepEqual([message.data, message.room], [{ amount: 1000 }, "r"]);
  assert.match(message.id, /^\d+(,\d+){3}$/);
  socket.acknowledges(message, { offset: 4 });
  assert.deepEqual(await sending, { id: message.id, room: "r", position: { epoch: "e1", offset: 4 }, duplicate: false });
});

test("without a room: the handler's answer, or the receipt of the only room", async (t) => {
  const { client, socket } = await startInRoom(t);
  const asking = client.sendMessage("invoice.approve", { id: 1 });
  const message = socket.hear("invoice.approve");
  assert.equal("room" in message, false);
  socket.says({ event: "ack", ref: message.ref, data: { approved: true } });
  assert.deepEqual(await asking, { approved: true });
  const nothing = client.sendMessage("nothing");
  const plain = socket.hear("nothing");
  assert.equal("data" in plain, false);
  socket.says({ event: "ack", ref: plain.ref });
  assert.equal(await nothing, null);
  const publishing = client.sendMessage("x");
  socket.acknowledges(socket.hear("x"));
  assert.equal((await publishing).room, "r");
});

test("a refusal", async (t) => {
  const { client, socket } = await start(t);
  const sending = client.sendMessage("x", 1, { room: "r" });
  socket.refuses(socket.hear("x"), "validation_failed", { errors: [{ path: "$.amount", message: "Expected int" }] });
  const [, error] = await outcome(sending);
  assert.ok(error instanceof RealtimeError && !(error instanceof ConnectionError));
  assert.deepEqual([error.name, error.code, error.details.errors[0].path], ["RealtimeError", "validation_failed", "$.amount"]);
});

test("an error's data may be anything", async (t) => {
  const { client, socket, heard } = await start(t);
  for (const data of [undefined, null, 5, "x", [], { code: 7, message: {}, retryable: "yes", __proto__: null }, { code: "toString" }]) {
    socket.says({ event: "error", data });
    await settle();
    const [name, error] = heard.pop();
    assert.equal(name, "error");
    assert.ok(error instanceof RealtimeError && error.message && error.retryable === false);
  }
  socket.says('{"event":"error","data":{"code":"x","message":"m","__proto__":{"polluted":true}}}');
  await settle();
  assert.equal(heard.at(-1)[1].polluted, undefined);
  assert.equal({}.polluted, undefined);
  assert.equal(client.state, "connected");
});

test("names and data that cannot be sent are refused at once", async (t) => {
  const { client, socket } = await start(t);
  await assert.rejects(client.sendMessage("a b"), /^ConfigurationError: event: string was given; allowed is a name of 1–128/);
  await assert.rejects(client.sendMessage("error"), /event: .* but none of the protocol's own/);
  await assert.rejects(client.sendMessage("x", 1, { room: "" }), /room: .* allowed is a name of/);
  await assert.rejects(client.sendMessage("x", 1, { room: "r", timeout: -1 }), /timeout: -1 was given; allowed is a number above 0/);
  const cycle = {};
  cycle.self = cycle;
  for (const data of [NaN, { a: [Infinity] }, 1n, cycle]) await assert.rejects(client.sendMessage("x", data), { code: "validation_failed" });
  assert.throws(() => client.emit("a b"), /event: .* allowed is a name of/);
  assert.throws(() => client.on("a b", () => {}), /event: .* allowed is a name of/);
  assert.throws(() => client.on("x", 5), /callback: 5 was given; allowed is a value of type function/);
  assert.deepEqual(socket.take(), []);
});

test("data is sent as it was when it was given", async (t) => {
  const { client, socket } = await start(t);
  const data = { amount: 1 };
  client.sendMessage("x", data, { room: "r" }).catch(() => {});
  data.amount = 2;
  assert.equal(socket.hear("x").data.amount, 1);
});

test("a message over the server's limit is refused here, in bytes", async (t) => {
  const { client, socket } = await start(t, {}, { limits: { messageBytes: 1000 } });
  await assert.rejects(client.sendMessage("x", "ü".repeat(600), { room: "r" }), { code: "message_too_large" });
  assert.throws(() => client.emit("x", "a".repeat(2000)), { code: "message_too_large" });
  client.sendMessage("x", "ü".repeat(400), { room: "r" }).catch(() => {});
  socket.hear("x");
});

test("no answer in time", async (t) => {
  const { client, clock, socket } = await start(t, { requestTimeout: 3000 });
  const sending = client.sendMessage("x", 1, { room: "r" });
  const hasty = client.sendMessage("y", 1, { room: "r", timeout: 500 });
  hasty.catch(() => {});
  await clock.advance(500);
  assert.equal((await outcome(hasty))[1].code, "timeout");
  await clock.advance(2499);
  assert.deepEqual(await outcome(sending), ["waits"]);
  await clock.advance(1);
  const [, error] = await outcome(sending);
  assert.deepEqual([error.code, error.retryable], ["timeout", true]);
  socket.acknowledges(socket.hear("x")); // late: nobody minds
});

test("an unacknowledged publish is repeated under its first id; a request is not", async (t) => {
  const started = await startInRoom(t);
  const { client, socket } = started;
  const publishing = client.sendMessage("x", 1, { room: "r" });
  const asking = client.sendMessage("y", 2);
  const reading = client.history("r");
  const [first] = socket.take();
  socket.ends();
  const [, error] = await outcome(asking);
  assert.ok(error instanceof ConnectionError);
  const next = await lose(started);
  const [again, read, ...others] = next.take();
  assert.deepEqual([again.id, again.event, read.event, others], [first.id, "x", "history", []]);
  next.acknowledges(again, { duplicate: true });
  assert.equal((await publishing).duplicate, true);
  next.says({ event: "history", ref: read.ref, data: { roomId: "r", epoch: "e1", events: [], more: false } });
  await reading;
});

test("a publish that the server took offence at is not repeated", async (t) => {
  for (const code of [1002, 1003, 1007, 1009]) {
    await t.test(`${code}`, async (t) => {
      const started = await startInRoom(t);
      const publishing = started.client.sendMessage("x", 1, { room: "r" });
      publishing.catch(() => {});
      started.socket.ends(code);
      assert.equal((await outcome(publishing))[1].closeCode, code);
      const next = await lose(started);
      assert.deepEqual(next.take(), []);
    });
  }
});

test("what is sent while offline waits, bounded and in order", async (t) => {
  const started = await startInRoom(t, { bufferSize: 3 });
  const { client, socket } = started;
  socket.ends();
  await settle();
  const sent = [1, 2, 3].map((number) => client.sendMessage("x", number, { room: "r" }));
  await assert.rejects(client.sendMessage("x", 4, { room: "r" }), { code: "overloaded", retryable: true });
  assert.throws(() => client.emit("x", 5), ConnectionError);
  const next = await lose(started);
  const messages = next.take();
  assert.deepEqual(
    messages.map(({ data }) => data),
    [1, 2, 3],
  );
  for (const message of messages) next.acknowledges(message);
  await Promise.all(sent);
});

test("what waited goes out sixteen at a time, and slower where it is refused for its rate", async (t) => {
  const started = await startInRoom(t);
  const { client, socket, clock } = started;
  socket.ends();
  const sent = Array.from({ length: 40 }, (_, number) => client.sendMessage("x", number, { room: "r" }));
  const next = await lose(started);
  const first = next.take();
  assert.equal(first.length, 16);
  for (const message of first.slice(0, 14)) next.acknowledges(message);
  for (const message of first.slice(14)) next.refuses(message, "rate_limited", { retryable: true, retryAfter: 0.5 });
  const order = first.slice(0, 14).map(({ data }) => data);
  for (const message of next.take()) next.refuses(message, "rate_limited", { retryable: true, retryAfter: 0.5 });
  assert.deepEqual(next.take(), []);
  await clock.advance(500);
  for (let count = 0; count < 26; count++) {
    const [message, ...others] = next.take();
    assert.deepEqual(others, [], "one at a time");
    order.push(message.data);
    next.acknowledges(message);
    await clock.advance(499);
    assert.deepEqual(next.take(), [], "no faster than the server takes them");
    await clock.advance(1);
  }
  assert.deepEqual(order, [...Array(40).keys()]);
  await Promise.all(sent);
});

test("a message that never waited is refused for its rate like any other", async (t) => {
  const { client, socket } = await start(t);
  const sending = client.sendMessage("x", 1, { room: "r" });
  socket.refuses(socket.hear("x"), "rate_limited", { retryable: true, retryAfter: 0.5 });
  const [, error] = await outcome(sending);
  assert.deepEqual([error.code, error.details.retryAfter], ["rate_limited", 0.5]);
});

test("a signal: what was not sent will not be; what was is given up", async (t) => {
  const started = await startInRoom(t);
  const { client, socket } = started;
  const controller = new AbortController();
  const { signal } = controller;
  const sent = client.sendMessage("x", 1, { room: "r", signal });
  sent.catch(() => {});
  socket.ends();
  await settle();
  const waiting = client.sendMessage("x", 2, { room: "r", signal });
  waiting.catch(() => {});
  controller.abort();
  for (const one of [sent, waiting]) assert.equal((await outcome(one))[1].name, "AbortError");
  await assert.rejects(client.sendMessage("x", 3, { room: "r", signal }), { name: "AbortError" });
  const next = await lose(started);
  assert.deepEqual(next.take(), []);
});

test("a timeout of the call's own covers the wait too", async (t) => {
  const { client, socket, clock } = await startInRoom(t);
  socket.ends();
  await settle();
  const waiting = client.sendMessage("x", 2, { room: "r", timeout: 100 });
  waiting.catch(() => {});
  await clock.advance(100);
  assert.equal((await outcome(waiting))[1].code, "timeout");
});

test("emit: at most once, no answer", async (t) => {
  const { client, socket, heard } = await start(t);
  client.emit("cursor.moved", [1, 2], { room: "r" });
  assert.deepEqual(socket.take(), [{ event: "cursor.moved", room: "r", data: [1, 2] }]);
  socket.says({ event: "error", data: { code: "rate_limited", message: "no", retryable: true } });
  await settle();
  assert.deepEqual([heard[0][0], heard[0][1].code], ["error", "rate_limited"]);
  socket.bufferedAmount = 2 ** 21;
  assert.throws(() => client.emit("x"), { code: "overloaded" });
});

test("after giving up, everything that waits fails", async (t) => {
  const { client, socket } = await startInRoom(t);
  const publishing = client.sendMessage("x", 1, { room: "r" });
  publishing.catch(() => {});
  const events = client.events("r");
  const next = events.next();
  next.catch(() => {});
  socket.ends(4503, "revoked");
  assert.equal((await outcome(publishing))[1].closeCode, 4503);
  assert.equal((await outcome(next))[1].closeCode, 4503);
});

test("a message of the server that is none: a new connection, and nothing is lost", async (t) => {
  const started = await startInRoom(t);
  const { socket, seen, heard } = started;
  socket.event("r", 1);
  socket.says('{"event":"tick","room":"r","offset":"2"}');
  await settle();
  assert.ok(socket.isClosedByClient);
  assert.deepEqual(
    heard.filter(([name]) => name !== "state-change").map(([name]) => name),
    ["error", "disconnect"],
  );
  const next = await lose(started);
  next.event("r", 2);
  await settle();
  assert.deepEqual(seen, [1, 2]);
});
