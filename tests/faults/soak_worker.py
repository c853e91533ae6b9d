"""A worker of the soak: that of `worker_program`, begun anew, as a supervisor would, where its queue cannot be reached at the start."""

from __future__ import annotations

import logging
import threading
from typing import Any

from aibos_realtime import RealtimeError
from tests.faults import worker_program

AGAIN = 0.3
"""Seconds."""

logger = logging.getLogger("soak")


def main(options: dict[str, Any]) -> None:
    """`options`: those of `worker_program.main`."""
    while True:
        try:
            return worker_program.main(options)
        except RealtimeError as error:
            logger.error("not started: %s: %s", error.code, error)
            threading.Event().wait(AGAIN)
