"""Which server the next attempt goes to: one URL, a list in turn, or a load balancer's choice."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple, Protocol

from ..errors import ConfigurationError, ConnectionError
from .options import parse_url


class Balancer(Protocol):
    """What a load balancer must be able to do; `LoadBalancer` can. An instance is a URL, or an object with `url`."""

    def get_next_instance(self) -> Awaitable[Any]: ...


class Endpoint(NamedTuple):
    """One server. `instance`: the balancer's own word for it."""

    url: str
    instance: Any = None


class Endpoints:
    """The servers of one client. Raises `ConfigurationError` for what is none."""

    def __init__(self, url: str | Sequence[str] | Balancer) -> None:
        self._balancer: Any = None
        self._urls: list[str] = []
        self._turn = 0
        self._preferred: str | None = None
        if isinstance(url, str):
            self._urls = [parse_url("client.url", url)]
        elif hasattr(url, "get_next_instance"):
            self._balancer = url
        elif isinstance(url, Sequence) and url:
            self._urls = [parse_url(f"client.url.{number}", one) for number, one in enumerate(url)]
        else:
            raise ConfigurationError("client.url: allowed is a URL like ws://localhost:3001, a list of URLs, or a load balancer")

    @property
    def is_secure(self) -> bool | None:
        """Whether every URL is `wss`; None where a balancer chooses."""
        return all(url.startswith("wss:") for url in self._urls) if self._urls else None

    async def next(self) -> Endpoint:
        """Where the next attempt goes. Raises `ConnectionError` when the balancer has nothing to offer; its own error is the cause."""
        if self._preferred is not None:
            url, self._preferred = self._preferred, None
            return Endpoint(url)
        if self._balancer is None:
            url = self._urls[self._turn % len(self._urls)]
            self._turn += 1
            return Endpoint(url)
        try:
            instance = await self._balancer.get_next_instance()
            return Endpoint(parse_url("instance", getattr(instance, "url", instance)), instance)
        except Exception as error:
            raise ConnectionError(f"The load balancer named no instance: {type(error).__name__}.") from error

    def prefer(self, url: str, current: str) -> None:
        """Go to this server next, as the `current` one advised. Advice that is no URL, or leads from TLS to plain text, is ignored."""
        try:
            parsed = parse_url("url", url)
        except ConfigurationError:
            return
        if parsed.startswith("wss:") or current.startswith("ws:"):
            self._preferred = parsed

    async def mark_down(self, endpoint: Endpoint) -> None:
        """Tell the balancer, if it wants to know, that this instance did not answer."""
        mark_down = getattr(self._balancer, "mark_down", None)
        if mark_down is not None and endpoint.instance is not None:
            result = mark_down(endpoint.instance)
            if isawaitable(result):
                await result
