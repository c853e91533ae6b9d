"""The options of Redis. Reading them imports no driver."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from ...errors import BrokerUnavailable, ConfigurationError, RealtimeError
from ...options import Options
from .urls import Address, read_url


def placed(error: BrokerUnavailable | ConfigurationError, path: str, options: RedisOptions) -> RealtimeError:
    """The same error of a `Client` for those who start a server: with the dotted `path` of its options, and the address without user and password."""
    if isinstance(error, ConfigurationError):
        return ConfigurationError(path + str(error).removeprefix("redis"))
    return BrokerUnavailable(f"{path}.url: {error} ({options.address.shown})")


class RedisOptions(Options):
    """Where Redis or Valkey is. `db`: in place of the URL's database number. `prefix`: how the names of all keys begin.

    `tls_ca`: file with the certificates that a server's must be signed by (default: those that the system trusts). `sentinel_password`: that of
    the sentinels themselves; the one in the URL is the servers'.
    """

    url: str = Field("redis://127.0.0.1:6379", repr=False)
    db: int | None = Field(None, ge=0)
    prefix: str = "aibos"
    tls_ca: Path | None = None
    sentinel_password: SecretStr | None = None

    @property
    def address(self) -> Address:
        """What `url` and `db` mean."""
        address = read_url(self.url)
        return address if self.db is None else address._replace(db=self.db)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            read_url(url)
        except ConfigurationError as error:
            raise ValueError(str(error).partition(": ")[2]) from None
        return url

    @field_validator("db")
    @classmethod
    def _check_db(cls, db: int | None, info: ValidationInfo) -> int | None:
        if db and "url" in info.data and read_url(info.data["url"]).kind == "cluster":
            raise ValueError(f"{db} was given; a cluster has database 0 only")
        return db

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", prefix) is None:
            raise ValueError(f"{prefix[:64]!r} was given; allowed are 1–64 letters, digits, and _ . -")
        return prefix

    @field_validator("tls_ca")
    @classmethod
    def _check_tls_ca(cls, tls_ca: Path | None, info: ValidationInfo) -> Path | None:
        if tls_ca is not None and "url" in info.data and not read_url(info.data["url"]).is_tls:
            raise ValueError("a file was given, but the URL asks for no TLS; allowed are rediss://, rediss+sentinel:// and rediss+cluster://")
        return tls_ca
