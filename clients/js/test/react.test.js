import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./rig/clock.js";
import { outcome, reopen, start } from "./rig/start.js";

/** React and a renderer without a browser; both are installed for development alone. */
const load = async () => {
  try {
    return [await import("react"), await import("react-test-renderer"), await import("../react.js")];
  } catch {
    return [];
  }
};
const [React, renderer, hook] = await load();
const skip = !hook && "react is not installed: npm ci in clients/js";
globalThis.IS_REACT_ACT_ENVIRONMENT = true;

const setUp = async (t) => {
  t.mock.method(console, "error", () => {}); // that the renderer is deprecated
  const started = await start(t);
  const seen = [];
  const Room = ({ room = "r", tag = "", presence = true }) => {
    const used = hook.useRoom(started.client, room, { presence, events: { tick: (data) => seen.push(`${tag}${data}`) } });
    return JSON.stringify({ ...used, error: used.error?.code ?? used.error?.message ?? null });
  };
  const act = (does) =>
    React.act(async () => {
      const result = await does();
      await settle();
      return result;
    });
  const show = (element) => act(() => renderer.create(element));
  const read = (shown) => JSON.parse(shown.toJSON());
  return { ...started, seen, Room, act, show, read };
};

test("joins, hears this room alone, knows who is there, and leaves", { skip }, async (t) => {
  const { socket, seen, Room, act, show, read, clock } = await setUp(t);
  const shown = await show(React.createElement(Room));
  const message = socket.hear("join-room");
  assert.deepEqual(message.data, { roomId: "r", presence: true });
  assert.deepEqual(read(shown), { state: "connected", isJoined: false, members: [], error: null });
  await act(() => socket.joins(message, { members: [{ userId: "ann" }] }));
  assert.deepEqual(read(shown), { state: "connected", isJoined: true, members: [{ userId: "ann" }], error: null });
  await act(() => {
    socket.says({ event: "user.joined", room: "r", data: { userId: "bob" } });
    socket.says({ event: "user.joined", room: "other", data: { userId: "eve" } });
    socket.says({ event: "user.left", room: "r", data: { userId: "ann" } });
    socket.event("r", 1);
    socket.event("other", 1);
  });
  assert.deepEqual(read(shown).members, [{ userId: "bob" }]);
  await act(() => shown.update(React.createElement(Room, { tag: "new " })));
  await act(() => socket.event("r", 2));
  assert.deepEqual(seen, ["1", "new 2"]);
  assert.deepEqual(socket.take(), [], "a new function is no reason to join again");
  await act(() => shown.unmount());
  await act(() => clock.advance(0));
  socket.hear("leave-room");
});

test("two components, StrictMode, and another room", { skip }, async (t) => {
  const { socket, Room, act, show, clock } = await setUp(t);
  const both = (rooms) => React.createElement(React.StrictMode, null, ...rooms.map((room, key) => React.createElement(Room, { room, key })));
  const shown = await show(both(["r", "r"]));
  await act(() => clock.advance(0));
  assert.deepEqual([...new Set(socket.said.map(({ event, data }) => `${event} ${data.roomId}`))], ["join-room r"]);
  for (const message of socket.take()) await act(() => socket.joins(message));
  await act(() => shown.update(both(["r"])));
  await act(() => clock.advance(0));
  assert.deepEqual(socket.take(), [], "the other one is still there");
  await act(() => shown.update(both(["s"])));
  await act(() => clock.advance(0));
  assert.deepEqual([...new Set(socket.take().map(({ event, data }) => `${event} ${data.roomId}`))].sort(), ["join-room s", "leave-room r"]);
});

test("a refused join, a closed room, and no room at all", { skip }, async (t) => {
  const { socket, Room, act, show, read } = await setUp(t);
  const shown = await show(React.createElement(Room));
  await act(() => socket.refuses(socket.hear("join-room"), "permission_denied"));
  assert.equal(read(shown).error, "permission_denied");
  await act(() => shown.update(React.createElement(Room, { room: "s" })));
  await act(() => socket.joins(socket.take().find(({ event }) => event === "join-room")));
  assert.deepEqual([read(shown).isJoined, read(shown).error], [true, null]);
  await act(() => socket.says({ event: "room-closed", data: { roomId: "s", reason: "kicked" } }));
  assert.deepEqual([read(shown).isJoined, read(shown).error], [false, "The room was closed: kicked."]);
  const none = await show(React.createElement(Room, { room: null }));
  assert.deepEqual([read(none).isJoined, socket.take()], [false, []]);
});

test("the state of the connection, and who is there after a loss", { skip }, async (t) => {
  const started = await setUp(t);
  const { socket, Room, act, show, read, client } = started;
  const shown = await show(React.createElement(Room));
  await act(() => socket.joins(socket.hear("join-room"), { members: [{ userId: "ann" }] }));
  await act(() => socket.ends());
  assert.equal(read(shown).state, "reconnecting");
  await act(() => reopen(started));
  const next = started.net.last;
  await act(() => next.greets());
  await act(() => next.joins(next.hear("join-room"), { recovered: true }));
  const asked = next.hear("presence");
  await act(() => next.says({ event: "presence", ref: asked.ref, data: { roomId: "r", members: [{ userId: "zoe" }] } }));
  assert.deepEqual(read(shown), { state: "connected", isJoined: true, members: [{ userId: "zoe" }], error: null });
  await act(() => client.close());
  assert.equal(read(shown).state, "closed");
  assert.deepEqual(await outcome(client.close()), ["done", undefined]);
});
