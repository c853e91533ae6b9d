/** One room as a client sees it: its place in the log, and the filter that lets each event through once. It sends nothing. */

import { pack, toEvent, toPosition } from "./wire.js";

const RECENT_IDS = 1000; // as many as the hot log of a room holds by default

// Phases of a room.
/** Not on this connection. */
export const AWAY = 0;
/** The answer is awaited; live events are discarded, for the answer brings them again. */
export const JOINING = 1;
/** Nothing more is wanted. */
export const LEAVING = 2;
export const LIVE = 3;
/** The inbox was full; live events are discarded until it has space. */
export const BEHIND = 4;

// Why a room is there: `joinRoom`; an own stream (`user:<id>`, `all`); or the server put the socket there.
export const ASKED = 0;
export const STREAM = 1;
export const GIVEN = 2;

/** Go on from here. Nothing: from whatever comes next. */
export const place = (room, position) => {
  room._epoch = position?.epoch;
  room._received = position?.offset ?? 0;
};

export const enterRoom = (room) => {
  room._phase = LIVE;
  room._isKnown = true;
  room._refusals = 0;
  return room;
};

/**
 * `_received`: the last offset that came, in `_epoch`. `_handled`: where the application is. `_isKnown`: in it once; then it is joined again
 * after a loss, and left only for good. `_announced`: of an own stream, where it stood when this connection began. `_waiters`: who waits for
 * the answer to a join.
 */
export const makeRoom = (name, origin, recover, rewind) => {
  const room = { _name: name, _origin: origin, _phase: AWAY, _handled: recover && toPosition(recover), _recent: new Set(), _waiters: new Set() };
  room._rewind = recover ? undefined : rewind;
  place(room, recover);
  return origin ? enterRoom(room) : room;
};

/** Up to where everything came; null while there is no such place. */
export const placeOf = (room) => (room?._epoch ? { epoch: room._epoch, offset: room._received } : null);

export const isAt = (room, { epoch, offset }) => room._epoch == epoch && room._received == offset;

/** `data` of a `join-room`, of one that brings the room up to date or (`isLive`) leaves the place alone. */
export const joinData = (room, isLive) =>
  pack({
    roomId: room._name,
    rewind: isLive ? undefined : room._rewind,
    recover: (!isLive && !room._rewind && placeOf(room)) || undefined,
    presence: room._presence,
  });

/** Take the answer to a join. True: continuity is lost, and the place is now the answer's. */
export const settle = (room, answer) => {
  const isFirst = !room._epoch || room._rewind;
  enterRoom(room);
  if (isFirst) {
    room._handled = toPosition(answer);
    place(room, room._rewind ? { epoch: answer.epoch } : answer);
  } else if (!(answer.recovered && answer.epoch == room._epoch) && !isAt(room, answer)) {
    place(room, answer);
    return true;
  }
};

/** Whether an event has not come before: by its place, and by its id. */
export const isNew = (room, { offset = null, id }) => (offset === null || offset > room._received) && !(id && room._recent.has(id));

/** The event to hand on, or undefined for one that came before. The place moves on in either case. */
export const admit = (room, message) => {
  const { offset, id } = message;
  const recent = room._recent;
  const isFirst = isNew(room, message);
  if (offset > room._received) {
    room._received = offset;
    room._rewind = undefined;
  }
  if (id) recent.add(id);
  if (recent.size > RECENT_IDS) recent.delete(recent.values().next().value);
  return isFirst && toEvent(message, room._epoch);
};
