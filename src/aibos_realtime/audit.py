"""The audit log: who came, who was refused, kicked, revoked, and how connections ended. A line for the log, and the latest entries for operators.

Names and numbers only: no token, no payload, no header. What anybody on the network can cause as often as he likes is kept apart from the rest, and
at most one entry a second of each kind: it says how many it stands for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import merge
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from .clock import Clock

logger = logging.getLogger("aibos_realtime.audit")

Act = Literal["connect", "authenticate", "refuse", "disconnect", "kick", "revoke", "role", "destroy", "requeue", "purge"]
KEPT = 2000
"""Entries that a node keeps in memory."""
KEPT_OF_STRANGERS = 500
"""Entries of those who were refused, or never said who they were."""
EVERY = 1.0
"""Seconds from one of these to the next of its kind."""
KINDS_OF_STRANGERS = 32
"""Of their kinds within a second; what is none of them counts as one more. A peer chooses the code that it closes with."""

_acting: ContextVar[str | None] = ContextVar("acting", default=None)


@contextmanager
def acting(name: str) -> Iterator[None]:
    """What is done inside, in this task, is done by an operator: `user:…`, `key:…`. So each act is noted in one place, where it is done."""
    token = _acting.set(name)
    try:
        yield
    finally:
        _acting.reset(token)


def actor() -> str | None:
    """The operator who does what is being done; None: the application."""
    return _acting.get()


def on_request(count: int) -> str:
    """The reason of a `disconnect` that is no connection's end, but the order to end so many."""
    return f"on request, {count} connection{'' if count == 1 else 's'}"


class AuditEntry(Struct, frozen=True, omit_defaults=True):
    """One act. `time`: Unix seconds. `by`: who did it, where it was an operator (`user:…`, `key:…`). `code`: a close code or an HTTP status.

    `count`: how many acts of its kind it stands for, of which it shows the last.
    """

    time: float
    act: Act
    socket_id: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None
    address: str | None = None
    room_id: str | None = None
    code: int | None = None
    reason: str | None = None
    by: str | None = None
    count: int = 1


class Audit:
    """The acts of one node, newest last. `node`: its name, for the log."""

    def __init__(self, clock: Clock, *, node: str | None = None) -> None:
        self._clock = clock
        self._node = node
        self._entries: deque[AuditEntry] = deque(maxlen=KEPT)
        self._of_strangers: deque[AuditEntry] = deque(maxlen=KEPT_OF_STRANGERS)
        self._held: dict[tuple[Act, int | None], AuditEntry | None] = {}
        """What came within the second after one of its kind, of which the last, with their number."""
        self.held_back = 0
        """Acts that have no entry of their own."""

    def note(
        self,
        act: Act,
        *,
        socket_id: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        address: str | None = None,
        room_id: str | None = None,
        code: int | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Keep an act, and log it at INFO with its members as `extra`."""
        entry = AuditEntry(self._clock.now(), act, socket_id, user_id, tenant_id, address, room_id, code, reason, by)
        self._entries.append(entry)
        if logger.isEnabledFor(logging.INFO):
            self._log(entry)

    def note_stranger(
        self, act: Act, *, code: int | None = None, address: str | None = None, socket_id: str | None = None, reason: str | None = None
    ) -> bool:
        """Keep what somebody did whom nobody knows; False where it is only counted, since another one of its kind came within the last second."""
        kind = (act, code)
        if kind not in self._held and len(self._held) >= KINDS_OF_STRANGERS:
            kind = (act, None)
        entry = AuditEntry(self._clock.now(), act, socket_id, address=address, code=code, reason=reason)
        if kind not in self._held:
            self._keep_of_stranger(entry)
            self._held[kind] = None
            self._clock.call_later(EVERY, self._let_out, kind)
            return True
        held = self._held[kind]
        self._held[kind] = entry if held is None else replace(entry, count=held.count + 1)
        self.held_back += held is not None
        return False

    def _let_out(self, kind: tuple[Act, int | None]) -> None:
        held = self._held.pop(kind)
        if held is not None:
            self._keep_of_stranger(held)
            self._held[kind] = None
            self._clock.call_later(EVERY, self._let_out, kind)

    def _keep_of_stranger(self, entry: AuditEntry) -> None:
        self._of_strangers.append(entry)
        if logger.isEnabledFor(logging.INFO):
            self._log(entry)

    def latest(self, limit: int = 100, *, socket_id: str | None = None, user_id: str | None = None) -> list[AuditEntry]:
        """The latest entries, newest first; of one connection or user, if that is said."""
        found: list[AuditEntry] = []
        for entry in merge(reversed(self._entries), reversed(self._of_strangers), key=_age):
            if len(found) == limit:
                break
            if (socket_id is None or entry.socket_id == socket_id) and (user_id is None or entry.user_id == user_id):
                found.append(entry)
        return found

    def _log(self, entry: AuditEntry) -> None:
        fields = {name: value for name in _FIELDS if (value := getattr(entry, name)) is not None}
        if entry.count > 1:
            fields["count"] = entry.count
        if self._node is not None:
            fields["node"] = self._node
        logger.info("%s", entry.act, extra=fields)


def _age(entry: AuditEntry) -> float:
    return -entry.time


_FIELDS = ("socket_id", "user_id", "tenant_id", "address", "room_id", "code", "reason", "by")
