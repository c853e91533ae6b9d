"""The options of a `RealtimeClient`, and what a usable URL is."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from ..errors import ConfigurationError
from ..options import Count, Options, Seconds

SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class HeartbeatOptions(Options):
    """Signs of life, in seconds. A server that leaves a ping unanswered for `timeout` is left, and the client reconnects."""

    interval: Seconds = 30.0
    timeout: Seconds = 60.0


class ClientOptions(Options):
    """What a client obeys. Durations are seconds, sizes bytes."""

    reconnect: bool = True
    reconnect_attempts: Annotated[int, Field(ge=0)] | None = None
    """Attempts after a failure, until one holds for 5 seconds; None: for ever."""
    reconnect_interval: Seconds = 5.0
    """Upper end of the first delay (full jitter); it doubles to 20 seconds."""
    heartbeat: HeartbeatOptions = HeartbeatOptions()
    connect_timeout: Seconds = 10.0
    """From the first packet to the server's `connected`; the token callable has as long again."""
    request_timeout: Seconds = 10.0
    """From sending to the answer. What waits while offline is not sent yet."""
    buffer_size: Count = 1000
    """Messages that may wait to be sent; one more is `Overloaded`."""
    inbox_bytes: Count = 16 * 1024 * 1024
    """What may wait for callbacks before rooms fall behind; they recover once there is space."""
    max_message_bytes: Count = 8 * 1024 * 1024
    """Largest message taken from the server; a page of history is one message."""
    codec: Literal["json", "msgpack"] = "json"
    compression: Literal["deflate"] | None = None


def parse_url(path: str, url: object) -> str:
    """The `ws` or `wss` URL meant by `url`; `http` and `https` are accepted. `path` names the option in the `ConfigurationError`.

    No part of the URL beyond its scheme gets into the error: the rest may hold a password or a token.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{path}: {type(url).__name__} was given; allowed is a URL like ws://localhost:3001")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigurationError(f"{path}: the host or the port is not valid; allowed is a URL like ws://localhost:3001") from None
    if parts.scheme not in SCHEMES:
        given = f"the scheme {parts.scheme[:20]!r}" if parts.scheme and "://" in url else "no scheme"
        raise ConfigurationError(f"{path}: {given} was given; allowed are ws, wss, http and https, as in ws://localhost:3001")
    if not has_host:
        raise ConfigurationError(f"{path}: there is no host, or port 0; allowed is a URL like ws://localhost:3001")
    if not all("!" <= character <= "~" for character in url):
        raise ConfigurationError(f"{path}: a URL holds printable ASCII characters only; encode the others (%20, and so on)")
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, parts.path or "/", parts.query, ""))


def name_server(url: str) -> str:
    """`host:port` of a URL: how errors and logs name a server."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme in ('wss', 'https') else 80)}"
