import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./rig/clock.js";
import { outcome, start, startInRoom } from "./rig/start.js";

test("on, once, off, the returned function, and a signal", async (t) => {
  const { client, socket } = await start(t);
  const seen = [];
  const note = (name) => (data) => seen.push(`${name}${data}`);
  const [a, e] = [note("a"), new AbortController()];
  client.on("x", a);
  client.once("x", note("b"));
  const off = client.on("x", note("c"));
  client.on("x", note("d"), { signal: e.signal });
  client.on("x", note("f"), { signal: AbortSignal.abort() });
  socket.says({ event: "x", data: 1 });
  await settle();
  off();
  e.abort();
  socket.says({ event: "x", data: 2 });
  await settle();
  client.off("x", a);
  client.off("x", a);
  socket.says({ event: "x", data: 3 });
  await settle();
  assert.deepEqual(seen, ["a1", "b1", "c1", "d1", "a2"]);
});

test("events to this socket alone: data and an event without a room", async (t) => {
  const { client, socket } = await start(t);
  const seen = [];
  client.on("notification", (...args) => seen.push(args));
  socket.says({ event: "notification", data: "hello" });
  socket.says({ event: "notification" });
  await settle();
  const event = { event: "notification", room: "", data: "hello", id: "", offset: null, epoch: null, userId: null, timestamp: null };
  assert.deepEqual(seen, [
    ["hello", event],
    [null, { ...event, data: null }],
  ]);
});

test("callbacks run one after the other: a promise holds up what follows", async (t) => {
  const { client, socket } = await startInRoom(t);
  const seen = [];
  let go;
  client.on("tick", async (data) => {
    seen.push(`begins ${data}`);
    if (data === 1) await new Promise((resolve) => (go = resolve));
    seen.push(`ends ${data}`);
  });
  socket.event("r", 1);
  socket.event("r", 2);
  await settle();
  assert.deepEqual(seen, ["begins 1"]);
  assert.deepEqual(client.position("r"), { epoch: "e1", offset: 0 }, "the application is not done with it");
  go();
  await settle();
  assert.deepEqual(seen, ["begins 1", "ends 1", "begins 2", "ends 2"]);
  assert.deepEqual(client.position("r"), { epoch: "e1", offset: 2 });
});

test("a callback may await the client's own calls", async (t) => {
  const { client, socket } = await startInRoom(t);
  const seen = [];
  client.on("tick", async () => seen.push(await client.sendMessage("ask")));
  socket.event("r", 1);
  await settle();
  socket.says({ event: "ack", ref: socket.hear("ask").ref, data: "answer" });
  await settle();
  assert.deepEqual(seen, ["answer"]);
});

test("what a callback throws goes to `error`, and the event counts as delivered", async (t) => {
  const { client, socket, heard, seen } = await startInRoom(t);
  const failure = new TypeError("mine");
  client.on("tick", () => {
    throw failure;
  });
  client.on("tick", async () => Promise.reject(failure));
  socket.event("r", 1);
  socket.event("r", 2);
  await settle();
  assert.deepEqual(heard, [
    ["error", failure],
    ["error", failure],
    ["error", failure],
    ["error", failure],
  ]);
  assert.deepEqual([seen, client.position("r").offset], [[1, 2], 2]);
});

test("the failure of an `error` callback goes to the console", async (t) => {
  const said = [];
  t.mock.method(console, "error", (...args) => said.push(args));
  const { client, socket } = await start(t);
  client.on("error", () => {
    throw new TypeError("mine");
  });
  socket.says({ event: "error", data: { code: "x", message: "m" } });
  await settle();
  assert.deepEqual(
    said.map(([text, error]) => [text, error.message]),
    [['aibos-realtime: a callback for "error" failed.', "mine"]],
  );
});

test("a call of the server gets the first callback's value", async (t) => {
  const { client, socket } = await start(t);
  client.on("confirm", async ({ question }) => ({ answer: question.length }));
  client.on("confirm", () => "second");
  socket.says({ event: "confirm", ref: 1, data: { question: "sure?" } });
  socket.says({ event: "unknown", ref: "two" });
  await settle();
  assert.deepEqual(socket.take(), [{ event: "ack", ref: 1, data: { answer: 5 } }]);
});

test("a call with an answer that cannot be sent, or after the connection is gone", async (t) => {
  const { client, socket, heard, net, clock } = await start(t);
  client.on("bad", () => NaN);
  socket.says({ event: "bad", ref: 1 });
  await settle();
  assert.deepEqual([heard[0][0], heard[0][1].code, socket.take()], ["error", "validation_failed", []]);
  let go;
  client.on("slow", () => new Promise((resolve) => (go = resolve)));
  socket.says({ event: "slow", ref: 2 });
  await settle();
  socket.ends();
  await clock.advance(5000);
  net.last.greets();
  await settle();
  go("late");
  await settle();
  assert.deepEqual(net.last.take(), [], "the ref means nothing on another connection");
});

test("refs of the server and of the client are not mixed up", async (t) => {
  const { client, socket } = await start(t);
  const seen = [];
  client.on("ask", (data) => {
    seen.push(data);
    return "mine";
  });
  const sending = client.sendMessage("x", 1, { room: "r" });
  const message = socket.hear("x");
  socket.says({ event: "ask", ref: message.ref, data: "yours" });
  assert.deepEqual(await outcome(sending), ["waits"]);
  assert.deepEqual(socket.take(), [{ event: "ack", ref: message.ref, data: "mine" }]);
  socket.acknowledges(message);
  await sending;
  assert.deepEqual(seen, ["yours"]);
});

test("code that awaits an answer goes on before the events that follow it", async (t) => {
  const { client, socket } = await start(t);
  const joining = (async () => {
    await client.joinRoom("r");
    return client.events("r").next();
  })();
  socket.joins(socket.hear("join-room"));
  socket.event("r", 1); // in the same turn: Node reads several messages at once
  assert.equal((await joining).value.data, 1);
});

test("close forgets the events that nobody has seen", async (t) => {
  const { client, socket, seen } = await startInRoom(t);
  client.once("tick", () => client.close());
  socket.event("r", 1);
  socket.event("r", 2);
  await settle();
  assert.deepEqual(seen, [1]);
  assert.equal(client.state, "closed");
});

test("an iterator: in order, and `break` ends it", async (t) => {
  const { client, socket } = await startInRoom(t);
  const seen = [];
  const loop = (async () => {
    for await (const event of client.events("r")) {
      seen.push(event.data);
      if (event.data === 3) break;
    }
  })();
  for (let offset = 1; offset < 6; offset++) socket.event("r", offset);
  await loop;
  assert.deepEqual(seen, [1, 2, 3]);
  await settle();
  assert.deepEqual(client.position("r"), { epoch: "e1", offset: 5 }, "an iterator that has ended holds up no position");
});

test("position: the slowest of callbacks and iterators; an event is done when the next one is asked for", async (t) => {
  const { client, socket } = await startInRoom(t);
  const events = client.events("r");
  socket.event("r", 1);
  socket.event("r", 2);
  await settle();
  assert.equal(client.position("r").offset, 0);
  await events.next();
  assert.equal(client.position("r").offset, 0);
  await events.next();
  assert.equal(client.position("r").offset, 1);
  const waiting = events.next();
  assert.equal(client.position("r").offset, 2);
  assert.deepEqual(events.position, { epoch: "e1", offset: 2 });
  await events.return();
  assert.deepEqual(await waiting, { value: undefined, done: true });
});

test("a slow iterator costs only itself: past its size it ends with an error, after the events that it has", async (t) => {
  const { client, socket, seen } = await startInRoom(t);
  const events = client.events("r", { size: 2 });
  for (let offset = 1; offset <= 5; offset++) socket.event("r", offset);
  await settle();
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
  assert.deepEqual([(await events.next()).value.data, (await events.next()).value.data], [1, 2]);
  await assert.rejects(events.next(), { code: "overloaded", retryable: true });
  assert.deepEqual(events.position, { epoch: "e1", offset: 2 }, "where the history goes on");
  assert.deepEqual(await events.next(), { value: undefined, done: true });
  assert.equal(client.position("r").offset, 5, "it holds up no position");
});

test("an iterator with a signal ends quietly", async (t) => {
  const { client, socket } = await startInRoom(t);
  const controller = new AbortController();
  const events = client.events("r", { signal: controller.signal });
  const next = events.next();
  controller.abort();
  assert.equal((await next).done, true);
  assert.equal((await client.events("r", { signal: controller.signal }).next()).done, true);
  socket.event("r", 1);
});

test("a callback's failure is told before the next event", async (t) => {
  const { client, socket } = await startInRoom(t);
  const order = [];
  client.on("error", () => order.push("error"));
  client.on("tick", async (data) => {
    order.push(data);
    await null;
    throw new TypeError("mine");
  });
  socket.event("r", 1);
  socket.event("r", 2);
  await settle();
  assert.deepEqual(order, [1, "error", 2, "error"]);
});

test("an event without a place moves no position", async (t) => {
  const { client, socket } = await startInRoom(t, {}, { offset: 4 });
  const events = client.events("r");
  socket.says({ event: "tick", room: "r", id: "v", data: "volatile" });
  assert.equal((await events.next()).value.offset, null);
  events.next();
  assert.deepEqual(
    [events.position, client.position("r")],
    [
      { epoch: "e1", offset: 4 },
      { epoch: "e1", offset: 4 },
    ],
  );
});

test("after a new epoch, whoever is still in the old one is the slowest", async (t) => {
  const { client, socket } = await startInRoom(t, {}, { offset: 8 });
  const events = client.events("r");
  socket.event("r", 9);
  socket.says({ event: "resync", data: { roomId: "r", epoch: "e2", offset: 1 } });
  await settle();
  assert.deepEqual(client.position("r"), { epoch: "e1", offset: 8 });
  await events.return();
  assert.deepEqual(client.position("r"), { epoch: "e2", offset: 1 });
});
