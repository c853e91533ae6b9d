/** A network of scripted servers: every WebSocket that a client opens is in the hands of the test. */

import assert from "node:assert/strict";
import { settle } from "./clock.js";

export const LIMITS = { messageBytes: 65536 };

class FakeSocket extends EventTarget {
  constructor(net, url, protocols) {
    super();
    Object.assign(this, { net, url, protocols, readyState: 0, bufferedAmount: 0, said: [], isClosedByClient: false });
    net.sockets.push(this);
    net.onSocket?.(this);
  }

  // What the client does.

  send(text) {
    assert.equal(this.readyState === 0, false, "sent before the connection was open");
    assert.equal(this.readyState, 1, "sent into a closing socket");
    const message = JSON.parse(text);
    this.said.push(message);
    this.onSaid?.(message);
  }

  close(code = 1005) {
    if (this.readyState >= 2) return;
    assert.ok(code === 1005 || code === 1000 || (code >= 3000 && code <= 4999), "a browser refuses this code");
    this.readyState = 2;
    this.closedWith = code;
    this.isClosedByClient = true;
    this.onClosedByClient?.();
    if (this.net.answersCloses) queueMicrotask(() => this.ends(code));
  }

  // What the server does.

  opens() {
    if (this.readyState === 0) this.readyState = 1;
    this.tell("open", {});
  }

  says(message) {
    if (this.readyState < 2) this.tell("message", { data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  greets({ user = { id: "ann", role: "user", tenantId: "1" }, streams, limits = LIMITS, ...rest } = {}) {
    this.opens();
    const data = { socketId: `s${this.net.sockets.length}`, protocol: 1, user, limits, heartbeat: { interval: 30, timeout: 60 }, ...rest };
    this.says({ event: "connected", data: streams ? { ...data, streams } : data });
  }

  /** The connection is over: closed by the server with a code, or lost (1006). */
  ends(code = 1006, reason = "") {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.tell("close", { code, reason });
  }

  tell(type, members) {
    const event = Object.assign(new Event(type), members);
    this[`on${type}`]?.(event);
    this.dispatchEvent(event);
  }

  // For scripts.

  /** What was said since the last call. */
  take() {
    return this.said.splice(0);
  }

  /** The next message said, which has to be this event. */
  hear(event) {
    const message = this.said.shift();
    assert.equal(message?.event, event, `the client said ${JSON.stringify(message)}`);
    return message;
  }

  /** Answer a join: the room ends at `offset` of `epoch`. */
  joins(message, { epoch = "e1", offset = 0, recovered = null, ...rest } = {}) {
    const roomId = message.data.roomId;
    this.says({ event: "joined-room", ref: message.ref, data: { roomId, epoch, offset, recovered, ...rest } });
  }

  acknowledges(message, { offset = 1, epoch = "e1", duplicate = false } = {}) {
    this.says({ event: "ack", ref: message.ref, data: { id: message.id, offset, epoch, duplicate } });
  }

  event(room, offset, data = offset, rest = {}) {
    this.says({ event: "tick", room, offset, id: `${room}-${offset}`, data, timestamp: "2026-01-01T00:00:00.000Z", ...rest });
  }

  refuses(message, code, { retryable = false, ...details } = {}) {
    const event = code === "permission_denied" ? code : "error";
    this.says({ event, ref: message.ref, data: { code, message: `no: ${code}`, retryable, ...details } });
  }
}

export class Net {
  constructor() {
    this.sockets = [];
    this.answersCloses = true;
    const net = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(net, url, protocols);
      }
    };
  }

  get last() {
    return this.sockets.at(-1);
  }

  /** The socket of attempt number `count`, which has to be the last one. */
  async socket(count) {
    await settle();
    assert.equal(this.sockets.length, count, "so many connections were opened");
    return this.last;
  }
}
