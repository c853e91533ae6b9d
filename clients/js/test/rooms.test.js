import assert from "node:assert/strict";
import { test } from "node:test";

import { PermissionDenied } from "./rig/client.js";
import { settle } from "./rig/clock.js";
import { outcome, reopen, start, startInRoom } from "./rig/start.js";

/** The connection is lost, and the next one is there. */
const lose = async (started, { greeting, code = 1006 } = {}) => {
  started.net.last.ends(code);
  const next = await reopen(started);
  next.greets(greeting);
  await settle();
  return next;
};

test("join, hear, leave", async (t) => {
  const { client, socket, seen } = await startInRoom(t);
  const events = [];
  client.on("tick", (data, event) => events.push(event));
  socket.event("r", 1, { a: 1 }, { userId: "bob" });
  await settle();
  assert.deepEqual(seen, [{ a: 1 }]);
  assert.deepEqual(events, [
    { event: "tick", room: "r", data: { a: 1 }, id: "r-1", offset: 1, epoch: "e1", userId: "bob", timestamp: "2026-01-01T00:00:00.000Z" },
  ]);
  assert.deepEqual(client.position("r"), { epoch: "e1", offset: 1 });
  const leaving = client.leaveRoom("r");
  const message = socket.hear("leave-room");
  socket.event("r", 2);
  socket.says({ event: "left-room", ref: message.ref, data: { roomId: "r" } });
  await leaving;
  await settle();
  assert.deepEqual(seen, [{ a: 1 }], "nothing of it is delivered any more");
  assert.equal(client.position("r"), null);
});

test("the answer to a join tells who is there", async (t) => {
  const { client, socket } = await start(t);
  const joining = client.joinRoom("r", { presence: true, rewind: 2 });
  const message = socket.hear("join-room");
  assert.deepEqual(message.data, { roomId: "r", presence: true, rewind: 2 });
  socket.joins(message, { offset: 9, members: [{ userId: "bob" }] });
  assert.deepEqual(await joining, { room: "r", position: { epoch: "e1", offset: 9 }, members: [{ userId: "bob" }], recovered: null });
  const seen = [];
  for (const name of ["user.joined", "user.left", "tick"]) client.on(name, (data, event) => seen.push([name, data, event.room]));
  socket.event("r", 8);
  socket.event("r", 9);
  socket.says({ event: "user.joined", room: "r", data: { userId: "eve" } });
  socket.says({ event: "user.left", room: "r", data: { userId: "eve" } });
  await settle();
  assert.deepEqual(seen, [
    ["tick", 8, "r"],
    ["tick", 9, "r"],
    ["user.joined", { userId: "eve" }, "r"],
    ["user.left", { userId: "eve" }, "r"],
  ]);
});

test("joining with a position that the application has kept", async (t) => {
  const { client, socket } = await start(t);
  const seen = [];
  client.on("tick", (data) => seen.push(data));
  const joining = client.joinRoom("r", { recover: { epoch: "e1", offset: 4, more: 1 } });
  const message = socket.hear("join-room");
  assert.deepEqual(message.data, { roomId: "r", recover: { epoch: "e1", offset: 4 } });
  socket.joins(message, { offset: 6, recovered: true });
  socket.event("r", 5);
  socket.event("r", 6);
  assert.equal((await joining).recovered, true);
  await settle();
  assert.deepEqual(seen, [5, 6]);
});

test("a refused join", async (t) => {
  const { client, socket } = await start(t);
  const joining = client.joinRoom("r");
  socket.refuses(socket.hear("join-room"), "permission_denied", { resource: "r", action: "read" });
  const [, error] = await outcome(joining);
  assert.ok(error instanceof PermissionDenied);
  assert.deepEqual([error.code, error.details], ["permission_denied", { resource: "r", action: "read" }]);
  const again = client.joinRoom("r");
  socket.refuses(socket.hear("join-room"), "room_full");
  assert.equal((await outcome(again))[1].code, "room_full");
  socket.ends();
});

test("after a loss: the room is joined again, what was missed comes once and in order", async (t) => {
  const started = await startInRoom(t, {}, { offset: 3 });
  const { socket, seen, client, names } = started;
  socket.event("r", 4);
  await settle();
  const next = await lose(started);
  const message = next.hear("join-room");
  assert.deepEqual(message.data, { roomId: "r", recover: { epoch: "e1", offset: 4 } });
  next.event("r", 7); // live events before the answer: the answer brings them again
  next.joins(message, { offset: 7, recovered: true });
  for (const offset of [5, 6, 7, 7, 6, 8]) next.event("r", offset);
  await settle();
  assert.deepEqual(seen, [4, 5, 6, 7, 8]);
  assert.deepEqual(names(), ["disconnect", "connect", "reconnect"]);
  assert.deepEqual(client.position("r"), { epoch: "e1", offset: 8 });
});

test("what cannot be recovered is told before any later event", async (t) => {
  const started = await startInRoom(t, {}, { offset: 3 });
  const { client, heard } = started;
  const order = [];
  client.on("resync", () => order.push("resync"));
  client.on("tick", (data) => order.push(data));
  const next = await lose(started);
  next.joins(next.hear("join-room"), { epoch: "e2", offset: 10, recovered: false });
  next.event("r", 11);
  await settle();
  assert.deepEqual(order, ["resync", 11]);
  assert.deepEqual(
    heard.find(([name]) => name === "resync"),
    ["resync", { room: "r", position: { epoch: "e2", offset: 10 }, last: { epoch: "e1", offset: 3 } }],
  );
});

test("a server that resyncs by itself", async (t) => {
  const { client, socket, seen, heard } = await startInRoom(t, {}, { offset: 8 });
  socket.says({ event: "resync", data: { roomId: "r", epoch: "e2", offset: 2 } });
  socket.event("r", 3);
  await settle();
  assert.deepEqual(seen, [3]);
  assert.deepEqual(heard, [["resync", { room: "r", position: { epoch: "e2", offset: 2 }, last: { epoch: "e1", offset: 8 } }]]);
  assert.deepEqual(client.position("r"), { epoch: "e2", offset: 3 });
  socket.says({ event: "resync", data: { roomId: 5 } });
  await settle();
  assert.equal(heard.find(([name]) => name === "error")[1].code, "bad_request");
  assert.equal(client.state, "reconnecting", "a gap must not be silent");
});

test("an event with a known id and a new place is not told twice", async (t) => {
  const { socket, seen } = await startInRoom(t);
  socket.event("r", 1, "a", { id: "same" });
  socket.event("r", 2, "b", { id: "same" });
  socket.event("r", 3, "c", { id: "other" });
  socket.says({ event: "tick", room: "r", id: "v", data: "volatile" });
  socket.says({ event: "tick", room: "r", id: "v", data: "volatile" });
  await settle();
  assert.deepEqual(seen, ["a", "c", "volatile"]);
});

test("own streams are there without a join, and recovered like rooms", async (t) => {
  const streams = { "user:ann": { epoch: "u", offset: 5 }, all: { epoch: "a", offset: 1 } };
  const started = await start(t, {}, { streams });
  const { client, socket } = started;
  const seen = [];
  client.on("tick", (data, event) => seen.push([event.room, data]));
  socket.event("user:ann", 6);
  socket.event("all", 2);
  await settle();
  const greeting = { streams: { "user:ann": { epoch: "u", offset: 8 }, all: { epoch: "a", offset: 2 } } };
  const next = await lose(started, { greeting });
  const [message, ...others] = next.take();
  assert.deepEqual([message.data, others], [{ roomId: "user:ann", recover: { epoch: "u", offset: 6 } }, []], "nothing was missed in `all`");
  next.event("user:ann", 9);
  next.joins(message, { epoch: "u", offset: 9, recovered: true });
  for (const offset of [7, 8, 9]) next.event("user:ann", offset);
  next.event("all", 3);
  await settle();
  assert.deepEqual(seen, [
    ["user:ann", 6],
    ["all", 2],
    ["user:ann", 7],
    ["user:ann", 8],
    ["user:ann", 9],
    ["all", 3],
  ]);
});

test("another user gets other streams", async (t) => {
  const started = await start(t, {}, { streams: { "user:ann": { epoch: "u", offset: 5 } } });
  const greeting = { user: { id: "bob" }, streams: { "user:bob": { epoch: "b", offset: 1 } } };
  const next = await lose(started, { greeting });
  assert.deepEqual(next.take(), []);
  assert.deepEqual([started.client.position("user:ann"), started.client.position("user:bob")], [null, { epoch: "b", offset: 1 }]);
});

test("messages wait until the rooms are joined again", async (t) => {
  const started = await startInRoom(t);
  started.socket.ends();
  const sending = started.client.sendMessage("x", 1, { room: "r" });
  const next = await lose(started);
  const message = next.hear("join-room");
  assert.deepEqual(next.take(), []);
  next.joins(message, { recovered: true });
  await settle();
  next.acknowledges(next.hear("x"));
  await sending;
});

test("a rejoin that is refused for now is tried again; for good, the room is closed", async (t) => {
  const started = await startInRoom(t);
  const { clock, heard, client } = started;
  const next = await lose(started);
  next.refuses(next.hear("join-room"), "rate_limited", { retryable: true, retryAfter: 3 });
  await clock.advance(2999);
  assert.deepEqual(next.take(), []);
  await clock.advance(1);
  next.refuses(next.hear("join-room"), "unavailable", { retryable: true });
  await clock.advance(2000);
  next.refuses(next.hear("join-room"), "permission_denied", { resource: "r", action: "read" });
  await settle();
  assert.deepEqual(
    heard.slice(-2).map(([name, what]) => [name, what.reason ?? what.code]),
    [
      ["room-closed", "permission_denied"],
      ["error", "permission_denied"],
    ],
  );
  assert.equal(client.position("r"), null);
});

test("a rejoin without an answer is tried again", async (t) => {
  const started = await startInRoom(t);
  const next = await lose(started);
  next.hear("join-room");
  await started.clock.advance(11000);
  next.joins(
    next.take().find((one) => one.event === "join-room"),
    { recovered: true },
  );
  next.event("r", 1);
  await settle();
  assert.deepEqual(started.seen, [1]);
});

test("room-closed ends a membership, and its iterators", async (t) => {
  const { client, socket, heard } = await startInRoom(t);
  const events = client.events("r");
  socket.says({ event: "room-closed", data: { roomId: "r", reason: "kicked" } });
  assert.deepEqual(await events.next(), { value: undefined, done: true });
  assert.deepEqual(heard, [["room-closed", { roomId: "r", reason: "kicked" }]]);
  assert.equal(client.position("r"), null);
});

test("leaving without a connection needs no server", async (t) => {
  const started = await startInRoom(t);
  started.socket.ends();
  await settle();
  const joining = started.client.joinRoom("other");
  joining.catch(() => {});
  await started.client.leaveRoom("other");
  assert.equal((await outcome(joining))[1].code, "not_in_room");
  await started.client.leaveRoom("r");
  await assert.rejects(started.client.leaveRoom("r"), { code: "not_in_room" });
  const next = await lose(started);
  assert.deepEqual(next.take(), []);
});

test("a leave whose answer got lost is a leave", async (t) => {
  const started = await startInRoom(t);
  const leaving = started.client.leaveRoom("r");
  const next = await lose(started);
  await leaving;
  assert.deepEqual(next.take(), []);
});

test("a signal takes a join back: before it is sent, and after", async (t) => {
  const { client, socket, net, clock } = await start(t);
  const controller = new AbortController();
  const joining = client.joinRoom("r", { signal: controller.signal });
  socket.hear("join-room");
  controller.abort("enough");
  assert.equal((await outcome(joining))[1], "enough");
  socket.hear("leave-room");
  socket.ends();
  await settle();
  const second = new AbortController();
  const waiting = client.joinRoom("s", { signal: second.signal });
  second.abort();
  assert.equal((await outcome(waiting))[1].name, "AbortError");
  const next = await reopen({ net, clock });
  next.greets();
  await settle();
  assert.deepEqual(next.take(), []);
});

test("a signal on the join of a room that is joined already does not stop its recovery", async (t) => {
  const started = await startInRoom(t);
  started.socket.ends();
  await settle();
  const controller = new AbortController();
  const joining = started.client.joinRoom("r", { signal: controller.signal });
  joining.catch(() => {});
  const next = await lose(started);
  controller.abort();
  next.joins(next.hear("join-room"), { offset: 1, recovered: true });
  next.event("r", 1);
  await settle();
  assert.deepEqual(started.seen, [1]);
  const sending = started.client.sendMessage("x", 1, { room: "r" });
  next.acknowledges(next.hear("x"));
  await sending;
});

test("the server may put this socket into a room", async (t) => {
  const { client, socket } = await start(t);
  const seen = [];
  client.on("tick", (data) => seen.push(data));
  socket.says({ event: "joined-room", data: { roomId: "g", epoch: "e", offset: 4, recovered: null } });
  socket.event("g", 4);
  socket.event("g", 5);
  socket.event("h", 9);
  await settle();
  assert.deepEqual(seen, [5, 9]);
  assert.deepEqual(client.position("g"), { epoch: "e", offset: 5 });
});

test("a slow callback: rooms fall behind at the bound, and recover", async (t) => {
  const { client, socket } = await startInRoom(t, { inboxSize: 2000 });
  const seen = [];
  let go;
  client.on("tick", async (data) => {
    seen.push(data);
    if (data === 1) await new Promise((resolve) => (go = resolve));
  });
  for (let offset = 1; offset <= 20; offset++) socket.event("r", offset);
  await settle();
  assert.deepEqual([seen, socket.take()], [[1], []]);
  go();
  await settle();
  const message = socket.hear("join-room");
  const { offset } = message.data.recover;
  assert.ok(offset >= 4 && offset < 10, `${offset}`);
  socket.joins(message, { offset: 20, recovered: true });
  for (let missed = offset + 1; missed <= 20; missed++) {
    socket.event("r", missed);
    await settle();
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
});

test("history and presence", async (t) => {
  const { client, socket } = await start(t);
  const reading = client.history("r", { limit: 2, before: { epoch: "e1", offset: 9 } });
  const message = socket.hear("history");
  assert.deepEqual(message.data, { roomId: "r", limit: 2, before: { epoch: "e1", offset: 9 } });
  const event = { event: "x", room: "r", offset: 8, id: "a", data: 1, timestamp: "2026-01-01T00:00:00.000Z" };
  socket.says({ event: "history", ref: message.ref, data: { roomId: "r", epoch: "e1", events: [event], more: true } });
  assert.deepEqual(await reading, { room: "r", epoch: "e1", events: [{ ...event, epoch: "e1", userId: null }], more: true });
  const asking = client.presence("r");
  socket.says({ event: "presence", ref: socket.hear("presence").ref, data: { roomId: "r", members: [{ userId: "ann" }], count: 1 } });
  assert.deepEqual(await asking, [{ userId: "ann" }]);
  await assert.rejects(client.history("r", { before: 5 }), /^ConfigurationError: before: 5 was given; allowed is a position/);
  await assert.rejects(client.joinRoom("r", { rewind: -1 }), /rewind: -1 was given/);
  await assert.rejects(client.joinRoom("a b"), /^ConfigurationError: room: string was given; allowed is a name of 1–128/);
  await assert.rejects(client.joinRoom(), /room: undefined was given/);
});

test("a recovery in another epoch is none, whatever the server says", async (t) => {
  const started = await startInRoom(t, {}, { offset: 3 });
  const next = await lose(started);
  next.joins(next.hear("join-room"), { epoch: "e2", offset: 10, recovered: true });
  await settle();
  assert.deepEqual(started.heard.find(([name]) => name === "resync")[1].position, { epoch: "e2", offset: 10 });
});

test("recover comes before rewind", async (t) => {
  const { client, socket } = await start(t);
  client.joinRoom("r", { recover: { epoch: "e1", offset: 4 }, rewind: 5 }).catch(() => {});
  assert.deepEqual(socket.hear("join-room").data, { roomId: "r", recover: { epoch: "e1", offset: 4 } });
});

test("an own stream whose recovery is refused goes on where it stands, and the gap is told", async (t) => {
  const started = await start(t, {}, { streams: { all: { epoch: "a", offset: 1 } } });
  const next = await lose(started, { greeting: { streams: { all: { epoch: "a", offset: 5 } } } });
  next.refuses(next.hear("join-room"), "internal");
  next.event("all", 6);
  await settle();
  const notice = { room: "all", position: { epoch: "a", offset: 5 }, last: { epoch: "a", offset: 1 } };
  assert.deepEqual(
    started.heard.find(([name]) => name === "resync"),
    ["resync", notice],
  );
  assert.deepEqual(started.client.position("all"), { epoch: "a", offset: 6 });
});

test("a room that was never joined is forgotten when the client gives up", async (t) => {
  const { client, socket, net } = await start(t);
  const joining = client.joinRoom("r");
  joining.catch(() => {});
  socket.ends(4503);
  assert.equal((await outcome(joining))[1].closeCode, 4503);
  const connecting = client.connect();
  (await net.socket(2)).greets();
  await connecting;
  assert.deepEqual(net.last.take(), []);
});

test("room-closed while a join is under way speaks of the membership before", async (t) => {
  const started = await startInRoom(t);
  const next = await lose(started);
  const message = next.hear("join-room");
  next.says({ event: "room-closed", data: { roomId: "r", reason: "left" } });
  next.joins(message, { recovered: true });
  next.event("r", 1);
  await settle();
  assert.deepEqual([started.seen, started.names()], [[1], ["disconnect", "connect", "reconnect"]]);
});

test("a `joined-room` that answers nothing does not stand for the answer", async (t) => {
  const { client, socket } = await start(t);
  const joining = client.joinRoom("r");
  socket.says({ event: "joined-room", data: { roomId: "r", epoch: "e1", offset: 3 } });
  socket.event("r", 4);
  socket.joins(socket.hear("join-room"), { offset: 4 });
  await joining;
  assert.deepEqual(client.position("r"), { epoch: "e1", offset: 4 });
});
