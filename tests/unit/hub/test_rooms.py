"""Rooms: limits, presence by user and not by socket, empty rooms, callbacks; and the index of who is where against a plain model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aibos_realtime import (
    ConfigurationError,
    GuestsNotAllowed,
    NotInRoom,
    ProtocolError,
    RoomFull,
    RoomLimitExceeded,
    RoomManager,
    RoomNotFound,
)
from aibos_realtime.errors import RealtimeError
from aibos_realtime.hub.outbox import OutboxLimits
from aibos_realtime.hub.rooms import RoomPattern
from aibos_realtime.hub.socket import Socket
from aibos_realtime.protocol.codec import Encoding, JsonCodec
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.server import MemoryServer, memory_server
from aibos_realtime.transport.memory import MemoryTransport
from aibos_realtime.types import RoomSettings, User

OPEN = {"permissions": {"*": ["read", "write"]}}


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def rooms(clock: ManualClock) -> AsyncIterator[RoomManager]:
    rooms = RoomManager(max_rooms=3, max_users_per_room=2, room_timeout=300, clock=clock)
    yield rooms
    await rooms.stop()


@pytest.fixture
async def net() -> AsyncIterator[MemoryServer]:
    async with memory_server(authorization=OPEN) as net:
        yield net


def listen(rooms: RoomManager) -> list[tuple[Any, ...]]:
    """Everything that the rooms tell from here on."""
    told: list[tuple[Any, ...]] = []
    rooms.on("room.created", lambda room: told.append(("created", room.id)))
    rooms.on("room.destroyed", lambda room_id: told.append(("destroyed", room_id)))
    rooms.on("user.joined", lambda room_id, user_id: told.append(("joined", room_id, user_id)))
    rooms.on("user.left", lambda room_id, user_id: told.append(("left", room_id, user_id)))
    return told


# — by user ids alone, without a server —


async def test_the_snippets(rooms: RoomManager) -> None:
    told = listen(rooms)
    room = await rooms.create_room("tenant_123", name="Tenant 123", type="tenant", settings={"max_users": 50, "allow_guests": False})
    assert (room.id, room.name, room.type, room.settings) == ("tenant_123", "Tenant 123", "tenant", RoomSettings(50, False))
    await rooms.join_room("tenant_123", "user_123")
    assert [member.user_id for member in await rooms.get_room_users("tenant_123")] == ["user_123"]
    info = await rooms.get_room_info("tenant_123")
    assert (info.id, info.name, info.user_count, info.connection_count) == ("tenant_123", "Tenant 123", 1, 0)
    await rooms.leave_room("tenant_123", "user_123")
    await rooms.destroy_room("tenant_123")
    assert [one[0] for one in told] == ["created", "joined", "left", "destroyed"]


async def test_creating_again_changes_nothing(rooms: RoomManager) -> None:
    first = await rooms.create_room("a", settings={"max_users": 1})
    assert await rooms.create_room("a", name="other", settings={"max_users": 9}) is first and first.settings.max_users == 1


async def test_how_many_rooms_and_users(rooms: RoomManager) -> None:
    for name in ("a", "b", "c"):
        await rooms.create_room(name)
    with pytest.raises(RoomLimitExceeded, match="All 3 rooms"):
        await rooms.create_room("d")
    with pytest.raises(RoomLimitExceeded):
        await rooms.join_room("d", "ann")
    await rooms.join_room("a", "ann")
    await rooms.join_room("a", "bob")
    await rooms.join_room("a", "ann")
    with pytest.raises(RoomFull, match="2"):
        await rooms.join_room("a", "eve")
    await rooms.leave_room("a", "bob")
    await rooms.join_room("a", "eve")
    await rooms.destroy_room("b")
    await rooms.create_room("d")


async def test_limits_that_are_off() -> None:
    rooms = RoomManager(max_rooms=None, max_users_per_room=None, room_timeout=None)
    for number in range(1100):
        await rooms.join_room(f"r{number}", "ann")
        await rooms.join_room("r0", f"user{number}")
    assert len(rooms) == 1100 and (await rooms.get_room_info("r0")).user_count == 1101


async def test_concurrent_joins_keep_the_limit(rooms: RoomManager) -> None:
    results = await asyncio.gather(*(rooms.join_room("a", f"user{n}") for n in range(20)), return_exceptions=True)
    assert sum(isinstance(result, RoomFull) for result in results) == 18


async def test_what_is_not_there(rooms: RoomManager) -> None:
    for call in (
        rooms.get_room_info("x"),
        rooms.get_room_users("x"),
        rooms.destroy_room("x"),
        rooms.leave_room("x", "ann"),
        rooms.kick("x", "ann"),
    ):
        with pytest.raises(RoomNotFound):
            await call
    await rooms.create_room("x")
    with pytest.raises(NotInRoom):
        await rooms.leave_room("x", "ann")


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 129, "a\n", "{x}", "*"])
async def test_names_that_no_room_has(rooms: RoomManager, name: str) -> None:
    with pytest.raises(ProtocolError):
        await rooms.create_room(name)
    assert len(rooms) == 0


@pytest.mark.parametrize("name", ["all", "user:ann"])
async def test_own_streams_are_no_rooms(rooms: RoomManager, name: str) -> None:
    with pytest.raises(RoomNotFound):
        await rooms.create_room(name)
    with pytest.raises(RoomNotFound):
        await rooms.join_room(name, "ann")


async def test_an_empty_room_is_destroyed_after_its_time(rooms: RoomManager, clock: ManualClock) -> None:
    told = listen(rooms)
    await rooms.create_room("a")
    await clock.advance(299)
    await rooms.join_room("a", "ann")
    await clock.advance(1000)
    await rooms.leave_room("a", "ann")
    await clock.advance(299)
    assert rooms.get("a") is not None
    await clock.advance(1)
    assert rooms.get("a") is None and told[-1] == ("destroyed", "a") and clock.planned == []


async def test_a_room_made_again_is_not_destroyed_by_the_old_ones_timer(rooms: RoomManager, clock: ManualClock) -> None:
    await rooms.create_room("a")
    await clock.advance(200)
    await rooms.destroy_room("a")
    await rooms.create_room("a")
    await clock.advance(200)
    assert rooms.get("a") is not None


async def test_pages_of_rooms(rooms: RoomManager) -> None:
    for name in ("b", "tenant_2", "tenant_1"):
        await rooms.create_room(name)
    page, cursor = await rooms.list_rooms(limit=2)
    assert ([room.id for room in page], cursor) == (["b", "tenant_1"], "tenant_1")
    page, cursor = await rooms.list_rooms(limit=2, cursor=cursor)
    assert ([room.id for room in page], cursor) == (["tenant_2"], None)
    page, cursor = await rooms.list_rooms(prefix="tenant_")
    assert [room.id for room in page] == ["tenant_1", "tenant_2"]


def test_the_first_pattern_that_fits_alone_applies() -> None:
    patterns = {"bench:*": {"ephemeral": True, "max_users": 100_000}, "tenant_*": {"history_size": 5000}, "*": {"max_users": None}}
    rooms = RoomManager(max_users_per_room=7, patterns=patterns)
    assert rooms.pattern("bench:1") == RoomPattern(ephemeral=True, max_users=100_000)
    found = rooms.pattern("tenant_1")
    assert (found.history_size, found.max_users, found.ephemeral) == (5000, 7, False), "what a pattern does not say is the default"
    assert rooms.pattern("other").max_users is None
    assert RoomManager(max_users_per_room=7).pattern("x").max_users == 7


async def test_settings_of_a_room_and_their_mistakes(rooms: RoomManager) -> None:
    assert (await rooms.create_room("a", settings=RoomSettings(5, True))).settings == RoomSettings(5, True)
    assert (await rooms.create_room("b", settings={"max_users": None})).settings == RoomSettings(None, False)
    for wrong, said in (
        ({"maxUsers": 5}, "settings.maxUsers"),
        ({"max_users": 0}, "settings.max_users"),
        ({"ephemeral": True}, "settings.ephemeral"),
    ):
        with pytest.raises(ConfigurationError, match="^" + said):
            await rooms.create_room("c", settings=wrong)
    assert rooms.get("c") is None


async def test_where_rooms_are_not_made_by_joining(clock: ManualClock) -> None:
    rooms = RoomManager(create=False, room_timeout=None, clock=clock)
    with pytest.raises(RoomNotFound):
        await rooms.join_room("a", "ann")
    await rooms.create_room("a")
    await rooms.join_room("a", "ann")


async def test_a_callback_that_fails_costs_nothing(rooms: RoomManager) -> None:
    rooms.on("user.joined", lambda *args: 1 / 0)
    await rooms.join_room("a", "ann")
    assert (await rooms.get_room_info("a")).user_count == 1
    with pytest.raises(ConfigurationError, match=r"rooms\.on\('user\.jioned'\)"):
        rooms.on("user.jioned")


# — with sockets —


async def test_a_user_with_two_sockets_is_one_user(net: MemoryServer) -> None:
    told = listen(net.server.rooms)
    first, second = await net.connect("ann"), await net.connect("ann")
    await first.request("join-room", "a")
    await second.request("join-room", "a")
    info = await net.server.rooms.get_room_info("a")
    assert (info.user_count, info.connection_count) == (1, 2)
    await first.request("leave-room", "a")
    second.cut()
    await second.closed()
    assert told == [("created", "a"), ("joined", "a", "ann"), ("left", "a", "ann")]


async def test_the_server_puts_a_user_in_and_takes_him_out(net: MemoryServer) -> None:
    ann, rooms = await net.connect("ann"), net.server.rooms
    await rooms.join_room("a", "ann")
    assert ann.socket.rooms == {"a"}
    await net.server.broadcaster.broadcast_to_room("a", "hello", 1)
    assert (await ann.receive("hello"))["data"] == 1
    await ann.request("leave-room", "a")
    assert [member.user_id for member in await rooms.get_room_users("a")] == ["ann"], "the server's word holds until the server takes it back"
    await rooms.join_room("a", "ann")
    await rooms.leave_room("a", "ann")
    assert (await ann.receive("room-closed"))["data"] == {"roomId": "a", "reason": "left"} and ann.socket.rooms == frozenset()
    assert await rooms.get_room_users("a") == []


async def test_nothing_is_delivered_after_a_kick(net: MemoryServer) -> None:
    ann, bob, broadcast = await net.connect("ann"), await net.connect("bob"), net.server.broadcaster.broadcast_to_room
    for client in (ann, bob):
        await client.request("join-room", "a")
    await broadcast("a", "before", None)
    await net.server.rooms.kick("a", "ann")
    await broadcast("a", "after", None)
    assert [message["event"] for message in await ann.take_all()] == ["before", "room-closed"]
    assert [message["event"] for message in await bob.take_all()] == ["before", "after"]


async def test_destroying_a_room_tells_its_members(net: MemoryServer) -> None:
    ann = await net.connect("ann")
    await ann.request("join-room", "a")
    await net.server.rooms.destroy_room("a")
    assert (await ann.receive())["data"] == {"roomId": "a", "reason": "destroyed"} and ann.socket.memberships == {}
    before = (await ann.request("join-room", "a"))["epoch"]
    assert before == (await net.server.broker.position("a")).epoch


async def test_sockets_in_one_room_share_what_says_so_and_those_in_several_do_not(net: MemoryServer) -> None:
    ann, bob = await net.connect("ann"), await net.connect("bob")

    def where() -> list[list[str]]:
        return [sorted(client.socket.rooms) for client in (ann, bob)]

    for client in (ann, bob):
        await client.request("join-room", "a")
    assert ann.socket.memberships is bob.socket.memberships
    for room in ("b", "c"):
        await ann.request("join-room", room)
    assert where() == [["a", "b", "c"], ["a"]]
    await bob.request("join-room", "b")
    await ann.request("leave-room", "b")
    assert where() == [["a", "c"], ["a", "b"]]
    await ann.request("leave-room", "a")
    await bob.request("leave-room", "a")
    assert where() == [["c"], ["b"]]
    zoe = await net.connect("zoe")
    await zoe.request("join-room", "c")
    assert zoe.socket.memberships is ann.socket.memberships
    zoe.cut()
    assert await zoe.closed() == 1006
    assert not zoe.socket.rooms and where() == [["c"], ["b"]]
    found = net.server.rooms.get("c")
    assert found is not None and found.alone == {"c": found} and found.users.keys() == {"ann"}


async def test_guests_need_a_room_that_takes_them(net: MemoryServer) -> None:
    guest, rooms = await net.connect("g", role="guest"), net.server.rooms
    with pytest.raises(GuestsNotAllowed):
        await guest.request("join-room", "closed")
    assert rooms.get("closed") is None, "a refused guest leaves no room behind"
    await rooms.create_room("open", settings={"allow_guests": True})
    await guest.request("join-room", "open")
    assert guest.socket.rooms == {"open"}


async def test_putting_a_guest_where_none_is_allowed_changes_nothing(net: MemoryServer) -> None:
    guest, rooms = await net.connect("g", role="guest"), net.server.rooms
    await rooms.create_room("closed")
    with pytest.raises(GuestsNotAllowed):
        await rooms.join_room("closed", "g")
    assert await rooms.get_room_users("closed") == [] and guest.socket.rooms == frozenset()


async def test_watchers_hear_who_comes_and_goes_with_his_role(net: MemoryServer) -> None:
    ann, bob = await net.connect("ann"), await net.connect("bob", role="admin")
    await ann.request("join-room", {"roomId": "a", "presence": True})
    await bob.request("join-room", "a")
    joined = await ann.receive("user.joined")
    assert joined["room"] == "a" and "offset" not in joined and (joined["data"]["userId"], joined["data"]["role"]) == ("bob", "admin")
    bob.cut()
    assert (await ann.receive("user.left"))["data"]["userId"] == "bob"
    await net.connect("eve", role="admin")
    await net.server.rooms.join_room("a", "eve")
    assert (await ann.receive("user.joined"))["data"]["role"] == "admin"
    assert await ann.take_all() == []


async def test_one_set_of_rooms_for_two_managers(net: MemoryServer) -> None:
    own = RoomManager()
    told = listen(own)
    await own.create_room("made_before")
    own.share(net.server.rooms)
    own.share(net.server.rooms)
    ann = await net.connect("ann")
    await ann.request("join-room", "a")
    assert told == [("created", "made_before"), ("created", "a"), ("joined", "a", "ann")]
    assert net.server.rooms.get("made_before") is own.get("made_before") is not None
    await own.kick("a", "ann")
    assert ann.socket.rooms == frozenset()


# — against a model —


class Desk:
    """What a socket asks of its host, as far as rooms are concerned."""

    outbox_limits = OutboxLimits()
    coarse_now = 0.0

    def __init__(self, rooms: RoomManager) -> None:
        self.rooms = rooms

    def receive(self, socket: Socket, opcode: int, payload: bytes) -> None: ...

    def lost(self, socket: Socket, code: int, reason: str) -> None: ...

    def flush(self) -> None: ...

    def too_slow(self, socket: Socket) -> None: ...

    def bind(self, socket: Socket) -> None: ...

    def unbind(self, socket: Socket) -> None:
        self.rooms.exit_all(socket)

    async def join(self, socket: Socket, room_id: str, check: bool) -> None: ...

    async def leave(self, socket: Socket, room_id: str) -> None: ...


ROOMS, USERS, SOCKETS = st.sampled_from("abc"), st.sampled_from(["ann", "bob", "eve"]), st.integers(0, 5)


class Index(RuleBasedStateMachine):
    """Joins and leaves by six sockets of three users, in any order; the model is sets of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms = RoomManager(max_rooms=None, max_users_per_room=2, room_timeout=None)
        encodings = [Encoding(JsonCodec()), Encoding(JsonCodec())]
        self.sockets = [Socket(Desk(self.rooms), MemoryTransport(), encodings[number % 2]) for number in range(6)]
        for number, socket in enumerate(self.sockets):
            socket.user = User(["ann", "bob", "eve"][number % 3])
        self.members: set[tuple[str, int]] = set()
        self.held: set[tuple[str, str]] = set()
        self.told: set[tuple[str, str]] = set()
        self.rooms.on("user.joined", self._joined)
        self.rooms.on("user.left", lambda *one: self.told.remove(one))

    def _joined(self, *one: str) -> None:
        assert one not in self.told, "told twice"
        self.told.add((one[0], one[1]))

    def user_of(self, number: int) -> str:
        user = self.sockets[number].user
        assert user is not None
        return user.id

    def present(self, room: str) -> set[str]:
        return {self.user_of(number) for name, number in self.members if name == room} | {user for name, user in self.held if name == room}

    @rule(room=ROOMS, number=SOCKETS, live=st.booleans())
    def enter(self, room: str, number: int, live: bool) -> None:
        if (room, number) in self.members:
            return
        present = self.present(room)
        try:
            entered = self.rooms.enter(self.sockets[number], room)
        except RoomFull:
            assert len(present) == 2 and self.user_of(number) not in present
            return
        assert len(present | {self.user_of(number)}) <= 2
        if live:
            entered.go_live(self.sockets[number])
        self.members.add((room, number))

    @rule(room=ROOMS, number=SOCKETS)
    def leave(self, room: str, number: int) -> None:
        try:
            self.rooms.exit(self.sockets[number], room)
        except NotInRoom:
            assert (room, number) not in self.members
        self.members.discard((room, number))

    @rule(number=SOCKETS)
    def vanish(self, number: int) -> None:
        self.rooms.exit_all(self.sockets[number])
        self.members = {pair for pair in self.members if pair[1] != number}

    @rule(number=SOCKETS, user=USERS)
    def become(self, number: int, user: str) -> None:
        if user != self.user_of(number):
            self.members = {pair for pair in self.members if pair[1] != number}
        self.sockets[number].user = User(user)

    @rule(room=ROOMS, number=SOCKETS)
    def hold(self, room: str, number: int) -> None:
        found = self.rooms.get(room)
        if found is not None and (room, number) in self.members:
            found.hold(self.sockets[number])

    @rule(room=ROOMS, user=USERS)
    def put(self, room: str, user: str) -> None:
        try:
            _run(self.rooms.join_room(room, user))
        except RoomFull:
            assert len(self.present(room)) == 2
        else:
            self.held.add((room, user))

    @rule(room=ROOMS, user=USERS, how=st.sampled_from(["leave_room", "kick"]))
    def take(self, room: str, user: str, how: str) -> None:
        try:
            _run(getattr(self.rooms, how)(room, user))
        except (NotInRoom, RoomNotFound):
            assert user not in self.present(room)
        self.members = {pair for pair in self.members if pair[0] != room or self.user_of(pair[1]) != user}
        self.held.discard((room, user))

    @precondition(lambda self: len(self.rooms) > 0)
    @rule(room=ROOMS)
    def destroy(self, room: str) -> None:
        try:
            _run(self.rooms.destroy_room(room))
        except RoomNotFound:
            assert not self.present(room)
        self.members = {pair for pair in self.members if pair[0] != room}
        self.held = {pair for pair in self.held if pair[0] != room}

    @invariant()
    def agree(self) -> None:
        for name in "abc":
            room = self.rooms.get(name)
            sockets = {self.sockets[number] for at, number in self.members if at == name}
            assert set(room.sockets if room else ()) == sockets and len(room.sockets if room else ()) == len(sockets)
            assert set(room.users if room else ()) == self.present(name) == {user for at, user in self.told if at == name}
            assert room is None or all(group for group in room.groups.values()), "an empty group is left"
        for number, socket in enumerate(self.sockets):
            assert socket.rooms == {name for name, at in self.members if at == number}


def _run(coroutine: Any) -> Any:
    """These coroutines wait for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    except RealtimeError:
        raise
    raise AssertionError("it waited")


TestIndex = Index.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
