"""The audit log: who came, who was refused, kicked, revoked, and how connections ended. A line for the log, and the latest entries for operators.

Names and numbers only: no token, no payload, no header.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Literal

from msgspec import Struct

from .clock import Clock

logger = logging.getLogger("aibos_realtime.audit")

Act = Literal["connect", "authenticate", "refuse", "disconnect", "kick", "revoke", "role", "publish", "destroy", "requeue", "purge"]
KEPT = 2000
"""Entries that a node keeps in memory."""


class AuditEntry(Struct, frozen=True, omit_defaults=True):
    """One act. `time`: Unix seconds. `by`: who did it, where it was an operator (`user:…`, `key:…`). `code`: a close code or an HTTP status."""

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


class Audit:
    """The acts of one node, newest last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: deque[AuditEntry] = deque(maxlen=KEPT)

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
            fields = {name: value for name in AuditEntry.__struct_fields__[2:] if (value := getattr(entry, name)) is not None}
            logger.info("%s", act, extra=fields)

    def latest(self, limit: int = 100, *, socket_id: str | None = None, user_id: str | None = None) -> list[AuditEntry]:
        """The latest entries, newest first; of one connection or user, if that is said."""
        found = []
        for entry in reversed(self._entries):
            if (socket_id is None or entry.socket_id == socket_id) and (user_id is None or entry.user_id == user_id):
                found.append(entry)
                if len(found) == limit:
                    break
        return found
