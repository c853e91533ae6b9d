// A page that joins rooms and writes down what its callbacks get. What it is to do stands in `window.wanted`.
import { RealtimeClient } from "/client.js";

const { token, rooms, options } = window.wanted;
const seen = (window.seen = { events: [], life: [], errors: [], resyncs: [] });
const client = (window.client = new RealtimeClient({ url: location.origin, token, reconnectInterval: 50, ...options }));

client.on("tick", (data, { room, epoch, offset, id }) => seen.events.push({ room, epoch, offset, id, n: data.n }));
for (const name of ["connect", "disconnect", "reconnect"]) client.on(name, () => seen.life.push(name));
client.on("error", ({ name, code, message }) => seen.errors.push({ name, code, message }));
client.on("resync", ({ room }) => seen.resyncs.push(room));

const start = async () => {
  await client.connect();
  for (const room of rooms) await client.joinRoom(room);
  document.title = "Listening";
};
start().catch(({ name, code }) => (document.title = `Failed: ${name} ${code}`));
