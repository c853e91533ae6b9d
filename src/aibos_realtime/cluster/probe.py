"""Asking an instance whether it is ready: one GET of its `/ready`, over a connection of its own. What follows is `instances`' part."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache

from .instances import Instance

_MAX_STATUS_LINE = 1024


async def is_ready(instance: Instance, *, timeout: float, tls: ssl.SSLContext | None = None) -> bool:
    """Whether the instance answers 200 within `timeout` seconds, name look-up and TLS included. `tls`: default the system's trust.

    Raises nothing that an instance could cause. Cancelling closes the connection.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _ask(instance, (tls or _default_trust()) if instance.is_secure else None)
    except (
        OSError,
        EOFError,
        ValueError,
        asyncio.LimitOverrunError,
    ):  # TimeoutError and SSLError are OSErrors, UnicodeError is a ValueError
        return False


@cache
def _default_trust() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _ask(instance: Instance, tls: ssl.SSLContext | None) -> bool:
    reader, writer = await asyncio.open_connection(instance.host, instance.port, ssl=tls, limit=_MAX_STATUS_LINE)
    try:
        request = f"GET {instance.ready_path} HTTP/1.1\r\nHost: {instance.name}\r\nConnection: close\r\nUser-Agent: aibos-realtime\r\n\r\n"
        writer.write(request.encode("ascii"))
        status = (await reader.readuntil(b"\r\n")).split(b" ", 2)
        return status[0] in (b"HTTP/1.1", b"HTTP/1.0") and status[1:2] == [b"200"]
    finally:
        writer.transport.abort()
