"""Instances: where a server can be reached, and whether it counts as up. Asking it is `probe`'s part, choosing one `choice`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from ..options import Count, Options

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_DEFAULT_PORTS = {"ws": 80, "wss": 443}


class InstanceOptions(Options):
    """One entry of `LoadBalancer(instances=…)` in its long form."""

    url: str
    weight: Count = 1


class Instance(str):
    """A server's URL (`ws` or `wss`), with a `weight`: its share among the others. It is the text of the URL and can be used as one."""

    __slots__ = ("weight",)

    weight: int

    def __new__(cls, url: str, *, weight: int = 1) -> Self:
        """Raises `ConfigurationError`; nothing of the URL but its scheme is repeated there."""
        return cls.parse("instance", {"url": url, "weight": weight})

    @classmethod
    def parse(cls, path: str, given: object) -> Self:
        """The instance that a URL, a mapping (`{"url", "weight"?}`) or an instance describes. `path`: where it stands, for errors."""
        if isinstance(given, cls):
            return given
        options = InstanceOptions.parse(path, given if isinstance(given, Mapping) else {"url": given})
        instance = str.__new__(cls, _checked(path, options.url))
        instance.weight = options.weight
        return instance

    @property
    def url(self) -> str:
        return str(self)

    @property
    def is_secure(self) -> bool:
        return self.startswith("wss:")

    @property
    def host(self) -> str:
        return urlsplit(self).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self).port or _DEFAULT_PORTS["wss" if self.is_secure else "ws"]

    @property
    def name(self) -> str:
        """`host:port`: how logs and errors name it."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def ready_path(self) -> str:
        """Where it says whether it is ready: `/ready` beside its WebSocket path."""
        return urlsplit(self).path.removesuffix("/").removesuffix("/ws") + "/ready"

    def __repr__(self) -> str:
        return f"<Instance {self.name} weight={self.weight}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Instance.parse, ("instance", {"url": str(self), "weight": self.weight})


def _checked(path: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigurationError(f"{path}: the host or the port is not valid; allowed is a URL like ws://instance1:3001") from None
    if parts.scheme not in _SCHEMES:
        given = f"the scheme {parts.scheme[:20]!r}" if parts.scheme and "://" in url else "no scheme"
        raise ConfigurationError(f"{path}: {given} was given; allowed are ws, wss, http and https, as in ws://instance1:3001")
    if not has_host or "@" in parts.netloc:
        raise ConfigurationError(f"{path}: there is no host, port 0, or a user name; allowed is a URL like ws://instance1:3001")
    if not all("!" <= character <= "~" for character in url):
        raise ConfigurationError(f"{path}: a URL holds printable ASCII characters only; encode the others (%20, and so on)")
    return f"{_SCHEMES[parts.scheme]}:{url.partition(':')[2]}"


class Standing:
    """What is known of one instance: up or down, with hysteresis, and how many connections it has."""

    __slots__ = ("connections", "down_at", "failures", "instance", "is_reported", "is_up", "streak", "successes")

    def __init__(self, instance: Instance, *, failures: int, successes: int) -> None:
        """`failures`, `successes`: how many results in a row turn it down, and up again. It begins up."""
        self.instance = instance
        self.failures = failures
        self.successes = successes
        self.is_up = True
        self.streak = 0
        self.down_at = 0.0
        """Monotonic seconds at which it was last found, or said, to be down."""
        self.connections = 0
        self.is_reported = False
        """The number of connections was told, and is not only what was handed out."""

    def note(self, succeeded: bool, now: float) -> bool:
        """Count the result of a check; whether that turned it up or down."""
        if succeeded == self.is_up:
            self.streak = 0
            if not succeeded:
                self.down_at = now
            return False
        self.streak += 1
        if self.streak < (self.successes if succeeded else self.failures):
            return False
        self.set(succeeded, now)
        return True

    def set(self, is_up: bool, now: float) -> None:
        """It is up, or down, whatever was counted."""
        self.is_up = is_up
        self.streak = 0
        if not is_up:
            self.down_at = now
