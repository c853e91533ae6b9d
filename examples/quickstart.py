import asyncio
import secrets

from aibos_realtime import RealtimeClient, RealtimeServer


async def main() -> None:
    async with RealtimeServer(host="127.0.0.1", port=0, authentication={"jwt_secret": secrets.token_hex(32)}) as server:
        token = server.auth.issue(user_id="user_123", tenant_id="123")
        async with RealtimeClient(server.url, token=token) as client:
            events = client.events("tenant_123")
            await client.join_room("tenant_123")
            await server.broadcaster.broadcast_to_room("tenant_123", "invoice.created", {"invoiceId": "inv_001", "amount": 1000})
            event = await anext(events)
            print(event.offset, event.event, event.data)


asyncio.run(main())
