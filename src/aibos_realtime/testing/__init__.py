"""For users' own tests: a clock that is moved by hand, and a server in memory with clients that speak the protocol by hand."""

from __future__ import annotations

from .clock import ManualClock
from .server import MemoryClient, memory_server

__all__ = ["ManualClock", "MemoryClient", "memory_server"]
