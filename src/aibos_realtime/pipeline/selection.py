"""Which of one turn's events each of many sockets gets: decided once for those who are alike, and one by one only for those who are named.

The events are the bits of a mask, bit 0 is the first. What an audience means is the business of `filters`, writing that of `fanout`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from ..backends.base import Audience, LoggedEvent
from ..hub.connections import ConnectionPool
from ..hub.room import MemberIndex, Room
from ..hub.socket import Socket
from ..protocol.codec import Encoding, encode_json
from .filters import Decision, Filters, Test, Verdicts, all_of

Groups = Mapping[Encoding, Collection[Socket]]
Selected = Mapping[Encoding, Mapping[int, Collection[Socket]]]
"""Sockets by encoding, and by the mask of the events that they get."""


class Part:
    """Sockets that are alike: the mask of what they get, and for those of them that get something else the bits that differ."""

    __slots__ = ("encoding", "flips", "mask", "sockets")

    def __init__(self, encoding: Encoding, sockets: dict[Socket, None], mask: int) -> None:
        self.encoding = encoding
        self.sockets = sockets
        self.mask = mask
        self.flips: dict[Socket, int] = {}

    def passes(self, test: Test) -> bool:
        """What a test says that says the same of all of them."""
        user = next(iter(self.sockets)).user
        return user is not None and test(user)

    def flip(self, test: Test, bits: int) -> None:
        """Have those who pass differ in these bits."""
        flips = self.flips
        for socket in self.sockets:
            user = socket.user
            if user is not None and test(user):
                flips[socket] = flips.get(socket, 0) ^ bits

    def selected(self) -> dict[int, Collection[Socket]]:
        """Who gets anything, by mask. Nobody's bits are changed twice, so those who differ are in no group of the others."""
        flips, mask = self.flips, self.mask
        if not flips:
            return {mask: self.sockets} if mask else {}
        found: dict[int, list[Socket]] = {}
        for socket, flip in flips.items():
            found.setdefault(mask ^ flip, []).append(socket)
        found.pop(0, None)
        return {**found, mask: _without(self.sockets, flips)} if mask else {**found}


class Members:
    """Among whom is chosen: the live members of a room, or the sockets of an own stream."""

    __slots__ = ("_groups", "_index", "_pool", "parts")

    def __init__(self, groups: Groups, room: Room | None, pool: ConnectionPool, names: tuple[str, ...], mask: int) -> None:
        """`names`: of users' attributes; who differs in one of them is in another part. `mask`: of what all of them get."""
        self._pool = pool
        self._groups = room.groups if room is not None else {encoding: dict.fromkeys(sockets) for encoding, sockets in groups.items()}
        self._index: MemberIndex | None = None
        self.parts: dict[Any, Part]
        if names:
            index = self._index = room.index(names) if room is not None else MemberIndex(names, chain.from_iterable(self._groups.values()))
            self.parts = {kind: Part(kind[0], sockets, mask) for kind, sockets in index.groups.items()}
        else:
            self.parts = {encoding: Part(encoding, sockets, mask) for encoding, sockets in self._groups.items()}

    def admit(self, decision: Decision, bits: int) -> None:
        """Give events to those for whom they are."""
        of_kind, of_own, exclude = decision.of_kind, decision.of_own, decision.exclude
        if decision.users is not None:
            self._flip(decision.users - exclude, all_of([test for test in (of_kind, of_own) if test is not None]), bits)
            return
        if of_own is not None and exclude:
            of_own = all_of([lambda user: user.id not in exclude, of_own])
        for part in self.parts.values():
            if of_kind is None or part.passes(of_kind):
                if of_own is None:
                    part.mask |= bits
                else:
                    part.flip(of_own, bits)
        if of_own is None and exclude:
            self._flip(exclude, of_kind, bits)

    def _flip(self, user_ids: Collection[str], test: Test | None, bits: int) -> None:
        """Have the sockets of these users differ, if they pass."""
        for socket in self._sockets_of(user_ids):
            if test is None or ((user := socket.user) is not None and test(user)):
                flips = self.parts[socket.encoding if self._index is None else self._index.kind(socket)].flips
                flips[socket] = flips.get(socket, 0) ^ bits

    def _sockets_of(self, user_ids: Collection[str]) -> Iterator[Socket]:
        """Found by the users; where they are many beside the sockets, by looking at each of these, which costs a quarter."""
        groups = self._groups
        if len(user_ids) > 1 and 4 * len(user_ids) > sum(map(len, groups.values())):
            for socket in chain.from_iterable(groups.values()):
                if (user := socket.user) is not None and user.id in user_ids:
                    yield socket
            return
        for user_id in user_ids:
            for socket in self._pool.get_user_connections(user_id):
                if socket in groups.get(socket.encoding, ()):
                    yield socket


def select(events: list[LoggedEvent], groups: Groups, room: Room | None, *, pool: ConnectionPool, filters: Filters) -> Selected:
    """Who gets which of these events: of the live members of a room; without one, of the sockets in `groups`. Each is there once at most."""
    everybodys, asked = _sort(events)
    verdicts: dict[str, Verdicts] = {}
    decisions = [(decision, bits) for audience, bits in asked if (decision := filters.decision(audience, verdicts)) is not None]
    names: set[str] = set()
    for decision, _ in decisions:
        if decision.users is None:
            names |= decision.names
    members = Members(groups, room, pool, tuple(sorted(names)), everybodys)
    for decision, bits in decisions:
        members.admit(decision, bits)
    found: dict[Encoding, list[Mapping[int, Collection[Socket]]]] = {}
    for part in members.parts.values():
        if selected := part.selected():
            found.setdefault(part.encoding, []).append(selected)
    return {encoding: parts[0] if len(parts) == 1 else _together(parts) for encoding, parts in found.items()}


def _sort(events: list[LoggedEvent]) -> tuple[int, Iterable[tuple[Audience, int]]]:
    """The mask of the events that are for all, and the different audiences of the others with theirs."""
    if len(events) == 1:
        return (1, ()) if events[0].audience is None else (0, ((events[0].audience, 1),))
    everybodys = 0
    asked: dict[Any, tuple[Audience, int]] = {}
    for number, event in enumerate(events):
        audience = event.audience
        if audience is None:
            everybodys |= 1 << number
            continue
        key = audience if audience.where is None else (encode_json(audience.where), audience.filter, audience.users, audience.exclude)
        known = asked.get(key)
        asked[key] = (audience, 1 << number if known is None else known[1] | 1 << number)
    return everybodys, asked.values()


def _together(parts: list[Mapping[int, Collection[Socket]]]) -> Mapping[int, Collection[Socket]]:
    """The parts of one encoding as one, so that who gets the same gets it in one go."""
    found: dict[int, list[Socket]] = {}
    for part in parts:
        for mask, sockets in part.items():
            found.setdefault(mask, []).extend(sockets)
    return found


def _without(sockets: dict[Socket, None], few: Iterable[Socket]) -> Collection[Socket]:
    """The sockets but those few. To copy all is cheap; looking at each costs as much as writing to it."""
    rest = sockets.copy()
    for socket in few:
        del rest[socket]
    return rest
