/** Messages as they stand in the frames of a WebSocket, and the parts of which they are made. */

import { RealtimeError, protocolError } from "./errors.js";

export const isPosition = (value) => typeof value?.epoch == "string" && Number.isSafeInteger(value.offset);

export const toPosition = ({ epoch, offset }) => ({ epoch, offset });

/** An event as an application gets it. */
export const toEvent = ({ ref, ...message }, epoch = null, room = "") => {
  const event = { event: "", room, data: null, id: "", offset: null, epoch, userId: null, timestamp: null, ...message };
  if (event.offset === null) event.epoch = null;
  return event;
};

/** Data as JSON, undefined for nothing. Throws for what JSON cannot express. */
export const pack = (data) => {
  try {
    return JSON.stringify(data, (_, value) => {
      if (typeof value == "number" && !isFinite(value)) throw 0;
      return value;
    });
  } catch {
    throw new RealtimeError("This data cannot be sent: it is no JSON.", { code: "validation_failed" });
  }
};

const is = (value, types) => value == null || types.includes(typeof value);

/** A message of the server. Throws for what is none. */
export const decode = (text) => {
  try {
    const message = JSON.parse(text);
    const { event, room, id, offset, ref, userId, timestamp } = message;
    if (event.trim && [room, id, userId, timestamp].every((value) => is(value, "string")) && is(offset, "number") && is(ref, "string number"))
      return message;
  } catch {}
  throw protocolError("A message of the server");
};

/** Answers to requests. Under any other name a `ref` is the server's: it waits for an answer itself. */
export const isAnswer = ({ event, ref }) =>
  ref != null && /^(ack|authenticated|joined-room|left-room|history|presence|error|permission_denied)$/.test(event);
