"""A document of an identity provider, over http or https: within its time and size, whatever the provider does. It blocks, so it runs in a thread.

Not here: what the document says, and when it is fetched.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from typing import Any

FETCH_TIMEOUT = 3.0
MAX_DOCUMENT_BYTES = 256 * 1024


class _Streams:
    """The connections of one fetch: duplicates of them, by which another thread can end them, whatever is read of them at the moment."""

    def __init__(self) -> None:
        self._found: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_over = False

    def add(self, stream: socket.socket) -> None:
        with self._lock:
            self._found.append(stream.dup())
            if self._is_over:
                self._end()

    def cut(self) -> None:
        """End them, and those that are still to come."""
        with self._lock:
            self._is_over = True
            self._end()

    def close(self) -> None:
        with self._lock:
            for stream in self._found:
                stream.close()
            self._found.clear()

    def _end(self) -> None:
        for stream in self._found:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


class _Plain(http.client.HTTPConnection):
    streams: _Streams

    def connect(self) -> None:
        super().connect()
        self.streams.add(self.sock)


class _Secure(http.client.HTTPSConnection, _Plain):
    """Connects as `_Plain` does, and then shakes hands."""


class _Opener(urllib.request.HTTPHandler):
    """Opens both kinds of URL with connections that can be cut."""

    def __init__(self, streams: _Streams) -> None:
        super().__init__()
        self._streams = streams

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connect, _Plain), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connect, _Secure), request, context=ssl.create_default_context())

    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _connect(self, kind: type[_Plain], /, *args: Any, **options: Any) -> _Plain:
        connection = kind(*args, **options)
        connection.streams = self._streams
        return connection


def fetch_document(url: str, *, timeout: float = FETCH_TIMEOUT, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """GET over http or https, without redirects; blocks for `timeout` seconds in silence at most, and twice that in all.

    Raises `OSError`, `HTTPException`, or `ValueError` for more than `max_bytes`.
    """
    deadline = time.monotonic() + 2 * timeout
    streams = _Streams()
    # The time-out of a socket counts from each byte that comes: a head that comes byte by byte would hold the thread for ever.
    timer = threading.Timer(2 * timeout, streams.cut)
    timer.daemon = True
    timer.start()
    try:
        document = _read(_open(url, streams, timeout), max_bytes)
    except (OSError, http.client.HTTPException):
        if time.monotonic() >= deadline:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
        streams.close()
    if time.monotonic() >= deadline:  # the end of a stream that was cut looks like that of the document
        raise TimeoutError
    return document


def _open(url: str, streams: _Streams, timeout: float) -> http.client.HTTPResponse:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Opener(streams),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json", "User-Agent": "aibos-realtime"})
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    return response


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    document = bytearray()
    with response:
        while part := response.read1(65536):
            document += part
            if len(document) > max_bytes:
                raise ValueError("the document is too large")
    return bytes(document)
