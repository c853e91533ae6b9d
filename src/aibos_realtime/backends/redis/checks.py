"""What a server must be like to keep what must not be lost. It asks nothing itself."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import ConfigurationError
from ...logs import get_logger

logger = get_logger("aibos_realtime.redis")

OLDEST = (7, 0)

_warned: set[str] = set()
"""The servers that were warned of in this process, however many connections it opens."""


def read_info(reply: bytes) -> dict[str, str]:
    """The fields of an INFO."""
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def check_server(info: Mapping[str, object], shown: str) -> None:
    """Raise `ConfigurationError` unless a server, by its INFO, can keep what must not be lost. `shown`: its address, for the error."""
    check_version(str(info.get("valkey_version") or info.get("redis_version") or "0"), shown)
    policy = info.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        raise ConfigurationError(f"redis: maxmemory-policy is {policy} at {shown}, which deletes messages when memory is short; needed is noeviction")
    if str(info.get("aof_enabled")) == "0" and _is_first(f"appendonly {shown}"):
        logger.warning("Redis at %s keeps no append-only file (appendonly no): what it holds is lost when it restarts", shown)


def check_version(version: str, shown: str) -> None:
    """Raise `ConfigurationError` for a server that is too old."""
    parts = version.split(".")
    if tuple(int(part) if part.isdecimal() else 0 for part in parts[:2]) < OLDEST:
        raise ConfigurationError(f"redis: version {version} answers at {shown}; needed is Redis 7.0 or Valkey 7.2, or a later one")


def warn_unchecked(shown: str) -> None:
    """For a server whose INFO this user may not read."""
    if _is_first(f"unchecked {shown}"):
        logger.warning(
            "Redis at %s does not let this user run INFO: whether it keeps what it is given (maxmemory-policy, appendonly) is not checked", shown
        )


def _is_first(warning: str) -> bool:
    is_first = warning not in _warned
    _warned.add(warning)
    return is_first
