// µWebSockets, the C++ server with its binding to Node. Knows topics; no users, rights, positions or acknowledgements.
// The rooms that a client joins stand in its path, as /bench:0,bench:1. A message is a room, a blank and what is sent; with "echo" it is answered.
const uws = require("uwebsockets/uws.js");

const app = uws.App();
app.ws("/*", {
  idleTimeout: 0,
  sendPingsAutomatically: false,
  maxPayloadLength: 1 << 20,
  maxBackpressure: 64 << 20,
  upgrade: (response, request, context) => {
    const header = (name) => request.getHeader(`sec-websocket-${name}`);
    const rooms = request.getUrl().slice(1).split(",");
    response.upgrade({ rooms }, header("key"), header("protocol"), header("extensions"), context);
  },
  open: (socket) => {
    for (const room of socket.getUserData().rooms) socket.subscribe(room);
    delete socket.getUserData().rooms;
  },
  message: (socket, message, isBinary) => {
    const bytes = Buffer.from(message);
    const room = bytes.latin1Slice(0, bytes.indexOf(32));
    if (room === "echo") socket.send(message, isBinary);
    else app.publish(room, message, isBinary);
  },
});
app.listen("127.0.0.1", +process.env.PORT, (listening) => listening || process.exit(1));
