"""Files of the package, as they are served: read once, kept under gzip, and asked for again with their ETag. Which paths they have is said elsewhere.

What is served is a fixed table: nothing of a request is ever taken as the name of a file.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import cache, lru_cache
from pathlib import Path

from msgspec import Struct

from ..transport.asgi import Scope, Send

Headers = list[tuple[bytes, bytes]]

TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
COMMON: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),  # kept, and asked for again with its ETag: a new version is seen at once
]
_REFUSED = re.compile(rb";\s*q=0(\.0*)?\s*$")


class File(Struct, frozen=True):
    """`small`: the content under gzip, as nearly everybody takes it. `tag`: what its ETag begins with."""

    small: bytes
    type: bytes
    tag: bytes


def pack(content: bytes, type: bytes) -> File:
    """A file of this content and media type."""
    return _file(gzip.compress(content, mtime=0), type)


@cache
def read_files(folder: Path) -> dict[str, File]:
    """Every file of a folder, of the kinds that are served, by its path within it; `.gz` at its end is left away. Blocks, the first time."""
    found: dict[str, File] = {}
    for path in folder.rglob("*"):
        name = Path(path.relative_to(folder).as_posix().removesuffix(".gz"))
        if name.suffix in TYPES and path.is_file():
            content, type = path.read_bytes(), TYPES[name.suffix]
            found[name.as_posix()] = _file(content, type) if path.suffix == ".gz" else pack(content, type)
    return found


async def send_file(scope: Scope, send: Send, file: File, headers: Headers) -> None:
    """Answer a GET or HEAD with a file, or with 304 where who asks has it. `headers`: further ones."""
    asked = dict(scope["headers"])
    is_small = _takes_gzip(asked.get(b"accept-encoding", b""))
    tag = b'"' + file.tag + (b"-gzip" if is_small else b"") + b'"'
    fields = [(b"etag", tag), (b"vary", b"accept-encoding"), *COMMON, *headers]
    if tag in asked.get(b"if-none-match", b""):
        await send({"type": "http.response.start", "status": 304, "headers": fields})
        await send({"type": "http.response.body", "body": b""})
        return
    body = file.small if is_small else _unpack(file.small)
    fields += [(b"content-type", file.type), (b"content-length", str(len(body)).encode())]
    if is_small:
        fields.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


@lru_cache(maxsize=4)
def _unpack(small: bytes) -> bytes:
    """For the few that do not take gzip: the largest file takes 5 ms, which a stranger may ask for as often as he likes."""
    return gzip.decompress(small)


def _file(small: bytes, type: bytes) -> File:
    return File(small, type, hashlib.sha256(small).hexdigest()[:24].encode())


def _takes_gzip(accepted: bytes) -> bool:
    """RFC 9110, section 12.5.3; a weight of 0 is a no."""
    return any(part.split(b";")[0].strip() == b"gzip" and not _REFUSED.search(part) for part in accepted.lower().split(b","))
