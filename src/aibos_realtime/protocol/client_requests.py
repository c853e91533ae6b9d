"""What a client has asked and not yet heard of: refs, deadlines, what waits while offline, and what is sent again after a loss.

Requests go out in the order in which they were made. What waited (the backlog) goes out `WINDOW` at a time, so that a long outage does
not end in
refusals for sending too fast; one that is refused for that alone waits for its turn again, and from then on the server's delay lies between
the messages. Reads no clock: `now` is given (seconds,
monotonic).
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal

from ..errors import Overloaded

WINDOW = 16
"""Messages of the backlog that are on their way at once; below the burst that a server allows."""

TRIES = 5

Kind = Literal["publish", "request", "read", "join", "leave", "authenticate"]
"""publish and read may be repeated; a request may not: its outcome is unknown once the connection is lost. The other three act on a
connection."""


class Request:
    """One message that wants an answer. `deadline`: when it fails; set at the first sending unless the caller gave one for the whole."""

    __slots__ = ("deadline", "frame", "has_own_deadline", "is_backlog", "is_sent", "kind", "ref", "room", "tries")

    def __init__(self, ref: int, kind: Kind, frame: dict[str, Any], room: str | None, deadline: float | None) -> None:
        self.ref = ref
        self.kind: Kind = kind
        self.frame = frame
        self.room = room
        self.deadline = deadline
        self.has_own_deadline = deadline is not None
        self.is_sent = False
        self.is_backlog = False
        self.tries = 0


class RequestLedger:
    """The open requests of one client. `timeout`: seconds between sending and the answer."""

    def __init__(self, *, buffer_size: int = 1000, timeout: float = 10.0) -> None:
        self._buffer_size = buffer_size
        self._timeout = timeout
        self._refs = itertools.count(1)
        self._open: dict[int, Request] = {}
        self._backlog: deque[Request] = deque()
        self._outgoing: deque[Request | dict[str, Any]] = deque()
        self._under_way: set[int] = set()
        self._window = WINDOW
        self._paused_until = self._pace = 0.0
        self._deadlines: list[tuple[float, int]] = []
        self.is_flowing = False
        """Whether what is asked goes out at once. False: it waits."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._open.values()))

    @property
    def waiting(self) -> int:
        """Messages that nobody has written to a socket yet."""
        return len(self._backlog) + len(self._outgoing)

    def get(self, ref: int) -> Request | None:
        return self._open.get(ref)

    def open(
        self, kind: Kind, frame: dict[str, Any], *, now: float, room: str | None = None, timeout: float | None = None, is_held: bool = False
    ) -> Request:
        """A new request; it gets its `ref` here.

        `is_held`: it waits for `repeat`. Raises `Overloaded` when as many messages wait as may.
        """
        is_message = kind in ("publish", "request", "read")
        if is_message:
            self.check_space()
        ref = next(self._refs)
        request = Request(ref, kind, frame | {"ref": ref}, room, None if timeout is None else now + timeout)
        self._open[ref] = request
        self._watch(request)
        if is_message and not (self.is_flowing and not self._backlog and not self._under_way):
            request.is_backlog = True
            self._backlog.append(request)
        elif not is_held:
            self._outgoing.append(request)
        return request

    def check_space(self) -> None:
        """Raise `Overloaded` when as many messages wait as may."""
        if self.waiting >= self._buffer_size:
            raise Overloaded(f"{self.waiting} messages wait to be sent already: this one was not taken.")

    def tell(self, frame: dict[str, Any]) -> None:
        """A message without an answer, at the end of what goes out now."""
        self._outgoing.append(frame)

    def repeat(self, request: Request, data: dict[str, Any]) -> None:
        """Send an open request again, with other data."""
        request.frame["data"] = data
        request.is_sent = False
        self._outgoing.append(request)

    def take(self, now: float) -> dict[str, Any] | None:
        """The next frame to write, or None. From here on its request counts as sent."""
        self._pump(now)
        while self._outgoing:
            item = self._outgoing.popleft()
            if isinstance(item, dict):
                return item
            if item.ref not in self._open:
                continue
            item.is_sent = True
            if not item.has_own_deadline:
                item.deadline = now + self._timeout
                self._watch(item)
            return item.frame
        return None

    def close(self, ref: int) -> Request | None:
        """The request is over: answered, failed or given up. None for a ref that is not, or no longer, open."""
        request = self._open.pop(ref, None)
        if request is not None:
            self._under_way.discard(ref)
            if not request.is_sent:
                self._drop(request)
            if not self._backlog and not self._under_way:
                self._window, self._pace = WINDOW, 0.0
        return request

    def put_back(self, request: Request, delay: float, now: float) -> bool:
        """Let a refused message of the backlog try again after `delay` seconds. False: it is none, or has tried often enough."""
        if not request.is_backlog or request.tries >= TRIES:
            return False
        request.tries += 1
        request.is_sent = False
        if not request.has_own_deadline:
            request.deadline = None
        self._open[request.ref] = request
        self._under_way.discard(request.ref)
        self._backlog = deque(sorted((*self._backlog, request), key=lambda one: one.ref))
        self._window = 1
        self._pace = max(self._pace, delay)
        self._paused_until = max(self._paused_until, now + delay)
        self.remind(self._paused_until)
        return True

    def lose(self, *, resend: bool) -> list[Request]:
        """The connection is gone. What can be repeated goes back in line; returned is what cannot, and is over.

        Joins stay open. `resend=False`: what was sent is not repeated either, because the peer took offence at a message.
        """
        over = []
        for request in list(self._open.values()):
            is_repeatable = request.kind in ("publish", "read") and resend
            if request.kind == "join" or (request.kind in ("publish", "read", "request") and (not request.is_sent or is_repeatable)):
                request.is_sent = False
                if not request.has_own_deadline:
                    request.deadline = None
            else:
                del self._open[request.ref]
                over.append(request)
        self._backlog = deque(request for request in sorted(self._open.values(), key=lambda one: one.ref) if request.kind != "join")
        for request in self._backlog:
            request.is_backlog = True
        self._outgoing.clear()
        self._under_way.clear()
        self._window, self._paused_until, self._pace, self.is_flowing = WINDOW, 0.0, 0.0, False
        return over

    def give_up(self) -> list[Request]:
        """Every open request, all of them over."""
        over = list(self._open.values())
        self._open.clear()
        self.lose(resend=False)
        return over

    def expire(self, now: float) -> list[Request]:
        """The requests whose deadline has come; they are over."""
        over = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, ref = heapq.heappop(self._deadlines)
            request = self._open.get(ref)
            if request is not None and request.deadline == deadline:
                self.close(ref)
                over.append(request)
        return over

    @property
    def next_deadline(self) -> float | None:
        """When `expire` is next worth a call."""
        while self._deadlines:
            deadline, ref = self._deadlines[0]
            request = self._open.get(ref)
            if ref == 0 or (request is not None and request.deadline == deadline):
                return deadline
            heapq.heappop(self._deadlines)
        return None

    def remind(self, when: float) -> None:
        """Make `next_deadline` name this time too."""
        heapq.heappush(self._deadlines, (when, 0))

    def _watch(self, request: Request) -> None:
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request.ref))

    def _drop(self, request: Request) -> None:
        for line in (self._backlog, self._outgoing):
            try:
                line.remove(request)
            except ValueError:
                pass

    def _pump(self, now: float) -> None:
        while self.is_flowing and self._backlog and len(self._under_way) < self._window and now >= self._paused_until:
            request = self._backlog.popleft()
            self._under_way.add(request.ref)
            self._outgoing.append(request)
            if self._pace:
                self._paused_until = now + self._pace
                self.remind(self._paused_until)
