/**
 * What one client knows of its conversation with the server: what was asked, which rooms are joined and how far, what each message means.
 *
 * It outlives connections: `attach` … `receive` … `lose`, and again. It opens none itself; what the application is to hear goes to the inbox.
 */

import { AuthenticationError, RealtimeError, notIn, protocolError, readError, retryAfter, unconnected } from "./errors.js";
import { ACT, makeRequests } from "./requests.js";
import {
  ASKED,
  AWAY,
  BEHIND,
  GIVEN,
  JOINING,
  LEAVING,
  LIVE,
  STREAM,
  admit,
  isAt,
  isNew,
  joinData,
  makeRoom,
  place,
  placeOf,
  settle,
} from "./room.js";
import { isAnswer, isPosition, pack, toEvent, toPosition } from "./wire.js";

const OVERHEAD = 256; // what a message in the inbox costs beside its text

/** `client`: gets `user` and `socketId`. `onParting`, `onExpiring`: the server will close soon (`data` of `reconnect`); the token will end soon. */
export const makeSession = (client, options, push, tell, onParting, onExpiring) => {
  const rooms = new Map(); // own streams too
  let held = 0; // size of what waits for the application
  let socket, isOver; // no socket: no connection

  const each = (visit) => rooms.forEach((room) => visit(room));

  /** Messages wait for the rooms, so that nobody answers to what he has not seen. */
  const isHeld = () => !socket || [...rooms.values()].some((room) => room._phase == JOINING);

  const { ask, pump, takeAnswer, use, emit, drop } = makeRequests(options, isHeld);

  const act = (event, data, then) => ask(ACT, { event }, data, undefined, then);

  // Rooms.

  const add = (room) => {
    rooms.set(room._name, room);
    return room;
  };

  const handle = (name, position) => {
    if (rooms.has(name)) rooms.get(name)._handled = position;
  };

  /** Continuity is lost: what is held of the room is stale. */
  const resync = (name, position, last) => push({ _name: "resync", _args: [{ room: name, position, last }], _done: () => handle(name, position) });

  /** No longer in a room. `reason`: the server's word for it, or undefined after a leave of our own. */
  const depart = (name, reason) => {
    rooms.delete(name);
    push({ _name: reason && "room-closed", _args: [{ roomId: name, reason }], _ends: name });
  };

  /** Join, or join again and recover. */
  const enter = (room) => {
    room._phase = JOINING;
    act("join-room", joinData(room), (error, answer) => {
      if (!error && !isPosition(answer)) error = protocolError("The answer to a join");
      if (rooms.get(room._name) == room && room._phase == JOINING) {
        if (error) {
          room._phase = AWAY;
          if (!socket) return; // the next connection will tell
          refuse(room, error);
        } else {
          const last = placeOf(room);
          if (settle(room, answer)) resync(room._name, placeOf(room), last);
        }
      }
      release(room, error, answer);
    });
  };

  const release = (room, error, answer) => {
    const waiters = [...room._waiters];
    room._waiters.clear();
    for (const waiter of waiters) waiter(error, answer);
  };

  /** A join failed: the first one for good, a later one only if its error says so. */
  const refuse = (room, error) => {
    const name = room._name;
    if (!room._isKnown) rooms.delete(name);
    else if (error.retryable) {
      const again = () => rooms.get(name) == room && room._phase == AWAY && enter(room);
      room._timer = setTimeout(again, retryAfter(error, 1000 * 2 ** Math.min(room._refusals++, 4)));
    } else if (room._origin == ASKED) {
      depart(name, error.code);
      tell("error", error);
    } else {
      const last = placeOf(room);
      room._phase = LIVE;
      place(room, room._announced);
      resync(name, placeOf(room), last);
    }
  };

  /** Bring the rooms up to date on a new connection, or with a new token. `streams`: the own ones, and where they stand. */
  const refresh = (streams) => {
    for (const [name, position] of Object.entries(Object(streams))) {
      const room = rooms.get(name);
      if (!room) add(makeRoom(name, STREAM, position));
      else if (room._phase == AWAY) {
        room._announced = position;
        // Nothing was logged since: no recovery is needed, and a thousand clients that come back ask for none.
        if (isAt(room, position)) room._phase = LIVE;
        else if (room._origin == STREAM) enter(room);
      }
    }
    each((room) => {
      if (!client.user || room._phase != AWAY) return;
      if (room._origin == STREAM)
        rooms.delete(room._name); // another user's
      else if (room._origin == ASKED || room._epoch) enter(room);
      else {
        // The server put us there and never said where the log stood: what was missed cannot be known.
        room._phase = LIVE;
        resync(room._name, null, null);
      }
    });
  };

  const leave = (name, then) => {
    const room = rooms.get(name);
    const done = (error) => {
      if (rooms.get(name) == room) depart(name);
      then(socket && error);
    };
    if (socket) {
      if (room) room._phase = LEAVING;
      return act("leave-room", pack({ roomId: name }), done);
    }
    // Without a connection there is nothing to leave.
    if (!room) return then(notIn());
    done();
    release(room, notIn());
  };

  // Messages.

  /** Hand on what holds up the inbox until the application is done with it. */
  const hand = (data, event, size, isOfRoom, done) => {
    held += size;
    push({
      _name: event.event,
      _args: [data, event],
      _event: isOfRoom && event,
      _done(answer) {
        held -= size;
        done(answer);
        if (socket && held <= options.inboxSize / 2) each((room) => room._phase == BEHIND && enter(room));
      },
    });
  };

  const takeEvent = (message, name, size) => {
    const room = rooms.get(name) ?? add(makeRoom(name, GIVEN));
    if (room._phase != LIVE) return;
    if (held >= options.inboxSize && isNew(room, message)) {
      if (message.offset == null) return; // volatile: nothing promises it, and there is no space
      if (room._epoch) return (room._phase = BEHIND);
    }
    const event = admit(room, message);
    if (event) hand(event.data, event, size, true, () => event.epoch && handle(name, toPosition(event)));
  };

  /** An event to this socket alone. Nothing can bring it back, so it gets twice the space before it is dropped. */
  const takeOther = (event, data, ref, size) => {
    const mine = socket;
    if (held >= 2 * options.inboxSize) return;
    hand(data, toEvent({ event, data }), size, false, (answer) => {
      try {
        // On another connection the ref means nothing.
        if (ref !== null && answer && mine == socket) emit({ event: "ack", ref }, pack(answer[0]));
      } catch (error) {
        tell("error", error);
      }
    });
  };

  return {
    ask,
    leave,
    positionOf: (name) => rooms.get(name)?._handled ?? null,
    epochOf: (name) => rooms.get(name)?._epoch,

    /** Names of the rooms in which this client is, own streams left out. */
    joined: () => [...rooms.values()].filter((room) => room._origin != STREAM && room._phase >= LIVE).map((room) => room._name),

    /** Send without an acknowledgement, at most once. */
    emit(head, data) {
      if (!socket) throw unconnected();
      emit(head, data);
    },

    /** Join, for good. Returned is what takes it back. */
    join(name, { recover, rewind, presence }, then) {
      let room = rooms.get(name);
      if (!room || room._phase == LEAVING) room = add(makeRoom(name, ASKED, recover, rewind));
      if (room._origin == GIVEN) room._origin = ASKED;
      room._presence ||= presence;
      const answer = (error, value) => {
        // The connection is lost, and the next one brings the answer.
        if (error && !socket && !isOver && rooms.get(name) == room) room._waiters.add(answer);
        else then(error, error || { room: name, position: toPosition(value), members: value.members ?? [], recovered: value.recovered ?? null });
      };
      if (room._phase == AWAY) {
        room._waiters.add(answer);
        if (socket) enter(room);
        // In a room that is live only the answer is new: asking to recover would make us discard events until it came.
      } else act("join-room", joinData(room, true), answer);
      return () => {
        room._waiters.delete(answer);
        if (room._isKnown || room._waiters.size || rooms.get(name) != room) return;
        // It may have been sent, and may yet succeed.
        if (room._phase == JOINING) leave(name, () => {});
        else rooms.delete(name);
      };
    },

    /** Present a token. */
    authenticate(token, then) {
      if (!socket) throw unconnected();
      act("authenticate", pack({ token }), (error, answer) => {
        if (!error && answer?.success !== true) error = new AuthenticationError("The token is not valid.");
        if (!error) {
          client.user = answer.user ?? client.user;
          refresh(answer.streams);
        }
        then(error);
      });
    },

    /** A connection is established; `data` is that of `connected`. Throws for what is not of the protocol. */
    attach(to, data) {
      const { protocol = 1, streams, limits, socketId, user = null } = Object(data);
      if (protocol !== 1) throw new RealtimeError(`The server speaks version ${+protocol} of the protocol.`, { code: "bad_request" });
      if (!data || !Object.values(Object(streams)).every(isPosition)) throw protocolError("The greeting");
      socket = to;
      use(to, limits?.messageBytes);
      client.socketId = socketId;
      client.user = user;
      refresh(streams);
      pump();
    },

    /** One message of the server. */
    receive(message, size) {
      const { event, room, ref = null, data = null } = message;
      const { roomId, reason } = Object(data);
      const known = rooms.get(roomId);
      size += OVERHEAD;
      if (isAnswer(message)) takeAnswer(message);
      else if (room != null) takeEvent(message, room, size);
      else if (event == "error") tell(event, readError(message));
      else if (event == "resync") {
        if (!isPosition(data)) throw protocolError("A resync");
        const last = placeOf(known);
        if (known) {
          place(known, data);
          known._rewind = undefined;
          if (known._phase == BEHIND) known._phase = LIVE;
        }
        resync(roomId, toPosition(data), last);
      } else if (event == "room-closed") {
        // Between a join or a leave and its answer, the answer says what holds.
        if (known?._phase != JOINING && known?._phase != LEAVING) depart(roomId, reason || "closed");
      } else if (event == "reconnect") onParting(Object(data));
      else if (!/^(ack|pong|connected)$/.test(event)) {
        // The server may put this socket into a room; an application's own message of that name may hold anything.
        const isGift = event == "joined-room" && isPosition(data) && (!known || (known._origin == GIVEN && !known._epoch));
        if (isGift) settle(known ?? add(makeRoom(roomId, GIVEN)), data);
        if (event == "permission_denied") tell("error", readError(message));
        if (event == "token-expiring") onExpiring();
        takeOther(event, data, ref, size);
      }
    },

    /**
     * The connection is gone. What can be repeated waits for the next one; the rest is over. `keepsSent` false: the peer took offence at a
     * message, so none is repeated. `isFinal`: no other connection comes by itself, and every waiter gets the error; joined rooms and their places
     * are kept.
     */
    lose(error, keepsSent, isFinal) {
      isOver = isFinal;
      socket = undefined;
      drop(error, keepsSent, isFinal);
      each((room) => {
        room._phase = AWAY;
        clearTimeout(room._timer);
        if (!isFinal) return;
        if (!room._isKnown) rooms.delete(room._name);
        release(room, error);
      });
      isOver = false;
    },
  };
};
