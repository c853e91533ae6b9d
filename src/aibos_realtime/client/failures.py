"""What went wrong with a connection, said in errors of this package: who was asked, what came, and what to do. Never the token."""

from __future__ import annotations

import socket
import ssl
from email.utils import parsedate_to_datetime

from websockets.exceptions import ConnectionClosed as WebSocketClosed
from websockets.exceptions import InvalidHandshake, InvalidStatus, ProxyError

from ..errors import (
    AuthenticationError,
    ConnectionClosed,
    ConnectionError,
    ConnectionLimitExceeded,
    ConnectTimeout,
    PermissionDenied,
    ProtocolError,
    RealtimeError,
)
from ..protocol.client_readings import LONGEST_DELAY
from ..protocol.close_codes import CloseCode, default_reason, is_message_fault


def explain_dial(error: BaseException, server: str, timeout: float, now: float) -> RealtimeError:
    """The error for an attempt that led to no connection. `server`: host:port; `timeout`: the seconds it had; `now`: unix time."""
    if isinstance(error, ConnectionClosed):
        return _explain_early_close(error, server)
    if isinstance(error, RealtimeError):
        return error
    if isinstance(error, InvalidStatus):
        return _explain_status(error, server, now)
    if isinstance(error, ProxyError):
        return ConnectionError(f"The proxy on the way to {server} refused: check the proxy settings.")
    if isinstance(error, InvalidHandshake | EOFError):
        return ConnectionError(f"{server} did not answer as a WebSocket server: check the host, the port and the path.")
    if isinstance(error, TimeoutError):
        return ConnectTimeout(f"{server} did not answer within {timeout:g} seconds: check the address and the network, or raise connect_timeout.")
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"The certificate of {server} is not trusted: give the context that trusts it as ssl=."
        return ConnectionError(message, retryable=False)
    if isinstance(error, ssl.SSLError):
        return ConnectionError(f"No TLS connection to {server}: does it speak TLS (wss), or plain text (ws)?")
    if isinstance(error, socket.gaierror):
        return ConnectionError(f"The host of {server} is not known: check the URL and the name service.")
    if isinstance(error, ConnectionRefusedError):
        return ConnectionError(f"Nothing listens at {server}: start the server, or check the host and the port.")
    if isinstance(error, OSError):
        return ConnectionError(f"No connection to {server}: {error.strerror or type(error).__name__}. Check the address and the network.")
    return ConnectionError(f"No connection to {server}: {type(error).__name__}.")


def _explain_status(error: InvalidStatus, server: str, now: float) -> RealtimeError:
    status = error.response.status_code
    if status == 401:
        return AuthenticationError(f"{server} did not accept the token (401).")
    if status == 403:
        return PermissionDenied(f"{server} does not allow this origin or this user (403).")
    if status in (429, 503):
        word = (
            "asks for fewer attempts"
            if status == 429
            else "takes no connections at the moment: it is full, or stopping, or cut off from what it needs"
        )
        wait = read_retry_after(error.response.headers.get("Retry-After"), now)
        return ConnectionLimitExceeded(f"{server} {word} ({status}).", details={} if wait is None else {"retryAfter": wait})
    if status >= 500 or status in (408, 425):
        return ConnectionError(f"{server} answered {status} instead of a WebSocket: it, or what stands before it, is in trouble.")
    return ConnectionError(f"{server} answered {status} instead of a WebSocket: check the path of the URL.", retryable=False)


def _explain_early_close(closed: ConnectionClosed, server: str) -> RealtimeError:
    explained = explain_close(closed)
    if explained is not closed:
        return explained
    words = f"{closed.close_code} {closed.reason}".rstrip()
    message = f"{server} closed the connection before it was ready ({words}): see its log."
    return ConnectionClosed(message, close_code=closed.close_code, reason=closed.reason)


def read_retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a `Retry-After` header (RFC 9110, section 10.2.3: seconds or a date), within reason; None if there is none.

    `now`: unix time.
    """
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - now
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_DELAY)


def explain_loss(error: WebSocketClosed) -> ConnectionClosed:
    """How a connection ended. Where this side found fault with a message and closed, the code is its own."""
    if error.rcvd is not None:
        return ConnectionClosed(close_code=int(error.rcvd.code), reason=error.rcvd.reason)
    if error.sent is not None and is_message_fault(int(error.sent.code)):
        return ConnectionClosed(close_code=int(error.sent.code), reason=error.sent.reason)
    return ConnectionClosed("The connection was lost without a word of the server.", close_code=CloseCode.ABNORMAL)


def explain_close(closed: ConnectionClosed) -> RealtimeError:
    """What a close means for the next attempt: `retryable` says whether one is worth it."""
    code = closed.close_code
    words = closed.reason or default_reason(code)
    if code in (CloseCode.TOKEN_INVALID, CloseCode.NOT_AUTHENTICATED):
        return AuthenticationError(f"The server closed the connection: {words} ({code}).")
    if code == CloseCode.CONNECTION_LIMIT:
        return ConnectionLimitExceeded(f"The server closed the connection: {words} ({code}).", retryable=False)
    if code == CloseCode.PERMISSION_DENIED:
        return PermissionDenied(f"The server closed the connection: {words} ({code}).")
    if code in (CloseCode.UNSUPPORTED_VERSION, CloseCode.BAD_REQUEST, CloseCode.TOO_MANY_ERRORS):
        return ProtocolError(f"The server closed the connection: {words} ({code}).", code="bad_request")
    return closed
