"""The file beside an SQLite database that is locked by who writes the log, one server alone or nodes together, and remembers how far it has come.

The lock ends with the process. What is remembered outlives the database file's replacement by an older copy, and so tells of it.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import ConfigurationError


class Mark(NamedTuple):
    """A state of a database: its random name, and how often its log was written."""

    identity: str
    commits: int


class LockFile:
    """Of a database file, by whatever name it was reached. Nothing is opened yet."""

    def __init__(self, database: Path) -> None:
        resolved = database.resolve()
        self._path = resolved.with_name(f"{resolved.name}.lock")
        self._descriptor: int | None = None

    def try_lock(self, *, is_shared: bool = False) -> bool:
        """Take the lock, unless another process, or another part of this one, has it; `is_shared`: unless one has it alone.

        Raises `ConfigurationError`, `OSError`.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:
            raise ConfigurationError(f"database.url: {self._path.name}, beside the database, may not be written by this process") from None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def read(self) -> Mark | None:
        """What is remembered; None where nothing is, or nothing that makes sense."""
        assert self._descriptor is not None, "it is locked"
        found = re.fullmatch(rb"([0-9a-f]{16}) (\d{20})\n", os.pread(self._descriptor, 100, 0))
        return None if found is None else Mark(found[1].decode(), int(found[2]))

    def write(self, mark: Mark) -> None:
        """Remember a state that the disk has. Forgetting some of it, as in a loss of power, only makes the file less strict."""
        # Of one length, so nothing is ever cut off. An error must not turn what is committed into a failure.
        if self._descriptor is not None:
            with suppress(OSError):
                os.pwrite(self._descriptor, f"{mark.identity} {mark.commits:020}\n".encode(), 0)

    def close(self) -> None:
        """Let go. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
