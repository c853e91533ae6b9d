"""What a server offers to those who operate it: built from its parts, as apps for the port and handlers for the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..admin.access import Access
from ..admin.backlogs import BacklogReader
from ..admin.figures import Figures
from ..admin.live import Live
from ..admin.node import Node
from ..admin.operations import Operations
from ..admin.requests import DescribeMetrics
from ..admin.site import Site
from ..auth.operators import HttpOptions, Operators
from ..backends.foreign import Foreign
from ..clock import Clock
from ..pipeline.broadcaster import EventBroadcaster
from ..storage.shared_broker import SharedBroker
from ..transport.asgi import Receive, Scope, Send
from .assembly import Parts
from .people import People

if TYPE_CHECKING:
    from ..admin.prometheus import NodeExposition


class Operation:
    """`state()`: the word of `/status`."""

    def __init__(
        self, parts: Parts, options: HttpOptions, *, broadcaster: EventBroadcaster, people: People, state: Callable[[], str], clock: Clock
    ) -> None:
        self.operators = Operators(options, auth=parts.auth)
        self.figures = _figures(parts, state, clock)
        self.drainer, self.relay = parts.storage.drainer, parts.storage.relay
        self.backlogs = BacklogReader(
            queue=parts.storage.queue, outbox=self.relay.backlog if self.relay is not None else None, is_running=lambda: state() != "stopped",
            clock=clock,
        )  # fmt: skip
        node = Node(name=parts.node, pool=parts.pool, audit=parts.audit, figures=self.figures, bus=parts.bus, clock=clock)
        self.operations = Operations(
            broadcaster=broadcaster, broker=parts.broker, filters=parts.sending.filters, rooms=parts.rooms, queue=parts.storage.queue,
            auth=parts.auth, authorization=parts.authorization, disconnect=people.disconnect, set_role=people.set_role, bus=parts.bus,
            node=node.answer, audit=parts.audit, foreign=Foreign(parts.metrics, clock),
        )  # fmt: skip
        self._access = Access(self.operators, address_of=parts.proxies.address_of, penalty=parts.handshake.penalty, clock=clock)
        self._options = options
        self._clock = clock
        self._sender = parts.sender
        self._name, self._bus, self._tracing = parts.node, parts.bus, parts.tracing
        self._described: NodeExposition | None = None
        parts.bus.on(DescribeMetrics, self._describe_metrics)
        if options.dashboard:
            Live(self.operations, self.operators).register(parts.router)

    @property
    def sender(self) -> str:
        """What events are handed to the kernel with."""
        return self._sender.engine

    def apps(self) -> dict[str, Any]:
        """ASGI apps by the path, or the beginning of a path (`/api/`), that they serve."""
        found: dict[str, Any] = {"/client.js": (site := Site())}
        if self._options.api:
            found["/api/"] = Later(self._create_api)
        if self._options.metrics:
            found["/metrics"] = Later(self._create_metrics)
        if self._options.dashboard:
            found |= {"/dashboard": site, "/dashboard/": site}
        return found

    def _create_api(self) -> Any:
        from ..admin.api import create_api

        api = create_api(self.operations, self._access, options=self._options, clock=self._clock)
        return self._tracing.app(api) if self._tracing is not None else api

    def _create_metrics(self) -> Any:
        from ..admin.prometheus import MetricsApp

        return MetricsApp(self._exposition(), self._access, self._bus)

    def _exposition(self) -> NodeExposition:
        from ..admin.prometheus import NodeExposition

        if self._described is None:
            self._described = NodeExposition(self, name=self._name)
        return self._described

    async def _describe_metrics(self, request: DescribeMetrics) -> Any:
        return await (await asyncio.to_thread(self._exposition)).describe()


class Later:
    """An ASGI app that is made in a thread when it is first asked for: importing what it needs takes a while."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._create = create
        self._app: Any = None
        self._creating = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            async with self._creating:
                self._app = self._app or await asyncio.to_thread(self._create)
        await self._app(scope, receive, send)


def _figures(parts: Parts, state: Callable[[], str], clock: Clock) -> Figures:
    broker = parts.broker

    def probe_lag() -> float | None:
        return broker.probe_lag if isinstance(broker, SharedBroker) else None

    def store_waiting() -> int | None:
        return parts.storage.waiting

    scaling = parts.scaling
    return Figures(
        id=scaling.node if scaling else parts.node, name=parts.node, url=parts.instance_url, pool=parts.pool, rooms=parts.rooms, state=state,
        probe_lag=probe_lag, store_waiting=store_waiting, clock=clock,
    )  # fmt: skip
