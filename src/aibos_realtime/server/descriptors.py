"""How many connections a process has file descriptors for. What happens when they run out all the same: `transport.crowd`."""

from __future__ import annotations

import resource

from ..hub.connections import ConnectionPool
from ..logs import get_logger

logger = get_logger("aibos_realtime")

RESERVED = 24
"""Descriptors that a server needs besides its connections: standard streams, event loop, listening sockets, files, stores."""
SHARE = 0.9
"""Of all descriptors, what WebSockets may take, with the reserved ones: the rest is for HTTP, and for what an application opens."""


def limit_of_descriptors() -> int | None:
    """How many this process may have open; None: any number."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def places_of(descriptors: int) -> int:
    """Connections for which so many descriptors are enough; at least one."""
    return max(1, int(SHARE * descriptors) - RESERVED)


def descriptors_for(connections: int) -> int:
    """The fewest descriptors that are enough for so many connections."""
    return -(-(connections + RESERVED) * 10 // 9)


def raise_limit(connections: int | None) -> None:
    """Let this process have what it needs for so many connections (None: as many as possible), as far as it may raise that itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if connections is None else descriptors_for(connections)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and wanted != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit_connections(pool: ConnectionPool) -> None:
    """Admit no more connections than this process has descriptors for; where those are fewer than `max_connections`, the log says so."""
    allowed, limit = pool.options.max_connections, limit_of_descriptors()
    pool.most = allowed
    if limit is not None and (allowed is None or places_of(limit) < allowed):
        pool.most = places_of(limit)
        needed = "more" if allowed is None else str(descriptors_for(allowed))
        words = "%d connections are taken at most: this process may have %d open files (for max_connections=%s it needs %s: ulimit -n)"
        logger.warning(words, pool.most, limit, allowed, needed)
