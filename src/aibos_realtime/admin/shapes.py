"""From what the parts of a server give to what operators are told (`reports`). Nothing is decided here."""

from __future__ import annotations

from typing import Any

import msgspec

from ..backends.base import LoggedEvent, Receipt
from ..hub.room import RoomInfo
from ..protocol.messages import Member, Position
from ..protocol.timestamps import rfc3339
from ..storage.queue import DeadLetter
from .reports import DeadLetterReport, EventReport, MemberReport, ReceiptReport, RoomReport


def receipt_report(receipt: Receipt, room: str) -> ReceiptReport:
    at = receipt.position
    return ReceiptReport(
        id=receipt.id, room=receipt.room or room, epoch=at.epoch if at else None, offset=at.offset if at else None, duplicate=receipt.duplicate
    )


def room_report(info: RoomInfo, position: Position | None = None) -> RoomReport:
    at: dict[str, Any] | None = {"epoch": position.epoch, "offset": position.offset} if position is not None else None
    return RoomReport(
        id=info.id, name=info.name, type=info.type, user_count=info.user_count, connection_count=info.connection_count,
        max_users=info.settings.max_users, allow_guests=info.settings.allow_guests, created_at=info.created_at, position=at,
    )  # fmt: skip


def member_report(member: Member) -> MemberReport:
    return MemberReport(user_id=member.user_id, role=member.role, since=member.since or "")


def event_report(event: LoggedEvent) -> EventReport:
    return EventReport(
        event=event.event, room=event.room, offset=event.offset, id=event.id, data=msgspec.json.decode(event.data), user_id=event.user_id,
        timestamp=rfc3339(event.timestamp),
    )  # fmt: skip


def letter_report(letter: DeadLetter) -> DeadLetterReport:
    return DeadLetterReport(
        id=letter.id, data=letter.data, attempts=letter.attempts, reason=letter.reason, enqueued_at=letter.enqueued_at.isoformat(),
        buried_at=letter.buried_at.isoformat(), key=letter.key, place=letter.place,
    )  # fmt: skip
