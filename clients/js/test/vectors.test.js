/** The vectors of `spec/vectors`, which every client and the server share. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { settle } from "./rig/clock.js";
import { make, start } from "./rig/start.js";

const folder = new URL("../../../spec/vectors/", import.meta.url);
const skip = !existsSync(folder) && "only in the repository";
const load = (name) => (skip ? {} : JSON.parse(readFileSync(new URL(name, folder), "utf8")));

test("close codes: connect again, or stop, by the number alone; repeat the message or not", { skip }, async (t) => {
  const { codes } = load("close_codes.json");
  assert.ok(codes.length > 30);
  for (const { code, reconnect, repeatTheMessage } of codes) {
    await t.test(`${code}`, async (t) => {
      const { client, socket, net, clock } = await start(t);
      const sending = client.sendMessage("x", 1, { room: "r" });
      sending.catch(() => {});
      socket.ends(code);
      await clock.advance(5000);
      assert.equal(net.sockets.length, reconnect ? 2 : 1);
      assert.equal(client.state, reconnect ? "reconnecting" : "disconnected");
      if (!reconnect) return;
      net.last.greets();
      await settle();
      assert.deepEqual(
        net.last.take().map(({ event }) => event),
        repeatTheMessage ? ["x"] : [],
      );
    });
  }
});

test("what servers send is read, and no client dies of it", { skip }, async (t) => {
  const { server } = load("messages.json");
  for (const { name, message, json } of server) {
    await t.test(name, async (t) => {
      const { client, net } = make(t, { token: undefined });
      const events = [];
      client.on(message.event, (data, event) => events.push([data, event]));
      const connecting = client.connect();
      const socket = await net.socket(1);
      if (message.event === "connected") {
        socket.opens();
        socket.says(json);
        await connecting;
        assert.deepEqual([client.socketId, client.user], [message.data.socketId, message.data.user]);
        assert.deepEqual(Object.fromEntries(Object.keys(message.data.streams).map((room) => [room, client.position(room)])), message.data.streams);
        return;
      }
      socket.greets();
      await connecting;
      socket.says(json);
      await settle();
      assert.equal(client.state, "connected");
      if (message.room !== undefined) {
        const { room, data, id = "", offset = null, userId = null, timestamp = null } = message;
        assert.deepEqual(events, [[data, { event: message.event, room, data, id, offset, epoch: null, userId, timestamp }]]);
      } else if (message.ref === undefined && !["error", "permission_denied", "resync", "reconnect", "pong"].includes(message.event)) {
        assert.deepEqual(events[0][0], message.data ?? null);
      } else if (["error", "resync"].includes(message.event) && message.ref === undefined) {
        assert.equal(events.length, 1);
      }
    });
  }
});

test("answers reach who asked", { skip }, async (t) => {
  const { server } = load("messages.json");
  const of = (name) => server.find((vector) => vector.name === name);
  const { client, socket } = await start(t);
  const answer = async (vector, promise) => {
    await settle();
    const { ref } = socket.said.pop();
    socket.says({ ...JSON.parse(vector.json), ref });
    return promise;
  };
  const joined = await answer(of("an answer to a join"), client.joinRoom("tenant_123"));
  assert.deepEqual([joined.position, joined.members.length > 0], [{ epoch: "Zk3v9Q", offset: 7 }, true]);
  const receipt = await answer(of("an acknowledgement"), client.sendMessage("x", 1, { room: "tenant_123" }));
  assert.deepEqual(receipt, { id: "publish-1", room: "tenant_123", position: { epoch: "Zk3v9Q", offset: 8 }, duplicate: false });
  const page = await answer(of("history"), client.history("r"));
  assert.equal(page.events[0].epoch, "Zk3v9Q");
  for (const name of ["an error with a ref", "a limit", "a missing right"]) {
    const vector = of(name);
    const error = await answer(
      vector,
      client.sendMessage("x", 1, { room: "r" }).then(assert.fail, (error) => error),
    );
    const { code, message, retryable, ...details } = vector.message.data;
    assert.deepEqual([error.code, error.message, error.retryable, error.details], [code, message, retryable, details]);
  }
});

test("what no server sends: a new connection, and the application hears of it", { skip }, async (t) => {
  const { serverRefused } = load("messages.json");
  for (const { name, json } of serverRefused) {
    await t.test(name, async (t) => {
      const { socket, net, clock, heard } = await start(t);
      socket.says(json ?? "");
      await settle();
      assert.equal(heard.find(([event]) => event === "error")[1].code, "bad_request");
      await clock.advance(5000);
      await net.socket(2);
    });
  }
});

test("what clients send: messages that the vectors list are what this one writes", { skip }, async (t) => {
  const vectors = Object.fromEntries(load("messages.json").client.map((vector) => [vector.name, vector.message]));
  const { client, socket } = await start(t);
  const quiet = (promise) => promise.catch(() => {});
  const said = ({ ref, ...message } = socket.said.pop()) => message;
  const plain = (name, changes = {}) => {
    const { ref, ...message } = { ...vectors[name], ...changes };
    return message;
  };
  quiet(client.joinRoom("tenant_123", { recover: { epoch: "Zk3v9Q", offset: 7 } }));
  assert.deepEqual(said(), plain("join and recover"));
  quiet(client.leaveRoom("tenant_123"));
  assert.deepEqual(said(), plain("leave", { data: { roomId: "tenant_123" } }));
  const { event, data, room, id } = vectors.publish;
  quiet(client.sendMessage(event, data, { room, id }));
  assert.deepEqual(said(), plain("publish"));
  quiet(client.history("tenant_123", { limit: 2, before: { epoch: "Zk3v9Q", offset: 7 } }));
  assert.deepEqual(said(), plain("history before a position"));
  quiet(client.authenticate("TOKEN"));
  assert.deepEqual(said(), plain("a token in an object"));
  client.emit("x", undefined, { room: "r" });
  assert.deepEqual(said(), plain("publish without anything that may be left out"));
  client.emit("aZ09_.:@/-", undefined, { room: "aZ09_.:@/-" });
  assert.deepEqual(said(), plain("every character of a name"));
});

test("names that no server takes are refused here", { skip }, async (t) => {
  const { clientRefused } = load("messages.json");
  const { client, socket } = await start(t);
  let tried = 0;
  for (const { json } of clientRefused) {
    let message;
    try {
      message = JSON.parse(json);
    } catch {
      continue;
    }
    if (typeof message?.event !== "string") continue;
    const isBad = (name) => typeof name !== "string" || !/^[A-Za-z0-9_.:@/-]{1,128}$/.test(name);
    if (!isBad(message.event) && !("room" in message && isBad(message.room))) continue;
    tried++;
    await assert.rejects(client.sendMessage(message.event, message.data, { room: message.room }), { code: "configuration" });
  }
  assert.ok(tried > 8, `${tried}`);
  assert.deepEqual(socket.take(), []);
});

test("conversations: everything that a client hears in them", { skip }, async (t) => {
  const { conversations } = load("conversations.json");
  assert.ok(conversations.length > 50);
  const kinds = { $any: "any", $string: "text", $number: 1, $timestamp: "2026-01-01T00:00:00.000Z" };
  const fill = (value) => {
    if (Array.isArray(value)) return value.map(fill);
    if (value && typeof value === "object") {
      const members = Object.entries(value).filter(([name]) => name !== "$more");
      return Object.fromEntries(members.map(([name, part]) => [name, name === "offset" && part === "$any" ? 1 : fill(part)]));
    }
    return typeof value === "string" && value.startsWith("$") ? (kinds[value] ?? value) : value;
  };
  for (const { name, steps } of conversations) {
    await t.test(name, async (t) => {
      const { client, socket, heard } = await start(t);
      for (const { hears } of steps) {
        for (const message of [hears ?? []].flat()) {
          if (message.event === "connected") continue;
          socket.says(fill(message));
          await settle(1);
          assert.equal(client.state, "connected", JSON.stringify(message));
          for (const [event, error] of heard.splice(0)) {
            if (event === "error") assert.ok(error.code && error.message && (error.code !== "bad_request") === (message.data.code !== "bad_request"));
          }
        }
      }
    });
  }
});
