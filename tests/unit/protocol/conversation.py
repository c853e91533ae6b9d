"""A `ClientSession` stepped by hand: what it writes and what it tells, without a socket and without a clock."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import Raw

from aibos_realtime.protocol.client_notices import Answered, Arrived, Notice, Refused
from aibos_realtime.protocol.client_session import ClientSession
from aibos_realtime.protocol.messages import Event, Position, ServerMessage

N = TypeVar("N", bound=Notice)


class Talk:
    """`now` stands still unless a test sets it."""

    def __init__(self, **options: Any) -> None:
        self.session = ClientSession(**options)
        self.now = 0.0

    def connect(self, streams: dict[str, Any] | None = None, **greeting: Any) -> None:
        data = {"socketId": "s", "protocol": 1, "user": {"id": "u"}, "limits": {}, **greeting}
        self.session.connect(data if streams is None else data | {"streams": streams}, self.now)

    def written(self) -> list[dict[str, Any]]:
        """Every frame that the session wants written now."""
        frames = []
        while (frame := self.session.take(self.now)) is not None:
            frames.append(frame)
        return frames

    def frame(self) -> dict[str, Any]:
        """The only frame that it wants written."""
        (frame,) = self.written()
        return frame

    def get(self, event: str, data: Any = None, *, size: int = 0, **members: Any) -> None:
        """A message of the server."""
        self.session.receive(ServerMessage(event, data, **members), size, self.now)

    def event(self, offset: int | None, room: str = "r", *, id: str | None = None, size: int = 0) -> None:
        self.get("tick", {"n": offset}, room=room, offset=offset, id=id or (None if offset is None else f"id-{offset}"), size=size)

    def joined(self, ref: int, offset: int = 0, *, room: str = "r", epoch: str = "e1", recovered: bool | None = None) -> None:
        self.get("joined-room", {"roomId": room, "epoch": epoch, "offset": offset, "recovered": recovered}, ref=ref)

    def refuse(self, ref: int, code: str, **members: Any) -> None:
        self.get("error", {"code": code, "message": "No.", "retryable": False, **members}, ref=ref)

    def join(self, room: str = "r", offset: int = 0) -> None:
        """Be in a room."""
        ref = self.session.join(room, self.now)
        self.written()
        self.joined(ref, offset, room=room)
        self.notices()

    def notices(self) -> list[Notice]:
        return self.session.notices()

    def notice(self, kind: type[N]) -> N:
        """The only thing that it tells."""
        (notice,) = self.notices()
        assert isinstance(notice, kind), notice
        return notice

    def offsets(self) -> list[int | None]:
        """The places of the events that it tells; there must be nothing else."""
        notices = self.notices()
        assert all(isinstance(notice, Arrived) for notice in notices), notices
        return [notice.event.offset for notice in notices if isinstance(notice, Arrived)]

    def events(self) -> list[Event]:
        return [notice.event for notice in self.notices() if isinstance(notice, Arrived)]

    def refusal(self, ref: int) -> Exception:
        notice = self.notice(Refused)
        assert notice.ref == ref
        return notice.error

    def answer(self, ref: int) -> Any:
        notice = self.notice(Answered)
        assert notice.ref == ref
        return notice.value


def place(epoch: str, offset: int) -> dict[str, Any]:
    return {"epoch": epoch, "offset": offset}


DATA = Raw(b'{"n":1}')
HERE = Position("e1", 0)
