"""The options of Redis. Reading them imports no driver."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from ...errors import ConfigurationError
from ...options import Options
from .urls import read_url


class RedisOptions(Options):
    """Where Redis or Valkey is. `db`: in place of the URL's database number. `prefix`: how the names of all keys begin."""

    url: str = Field("redis://127.0.0.1:6379", repr=False)
    db: int | None = Field(None, ge=0)
    prefix: str = "aibos"

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            read_url(url)
        except ConfigurationError as error:
            raise ValueError(str(error).partition(": ")[2]) from None
        return url

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", prefix) is None:
            raise ValueError(f"{prefix[:64]!r} was given; allowed are 1–64 letters, digits, and _ . -")
        return prefix
