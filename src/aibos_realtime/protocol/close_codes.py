"""Close codes of `aibos.realtime.v1`: the number alone says whether a new connection may succeed.

4000–4499: reconnect (full jitter, recover). 4500–4999: stop, and tell the application. Codes below 4000 keep their meaning of RFC 6455,
section 7.4.
This module knows no connection: it is a table and two questions to it.
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """The codes that this protocol uses. An unknown code is judged by its range: see `is_reconnectable`."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    """Never on the wire: the close frame was empty."""
    ABNORMAL = 1006
    """Never on the wire: the connection ended without a close frame."""
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012

    SHUTTING_DOWN = 4001
    INTERNAL = 4004
    TOKEN_EXPIRED = 4005
    TOO_SLOW = 4008
    INSUFFICIENT_STATE = 4010
    MOVE = 4011
    NO_SIGN_OF_LIFE = 4012
    TOO_MANY_REQUESTS = 4013
    RIGHTS_CHANGED = 4014
    OVERLOADED = 4015

    TOKEN_INVALID = 4500
    BAD_REQUEST = 4501
    NOT_AUTHENTICATED = 4502
    DISCONNECTED = 4503
    CONNECTION_LIMIT = 4504
    UNSUPPORTED_VERSION = 4506
    PERMISSION_DENIED = 4507
    TOO_MANY_ERRORS = 4509


REASONS: dict[int, str] = {
    CloseCode.NORMAL: "",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.INVALID_DATA: "invalid data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "restarting",
    CloseCode.SHUTTING_DOWN: "shutting down",
    CloseCode.INTERNAL: "internal error",
    CloseCode.TOKEN_EXPIRED: "token expired",
    CloseCode.TOO_SLOW: "too slow: the outgoing buffer overflowed",
    CloseCode.INSUFFICIENT_STATE: "insufficient state",
    CloseCode.MOVE: "please move to another node",
    CloseCode.NO_SIGN_OF_LIFE: "no sign of life",
    CloseCode.TOO_MANY_REQUESTS: "too many requests",
    CloseCode.RIGHTS_CHANGED: "rights changed: authenticate again",
    CloseCode.OVERLOADED: "overloaded, or a dependency is down",
    CloseCode.TOKEN_INVALID: "token invalid",
    CloseCode.BAD_REQUEST: "bad request: protocol broken",
    CloseCode.NOT_AUTHENTICATED: "not authenticated in time",
    CloseCode.DISCONNECTED: "disconnected by an administrator, or revoked",
    CloseCode.CONNECTION_LIMIT: "connection limit",
    CloseCode.UNSUPPORTED_VERSION: "unsupported protocol version",
    CloseCode.PERMISSION_DENIED: "permission denied",
    CloseCode.TOO_MANY_ERRORS: "too many errors",
}
"""What a close frame says beside its code where nothing better is known. Each fits the 123 bytes of RFC 6455, section 5.5.1."""


def is_reconnectable(code: int) -> bool:
    """Whether a client may try again after this code. Only 4500–4999 say no, known or not."""
    return not 4500 <= code <= 4999


def is_message_fault(code: int) -> bool:
    """Whether the code complains of a message that the peer was sent: repeating that message on a new connection would end that one too."""
    return code in (CloseCode.PROTOCOL_ERROR, CloseCode.UNSUPPORTED_DATA, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG)


def default_reason(code: int) -> str:
    """The words for a code of the table; empty for any other."""
    return REASONS.get(code, "")
