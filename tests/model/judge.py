"""What must hold when nothing has been wrong for a while, and what must be left when everybody has gone: nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from aibos_realtime.errors import RoomNotFound
from aibos_realtime.protocol.limits import is_own_stream
from aibos_realtime.protocol.messages import Position
from aibos_realtime.testing.clock import settle
from tests.model.cluster import ROOM_TIMEOUT, Node
from tests.model.ledger import Fault
from tests.model.view import View
from tests.model.world import ROOMS, World

T = TypeVar("T")

QUIET = 45.0
"""Seconds within which everything is right again."""


class Idle:
    """What a cluster without clients has: timers and tasks."""

    def __init__(self, timers: int, tasks: int) -> None:
        self.timers = timers
        self.tasks = tasks


async def measure(world: World) -> Idle:
    """The most that is there at any time within a while."""
    timers, tasks = 0, 0
    for _ in range(16):
        await world.clock.advance(0.25)
        timers, tasks = max(timers, len(world.clock.planned)), max(tasks, _count_tasks())
    return Idle(timers, tasks)


def _count_tasks() -> int:
    """Of those that run; a dispatcher keeps one that waits for work."""
    return sum(getattr(task.get_coro(), "__qualname__", "") != "Dispatcher._serve" for task in asyncio.all_tasks())


async def check_quiet(world: World) -> None:
    """Faults end, everybody reads; then clients, servers and the model agree."""
    world.cluster.heal()
    world.rush = 0
    for view in world.views:
        view.is_stalled = False
    await world.advance(QUIET)
    for node in world.cluster.living:
        if not node.broker.is_available:
            raise Fault(f"{node.id} has not come back")
    if any(not call.done() for call in world.calls):
        raise Fault("something that the server was asked for never ended")
    world.calls = [call for call in world.calls if not call.done()]
    for view in world.views:
        _check_view(world, view)
    for node in world.cluster.living:
        _check_counts(world, node)
        for room in ROOMS:
            await _check_presence(world, node, room)
    world.check_revoked()


def _check_view(world: World, view: View) -> None:
    if view.is_closed:
        return
    if view.asked:
        raise view.fault(f"has no answer to {list(view.asked.values())}")
    rooms = set(view.socket.rooms)
    if not set(view.rooms) - view.brought <= rooms <= set(view.rooms) | view.brought:
        raise view.fault(f"believes to be in {set(view.rooms)}, and is in {rooms}")
    view.brought &= rooms
    for room, at in [*view.rooms.items(), *view.streams.items()]:
        if room not in rooms and not is_own_stream(room):
            continue
        head = world.cluster.log.head(room)
        if head is None or at is None:
            continue
        missing = range(at.offset + 1, head.offset + 1)
        if at.epoch != head.epoch or any(not world.ledger.is_hidden((room, head.epoch, one), view.user) for one in missing):
            raise view.fault(f"stands at {at} of {room}, which ends at {Position(head.epoch, head.offset)}")


def _check_counts(world: World, node: Node) -> None:
    views = [view for view in world.views if view.node is node and not view.is_closed]
    server, metrics = node.server, node.server.metrics
    facts = {
        "connections": (len(server.pool), len(views)),
        "users": (server.pool.count_users(), len({view.user for view in views if view.socket.user is not None})),
        "connections that have not ended": (metrics.connections_total - metrics.connections_ended, len(views)),
        "ends by close code": (sum(metrics.close_codes.values()), metrics.connections_ended),
        "handlers that failed": (metrics.handler_failures, 0),
        "sockets in the middle of something": (sum(socket.is_busy or socket.publishes is not None for socket in server.pool), 0),
        "members on their way in": (sum(len(room.joining) for room in server.rooms.by_id.values()), 0),
        "memberships": (
            sum(room.socket_count for room in server.rooms.by_id.values()), sum(len(view.socket.rooms) for view in views),
        ),
    }  # fmt: skip
    for what, (found, expected) in facts.items():
        if found != expected:
            raise Fault(f"{node.id} has {found} {what}, and the model {expected}")


async def _check_presence(world: World, node: Node, room: str) -> None:
    """Who is in a room, as any node tells, and with how many sockets."""
    views = [view for view in world.views if not view.is_closed and room in view.socket.rooms]
    expected = {str(view.user) for view in views}
    doubtful = {user for held, user in world.held if held == room}
    try:
        found = {member.user_id for member in await _soon(world, node.server.rooms.get_room_users(room))}
        info = await _soon(world, node.server.rooms.get_room_info(room))
    except RoomNotFound:
        if expected:
            raise Fault(f"{node.id} knows no room {room}, in which {expected} are") from None
        return
    if found - doubtful != expected - doubtful:
        raise Fault(f"{node.id} says that {found} are in {room}; it is {expected}")
    if info.user_count != len(found) or info.connection_count != len(views):
        raise Fault(f"{node.id} counts {info.user_count} users and {info.connection_count} sockets in {room}; it is {len(found)} and {len(views)}")


async def _soon(world: World, coroutine: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(coroutine)
    await settle(60)
    if not task.done():
        await world.clock.advance(1.0)
    return task.result()


async def check_empty(world: World, idle: Idle) -> None:
    """Everybody goes, in one way or another; after a while nothing is left of them."""
    for number, view in enumerate(list(world.views)):
        if not view.is_closed:
            if number % 3 == 0:
                for room in list(view.socket.rooms):
                    view.send("leave-room", room, room)
                await world.settle()
            (view.end.cut if number % 2 else view.end.close)()
    await world.settle()
    for room, user in sorted(world.held):
        for node in world.cluster.living[:1]:
            await world.ask(node.server.rooms.leave_room(room, user))
    await world.advance(ROOM_TIMEOUT + 25.0)
    for node in world.cluster.living:
        left = {what: count for what, count in _left(node).items() if count}
        if left:
            raise Fault(f"{node.id} still has {left} when everybody has gone")
    if world.cluster.living and not world.cluster.meeting.shelf.is_empty:
        raise Fault(f"the directory still has {world.cluster.meeting.shelf.rooms}")
    if len(world.cluster.living) == len(world.cluster.nodes):
        now = await measure(world)
        if now.timers > idle.timers or now.tasks > idle.tasks:
            raise Fault(f"{now.timers} timers and {now.tasks} tasks run, and before there were {idle.timers} and {idle.tasks}")


def _left(node: Node) -> Counter[str]:
    server = node.server
    rooms, fanout, sockets = server.rooms, server._parts.fanout, server.sockets
    keeper = rooms._keeper
    return Counter(
        {
            "connections": len(server.pool),
            "users": server.pool.count_users(),
            "rooms": len(rooms.by_id),
            "rooms that it follows": len(node.broker._follower),
            "subscriptions": len(node.link._followed),
            "places": len(keeper._places) + len(keeper._coming) + len(keeper._left),  # type: ignore[attr-defined]
            "rooms that are being made": len(keeper._openings._waiting),  # type: ignore[attr-defined]
            "rooms and users told to the directory": sum(len(teller.rooms) + len(teller._sockets) + len(teller._unsaid) + len(teller._entering)
                                                         for teller in node.directory._tellers),
            "events that wait to be written": len(fanout._waiting),
            "streams that are read": len(fanout._catching_up),
            "tasks of sockets": len(sockets._tasks),
            "handlers": len(server._parts.sockets._inbound.dispatcher.tasks),
            "bytes that wait": server.metrics.outbox_bytes,
            "sockets that are behind": server.metrics.connections_behind,
        }
    )  # fmt: skip
