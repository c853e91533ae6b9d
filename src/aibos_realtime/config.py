"""The whole configuration: the parts' option models put together, and where each value came from.

`RealtimeConfig.load` reads, in rising precedence: defaults, a TOML file, a `.env` file, the environment, keywords. No part gets the whole of it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values
from pydantic import Field, ValidationInfo, field_validator, model_validator

from .auth.authentication import AuthenticationOptions
from .auth.operators import HttpOptions
from .auth.origin import CorsOptions
from .backends.base import Ack
from .backends.redis.options import RedisOptions
from .backends.sql.options import DatabaseOptions
from .cluster.instances import Instance
from .errors import ConfigurationError
from .hub.connections import ConnectionOptions
from .hub.rooms import RoomOptions
from .options import Count, Options, Seconds, shown
from .pipeline.authorization import AuthorizationOptions
from .pipeline.throttle import LimitOptions
from .storage.persistence import RetentionOptions
from .storage.queue import MessageQueueOptions
from .transport.batch import Engine

DEFAULT_PORT = 3001
DEEPEST = 10
"""Groups in groups; of the options that there are it takes three."""


class HeartbeatOptions(Options):
    """Seconds between pings, and of silence after which a connection is given up (4012). None = off."""

    interval: Seconds | None = 30.0
    timeout: Seconds | None = 60.0

    @field_validator("timeout")
    @classmethod
    def _check(cls, timeout: float | None, info: ValidationInfo) -> float | None:
        interval = info.data.get("interval")
        if timeout is not None and interval is not None and timeout <= interval:
            raise ValueError(f"{timeout:g} was given; allowed is more than the interval, {interval:g}")
        return timeout


class CompressionOptions(Options):
    """permessage-deflate (RFC 7692), without context takeover. Off by default: it costs CPU, and memory at the clients."""

    enabled: bool = False
    threshold: Count = 1024
    """Bytes from which a message is compressed."""


class TlsOptions(Options):
    """Files in PEM. The key may stand in the certificate's file."""

    certificate: Path
    key: Path | None = None


class PersistenceOptions(Options):
    """The store. `events_waiting`, `bytes_waiting`: of events that wait for their commit; past them publishing is refused (`overloaded`)."""

    database: DatabaseOptions = Field(default_factory=DatabaseOptions)
    retention: RetentionOptions = Field(default_factory=RetentionOptions)
    ack: Ack | None = None
    """When a publish is acknowledged: `committed`, once the store has it; `queued`, once the shared log has it. Of one node it is always the
    first, of several the second unless it is said."""
    events_waiting: Count = 10_000
    bytes_waiting: Count = 64 * 1024 * 1024
    memory_bytes: Count = 256 * 1024 * 1024
    """Of payloads that all rooms together keep in memory for recovery; the store has the rest."""


class ScalingOptions(Options):
    """One node or several. `redis`: where they meet; default the queue's. `instance_id`: the name of this node, for people.

    `instance_url`: where clients reach it, told to those who balance.
    """

    enabled: bool = False
    redis: RedisOptions | None = None
    instance_id: str | None = None
    instance_url: str | None = None
    weight: Count = 1
    intake_events: Count = 100_000
    """Of events in Redis that the store has not taken yet; past them publishing is refused (`overloaded`)."""

    @field_validator("instance_id")
    @classmethod
    def _check_id(cls, id: str | None) -> str | None:
        if id is not None and re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", id) is None:
            raise ValueError(f"{shown(id)} was given; allowed are 1–64 letters, digits, and _ . : -")
        return id

    @field_validator("instance_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        try:
            return None if url is None else Instance.parse("instance_url", url).url
        except ConfigurationError as error:
            raise ValueError(str(error).partition(": ")[2]) from None


class RealtimeConfig(Options):
    """Every option of a server, by group."""

    host: str = "0.0.0.0"
    port: int = Field(DEFAULT_PORT, ge=0, le=65_535)
    cors: CorsOptions = Field(default_factory=CorsOptions)
    authentication: AuthenticationOptions = Field(default_factory=AuthenticationOptions)
    authorization: AuthorizationOptions = Field(default_factory=AuthorizationOptions)
    rooms: RoomOptions = Field(default_factory=RoomOptions)
    connections: ConnectionOptions = Field(default_factory=ConnectionOptions)
    heartbeat: HeartbeatOptions | None = None
    limits: LimitOptions = Field(default_factory=lambda: LimitOptions())
    compression: CompressionOptions = Field(default_factory=CompressionOptions)
    persistence: PersistenceOptions = Field(default_factory=PersistenceOptions)
    queue: MessageQueueOptions = Field(default_factory=lambda: MessageQueueOptions())
    scaling: ScalingOptions = Field(default_factory=ScalingOptions)
    http: HttpOptions = Field(default_factory=HttpOptions)
    tls: TlsOptions | None = None
    trusted_proxies: list[str] = Field(default_factory=list)
    sender: Engine = "auto"

    @model_validator(mode="after")
    def _check_scaling(self) -> Self:
        if self.scaling.enabled and self.nodes_redis is None:
            raise ValueError("scaling.redis.url: is required where scaling.enabled is set (in the environment: REDIS_URL beside ENABLE_SCALING)")
        return self

    @property
    def nodes_redis(self) -> RedisOptions | None:
        """Where several nodes meet."""
        return self.scaling.redis or self.queue.redis

    @classmethod
    def load(
        cls, *, file: str | Path | None = None, environment: Mapping[str, str] | None = None, env_file: str | Path | None = ".env", **keywords: Any
    ) -> tuple[Self, dict[str, str]]:
        """The configuration, and by dotted path where each value that is not a default came from.

        `file`: TOML. `environment`: default `os.environ`. `keywords` may be nested mappings. Raises `ConfigurationError`.
        """
        merged: dict[str, Any] = {}
        sources: dict[str, str] = {}
        if file is not None:
            _merge(merged, _read_toml(Path(file)), f"file {file}", sources)
        if env_file is not None and Path(env_file).is_file():
            _merge(merged, from_environment(_read_env(Path(env_file))), f"file {env_file}", sources)
        _merge(merged, from_environment(os.environ if environment is None else environment), "environment", sources)
        _merge(merged, keywords, "keyword", sources)
        return cls.parse("", merged), sources


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The options that the documented variables set. Raises `ConfigurationError` for a variable that cannot be read."""
    found: dict[str, Any] = {}
    for name, path in VARIABLES.items():
        if (value := environment.get(name)) not in (None, ""):
            target = found
            *groups, last = path.split(".")
            for group in groups:
                target = target.setdefault(group, {})
            target[last] = value
    if not environment.get("REDIS_URL"):
        found.pop("queue", None)  # a number of a database alone says nothing of where Redis is
    return found


VARIABLES = {
    "REALTIME_HOST": "host",
    "REALTIME_PORT": "port",
    "REALTIME_CORS_ORIGIN": "cors.origin",
    "JWT_SECRET": "authentication.jwt_secret",
    "JWT_EXPIRES_IN": "authentication.expires_in",
    "DATABASE_URL": "persistence.database.url",
    "REDIS_URL": "queue.redis.url",
    "REDIS_DB": "queue.redis.db",
    "ENABLE_SCALING": "scaling.enabled",
    "INSTANCE_ID": "scaling.instance_id",
    "INSTANCE_URL": "scaling.instance_url",
    "REALTIME_OPERATOR_ROLES": "http.operator_roles",
    "REALTIME_API_KEYS": "http.api_keys",
    "REALTIME_SENDER": "sender",
}
"""Environment variable → option."""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file") from None
    except (tomllib.TOMLDecodeError, OSError) as error:
        raise ConfigurationError(f"{path}: cannot be read as TOML: {error}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, brackets without end
        raise ConfigurationError(f"{path}: cannot be read as TOML: {type(error).__name__}") from None


def _read_env(path: Path) -> dict[str, str]:
    try:
        return {key: value for key, value in dotenv_values(path).items() if value is not None}
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{path}: cannot be read as variables: {type(error).__name__}") from None


def _merge(target: dict[str, Any], values: Mapping[str, Any], source: str, sources: dict[str, str], path: str = "") -> None:
    if path.count(".") > DEEPEST:
        raise ConfigurationError(f"{path[:60]}…: no option is nested as deep as this")
    for key, value in values.items():
        dotted = f"{path}{key}"
        if isinstance(value, Mapping) and key not in ("patterns", "permissions", "roles", "queues"):
            nested = target.get(key)
            target[key] = dict(nested) if isinstance(nested, Mapping) else {}
            _merge(target[key], value, source, sources, f"{dotted}.")
        elif value is not None or source == "keyword":
            target[key] = value
            sources[dotted] = source
