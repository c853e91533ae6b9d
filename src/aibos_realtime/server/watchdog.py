"""Says who holds the event loop: a thread that looks whether the loop still turns, and if not, what its thread is in the middle of.

It measures nothing (`admin.figures` does) and ends nothing: whoever blocks the loop is told in the log, by file, line and function.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from types import FrameType
from typing import Any

from ..logs import get_logger

logger = get_logger("aibos_realtime")

STALL = 1.0
"""Seconds for which the loop stands still until that is told."""
LOOK_EVERY = 0.25
FRAMES = 8
"""How much of the stack is told, from the place where it stands outwards."""


class Watchdog:
    """Watches the running loop from `start` to `stop`. `stall`: seconds after which a standstill is told, once while it lasts and once at its end."""

    def __init__(self, *, stall: float = STALL) -> None:
        self._stall = stall
        self._turned_at = 0.0
        self._told: str | None = None
        self._late = 0.0
        self._turning: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._collecting_since = 0.0

    def start(self) -> None:
        """From the loop's own thread. Idempotent."""
        if self._thread is None:
            self._ended.clear()
            self._turn(asyncio.get_running_loop())
            self._thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="aibos-realtime watchdog", daemon=True)
            self._thread.start()
            gc.callbacks.append(self._collected)

    def stop(self) -> None:
        """Idempotent. Returns at once: the thread ends within a moment."""
        if self._thread is not None:
            gc.callbacks.remove(self._collected)
            self._thread = None
            self._ended.set()
        if self._turning is not None:
            self._turning.cancel()
            self._turning = None

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        if self._told is not None:
            logger.warning("the event loop turns again; it stood still for %.1f s, in %s", max(now - self._turned_at, self._late), self._told)
            self._told = None
        self._turned_at = now
        self._turning = loop.call_later(LOOK_EVERY, self._turn, loop)

    def _watch(self, thread: int) -> None:
        while not self._ended.wait(LOOK_EVERY):
            late = time.monotonic() - self._turned_at - LOOK_EVERY
            if late >= self._stall and self._told is None:
                frame = sys._current_frames().get(thread)
                found = describe(frame)
                self._late, self._told = late, found
                del frame
                logger.error("the event loop has stood still for %.1f s: nobody is served; it is in %s", late, found)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        now = time.monotonic()
        if phase == "start":
            self._collecting_since = now
        elif now - self._collecting_since >= self._stall:
            logger.warning("a collection of garbage took %.1f s", now - self._collecting_since)


def describe(frame: FrameType | None) -> str:
    """Where a thread stands, and who called that: functions with file and line, none of their values."""
    found: list[str] = []
    while frame is not None and len(found) < FRAMES:
        code = frame.f_code
        found.append(f"{code.co_qualname} ({_short(code.co_filename)}:{frame.f_lineno})")
        frame = frame.f_back
    return " ← ".join(found)


def _short(path: str) -> str:
    return "/".join(path.replace("\\", "/").split("/")[-2:])
