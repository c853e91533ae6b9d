/**
 * Random runs against a server whose connections break at any moment: every event of a joined room is told exactly once and in order, or the
 * application is told of the gap before any later event; every publish is in the log once.
 *
 * RUNS=2000 makes more of them, SEED=17 repeats one.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./rig/clock.js";
import { ModelServer } from "./rig/model.js";
import { make } from "./rig/start.js";

const makeRandom = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
};

const ROOMS = ["a", "b", "user:ann"];

const run = async (t, seed) => {
  const random = makeRandom(seed);
  const chance = (probability) => random() < probability;
  const pick = (list) => list[Math.floor(random() * list.length)];
  const { net, client, clock } = make(
    t,
    { reconnectInterval: 500, inboxSize: pick([1500, 2 ** 24]), heartbeat: { interval: 2000, timeout: 3000 } },
    0.5,
  );
  const server = new ModelServer(net, chance);
  const places = new Map(); // room: the position up to which the application has seen everything
  const told = new Set();
  client.on("tick", async (data, { room, offset, epoch, id }) => {
    const place = places.get(room);
    assert.ok(place, `an event of ${room}, where nothing was joined`);
    // A publish that is repeated after its log was lost is in two logs: it is told once.
    while (place.epoch === epoch && told.has(server.logs.get(epoch)[place.offset]?.id)) place.offset++;
    assert.ok(!told.has(id), `seed ${seed}: twice`);
    told.add(id);
    assert.deepEqual([epoch, offset], [place.epoch, place.offset + 1], `seed ${seed}, room ${room}: not the next one`);
    place.offset = offset;
    if (chance(0.1)) await new Promise((resolve) => setTimeout(resolve, 300));
    if (chance(0.05)) throw new Error("a callback's own");
  });
  client.on("resync", ({ room, position }) => places.has(room) && places.set(room, { ...position }));
  const failures = [];
  client.on("error", (error) => error instanceof assert.AssertionError && failures.push(error));
  client.connect().catch(() => {});
  for (const room of ["a", "b"]) {
    places.set(room, null);
    const join = () => client.joinRoom(room).then(({ position }) => places.set(room, position), join);
    join();
  }
  const joined = async () => {
    for (let step = 0; step < 3000 && ![...places.values()].every(Boolean); step++) {
      if (!server.step()) await clock.advance(100);
      await settle(2);
    }
  };
  await joined();
  places.set("user:ann", { ...client.position("user:ann") });
  const published = [];
  for (let step = 0; step < 150; step++) {
    const what = random();
    if (what < 0.25) server.publish(pick(ROOMS), step);
    else if (what < 0.4) {
      const [room, id] = [pick(["a", "b"]), `client-${step}`];
      const epoch = server.room(room).epoch;
      published.push({
        room,
        id,
        epoch,
        promise: client.sendMessage("tick", step, { room, id }).then(
          (receipt) => receipt.position.offset,
          (error) => error.code,
        ),
      });
    } else if (what < 0.44) server.cut(pick([1006, 4001, 4008, 1012]));
    else if (what < 0.45) server.loseLog(pick(ROOMS));
    else if (what < 0.47) server.isDown = !server.isDown;
    else if (what < 0.6) await clock.advance(pick([10, 100, 1000, 6000]));
    else for (let count = 0; count < 4; count++) server.step();
    await settle(2);
  }
  // Everything is well again: what is still on its way arrives.
  server.isDown = false;
  server.chance = () => false;
  for (const room of ROOMS) server.publish(room, "last");
  const isDone = () =>
    ROOMS.every((room) => {
      const { epoch, log } = server.room(room);
      return places.get(room)?.epoch === epoch && log.slice(places.get(room).offset).every(({ id }) => told.has(id));
    });
  for (let step = 0; step < 4000 && !(isDone() && !server.step()); step++) {
    if (!server.step()) await clock.advance(100);
    await settle(2);
  }
  for (let step = 0; step < 100 || server.step(); step++) {
    while (server.step());
    await clock.advance(200);
  }
  if (failures.length) throw failures[0];
  const state = JSON.stringify([...places, client.state, ROOMS.map((room) => [server.room(room).epoch, server.room(room).log.length])]);
  assert.ok(isDone(), `seed ${seed}: what was missed never came: ${state}`);
  for (const { room, id, epoch, promise } of published) {
    const offset = await promise;
    const { epoch: last, log } = server.room(room);
    if (last !== epoch) continue; // its log was lost
    const found = log.filter((event) => event.id === id);
    if (typeof offset === "number")
      assert.deepEqual(
        found.map((event) => event.offset),
        [offset],
        `seed ${seed}: an acknowledged publish`,
      );
    else assert.ok(["timeout", "rate_limited"].includes(offset) && found.length <= 1, `seed ${seed}: ${offset}`);
  }
  for (const room of ROOMS) {
    const { epoch, offset } = client.position(room);
    assert.deepEqual([epoch, offset >= places.get(room).offset], [places.get(room).epoch, true]);
  }
  await client.close();
  await clock.advance(20000);
};

const seeds = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: Number(process.env.RUNS ?? 60) }, (_, index) => index + 1);
for (const seed of seeds) test(`run ${seed}`, (t) => run(t, seed));
