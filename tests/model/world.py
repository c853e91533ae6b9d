"""The model: who is connected, with which rights, and in which rooms, as plain values; its acts on the real servers, and what they must have done.

Every act is a plain function of a few numbers and names, so that a list of acts is a test, and a shorter list a better one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from aibos_realtime.errors import BackendError, NotInRoom, RealtimeError, RoomError, RoomNotFound
from aibos_realtime.protocol.limits import ALL, user_stream
from aibos_realtime.protocol.messages import Position
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.shared_log import SETTLING
from tests.model.cluster import CAN, GRACE, Cluster, Node
from tests.model.ledger import Fault
from tests.model.view import Presented, View

USERS = {"ann": "a", "bob": "a", "cat": "b", "dan": "a"}
"""User → tenant."""
ROOMS = ("tenant_a:1", "tenant_a:2", "tenant_a:small", "tenant_a:brief", "tenant_b:1")
WHOLE = ("tenant_a:1", "tenant_a:2", "tenant_b:1", ALL, *map(user_stream, USERS))
"""Rooms of which the log keeps everything, as long as nobody takes it away."""
SLACK = 2.0
"""Seconds by which a socket may be closed late: it is looked at once a second, and its turn may move within that."""


class World:
    """See the module. `chance`: only for what lies below the servers: turns, and the fate of messages."""

    def __init__(self, seed: int, *, nodes: int, has_store: bool) -> None:
        self.chance = random.Random(seed)
        self.cluster = Cluster(nodes, turns=lambda: self.chance.choice((0, 1, 1, 3)), has_store=has_store)
        self.ledger = self.cluster.ledger
        self.clock = self.cluster.clock
        self.views: list[View] = []
        self.lossless = set(WHOLE)
        self.failed_over_at = -10.0
        self.faulted_at = -100.0
        """When something was last wrong between the nodes."""
        self.calls: list[asyncio.Task[Any]] = []
        self.revoked: dict[str, float] = {}
        self.rush = 0
        """Acts to come that wait for little of what they do."""
        self.is_jumped = False
        self._jumped = 0.0
        self.late_roles: dict[str, set[str]] = {user: set() for user in USERS}
        self.held: set[tuple[str, str]] = set()
        """(room, user): who was put there by the server's own word, perhaps."""
        self._numbers = iter(range(1, 1_000_000))

    # — who —

    def node(self, number: int) -> Node | None:
        living = self.cluster.living
        return living[number % len(living)] if living else None

    def view(self, number: int) -> View | None:
        live = [view for view in self.views if not view.is_closed]
        return live[number % len(live)] if live else None

    def room_of(self, view: View, room: str, n: int) -> str:
        """Mostly one of its own tenant."""
        return room if room.startswith(f"tenant_{view.tenant}:") or n % 5 == 0 else f"tenant_{view.tenant}:1"

    @property
    def is_calm(self) -> bool:
        """Whether nothing was wrong between the nodes for a while, so that what is asked for is done when the answer is there."""
        return self.clock.monotonic() - self.faulted_at > 20.0 and not self._is_faulty()

    def _is_faulty(self) -> bool:
        log = self.cluster.log
        links = [node.link for node in self.cluster.living]
        return (
            log.is_down or log.is_hung or any(link.is_cut_off or link.is_deaf or link.deaf_rooms or link.fate or link.replies_lost for link in links)
        )

    @property
    def is_settling(self) -> bool:
        """What a node saw that nobody can ask just after a loss, the others cannot know: that is promised to nobody."""
        return self.cluster.log.is_down or self.cluster.log.is_hung or self.clock.monotonic() - self.failed_over_at < 2 * SETTLING

    # — time —

    async def advance(self, seconds: float) -> None:
        """Go on, with every client reading that reads at all."""
        while seconds > 0:
            await self.clock.advance(min(0.5, seconds))
            seconds -= 0.5
            if self._is_faulty():
                self.faulted_at = self.clock.monotonic()
            self.look()

    async def settle(self) -> None:
        """See what comes of an act; while there is a rush, only a little of it before the next one."""
        await settle(self.chance.randint(0, 3) if self.rush else 25)
        self.rush = max(0, self.rush - 1)
        if self._is_faulty():
            self.faulted_at = self.clock.monotonic()
        self.look()

    def look(self) -> None:
        """Have the clients read, and check what holds at any time."""
        for view in self.views:
            if not view.is_stalled:
                view.hear()
            ends = [view.closes_at, *(content.closes_at for content in view.presented)]
            if not view.is_closed and not view.is_stalled and view.user is not None and self.clock.monotonic() > max(ends) + SLACK:
                raise view.fault("is still connected after the end of its token's grace")
            if self.ledger.losses == 0 and (told := self.lossless.intersection(view.resynced)):
                raise view.fault(f"was told of a loss in {told}, and there was none")
        if self.ledger.faults:
            raise Fault(self.ledger.faults[0])
        self.views = [view for view in self.views if not view.is_closed or view.end._messages]

    async def ask(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What comes of a server's own act; the error, where it fails; None where it takes long."""
        task = asyncio.ensure_future(coroutine)
        for _ in range(8):
            await self.settle()
            if task.done():
                break
            await self.advance(0.5)
        if not task.done():
            self.calls.append(task)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return None
        error = task.exception()
        if error is not None and not isinstance(error, RealtimeError):
            raise error
        return error or task.result()

    # — clients —

    async def connect(self, n: int, user: str, role: str, seconds: float, kind: str) -> None:
        """`kind`: "json", "msgpack", or "late", who authenticates by a message."""
        node = self.node(n)
        if node is None or len(self.views) >= 8:
            return
        token = node.server.auth.issue(user_id=user, role=role, tenant_id=USERS[user], expires_in=seconds)
        ends = node.connect(None if kind == "late" else token, is_binary=kind == "msgpack")
        if ends is None:
            if self.is_calm and not self.is_jumped and self.clock.now() > self.revoked.get(user, 0.0):
                raise Fault(f"{user} was refused with a good token at {node.id}")
            return
        view = View(f"client{next(self._numbers)}", node, *ends, self.ledger, is_binary=kind == "msgpack", lossless=self.lossless)
        view.late_roles = self.late_roles[user]
        self.views.append(view)
        content = self._content(user, role, seconds)
        if kind == "late":
            view.present(token, content)
        else:
            view.identify(content)
        await self.settle()

    def _content(self, user: str, role: str, seconds: float) -> Presented:
        """What a token says that is issued now."""
        return Presented(user, USERS[user], role, self.clock.now(), self.clock.monotonic() + seconds + 1.0 + GRACE)  # `exp` is whole, rounded up

    async def refresh(self, m: int, role: str, seconds: float, user: str | None = None) -> None:
        """Present another token: another role, another end, or, which is refused, another user."""
        view = self.view(m)
        if view is None or view.user is None:
            return
        whose, before = user or view.user, view.role
        token = view.node.server.auth.issue(user_id=whose, role=role, tenant_id=USERS[whose], expires_in=seconds)
        view.present(token, self._content(whose, role, seconds))
        await self.settle()
        self._check_rights(view, before)

    def _check_rights(self, view: View, before: str) -> None:
        """Nobody is in a room without the right to read it."""
        if not view.is_closed and not view.presented and self.is_calm and "read" not in CAN[view.role] and view.socket.rooms - view.brought:
            raise view.fault(f"is in {set(view.socket.rooms)} as {view.role}, after {before}")

    async def join(self, m: int, room: str, how: str) -> None:
        view = self.view(m)
        if view is None:
            return
        room = self.room_of(view, room, m)
        given = self._position(view, room, how)
        data: dict[str, Any] = {"roomId": room}
        if given is not None:
            data["recover"] = {"epoch": given.epoch, "offset": given.offset}
        if how == "rewind":
            data["rewind"] = 3
        if how == "watch":
            data["presence"] = True
        was_there = given is not None and 0 <= given.offset <= self.ledger.tops.get((room, given.epoch), -1)
        view.send("join-room", data, room, (how, given, was_there))
        await self.settle()

    def _position(self, view: View, room: str, how: str) -> Position | None:
        """Where to recover from: true, old, of another room, forged, below or beyond everything."""
        tops = {place: top for place, top in self.ledger.tops.items() if place[0] == room}
        epoch, top = (list(tops)[-1][1], list(tops.values())[-1]) if tops else ("none", 0)
        if how == "true":
            return view.rooms.get(room) or view.streams.get(room) or Position(epoch, top)
        if how == "old":
            return Position(next(iter(tops), ("", epoch))[1], self.chance.randint(0, max(1, top)))
        if how == "foreign":
            other = [place for place in self.ledger.tops if place[0] != room]
            return Position(other[-1][1], 1) if other else Position("none", 1)
        made = {
            "forged": Position("Zm9yZ2Vk", 1),
            "negative": Position(epoch, -1),
            "beyond": Position(epoch, top + 1),
            "huge": Position(epoch, 2**53),
        }
        return made.get(how)

    async def request(self, m: int, event: str, room: str) -> None:
        """`leave-room`, `presence` or `history`."""
        view = self.view(m)
        if view is not None:
            room = self.room_of(view, room, m)
            view.send(event, {"roomId": room}, room)
            await self.settle()

    async def publish(self, m: int, room: str, times: int) -> None:
        view = self.view(m)
        for _ in range(times if view is not None else 0):
            assert view is not None
            room = self.room_of(view, room, m)
            view.send("note", {"n": next(self._numbers)}, room, room=room)
        await self.settle()

    async def publish_keyed(self, m: int, room: str, id: str, content: int) -> None:
        """With an id, twice the same over time and over nodes, and sometimes with another content."""
        view = self.view(m)
        if view is not None:
            room = self.room_of(view, room, m)
            view.send("note", {"k": content}, room, ("keyed", id, content), room=room, id=id)
            await self.settle()

    def stall(self, m: int, is_stalled: bool) -> None:
        view = self.view(m)
        if view is not None:
            view.is_stalled = is_stalled

    async def part(self, m: int, is_rude: bool) -> None:
        view = self.view(m)
        if view is not None:
            view.hear()
            (view.end.cut if is_rude else view.end.close)()
            await settle()
            self.look()
            if view.socket.id in view.node.server.pool:
                raise view.fault("is still counted after its end")

    # — the servers' own acts —

    async def broadcast(self, n: int, room: str, exclude: str | None, is_volatile: bool) -> None:
        node = self.node(n)
        if node is not None:
            more = [exclude] if exclude is not None else []
            await self.ask(node.server.broadcaster.broadcast_to_room(room, "note", {"n": next(self._numbers)}, exclude=more, volatile=is_volatile))

    async def broadcast_wide(self, n: int, user: str | None) -> None:
        """To one user, or to everybody."""
        node = self.node(n)
        if node is None:
            return
        data = {"n": next(self._numbers)}
        if user is None:
            await self.ask(node.server.broadcaster.broadcast_to_all("note", data))
        else:
            await self.ask(node.server.broadcaster.broadcast_to_user(user, "note", data))

    async def kick(self, n: int, room: str, user: str, how: str) -> None:
        """`how`: "kick", "leave" (the server's `leave_room`), "destroy" (the whole room)."""
        node = self.node(n)
        if node is None:
            return
        is_calm, busy = self.is_calm, self._is_coming(room)
        rooms = node.server.rooms
        if how == "destroy":
            outcome = await self.ask(rooms.destroy_room(room))
        else:
            outcome = await self.ask(rooms.kick(room, user) if how == "kick" else rooms.leave_room(room, user))
        if isinstance(outcome, BackendError) or not is_calm or busy or not self.is_calm:
            return
        if outcome is not None and not isinstance(outcome, NotInRoom | RoomNotFound):
            raise Fault(f"{how} failed with {outcome!r}")
        gone = [view for view in self.views if not view.is_closed and (how == "destroy" or view.user == user)]
        if left := [view.name for view in gone if room in view.socket.rooms]:
            raise Fault(f"{left} are still in {room} after {how} at {node.id}, which said {outcome!r}")
        self.held -= {(room, one) for one in (USERS if how == "destroy" else [user])}

    def _is_coming(self, room: str) -> bool:
        return any(asked.event == "join-room" and asked.room == room for view in self.views for asked in view.asked.values()) or bool(self.calls)

    async def put(self, n: int, room: str, user: str) -> None:
        """The server's own word that somebody is in a room."""
        node = self.node(n)
        if node is None:
            return
        room = room if room.startswith(f"tenant_{USERS[user]}:") else f"tenant_{USERS[user]}:1"
        self.held.add((room, user))
        for view in self.views:
            if user in (view.user, *(content.user for content in view.presented)):
                view.brought.add(room)
        outcome = await self.ask(node.server.rooms.join_room(room, user))
        if isinstance(outcome, RealtimeError) and not isinstance(outcome, BackendError | RoomError):
            raise Fault(f"join_room failed with {outcome!r}")

    async def set_role(self, n: int, user: str, role: str) -> None:
        node = self.node(n)
        if node is None:
            return
        is_calm = self.is_calm
        at_once = [view for view in self.views if view.presented]  # the token may be taken up after the role was set
        for view in self.views:
            if view.user == user:
                view.note_role(role)
        outcome = await self.ask(node.server.set_role(user, role))
        if isinstance(outcome, RealtimeError) or not (is_calm and self.is_calm):
            self.late_roles[user].add(role)
        for view in self.views:
            if view.user == user and not view.is_closed and view.socket.user is not None:
                before, view.role = view.role, view.socket.user.role
                view.note_role(view.role)
                if is_calm and view not in at_once and not view.presented and self.is_calm and not isinstance(outcome, RealtimeError):
                    if view.role != role:
                        raise view.fault(f"is {view.role} after it was made {role}")
                    self._check_rights(view, before)

    async def revoke(self, n: int, user: str) -> None:
        node = self.node(n)
        if node is None:
            return
        is_calm, at = self.is_calm, self.clock.now()
        outcome = await self.ask(node.server.auth.revoke(user_id=user))
        if isinstance(outcome, RealtimeError):
            return
        self.revoked[user] = max(at, self.revoked.get(user, 0.0))
        if is_calm and self.is_calm:
            self.check_revoked()

    def check_revoked(self) -> None:
        for view in self.views:
            if view.user is not None and not view.is_closed and view.issued_at <= self.revoked.get(view.user, 0.0) and not self.is_jumped:
                raise view.fault("is still connected after its token was taken back")

    # — what goes wrong —

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock; it is never more than an hour off."""
        if abs(self._jumped + seconds) <= 3600.0:
            self._jumped += seconds
            self.clock.jump(seconds)
            self.is_jumped = True

    def end(self, node: Node, *, is_killed: bool) -> None:
        if not (is_killed and self.is_settling):
            self.faulted_at = self.clock.monotonic()
            self.cluster.end(node, is_killed=is_killed)

    async def begin(self, n: int) -> None:
        """A server begins in the place of one that ended."""
        dead = [number for number, node in enumerate(self.cluster.nodes) if not node.is_alive]
        if dead:
            self.faulted_at = self.clock.monotonic()
            await self.cluster.begin_anew(dead[n % len(dead)])

    def fail_over(self, lost: int) -> None:
        """A server takes over that lacks the last writes. What a node saw that is cut off just then is promised to nobody."""
        for node in self.cluster.living:
            node.link.is_cut_off = False
        self._lost()
        self.failed_over_at = self.clock.monotonic()
        self.cluster.log.fail_over(lost)
        self.cluster.meeting.fail_over(lost)

    def forget_all(self) -> None:
        """Somebody empties Redis."""
        self._lost()
        self.cluster.log.forget_all()
        self.cluster.meeting.forget_all()

    def expire(self, seconds: float) -> None:
        """What is kept for a time is forgotten so much earlier."""
        self._lost()
        self.cluster.log.age_by(seconds)

    def _lost(self) -> None:
        self.ledger.losses += 1
        self.faulted_at = self.clock.monotonic()
