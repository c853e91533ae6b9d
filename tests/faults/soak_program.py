"""A node of the soak: the rig's server with a clock that may be wrong, and rooms of both kinds of acknowledgement.

Run in a process of its own by `soak_site`; it says `listening` when it does, and in one line why it does not start. Which faults there are is for
others to say.
"""

from __future__ import annotations

import logging
import mmap
import struct
import time
from pathlib import Path
from typing import Any

from aibos_realtime import RealtimeError, RealtimeServer
from aibos_realtime.clock import SystemClock
from tests.faults.server_program import SECRET, UNLIMITED

SKEW = struct.Struct("d")
MOST_SKEW = 60.0
"""Seconds by which a node's clock may be off."""
LEEWAY = MOST_SKEW + 15
"""Seconds: as documented, what the clocks of those who issue and who check tokens may differ by."""
COMMITTED = "room-[01]"
"""Rooms whose events are acknowledged once the database has them; of the others, once Redis has them."""


class SkewedClock(SystemClock):
    """The machine's time, and as many seconds more as a file says at this moment. Durations are right."""

    __slots__ = ("_map",)

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), SKEW.size, access=mmap.ACCESS_READ)

    def now(self) -> float:
        skew: float = SKEW.unpack_from(self._map)[0]
        return time.time() + skew


def write_skew(file: Path, seconds: float) -> None:
    """Set the clocks that read this file, also while they do."""
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(SKEW.pack(seconds))


def main(options: dict[str, Any]) -> None:
    """`options`: those of `make_node`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        make_node(**options).run(on_started=lambda: print("listening", flush=True))
    except RealtimeError as error:
        print(f"not started: {error.code}: {error}", flush=True)


def make_node(port: int, database: str, skew: str, history: int, **groups: Any) -> RealtimeServer:
    """`skew`: the file of its clock. `history`: events of a room that Redis keeps. `groups`: further option groups."""
    return RealtimeServer(
        host="127.0.0.1",
        port=port,
        authentication={"jwt_secret": SECRET, "leeway": LEEWAY},
        authorization={"permissions": {"*": ["read", "write"]}},
        rooms={"patterns": {COMMITTED: {"ack": "committed", "history_size": history}, "*": {"history_size": history}}, "max_users_per_room": 1000},
        limits=UNLIMITED,
        persistence={"database": {"url": database}, "retention": {"max_messages": None}},
        clock=SkewedClock(Path(skew)),
        **groups,
    )
