"""What the dashboard asks over its own WebSocket: requests by the names `realtime.…`, for operators alone.

Each checks its data, calls `operations` as the user of the connection, and answers with reports as they stand on the wire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from ..auth.operators import Caller, Operators
from ..errors import PermissionDenied
from ..hub.socket import Socket
from ..pipeline.authorization import MANAGE
from ..pipeline.routing import Router
from ..protocol.messages import Position
from .operations import Operations, as_caller
from .reports import NodeReport, Sample
from .requests import Limit, ListActs, ListConnections, Order, Text

PREFIX = "realtime."

PageLimit = Annotated[int, Meta(ge=1, le=300)]
Ids = Annotated[list[Text], Meta(min_length=1, max_length=1000)]


class Query(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Base of the data of all requests: an object, with no members but these."""


class NodesQuery(Query, frozen=True):
    """`samples`: at most so many of each node, of those taken after `since` (Unix seconds)."""

    samples: Limit = 0
    since: float = 0.0


class RoomsQuery(Query, frozen=True):
    prefix: Text = ""
    limit: Limit = 100
    cursor: Text | None = None


class RoomQuery(Query, frozen=True):
    room_id: Text


class PresenceQuery(Query, frozen=True):
    """`limit`: members that are shown; the count is of all."""

    room_id: Text
    limit: Limit = 200


class HistoryQuery(Query, frozen=True):
    room_id: Text
    limit: PageLimit = 50
    before: Position | None = None
    after: Position | None = None


class ConnectionsQuery(Query, frozen=True):
    limit: Limit = 100
    search: Text = ""
    user_id: Text | None = None
    room_id: Text | None = None
    order: Order = "newest"


class ConnectionQuery(Query, frozen=True):
    socket_id: Text


class DeadQuery(Query, frozen=True):
    queue: Text
    limit: PageLimit = 50
    before: Text | None = None


class Requeue(Query, frozen=True):
    """`ids`: None for all of them."""

    queue: Text
    ids: Ids | None = None


class Disconnect(Query, frozen=True):
    """Exactly one of the two."""

    user_id: Text | None = None
    socket_id: Text | None = None


class Kick(Query, frozen=True):
    room_id: Text
    user_id: Text


class ActsQuery(Query, frozen=True):
    limit: Limit = 100
    socket_id: Text | None = None
    user_id: Text | None = None


class QueuesQuery(Query, frozen=True): ...


Answer = Callable[[Caller, Any], Awaitable[dict[str, Any]]]


class Live:
    """The handlers, to be registered on a server's router."""

    def __init__(self, operations: Operations, operators: Operators) -> None:
        self._operations = operations
        self._operators = operators

    def register(self, router: Router) -> None:
        """Raises `ConfigurationError` where one of the names is taken."""
        answers: list[tuple[str, type[Query], Answer]] = [
            ("nodes", NodesQuery, self._nodes),
            ("rooms", RoomsQuery, self._rooms),
            ("room", RoomQuery, self._room),
            ("presence", PresenceQuery, self._presence),
            ("history", HistoryQuery, self._history),
            ("connections", ConnectionsQuery, self._connections),
            ("connection", ConnectionQuery, self._connection),
            ("queues", QueuesQuery, self._queues),
            ("dead", DeadQuery, self._dead),
            ("requeue", Requeue, self._requeue),
            ("disconnect", Disconnect, self._disconnect),
            ("kick", Kick, self._kick),
            ("acts", ActsQuery, self._acts),
        ]
        for name, query, answer in answers:
            router.add(PREFIX + name, self._for_operators(answer), query)

    def _for_operators(self, answer: Answer) -> Callable[[Socket, Any], Awaitable[dict[str, Any]]]:
        async def handle(socket: Socket, query: Any) -> dict[str, Any]:
            if not self._operators.is_operator(socket.user):
                raise PermissionDenied("This is for operators.", resource="*", action=MANAGE)
            return await answer(as_caller(socket.user, is_operator=True), query)

        return handle

    async def _nodes(self, caller: Caller, query: NodesQuery) -> dict[str, Any]:
        nodes = await self._operations.nodes(caller, samples=query.samples, since=query.since)
        return {"nodes": [_node(node) for node in nodes]}

    async def _rooms(self, caller: Caller, query: RoomsQuery) -> dict[str, Any]:
        return (await self._operations.rooms(caller, prefix=query.prefix, limit=query.limit, cursor=query.cursor)).to_wire()

    async def _room(self, caller: Caller, query: RoomQuery) -> dict[str, Any]:
        return (await self._operations.room(caller, query.room_id)).to_wire()

    async def _presence(self, caller: Caller, query: PresenceQuery) -> dict[str, Any]:
        found = await self._operations.presence(caller, query.room_id)
        return {"roomId": found.room_id, "members": [member.to_wire() for member in found.members[: query.limit]], "count": found.count}

    async def _history(self, caller: Caller, query: HistoryQuery) -> dict[str, Any]:
        found = await self._operations.history(caller, query.room_id, limit=query.limit, before=query.before, after=query.after)
        return found.to_wire()

    async def _connections(self, caller: Caller, query: ConnectionsQuery) -> dict[str, Any]:
        asked = ListConnections(query.limit, query.search, query.user_id, query.room_id, order=query.order)
        return (await self._operations.connections(caller, asked)).to_wire()

    async def _connection(self, caller: Caller, query: ConnectionQuery) -> dict[str, Any]:
        return (await self._operations.connection(caller, query.socket_id)).to_wire()

    async def _queues(self, caller: Caller, query: QueuesQuery) -> dict[str, Any]:
        return {"queues": [queue.to_wire() for queue in await self._operations.queues(caller)]}

    async def _dead(self, caller: Caller, query: DeadQuery) -> dict[str, Any]:
        found = await self._operations.dead_letters(caller, query.queue, limit=query.limit, before=query.before)
        return {"letters": [letter.to_wire() for letter in found]}

    async def _requeue(self, caller: Caller, query: Requeue) -> dict[str, Any]:
        return {"count": await self._operations.requeue(caller, query.queue, query.ids)}

    async def _disconnect(self, caller: Caller, query: Disconnect) -> dict[str, Any]:
        return {"count": await self._operations.disconnect(caller, user_id=query.user_id, socket_id=query.socket_id)}

    async def _kick(self, caller: Caller, query: Kick) -> dict[str, Any]:
        await self._operations.kick(caller, query.room_id, query.user_id)
        return {"roomId": query.room_id, "userId": query.user_id}

    async def _acts(self, caller: Caller, query: ActsQuery) -> dict[str, Any]:
        found = await self._operations.acts(caller, ListActs(query.limit, query.socket_id, query.user_id))
        return {"acts": [act.to_wire() for act in found]}


_COLUMNS = {name: field.alias or name for name, field in Sample.model_fields.items()}


def _node(node: NodeReport) -> dict[str, Any]:
    """A node as the page draws it: the samples as one list per figure, which is a fifth of the size of a list of samples."""
    columns = {alias: [getattr(sample, name) for sample in node.samples] for name, alias in _COLUMNS.items()}
    return node.model_dump(by_alias=True, exclude={"samples"}) | {"samples": columns}
