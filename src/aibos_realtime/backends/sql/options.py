"""The options of a database. Reading them imports no driver."""

from __future__ import annotations

from pydantic import Field, field_validator

from ...errors import ConfigurationError
from ...options import Count, Options, Seconds
from .urls import read_url


class DatabaseOptions(Options):
    """Where events are stored.

    `pool_size`: connections to PostgreSQL at once, half of them for reading, besides the one that writes the log; on SQLite the threads that read,
    at most 4. `statement_timeout`: seconds that a statement, or a wait for a lock or for a connection, may take.
    """

    url: str = Field("sqlite:///realtime.db", repr=False)
    pool_size: Count = 10
    statement_timeout: Seconds = 5.0

    @field_validator("url")
    @classmethod
    def _check(cls, url: str) -> str:
        try:
            read_url(url)
        except ConfigurationError as error:
            raise ValueError(str(error).partition(": ")[2]) from None
        return url
