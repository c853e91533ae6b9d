"""Times on the wire: RFC 3339, UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


_MILLISECONDS = [f"{rest:03d}Z" for rest in range(1000)]


@lru_cache(maxsize=8)  # under load, many events share a millisecond
def rfc3339(milliseconds: int) -> str:
    """`1700000000123` → `2023-11-14T22:13:20.123Z`."""
    return _second(milliseconds // 1000) + _MILLISECONDS[milliseconds % 1000]
