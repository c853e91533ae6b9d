"""What operators may ask and do, without HTTP: rights, pages, and what other nodes answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Struct

from aibos_realtime import Broadcast, BrokerUnavailable, PermissionDenied, RealtimeServer, ValidationError
from aibos_realtime.admin.operations import Operations
from aibos_realtime.admin.requests import ListActs, ListConnections
from aibos_realtime.audit import Audit
from aibos_realtime.auth.operators import Caller
from aibos_realtime.auth.user import User
from aibos_realtime.backends.foreign import Foreign
from aibos_realtime.clock import SYSTEM_CLOCK
from aibos_realtime.metrics import Metrics
from aibos_realtime.protocol.messages import Position
from aibos_realtime.storage.queue import MessageQueue
from aibos_realtime.testing.server import MemoryServer

OPERATOR = Caller("key:12345678", None, True)
ROLES = {"manager": {"m_*": ["manage"]}, "overseer": {"*": ["manage"]}, "reader": {"*": ["read", "write"]}}


def somebody(role: str, id: str = "ann") -> Caller:
    return Caller(f"user:{id}", User(id, role, "1"), False)


class Nodes:
    """A bus with other nodes that answer what they like."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Struct] = []
        self.is_down = False

    async def ask(self, request: Struct) -> list[Any]:
        self.asked.append(request)
        if self.is_down:
            raise BrokerUnavailable()
        return self.answers


class Desk:
    """A server without a port, and what is asked of it."""

    def __init__(self, server: RealtimeServer, *answers: Any, queue: MessageQueue | None = None) -> None:
        self.server = server
        self.nodes = Nodes(*answers)
        self.own: Any = None
        self.metrics = Metrics()
        self.audit = Audit(SYSTEM_CLOCK)
        self.operations = Operations(
            broadcaster=server.broadcaster, broker=server.broker, filters=server.sending.filters, rooms=server.rooms,
            queue=queue if queue is not None else server.queue, auth=server.auth, authorization=server.authorization,
            disconnect=self._disconnect, set_role=self._set_role, bus=self.nodes, node=self._answer,  # type: ignore[arg-type]
            audit=self.audit, foreign=Foreign(self.metrics, SYSTEM_CLOCK),
        )  # fmt: skip

    def _answer(self, request: Struct) -> Any:
        return self.own

    async def _disconnect(self, user_id: str | None, socket_id: str | None, code: int) -> int:
        return await self.server.disconnect(user_id=user_id, socket_id=socket_id, code=code)

    async def _set_role(self, user_id: str, role: str) -> int:
        return await self.server.set_role(user_id, role)

    async def fill(self, *names: str) -> None:
        for name in names:
            await self.server.rooms.create_room(name)


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    server = RealtimeServer(
        authentication={"jwt_secret": "only-for-the-tests-of-operations"}, authorization={"roles": ROLES}, rooms={"max_rooms": None},
        persistence={"database": {"url": "memory://"}}, queue={"url": "memory://"},
    )  # fmt: skip
    await server.open()
    yield server
    await server.stop(drain=0)


@pytest.fixture
def desk(server: RealtimeServer) -> Desk:
    return Desk(server)


async def test_a_page_of_rooms_ends_with_a_room_of_the_callers_own(desk: Desk) -> None:
    await desk.fill("a_1", "m_1", "m_2", "m_3", "n_1", "z_1")
    page = await desk.operations.rooms(somebody("manager"), limit=2)
    assert ([room.id for room in page.rooms], page.cursor) == (["m_1", "m_2"], "m_2")
    page = await desk.operations.rooms(somebody("manager"), limit=2, cursor=page.cursor)
    assert ([room.id for room in page.rooms], page.cursor) == (["m_3"], None)
    assert [room.id for room in (await desk.operations.rooms(somebody("manager"), limit=3)).rooms] == ["m_1", "m_2", "m_3"]
    assert (await desk.operations.rooms(somebody("manager"), limit=3)).cursor is None
    assert (await desk.operations.rooms(OPERATOR, limit=2)).cursor == "m_1"


async def test_who_manages_nothing_has_no_room_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def looked(**query: Any) -> Any:
        raise AssertionError("the rooms were looked through")

    monkeypatch.setattr(desk.server.rooms, "list_rooms", looked)
    for role in ("reader", "user", "guest"):
        assert (await desk.operations.rooms(somebody(role))).rooms == []


async def test_not_all_rooms_there_are_are_looked_through_for_ones_own(desk: Desk) -> None:
    await desk.fill(*(f"a_{number:04}" for number in range(2100)), "m_1")
    with pytest.raises(ValidationError, match="longer `prefix`"):
        await desk.operations.rooms(somebody("manager"))
    assert [room.id for room in (await desk.operations.rooms(somebody("manager"), prefix="m_")).rooms] == ["m_1"]
    await desk.fill("a_0000_", *(f"m_0{number}" for number in range(3)))
    page = await desk.operations.rooms(somebody("manager"), cursor="a_1000")
    assert [room.id for room in page.rooms] == ["m_00", "m_01", "m_02", "m_1"] and page.cursor is None


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"prefix": "a b"}, {"prefix": "a" * 129}, {"cursor": "\0"}])
async def test_what_is_no_page(desk: Desk, query: dict[str, Any]) -> None:
    for caller in (OPERATOR, somebody("manager")):
        with pytest.raises(ValidationError):
            await desk.operations.rooms(caller, **query)


@pytest.mark.parametrize("room", ["all", "user:bob", "user:ann"])
async def test_own_streams_are_for_operators_alone(desk: Desk, room: str) -> None:
    for act in (
        desk.operations.history(somebody("overseer"), room),
        desk.operations.publish(somebody("overseer"), Broadcast(event="a", room=room)),
        desk.operations.room(somebody("overseer"), room),
        desk.operations.destroy_room(somebody("overseer"), room),
    ):
        with pytest.raises(PermissionDenied):
            await act
    await desk.operations.publish(OPERATOR, {"event": "a", "room": room})
    assert len((await desk.operations.history(OPERATOR, room)).events) == 1


async def test_an_addressed_event_is_read_by_those_whom_it_is_for_alone(desk: Desk) -> None:
    await desk.operations.publish(OPERATOR, {"event": "a", "room": "m_1", "exclude": ["ann"]})
    await desk.operations.publish(OPERATOR, {"event": "b", "room": "m_1", "filter": {"role": "manager"}})
    await desk.operations.publish(OPERATOR, {"event": "c", "room": "m_1"})
    assert [event.event for event in (await desk.operations.history(OPERATOR, "m_1")).events] == ["c"]
    assert [event.event for event in (await desk.operations.history(somebody("manager"), "m_1")).events] == ["b", "c"]
    with pytest.raises(ValidationError):
        await desk.operations.history(OPERATOR, "m_1", before=Position("x", 1), after=Position("x", 1))
    for limit in (0, 301):
        with pytest.raises(ValidationError):
            await desk.operations.history(OPERATOR, "m_1", limit=limit)


@pytest.mark.parametrize(
    "item",
    [{}, {"event": "a"}, {"event": 5, "room": "a"}, {"event": "a", "room": "a", "user": "b"}, {"event": "a", "room": "a", "unknown": 1},
     {"event": "a", "room": "a", "exclude": "ann"}, {"event": "a", "room": "a", "filter": {"x__near": 1}},
     {"event": "a", "room": "a", "filter": "none"},
     {"event": "a", "room": "a", "filter": 5}, {"event": "a", "room": "a", "volatile": "yes"}],
)  # fmt: skip
async def test_what_is_no_event(desk: Desk, item: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await desk.operations.publish(OPERATOR, item)


async def test_what_other_nodes_answer_is_read_with_care(server: RealtimeServer) -> None:
    good: dict[str, Any] = {
        "id": "s1", "node": "web-2", "userId": None, "role": None, "tenantId": None, "address": "", "state": "open", "codec": "json",
        "connectedAt": 5.0,
        "heardAt": 1.0, "expiresAt": None, "rooms": [], "roomCount": 0, "outboxBytes": 0, "userAgent": None, "ofALaterVersion": 1,
    }  # fmt: skip
    desk = Desk(
        server, None, 5, "x", [], {}, {"connections": None}, {"connections": [None, {}, 5, good | {"rooms": 7}], "total": "9", "matching": None},
        {"connections": [good], "total": 3, "matching": 2},
    )  # fmt: skip
    page = await desk.operations.connections(OPERATOR, ListConnections())
    assert ([one.id for one in page.connections], page.total, page.matching) == (["s1"], 3, 2)
    assert desk.metrics.foreign_records == 3
    assert await desk.operations.nodes(OPERATOR) == []
    desk.nodes.answers = [None, 5, {"acts": 1}, [None, {}, {"time": 1.0, "node": "web-2", "act": "of a later version"}]]
    assert [act.act for act in await desk.operations.acts(OPERATOR, ListActs())] == ["of a later version"]
    assert (await desk.operations.connection(OPERATOR, "s1")).connection is None


async def test_while_the_other_nodes_cannot_be_reached_this_one_answers(desk: Desk) -> None:
    desk.nodes.is_down = True
    desk.own = [{"time": 1.0, "node": "web-1", "act": "connect"}]
    assert [act.node for act in await desk.operations.acts(OPERATOR, ListActs())] == ["web-1"]
    desk.own = {"connections": [], "total": 7, "matching": 0}
    assert (await desk.operations.connections(OPERATOR, ListConnections())).total == 7
    assert await desk.operations.nodes(OPERATOR) == []


async def test_what_no_node_would_take_is_not_asked(desk: Desk) -> None:
    for request in (ListConnections(limit=1001), ListConnections(limit=-1), ListConnections(search="x" * 129), ListConnections(order="x")):  # type: ignore[arg-type]
        with pytest.raises(ValidationError):
            await desk.operations.connections(OPERATOR, request)
    with pytest.raises(ValidationError):
        await desk.operations.nodes(OPERATOR, samples=5000)
    with pytest.raises(ValidationError):
        await desk.operations.acts(OPERATOR, ListActs(limit=5000))
    assert desk.nodes.asked == []


async def test_the_slowest_and_the_newest_of_all_nodes_come_first(server: RealtimeServer) -> None:
    def one(id: str, at: float, outbox: int) -> dict[str, Any]:
        return {
            "id": id, "node": id, "userId": None, "role": None, "tenantId": None, "address": "", "state": "open", "codec": "json", "connectedAt": at,
            "heardAt": 1.0, "expiresAt": None, "rooms": [], "roomCount": 0, "outboxBytes": outbox, "userAgent": None,
        }  # fmt: skip

    desk = Desk(server, {"connections": [one("a", 1, 9), one("b", 2, 0)]}, {"connections": [one("c", 3, 5)]})
    newest = await desk.operations.connections(OPERATOR, ListConnections(limit=2))
    slowest = await desk.operations.connections(OPERATOR, ListConnections(limit=2, order="outbox"))
    assert [found.id for found in newest.connections] == ["c", "b"] and [found.id for found in slowest.connections] == ["a", "c"]


@pytest.mark.parametrize("code", [0, 999, 1001, 1005, 1006, 3000, 5000, -1])
async def test_codes_that_close_nothing(desk: Desk, code: int) -> None:
    with pytest.raises(ValidationError):
        await desk.operations.disconnect(OPERATOR, user_id="ann", code=code)


@pytest.mark.parametrize("user_id", ["", "x" * 1025, "a\0b"])
async def test_what_is_no_user(desk: Desk, user_id: str) -> None:
    for act in (
        desk.operations.disconnect(OPERATOR, user_id=user_id),
        desk.operations.kick(OPERATOR, "m_1", user_id),
        desk.operations.set_role(OPERATOR, user_id, "user"),
    ):
        with pytest.raises(ValidationError):
            await act


async def test_acts_on_people(desk: Desk) -> None:
    net = MemoryServer(desk.server)
    ann = await net.connect("ann", role="overseer")
    assert await desk.operations.set_role(OPERATOR, "ann", "reader") == 1
    await desk.operations.revoke(OPERATOR, user_id="ann")
    assert await ann.closed() == 4503
    for named in ({}, {"user_id": "a", "token_id": "b"}, {"user_id": "a\n"}):
        with pytest.raises(ValidationError):
            await desk.operations.revoke(OPERATOR, **named)


async def test_a_queue_that_nobody_declares_any_more_spoils_no_list(server: RealtimeServer) -> None:
    everything = MessageQueue(url="memory://")
    await everything.send("left_from_before", 1)
    declared = MessageQueue(queues={"work": {}}, store=everything._store)
    desk = Desk(server, queue=declared)
    assert [queue.name for queue in await desk.operations.queues(OPERATOR)] == ["work"]
    with pytest.raises(ValidationError):
        await desk.operations.dead_letters(OPERATOR, "work", before="1; DROP")
    await declared.stop()
    await everything.stop()
