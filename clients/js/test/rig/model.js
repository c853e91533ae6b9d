/** A small server after the protocol, in memory, whose connections may break at any moment: for random runs. */

export class ModelServer {
  /** `chance(p)`: true with this probability. */
  constructor(net, chance) {
    this.net = net;
    this.chance = chance;
    this.rooms = new Map();
    this.epochs = 0;
    this.logs = new Map(); // by epoch, the lost ones too
    this.queues = new Map(); // socket: what is on its way to the client
    this.members = new Map(); // socket: its rooms
    this.isDown = false;
    net.onSocket = (socket) => {
      this.queues.set(socket, [() => this.greet(socket)]);
      socket.onSaid = (message) => this.queues.get(socket)?.push(() => this.take(socket, message));
      socket.onClosedByClient = () => this.forget(socket);
    };
  }

  room(name) {
    if (!this.rooms.has(name)) {
      const room = { epoch: `e${++this.epochs}`, log: [], ids: new Map() };
      this.rooms.set(name, room);
      this.logs.set(room.epoch, room.log);
    }
    return this.rooms.get(name);
  }

  /** Append an event, and send it to every member. */
  publish(name, data, id = `server-${this.room(name).epoch}-${this.room(name).log.length}`) {
    const room = this.room(name);
    const known = room.ids.get(id);
    if (known) return { ...known, duplicate: true };
    const event = { event: "tick", room: name, offset: room.log.length + 1, id, data };
    room.log.push(event);
    const place = { id, offset: event.offset, epoch: room.epoch, duplicate: false };
    room.ids.set(id, place);
    for (const [socket, rooms] of this.members) if (rooms.has(name)) this.say(socket, event);
    return place;
  }

  /** The log of a room is lost: who is in it is told. */
  loseLog(name) {
    this.rooms.delete(name);
    const { epoch } = this.room(name);
    for (const [socket, rooms] of this.members) if (rooms.has(name)) this.say(socket, { event: "resync", data: { roomId: name, epoch, offset: 0 } });
  }

  say(socket, message) {
    this.queues.get(socket)?.push(() => {
      socket.says(message);
      if (message.offset && this.chance(0.05)) socket.says(message); // a broker may deliver twice
    });
  }

  /** One thing happens on one connection. False: there is nothing to happen. */
  step() {
    for (const [socket, queue] of this.queues) {
      const act = queue.shift();
      if (act) {
        act();
        return true;
      }
    }
    return false;
  }

  cut(code = 1006) {
    for (const socket of [...this.queues.keys()]) {
      this.forget(socket);
      socket.ends(code);
    }
  }

  forget(socket) {
    this.queues.delete(socket);
    this.members.delete(socket);
  }

  greet(socket) {
    if (this.isDown || this.chance(0.2)) {
      this.forget(socket);
      socket.ends(1006);
      return;
    }
    this.members.set(socket, new Set());
    const { epoch, log } = this.room("user:ann");
    this.members.get(socket).add("user:ann");
    socket.greets({ streams: { "user:ann": { epoch, offset: log.length } } });
  }

  take(socket, { event, ref, data, room: name, id }) {
    if (!this.members.has(socket)) return;
    const answer = (event, data) => this.say(socket, { event, ref, data });
    if (event === "ping") return this.say(socket, { event: "pong" });
    if (this.chance(0.1) && event !== "leave-room") {
      return answer("error", { code: "rate_limited", message: "slower", retryable: true, retryAfter: 0.2 });
    }
    if (event === "join-room") return this.join(socket, data, answer);
    if (event === "leave-room") {
      this.members.get(socket).delete(data.roomId);
      return answer("left-room", { roomId: data.roomId });
    }
    const place = this.publish(name, data, id);
    if (this.chance(0.2)) return this.cut(); // it is done, and nobody hears of it
    answer("ack", place);
  }

  join(socket, { roomId, recover }, answer) {
    const { epoch, log } = this.room(roomId);
    this.members.get(socket).add(roomId);
    const recovered = recover ? recover.epoch === epoch && recover.offset <= log.length : null;
    answer("joined-room", { roomId, epoch, offset: log.length, recovered });
    if (recovered) for (const event of log.slice(recover.offset)) this.say(socket, event);
  }
}
