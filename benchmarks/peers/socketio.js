// Socket.IO, alone or as a node; with REDIS_URL, its Redis Streams adapter joins the nodes. RECOVERY=1: with connection state recovery.
const http = require("node:http");
const { Server } = require("socket.io");

const EVENT = "bench.event";

async function main() {
  const options = { transports: ["websocket"] };
  if (process.env.RECOVERY) options.connectionStateRecovery = {};
  if (process.env.REDIS_URL) {
    const { createClient } = require("redis");
    const { createAdapter } = require("@socket.io/redis-streams-adapter");
    const client = createClient({ url: process.env.REDIS_URL });
    await client.connect();
    options.adapter = createAdapter(client);
  }
  const server = http.createServer();
  const io = new Server(server, options);
  io.on("connection", (socket) => {
    socket.on("join", (room, acknowledge) => {
      socket.join(room);
      acknowledge(true);
    });
    socket.on("publish", (room, data, acknowledge) => {
      io.to(room).emit(EVENT, data); // returns at once: there is nothing here that could be awaited
      if (acknowledge) acknowledge(true);
    });
    socket.on("echo", (data, acknowledge) => acknowledge(data));
    socket.on("broadcast", async (wanted, acknowledge) => {
      const data = JSON.parse(wanted.data);
      const each = Math.floor(wanted.count / wanted.window);
      // io.to(room).emit() cannot be awaited, its adapter can: so many are on the way as were asked for, and no more
      const emit = async (room) => {
        for (let i = 0; i < each; i++) {
          const packet = { type: 2, nsp: "/", data: [EVENT, data] };
          await io.of("/").adapter.broadcast(packet, { rooms: new Set([room]), except: new Set(), flags: {} });
        }
      };
      await Promise.all(Array.from({ length: wanted.window }, (_, worker) => emit(`bench:${worker}`)));
      acknowledge(true);
    });
  });
  server.listen(+process.env.PORT, "127.0.0.1");
}

main();
