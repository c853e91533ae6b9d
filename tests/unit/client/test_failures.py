from __future__ import annotations

import socket
import ssl

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidMessage, InvalidStatus, ProxyError
from websockets.frames import Close
from websockets.http11 import Response

from aibos_realtime import errors
from aibos_realtime.client.failures import explain_close, explain_dial, explain_loss, read_retry_after

SERVER = "node1:3001"


def explain(error: BaseException) -> errors.RealtimeError:
    return explain_dial(error, SERVER, 10.0, 1_000.0)


def status(code: int, **headers: str) -> InvalidStatus:
    return InvalidStatus(Response(code, "", Headers({name.replace("_", "-"): value for name, value in headers.items()})))


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (401, errors.AuthenticationError, False),
        (403, errors.PermissionDenied, False),
        (404, errors.ConnectionError, False),
        (408, errors.ConnectionError, True),
        (429, errors.ConnectionLimitExceeded, True),
        (500, errors.ConnectionError, True),
        (502, errors.ConnectionError, True),
        (503, errors.ConnectionLimitExceeded, True),
    ],
)
def test_http_answers(code: int, kind: type[errors.RealtimeError], retryable: bool) -> None:
    error = explain(status(code))
    assert type(error) is kind
    assert error.retryable is retryable
    assert SERVER in str(error) and str(code) in str(error)


def test_retry_after_is_kept() -> None:
    assert explain(status(503, Retry_After="7")).details == {"retryAfter": 7.0}
    assert explain(status(503)).details == {}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7.0), (" 7 ", 7.0), ("0", 0.0), ("-5", None), ("9" * 400, 600.0), ("soon", None), ("inf", None),
     ("Thu, 01 Jan 1970 00:17:00 GMT", 20.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)],
)  # fmt: skip
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, 1_000.0) == seconds


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), errors.ConnectionError, "Nothing listens"),
        (socket.gaierror(-2, "unknown"), errors.ConnectionError, "not known"),
        (TimeoutError(), errors.ConnectTimeout, "10 seconds"),
        (OSError(113, "No route to host"), errors.ConnectionError, "No route to host"),
        (ssl.SSLError(1, "wrong version"), errors.ConnectionError, "TLS"),
        (InvalidMessage("?"), errors.ConnectionError, "as a WebSocket server"),
        (ProxyError("?"), errors.ConnectionError, "proxy"),
        (RuntimeError("?"), errors.ConnectionError, "RuntimeError"),
    ],
)
def test_what_the_network_says(error: BaseException, kind: type[errors.RealtimeError], words: str) -> None:
    explained = explain(error)
    assert type(explained) is kind and explained.retryable
    assert SERVER in str(explained) and words in str(explained)


def test_a_certificate_that_is_not_trusted_will_not_be_in_a_second() -> None:
    assert not explain(ssl.SSLCertVerificationError(1, "self-signed")).retryable


def test_a_close_before_the_connection_was_ready() -> None:
    assert type(explain(errors.ConnectionClosed(close_code=4500))) is errors.AuthenticationError
    error = explain(errors.ConnectionClosed(close_code=1006))
    assert isinstance(error, errors.ConnectionClosed) and error.retryable and SERVER in str(error)


def test_an_error_of_ours_stays() -> None:
    error = errors.ProtocolError()
    assert explain(error) is error


@pytest.mark.parametrize(
    ("code", "kind"),
    [(4500, errors.AuthenticationError), (4502, errors.AuthenticationError), (4503, errors.ConnectionClosed),
     (4504, errors.ConnectionLimitExceeded),
     (4506, errors.ProtocolError), (4501, errors.ProtocolError), (4507, errors.PermissionDenied), (4509, errors.ProtocolError),
     (4888, errors.ConnectionClosed)],
)  # fmt: skip
def test_terminal_closes(code: int, kind: type[errors.RealtimeError]) -> None:
    error = explain_close(errors.ConnectionClosed(close_code=code, reason="why"))
    assert type(error) is kind
    assert not error.retryable
    assert str(code) in str(error) and "why" in str(error)


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 4001, 4005, 4014, 4321])
def test_other_closes_are_worth_another_attempt(code: int) -> None:
    closed = errors.ConnectionClosed(close_code=code)
    assert explain_close(closed) is closed and closed.retryable


def test_the_code_of_a_loss() -> None:
    assert explain_loss(ConnectionClosedError(Close(4001, "draining"), Close(4001, ""), True)).close_code == 4001
    assert explain_loss(ConnectionClosedError(None, None)).close_code == 1006
    assert explain_loss(ConnectionClosedError(None, Close(1009, "too big"))).close_code == 1009
    assert explain_loss(ConnectionClosedError(None, Close(1011, "ping timeout"))).close_code == 1006
