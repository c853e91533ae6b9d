"""Every error that this package raises.

    RealtimeError                 .code (a word, the same on the wire)   .retryable   .details
    ├── ConfigurationError        an option is unknown, wrong, or cannot go with another
    ├── ProtocolError             what the peer sent is not of our protocol
    │   ├── MessageTooLarge
    │   ├── UnknownEvent
    │   └── UnrecoverablePosition
    ├── ValidationError           .errors: [{path, message}]
    ├── AuthenticationError       the token is no good, and never why
    │   ├── TokenExpired
    │   └── TokenRevoked
    ├── PermissionDenied          .resource   .action
    ├── RateLimitExceeded         .retry_after
    ├── ConnectionError           also a builtin ConnectionError
    │   ├── ConnectionClosed      .close_code   .reason
    │   ├── ConnectTimeout        also a builtin TimeoutError
    │   └── ConnectionLimitExceeded
    ├── RequestTimeout            no answer in time; also a builtin TimeoutError
    ├── Overloaded                try again later
    ├── IdempotencyConflict       one id, two contents
    ├── RoomError
    │   ├── RoomNotFound · RoomFull · RoomLimitExceeded · GuestsNotAllowed · NotInRoom · RoomRequired
    ├── QueueError
    │   └── QueueFull
    ├── BackendError              a driver's own error is the __cause__
    │   ├── BrokerUnavailable
    │   └── StoreUnavailable
    └── NoInstanceAvailable

An error that a peer caused goes to that peer as an `error` frame made of `code`, the message, `retryable` and `details`:
so none of the three may ever hold a secret, a path or a trace.
"""

from __future__ import annotations

import builtins
import math
from typing import Any, ClassVar


class RealtimeError(Exception):
    """Root of the tree. `str(error)` is one sentence for a person, `code` one word for a program."""

    code: str = "internal"
    retryable: bool = False

    def __init__(self, message: str = "", *, code: str | None = None, retryable: bool | None = None, details: dict[str, Any] | None = None) -> None:
        super().__init__(message or self.default_message)
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable
        self.details: dict[str, Any] = details or {}

    default_message: ClassVar[str] = "Something went wrong inside the server."

    @property
    def message(self) -> str:
        return str(self)


class ConfigurationError(RealtimeError):
    """An option is unknown, of the wrong type, or impossible beside another. The message names it by its dotted path."""

    code = "configuration"
    default_message = "The configuration is not valid."


class ProtocolError(RealtimeError):
    """What arrived is not of our protocol."""

    code = "bad_request"
    default_message = "This is not a message of the protocol aibos.realtime.v1."


class MessageTooLarge(ProtocolError):
    """A message is larger than the limit of its direction."""

    code = "message_too_large"
    default_message = "The message is larger than the limit."


class UnknownEvent(ProtocolError):
    """No handler takes this event, and there is no room to publish it to."""

    code = "unknown_event"
    default_message = "Nothing on the server handles this event, and it names no room to publish to."


class UnrecoverablePosition(ProtocolError):
    """A position is not, or no longer, in the log."""

    code = "unrecoverable_position"
    default_message = "This position is not in the log of the room."


class ValidationError(RealtimeError):
    """A payload does not fit the declared type. `errors` says where: `[{"path": "$.amount", "message": "Expected int"}]`."""

    code = "validation_failed"
    default_message = "The data does not fit what this event takes."

    def __init__(self, message: str = "", *, errors: list[dict[str, str]] | None = None) -> None:
        self.errors = errors or []
        super().__init__(message, details={"errors": self.errors} if self.errors else None)


class AuthenticationError(RealtimeError):
    """A token is missing or not acceptable. One answer for every failure: the reason is for the server's log."""

    code = "not_authenticated"
    default_message = "The token is not valid."


class TokenExpired(AuthenticationError):
    """The token was good once."""


class TokenRevoked(AuthenticationError):
    """The token, or every token of its user, was revoked."""


class PermissionDenied(RealtimeError):
    """The user may not do this here. The message does not repeat the resource; `resource` and `action` are beside it."""

    code = "permission_denied"
    default_message = "You do not have the permission for this."

    def __init__(self, message: str = "", *, resource: str = "", action: str = "") -> None:
        self.resource = resource
        self.action = action
        super().__init__(message, details={"resource": resource, "action": action})


class RateLimitExceeded(RealtimeError):
    """Too many in too short a time. `retry_after`: seconds until the next one is allowed."""

    code = "rate_limited"
    retryable = True
    default_message = "Too many messages: wait before the next one."

    def __init__(self, message: str = "", *, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message, details={"retryAfter": math.ceil(retry_after * 1000) / 1000})


class ConnectionError(RealtimeError, builtins.ConnectionError):
    """There is no connection, or it ended before the answer came."""

    code = "unavailable"
    retryable = True
    default_message = "There is no connection to the server."


class ConnectionClosed(ConnectionError):
    """The connection was closed. `close_code` 4000–4499: a new one may succeed; 4500–4999: it will not."""

    default_message = "The connection was closed."

    def __init__(self, message: str = "", *, close_code: int = 1006, reason: str = "") -> None:
        self.close_code = close_code
        self.reason = reason
        super().__init__(message or f"The connection was closed: {close_code} {reason}".rstrip(), retryable=not 4500 <= close_code <= 4999)


class ConnectTimeout(ConnectionError, builtins.TimeoutError):
    """No connection within the time given."""

    code = "timeout"
    default_message = "The server did not answer in time."


class ConnectionLimitExceeded(ConnectionError):
    """The server, the user or the address has as many connections as allowed."""

    code = "overloaded"
    default_message = "There is no place for another connection."


class RequestTimeout(RealtimeError, builtins.TimeoutError):
    """The peer did not answer within the time given. Whether it acted is unknown."""

    code = "timeout"
    retryable = True
    default_message = "No answer came in time."


class Overloaded(RealtimeError):
    """A bound was reached; nothing was taken. Try again later."""

    code = "overloaded"
    retryable = True
    default_message = "The server is overloaded: try again later."


class IdempotencyConflict(RealtimeError):
    """The id was used for another content within the last five minutes."""

    code = "idempotency_conflict"
    default_message = "This id was already used with other content."


class RoomError(RealtimeError):
    """A room cannot be used in this way."""

    code = "room_not_found"
    default_message = "The room cannot be used in this way."


class RoomNotFound(RoomError):
    """There is no such room, or it is not to be seen: the two are one answer."""

    code = "room_not_found"
    default_message = "There is no such room."


class RoomFull(RoomError):
    """The room has as many users as it may have."""

    code = "room_full"
    default_message = "The room is full."


class RoomLimitExceeded(RoomError):
    """There are as many rooms (of the server, or of this connection) as there may be."""

    code = "room_limit"
    default_message = "The number of rooms is at its limit."


class GuestsNotAllowed(RoomError):
    """A user of the role `guest`, and the room does not take guests."""

    code = "guests_not_allowed"
    default_message = "This room does not take guests."


class NotInRoom(RoomError):
    """Leaving a room without being in it."""

    code = "not_in_room"
    default_message = "You are not in this room."


class RoomRequired(RoomError):
    """An event without a room, from somebody in several rooms."""

    code = "room_required"
    default_message = "Name the room: you are in several."


class QueueError(RealtimeError):
    """A queue cannot do this."""

    code = "unavailable"
    default_message = "The queue cannot do this."


class QueueFull(QueueError):
    """The queue holds as many messages as it may hold; nothing was taken."""

    code = "overloaded"
    retryable = True
    default_message = "The queue is full: try again later."


class BackendError(RealtimeError):
    """A store or broker behind the server failed. The driver's error is the `__cause__`."""

    code = "unavailable"
    retryable = True
    default_message = "A service that the server depends on is not available: try again later."


class BrokerUnavailable(BackendError):
    """The broker (Redis) does not answer."""


class StoreUnavailable(BackendError):
    """The database does not answer."""


class NoInstanceAvailable(RealtimeError):
    """No instance is healthy."""

    code = "unavailable"
    retryable = True
    default_message = "No instance is available."


_BY_CODE: dict[str, type[RealtimeError]] = {
    cls.code: cls
    for cls in (
        ProtocolError, MessageTooLarge, UnknownEvent, UnrecoverablePosition, AuthenticationError, RoomNotFound, RoomFull, RoomLimitExceeded,
        GuestsNotAllowed, NotInRoom, RoomRequired, Overloaded, IdempotencyConflict, BackendError, RequestTimeout,
    )
}  # fmt: skip


LONGEST_WAIT = 600.0
"""Seconds. For longer nobody is asked to wait, whatever a peer says."""


def from_wire(data: dict[str, Any]) -> RealtimeError:
    """The error that an `error` frame's `data` speaks of, for the receiving side. An unknown code gives a plain `RealtimeError` with that code.

    It raises nothing, whatever is in there: what is of another type than it should be counts as missing, and no wait is longer than 600 s.
    """
    code, message = _text(data, "code") or "internal", _text(data, "message")
    error: RealtimeError
    if code == "validation_failed":
        errors = data.get("errors")
        error = ValidationError(message, errors=errors if isinstance(errors, list) else [])
    elif code == "permission_denied":
        error = PermissionDenied(message, resource=_text(data, "resource"), action=_text(data, "action"))
    elif code == "rate_limited":
        error = RateLimitExceeded(message, retry_after=_wait(data.get("retryAfter")))
    else:
        error = _BY_CODE.get(code, RealtimeError)(message, code=code)
    error.retryable = bool(data.get("retryable", error.retryable))
    error.details |= {key: value for key, value in data.items() if key not in ("code", "message", "retryable")}
    return error


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _wait(value: object) -> float:
    """Seconds; 1 for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return 1.0
    return float(min(max(value, 0), LONGEST_WAIT))
