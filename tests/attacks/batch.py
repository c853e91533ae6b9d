"""Many short connections from one thread: each says something, and hears how the answer begins, or does not wait for one."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter

PATIENCE = 10.0


def say_and_go(port: int, data: bytes, count: int, *, source: str = "127.0.0.1", answered: bool = True, rate: float | None = None) -> Counter[int]:
    """Connect `count` times, say `data`, and close: how often each HTTP status came, 0 for none. `rate`: at most so many a second."""
    statuses: Counter[int] = Counter()
    pace, begin = threading.Event(), time.perf_counter()
    for number in range(count):
        if rate is not None:
            pace.wait(max(0.0, begin + number / rate - time.perf_counter()))
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0)) as one:
            try:
                one.sendall(data)
                head = one.recv(64) if answered else b""
            except OSError:
                head = b""
            statuses[int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0] += 1
    return statuses
