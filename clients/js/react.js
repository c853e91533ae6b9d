/** The hook `useRoom`: a room of a `RealtimeClient` for as long as a component shows it. */

import { useEffect, useReducer, useRef, useSyncExternalStore } from "react";

/** How many components are in a room, by client: the last one leaves it. */
const users = new WeakMap();

const enter = (client, room) => {
  const rooms = users.get(client) ?? new Map();
  users.set(client, rooms.set(room, (rooms.get(room) ?? 0) + 1));
};

/** A component that is shown again at once (React's StrictMode does that to all) stays in the room. */
const leaveSoon = (client, room) => {
  const rooms = users.get(client);
  rooms.set(room, rooms.get(room) - 1);
  setTimeout(() => {
    if (rooms.get(room) === 0) {
      rooms.delete(room);
      client.leaveRoom(room).catch(() => {}); // the room, or the client, is closed already
    }
  });
};

const START = { isJoined: false, members: [], error: null };

const reduce = (state, [kind, value]) => {
  if (kind === "start") return START;
  if (kind === "joined") return { isJoined: true, members: value, error: null };
  if (kind === "members") return { ...state, members: value };
  if (kind === "failed") return { ...state, isJoined: false, error: value };
  const others = state.members.filter(({ userId }) => userId !== value.userId);
  return { ...state, members: kind === "user.joined" ? [...others, value] : others };
};

/**
 * Join `room`, and leave it when no component shows it any more. `events`: callbacks `(data, event)` by name, for events of this room alone;
 * they may be new functions at every rendering. `presence`: keep `members` up to date. The client is connected by whoever made it.
 *
 * Returns `{ state, isJoined, members, error }`. Changing `client` or `room` begins anew. Without a room nothing is joined.
 */
export function useRoom(client, room, { events = {}, presence = false } = {}) {
  const latest = useRef(events);
  const [known, tell] = useReducer(reduce, START);
  const state = useSyncExternalStore(
    (onChange) => client.on("state-change", onChange),
    () => client.state,
    () => client.state,
  );
  const isUsable = state !== "disconnected" && state !== "closed";
  useEffect(() => {
    latest.current = events;
  });
  const names = Object.keys(events).sort().join();

  useEffect(() => {
    if (!room || !names) return;
    const offs = names.split(",").map((name) => client.on(name, (data, event) => event?.room === room && latest.current[name]?.(data, event)));
    return () => offs.forEach((off) => off());
  }, [client, room, names]);

  useEffect(() => {
    if (!room || !isUsable) return;
    let isCurrent = true;
    const note = (...action) => isCurrent && tell(action);
    const failed = (error) => note("failed", error);
    note("start");
    enter(client, room);
    client.joinRoom(room, { presence }).then(({ members }) => note("joined", members), failed);
    const ask = () =>
      client.presence(room).then(
        (members) => note("members", members),
        () => {},
      );
    const offs = ["user.joined", "user.left"].map((name) => client.on(name, (member, event) => event.room === room && note(name, member)));
    offs.push(client.on("room-closed", ({ roomId, reason }) => roomId === room && failed(new Error(`The room was closed: ${reason}.`))));
    if (presence) offs.push(client.on("reconnect", ask));
    return () => {
      isCurrent = false;
      offs.forEach((off) => off());
      leaveSoon(client, room);
    };
  }, [client, room, presence, isUsable]);

  return { state, ...known };
}
