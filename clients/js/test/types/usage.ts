// What the types allow, and what they refuse. Compiled, never run.

import { ConnectionError, type Position, RealtimeClient, RealtimeError, type Receipt } from "@aibos/realtime";
import { RealtimeClient as Bundled } from "@aibos/realtime/client.js";
import { useRoom } from "@aibos/realtime/react";

interface Invoice {
    invoiceId: string;
    amount: number;
}

type Events = { "invoice.created": Invoice; "invoice.paid": { invoiceId: string } };

const client = new RealtimeClient<Events>({
    url: "ws://localhost:3001",
    getToken: async () => "token",
    reconnect: true,
    reconnectAttempts: 5,
    reconnectInterval: 5000,
    heartbeat: { interval: 30000, timeout: 60000 },
});
new RealtimeClient({ url: ["/ws", new URL("wss://realtime.example.com/ws")], token: "token", WebSocket });
new Bundled({ url: "/ws" });

// @ts-expect-error an unknown option
new RealtimeClient({ url: "/ws", reconect: true });
// @ts-expect-error no url
new RealtimeClient({ token: "token" });
// @ts-expect-error a wrong type
new RealtimeClient({ url: "/ws", heartbeat: { interval: "30" } });

const off: () => void = client.on("invoice.created", (invoice, event) => {
    const amount: number = invoice.amount;
    const name: "invoice.created" = event.event;
    const offset: number | null = event.offset;
    return [amount, name, offset];
});
off();
client.on("invoice.created", async ({ amount }) => ({ amount }), { signal: AbortSignal.timeout(5) });
// @ts-expect-error not in the event map's data
client.on("invoice.paid", (data) => data.amount);
client.on("something.else", (data) => data.anything);
client.once("connect", () => {});
client.on("disconnect", (reason) => reason.toUpperCase());
client.on("reconnect", (attempts) => attempts.toFixed());
client.on("state-change", (state) => state === "reconnecting");
// @ts-expect-error there is no such state
client.on("state-change", (state) => state === "offline");
client.on("error", (error) => error instanceof RealtimeError && error.retryable);
client.on("resync", ({ room, position, last }) => [room.length, position?.offset, last?.epoch]);
client.on("user.joined", ({ userId }, { room }) => userId + room);

const publish = async (): Promise<void> => {
    await client.connect({ signal: new AbortController().signal });
    const { members, position, recovered } = await client.joinRoom("tenant_123", { presence: true, rewind: 10 });
    const kept: Position = position;
    await client.joinRoom("other", { recover: kept });
    const receipt: Receipt = await client.sendMessage("invoice.created", { invoiceId: "inv_001", amount: 1000 }, { room: "tenant_123", id: "1" });
    // @ts-expect-error data of another event
    await client.sendMessage("invoice.created", { amount: "1000" }, { room: "tenant_123" });
    const answer = await client.sendMessage<{ approved: boolean }>("invoice.approve", { invoiceId: "inv_001" });
    client.emit("invoice.paid", { invoiceId: "inv_001" }, { room: "tenant_123" });
    for await (const event of client.events("tenant_123", { size: 10 })) if (event.data.invoiceId) break;
    const { events, more } = await client.history("tenant_123", { limit: 5, before: kept });
    const role: string | undefined = (await client.presence("tenant_123"))[0]?.role;
    // @ts-expect-error it is read only
    client.state = "closed";
    await client.close();
    console.log(members, recovered, receipt.position.offset, answer.approved, events.length, more, role, client.user?.tenantId);
};

publish().catch((error: unknown) => {
    if (error instanceof ConnectionError) console.error(error.closeCode, error.reason);
    else if (error instanceof RealtimeError) console.error(error.code, error.details.retryAfter);
});

const { state, isJoined, members, error } = useRoom(client, "tenant_123", {
    presence: true,
    events: { "invoice.created": (invoice) => invoice.amount, "invoice.paid": ({ invoiceId }, { userId }) => [invoiceId, userId] },
});
// @ts-expect-error no such event in the map
useRoom(client, null, { events: { "invoice.lost": () => {} } });
console.log(state, isJoined, members.length, error?.message);
