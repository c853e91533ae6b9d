// ws, the WebSocket library of Node, with rooms of its own as an application would write them. Rooms and messages as in uws.js.
const { WebSocketServer } = require("ws");

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: +process.env.PORT, perMessageDeflate: false });
server.on("connection", (socket, request) => {
  const joined = request.url.slice(1).split(",");
  for (const room of joined) {
    if (!rooms.has(room)) rooms.set(room, new Set());
    rooms.get(room).add(socket);
  }
  socket.on("message", (data) => {
    const room = data.latin1Slice(0, data.indexOf(32));
    if (room === "echo") socket.send(data, { binary: false });
    else for (const member of rooms.get(room)) member.send(data, { binary: false });
  });
  socket.on("close", () => {
    for (const room of joined) if (rooms.get(room).delete(socket) && rooms.get(room).size === 0) rooms.delete(room);
  });
  socket.on("error", () => {});
});
