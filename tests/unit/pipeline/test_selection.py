"""Who gets which events of a turn: as deciding for each member and each event would have it, at the cost of those who are alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aibos_realtime import where
from aibos_realtime.backends.base import Audience, Draft, LoggedEvent
from aibos_realtime.pipeline import filters
from aibos_realtime.pipeline.broadcaster import new_id
from aibos_realtime.pipeline.fanout import Fanout
from aibos_realtime.protocol import deflate
from aibos_realtime.protocol.limits import ALL
from aibos_realtime.protocol.messages import SUBPROTOCOL
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server
from aibos_realtime.types import User

OPEN: dict[str, Any] = {"authorization": {"permissions": {"*": ["read", "write"]}}, "compression": {"threshold": 1}}
LOBBY = "lobby"


@pytest.fixture
async def net() -> AsyncIterator[MemoryServer]:
    async with memory_server(**OPEN) as net:
        yield net


async def connect(net: MemoryServer, user: str, room: str | None = LOBBY, **given: Any) -> MemoryClient:
    client = await net.connect(user, **given)
    if room is not None:
        await client.socket.join(room)
    return client


def publish(net: MemoryServer, audience: Audience | None, room: str = LOBBY) -> str:
    """An event with a position, that waits for the end of the turn; its id."""
    id = new_id()
    net.server.sending.broker.publish(Draft(room, "note", b"null", id, audience=audience))
    return id


def fanout(net: MemoryServer) -> Fanout:
    found = net.server.sending.fanout
    assert found is not None
    return found


async def ids(client: MemoryClient) -> list[str]:
    return [message["id"] for message in await client.take_all() if message["event"] == "note"]


# — against the plain model —

USERS = ("ann", "bob", "cid", "dan")
SOCKETS = (0, 1, 2, 3, 0, 1)
"""Whose each of the sockets is: two users have two."""
ROLES, TENANTS = ("admin", "user", "clerk"), (None, "t1", "t2")
CLAIMS: tuple[dict[str, Any], ...] = ({}, {"level": 1}, {"level": 5, "tags": ["a"]}, {"level": "high", "vip": True})

ID_SETS = st.frozensets(st.sampled_from((*USERS, "zoe")), max_size=3)
CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "role": st.sampled_from(ROLES),
    "role__in": st.lists(st.sampled_from(ROLES), max_size=2),
    "role__ne": st.sampled_from(ROLES),
    "tenant_id": st.sampled_from(TENANTS),
    "tenant_id__not_in": st.lists(st.sampled_from(TENANTS), max_size=2),
    "id": st.sampled_from((*USERS, None, 5)),
    "id__in": st.lists(st.sampled_from((*USERS, None, ["ann"])), max_size=3),
    "id__ne": st.sampled_from(USERS),
    "level__gte": st.sampled_from((1, 2, "a")),
    "level__ne": st.sampled_from((1, "high")),
    "tags__contains": st.just("a"),
}
AUDIENCES = st.builds(
    Audience,
    where=st.none() | st.fixed_dictionaries({}, optional=CONDITIONS),
    filter=st.sampled_from((None, None, None, "vip", "broken", "of another node")),
    users=st.none() | st.none() | ID_SETS,
    exclude=st.just(frozenset()) | ID_SETS,
)
SOCKET = st.integers(0, len(SOCKETS) - 1)
STEPS = st.one_of(
    st.tuples(st.just("move"), SOCKET),
    st.tuples(st.just("renew"), SOCKET, st.sampled_from(ROLES), st.sampled_from(TENANTS), st.sampled_from(CLAIMS)),
    st.tuples(st.just("publish"), st.sampled_from((LOBBY, LOBBY, ALL)), st.none() | AUDIENCES),
    st.tuples(st.just("volatile"), st.none() | AUDIENCES),
    st.just(("turn",)),
)


SEVERAL = [
    None,
    Audience(where={"role": "admin"}),
    Audience(where={"role": "admin"}),
    Audience(where={"role": "user"}),
    Audience(where={"role": "user"}, exclude=frozenset({"ann"})),
    Audience(where={"role__ne": "user", "tenant_id": None}),
    Audience(where={"role": "admin", "vip": True}, exclude=frozenset({"dan"})),
    Audience(filter="vip"),
    Audience(filter="vip", exclude=frozenset({"ann"})),
    Audience(filter="vip", exclude=frozenset({"ann", "bob"}), users=frozenset({"ann", "dan"})),
    Audience(exclude=frozenset({"ann"})),
    Audience(exclude=frozenset({"ann"})),
    Audience(exclude=frozenset({"bob", "zoe"})),
    Audience(users=frozenset({"ann", "bob"}), exclude=frozenset({"ann"})),
    Audience(users=frozenset({"ann", "bob"}), where={"id__in": ["bob", "cid"]}),
    Audience(users=frozenset(USERS[:2]) | {f"u{number}" for number in range(10)}),
    Audience(users=frozenset({"ann", "bob", "cid"}), where={"role": "user"}),
    Audience(where={"role__in": ["admin", "user"]}),
    Audience(users=frozenset()),
    Audience(where={"id__in": ["ann", ["bob"], None]}),
    Audience(),
]
ALL_IN: list[tuple[Any, ...]] = [("move", number) for number in range(len(SOCKETS))]
ALL_IN += [("renew", 0, "user", None, CLAIMS[3]), ("renew", 1, "admin", None, CLAIMS[0]), ("renew", 3, "admin", "t1", CLAIMS[3])]


class Model:
    """Each event, and each member, for itself."""

    def __init__(self, net: MemoryServer, clients: list[MemoryClient]) -> None:
        self.net = net
        self.clients = clients
        self.members: list[MemoryClient] = []
        self.waiting: dict[str, list[tuple[str, Audience | None]]] = {}
        self.got: dict[MemoryClient, list[str]] = {client: [] for client in clients}

    async def step(self, what: str, *given: Any) -> None:
        """Do it at the server, and here. No turn of the loop ends meanwhile."""
        if what == "move":
            client = self.clients[given[0]]
            await (client.socket.leave(LOBBY) if client in self.members else client.socket.join(LOBBY))
            self._deliver(LOBBY)
            self.members = [member for member in self.members if member is not client] + [client] * (client not in self.members)
        elif what == "renew":
            number, *attributes = given
            self.clients[number].socket.user = User(USERS[SOCKETS[number]], *attributes)
        elif what == "publish":
            room, audience = given
            self.waiting.setdefault(room, []).append((publish(self.net, audience, room), audience))
        elif what == "volatile":
            event = LoggedEvent(LOBBY, "note", b"null", new_id(), "", 0, 1_700_000_000_000, None, given[0])
            fanout(self.net).deliver_volatile(event)
            self.waiting.setdefault(LOBBY, []).append((event.id, event.audience))
            self._deliver(LOBBY)
        else:
            fanout(self.net).flush()
            self._deliver(*tuple(self.waiting))

    def _deliver(self, *rooms: str) -> None:
        admits = self.net.server.sending.filters.admits
        for room in rooms:
            for id, audience in self.waiting.pop(room, ()):
                for client in self.clients if room == ALL else self.members:
                    if admits(audience, client.socket.user):
                        self.got[client].append(id)


@example([*ALL_IN, *(("publish", LOBBY, audience) for audience in SEVERAL)])
@example([step for audience in SEVERAL for step in [*ALL_IN, ("publish", LOBBY, audience), ("turn",), *ALL_IN[:6]]])
@example([*ALL_IN, *(("publish", ALL, audience) for audience in SEVERAL), *(("volatile", audience) for audience in SEVERAL)])
@given(steps=st.lists(STEPS, max_size=40))
@settings(max_examples=100, deadline=None)
def test_everybody_gets_what_the_plain_model_says(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(_compare(steps))


async def _compare(steps: list[tuple[Any, ...]]) -> None:
    async with memory_server(**OPEN) as net:
        register(net)
        clients = [await connect(net, USERS[owner], None, codec="msgpack" if number % 3 == 1 else "json") for number, owner in enumerate(SOCKETS)]
        for client in clients[2::3]:
            client.socket.encoding = net.server.sockets.encoding(SUBPROTOCOL, 15)
        model = Model(net, clients)
        for step in [*steps, ("turn",)]:
            await model.step(*step)
        for client in clients:
            assert await ids(client) == model.got[client]
        counted = net.server.metrics
        assert counted.deliveries == counted.messages_out == sum(map(len, model.got.values()))


def register(net: MemoryServer) -> None:
    net.server.broadcaster.filter("vip")(lambda user: bool(user.claims.get("vip")))
    net.server.broadcaster.filter("broken")(lambda user: bool(user.claims["vip"]))


# — at what cost —


class Unwalked(dict[Any, Any]):
    """Members that nobody goes through one by one."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("the members were gone through")

    values = items = copy = __iter__  # type: ignore[assignment]


async def test_an_event_for_a_few_users_walks_through_nobody_else(net: MemoryServer) -> None:
    ann, again, bob, cid = [await connect(net, user) for user in ("ann", "ann", "bob", "cid")]
    for number in range(8):
        await connect(net, f"u{number}")
    groups = net.server.rooms.by_id[LOBBY].groups
    groups.update({encoding: Unwalked(sockets) for encoding, sockets in groups.items()})
    first = publish(net, Audience(users=frozenset({"ann"})))
    second = publish(net, Audience(where=where(id__in=["ann", "bob"]), exclude=frozenset({"zoe"})))
    await settle()
    assert [await ids(client) for client in (ann, again, bob, cid)] == [[first, second], [first, second], [second], []]


async def test_a_role_is_decided_once_whoever_has_it(net: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [await connect(net, f"u{number}", role="admin" if number % 10 == 0 else "user", tenant_id=f"t{number}") for number in range(20)]
    asked: list[Any] = []

    def condition(key: str) -> Callable[[Any, User], bool]:
        def holds(wanted: Any, user: User) -> bool:
            asked.append(user.role)
            return bool(user.role == wanted)

        return holds

    monkeypatch.setattr(filters, "condition", condition)
    id = publish(net, Audience(where=where(role="admin"), exclude=frozenset({"u0"})))
    await settle()
    assert [await ids(client) for client in clients] == [[id] if number == 10 else [] for number in range(20)]
    assert sorted(asked) == ["admin", "admin", "user"], "each role once, and the one who is excluded"


async def test_a_filter_is_asked_once_for_a_user_and_a_turn(net: MemoryServer) -> None:
    asked: list[str] = []

    @net.server.broadcaster.filter("vip")
    def is_vip(user: User) -> bool:
        asked.append(user.id)
        return user.id != "bob"

    ann, again, bob, cid = [await connect(net, user) for user in ("ann", "ann", "bob", "cid")]
    first = publish(net, Audience(filter="vip"))
    second = publish(net, Audience(filter="vip", exclude=frozenset({"cid"})))
    await settle()
    assert [await ids(client) for client in (ann, again, bob, cid)] == [[first, second], [first, second], [], [first]]
    assert sorted(asked) == ["ann", "bob", "cid"]
    third = publish(net, Audience(filter="vip", exclude=frozenset({"bob", "cid"})))
    await settle()
    assert await ids(ann) == [third] and sorted(asked) == ["ann", "ann", "bob", "cid"], "who is excluded is not asked for"


async def test_a_filter_that_is_not_here_is_told_once(net: MemoryServer, caplog: pytest.LogCaptureFixture) -> None:
    clients = [await connect(net, user) for user in USERS]
    publish(net, Audience(filter="of another node"))
    await settle()
    assert [await ids(client) for client in clients] == [[], [], [], []] and caplog.text.count("there is no filter 'of another node'") == 1
    publish(net, Audience(filter="of another node"), "where nobody is")
    await settle()
    assert caplog.text.count("there is no filter") == 1


async def test_who_gets_the_same_gets_the_same_bytes_and_who_gets_nothing_none(net: MemoryServer) -> None:
    written: list[tuple[str, bytes]] = []
    for user in (*USERS, "eve"):
        client = await connect(net, user)
        client.socket.write = record(written, user)
    for user in ("ann", "bob", "zoe"):
        publish(net, Audience(exclude=frozenset({user, "eve"})))
    await settle()
    bytes_of = dict(written)
    assert len(written) == 4 and bytes_of["cid"] is bytes_of["dan"], "one write each"
    assert [bytes_of[user].count(b'"event"') for user in USERS] == [2, 2, 3, 3] and bytes_of["ann"] != bytes_of["bob"]


def record(written: list[tuple[str, bytes]], user: str) -> Callable[[bytes], None]:
    return lambda data: written.append((user, data))


async def test_compression_once_for_all_who_want_it(net: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[bytes] = []
    compress = deflate.compress

    def counted(payload: bytes, window_bits: int) -> bytes:
        compressed.append(payload)
        return compress(payload, window_bits)

    monkeypatch.setattr(deflate, "compress", counted)
    clients = [await connect(net, f"u{number}", None) for number in range(6)]
    for client in clients[1:]:
        client.socket.encoding = net.server.sockets.encoding(SUBPROTOCOL, 15)
    for client in clients:
        await client.socket.join(LOBBY)
    expected = [publish(net, None), publish(net, Audience(exclude=frozenset({"u5"}))), publish(net, Audience(where=where(role="user")))]
    plain = publish(net, Audience(users=frozenset({"u0"})))
    await settle()
    assert [await ids(client) for client in clients] == [[*expected, plain], *[expected] * 4, [expected[0], expected[2]]]
    assert len(compressed) == 3, "not for each of the five, and not what none of them gets"


# — who is alike changes —


async def test_a_new_role_counts_from_the_next_event_on(net: MemoryServer) -> None:
    ann, bob = await connect(net, "ann", role="admin"), await connect(net, "bob", role="admin")
    audience = Audience(where=where(role="admin"))
    first = publish(net, audience)
    await settle()
    await bob.socket.leave(LOBBY)
    second = publish(net, audience)
    await settle()
    ann.socket.user = User("ann", "user")
    await bob.socket.join(LOBBY)
    third = publish(net, audience)
    await settle()
    ann.socket.user = User("ann", "admin")
    fourth = publish(net, audience)
    await settle()
    assert await ids(ann) == [first, second, fourth] and await ids(bob) == [first, third, fourth]


async def test_a_tenant_may_be_anything_that_an_application_says(net: MemoryServer) -> None:
    ann, bob = await connect(net, "ann", None), await connect(net, "bob", None)
    ann.socket.user = User("ann", "user", ["t1", "t2"])  # type: ignore[arg-type]
    await ann.socket.join(LOBBY)
    await bob.socket.join(LOBBY)
    first = publish(net, Audience(where=where(tenant_id__contains="t2")))
    await settle()
    await ann.socket.leave(LOBBY)
    await ann.socket.join(LOBBY)
    second = publish(net, Audience(where=where(tenant_id__contains="t2")))
    await settle()
    assert await ids(ann) == [first, second] and await ids(bob) == []
