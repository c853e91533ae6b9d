"""A document over HTTP: no redirect, no other scheme, and never more bytes or seconds than it may take. What comes byte by byte: `tests/attacks`."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from aibos_realtime.auth.document import fetch_document

from .material import Provider, serve_keys


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serve_keys() as provider:
        provider.body = b"{}"
        yield provider


def test_a_document(provider: Provider) -> None:
    assert fetch_document(provider.url) == b"{}"
    for timer in (thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)):
        timer.join(1.0)
        assert not timer.is_alive(), "it would have waited for longer"


def test_redirects_are_not_followed(provider: Provider) -> None:
    provider.status = 302
    provider.headers = {"Location": provider.url}
    with pytest.raises(OSError, match="302"):
        fetch_document(provider.url)
    assert provider.hits == 1


def test_a_document_that_is_too_large(provider: Provider) -> None:
    provider.body = b" " * 2000
    assert len(fetch_document(provider.url, max_bytes=2000)) == 2000
    with pytest.raises(ValueError, match="too large"):
        fetch_document(provider.url, max_bytes=1999)


def test_a_provider_that_does_not_answer(provider: Provider) -> None:
    provider.gate.clear()
    with pytest.raises(OSError, match="timed out"):
        fetch_document(provider.url, timeout=0.05)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/keys", "data:,{}"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(OSError, match="unknown url type"):
        fetch_document(url)


# — over TLS —


@contextmanager
def secure_server(folder: Path, *parts: bytes) -> Iterator[str]:
    """The URL of a server that answers one request with these parts, a hundredth of a second between them. `folder`: for the authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def serve() -> None:
        stream, _ = server.accept()
        with suppress(OSError), context.wrap_socket(stream, server_side=True) as secure:
            secure.recv(4096)
            for part in parts:
                secure.sendall(part)
                is_over.wait(0.01)

    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://localhost:{server.getsockname()[1]}/keys"
        is_over.set()
        thread.join(10)


def test_a_document_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with secure_server(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"{}") as url:
        assert fetch_document(url) == b"{}"


def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    with secure_server(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as url, pytest.raises(OSError, match="certificate"):
        fetch_document(url)


def test_a_document_byte_by_byte_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with secure_server(tmp_path, b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 3000) as url:
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            fetch_document(url, timeout=0.15)
        assert time.monotonic() - begin < 5


def test_a_handshake_of_tls_that_does_not_end() -> None:
    """Time is up for what comes before HTTP as well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        begin = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            fetch_document(f"https://127.0.0.1:{server.getsockname()[1]}/keys", timeout=0.05)
        assert time.monotonic() - begin < 5
