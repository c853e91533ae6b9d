/** What a class has to be, beside what it does. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { RealtimeClient } from "./rig/client.js";
import { settle } from "./rig/clock.js";
import { Net } from "./rig/net.js";

test("a subclass may have methods of its own", async (t) => {
  const noted = [];
  class Noting extends RealtimeClient {
    on(event, callback, options) {
      noted.push(event);
      return super.on(event, callback, options);
    }
  }
  const net = new Net();
  const client = new Noting({ url: "ws://localhost:3001", WebSocket: net.WebSocket });
  t.after(() => client.close());
  const seen = [];
  client.on("x", (data) => seen.push(data));
  client.once("x", (data) => seen.push(data));
  const connecting = client.connect();
  (await net.socket(1)).greets();
  await connecting;
  net.last.says({ event: "x", data: 1 });
  await settle();
  assert.deepEqual(
    [noted, seen],
    [
      ["x", "x"],
      [1, 1],
    ],
  );
  assert.ok(client instanceof RealtimeClient);
});

test("two clients do not know of each other", async () => {
  const nets = [new Net(), new Net()];
  const clients = nets.map(({ WebSocket }) => new RealtimeClient({ url: "ws://localhost:3001", WebSocket }));
  const seen = [];
  clients[0].on("x", (data) => seen.push(data));
  for (const [index, client] of clients.entries()) {
    const connecting = client.connect();
    (await nets[index].socket(1)).greets({ user: { id: `u${index}` } });
    await connecting;
  }
  nets[1].last.says({ event: "x", data: 1 });
  await settle();
  assert.deepEqual([seen, clients.map(({ user }) => user.id)], [[], ["u0", "u1"]]);
  await clients[0].close();
  assert.deepEqual(
    clients.map(({ state }) => state),
    ["closed", "connected"],
  );
  await clients[1].close();
});
