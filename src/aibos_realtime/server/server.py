"""`RealtimeServer`: start, serve, drain, stop, and the application's handlers. Everything that happens to a message is the pipeline's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Never, Self, TypeVar, overload

from ..auth.authentication import AuthenticationOptions, WebSocketAuth
from ..auth.operators import HttpOptions
from ..auth.origin import CorsOptions
from ..backends.base import Broker
from ..clock import SYSTEM_CLOCK, Clock
from ..config import CompressionOptions, HeartbeatOptions, PersistenceOptions, RealtimeConfig, ScalingOptions, TlsOptions
from ..errors import ConfigurationError, RealtimeError
from ..hub.connections import ConnectionOptions, ConnectionPool
from ..hub.monitor import ConnectionMonitor
from ..hub.rooms import RoomManager, RoomOptions
from ..hub.socket import Socket
from ..logs import get_logger
from ..pipeline.authorization import AuthorizationOptions, WebSocketAuthorization
from ..pipeline.broadcaster import EventBroadcaster, Sending
from ..pipeline.throttle import LimitOptions
from ..protocol.close_codes import CloseCode
from ..storage.persistence import MessagePersistence
from ..storage.queue import MessageQueue, MessageQueueOptions
from ..transport.base import CLOSE_TIMEOUT
from ..transport.batch import Engine
from .asgi import AsgiApp
from .assembly import WEBSOCKET_PATHS, Parts, assemble
from .descriptors import limit_connections, raise_limit
from .http import HttpApp
from .instances import INSTANCES_PATH
from .loop import new_event_loop, rare_garbage_collection, run_until_signalled
from .operation import Operation
from .people import People
from .port import Port
from .sockets import Sockets
from .watchdog import Watchdog

logger = get_logger("aibos_realtime")

Group = Mapping[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class RealtimeServer:
    """A realtime server: HTTP and WebSocket on one port, or mounted in another app (`asgi()`).

    Every option group takes its model or a plain mapping; `authentication`, `authorization`, `rooms` and `connections` also take the part itself
    (`rooms=RoomManager(...)`). The constructor reads no environment (`from_env` does), opens nothing, and raises `ConfigurationError`.

    `host`, `port`: where to listen; port 0 picks a free one. `cors.origin`: pages that may connect; default those of the same host.
    `authentication`: `jwt_secret`, `public_key` or `jwks_url`. `tls`: `{"certificate": file, "key": file}` or an `ssl.SSLContext`.
    `trusted_proxies`: addresses whose `X-Forwarded-For` is believed. `sender`: what hands events to the kernel.
    """

    def __init__(
        self,
        *,
        host: str = "0.0.0.0",
        port: int = 3001,
        cors: CorsOptions | Group | None = None,
        authentication: WebSocketAuth | AuthenticationOptions | Group | None = None,
        authorization: WebSocketAuthorization | AuthorizationOptions | Group | None = None,
        rooms: RoomManager | RoomOptions | Group | None = None,
        connections: ConnectionPool | ConnectionOptions | Group | None = None,
        heartbeat: HeartbeatOptions | Group | None = None,
        limits: LimitOptions | Group | None = None,
        compression: CompressionOptions | Group | None = None,
        persistence: MessagePersistence | PersistenceOptions | Group | None = None,
        queue: MessageQueue | MessageQueueOptions | Group | None = None,
        scaling: ScalingOptions | Group | None = None,
        http: HttpOptions | Group | None = None,
        tls: ssl.SSLContext | TlsOptions | Group | None = None,
        trusted_proxies: list[str] | None = None,
        sender: Engine | None = None,
        broker: Broker | None = None,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: Never,
    ) -> None:
        auth, authentication = _part(authentication, WebSocketAuth)
        authz, authorization = _part(authorization, WebSocketAuthorization)
        manager, rooms = _part(rooms, RoomManager)
        pool, connections = _part(connections, ConnectionPool)
        messages, persistence = _part(persistence, MessagePersistence)
        work, queue = _part(queue, MessageQueue)
        context, tls = _part(tls, ssl.SSLContext)
        groups = {
            "cors": cors, "authentication": authentication, "authorization": authorization, "rooms": rooms, "connections": connections,
            "heartbeat": heartbeat, "limits": limits, "compression": compression, "persistence": persistence, "queue": queue, "scaling": scaling,
            "http": http, "tls": tls, "trusted_proxies": trusted_proxies, "sender": sender,
        }  # fmt: skip
        given = {name: value for name, value in groups.items() if value is not None}
        self.config = RealtimeConfig.parse("", {"host": host, "port": port, **given, **unknown})
        parts = assemble(
            self.config, clock=clock, auth=auth, authorization=authz, rooms=manager, pool=pool, broker=broker, persistence=messages, queue=work
        )
        self._tls = context or parts.tls
        self._clock = clock
        self._state = "stopped"
        self._port: Port | None = None
        self._shares_port = False
        self._stopped = asyncio.Event()
        self._watchdog = Watchdog()
        self._app: Any = None
        self._offer(parts)

    def _offer(self, parts: Parts) -> None:
        """What the parts are to the application, to operators, and to HTTP."""
        self._parts = parts
        self.auth = parts.auth
        self.authorization = parts.authorization
        self.broker = parts.broker
        self.queue = parts.storage.queue
        self.rooms = parts.rooms
        self.pool = parts.pool
        self.metrics = parts.metrics
        self.monitor = ConnectionMonitor(pool=parts.pool)
        self.scaling = parts.scaling_manager
        self.broadcaster = EventBroadcaster(server=self)
        self._people = People(pool=parts.pool, built_ins=parts.built_ins, auth=parts.auth, bus=parts.bus, audit=parts.audit)
        self._operation = Operation(
            parts, self.config.http, broadcaster=self.broadcaster, people=self._people, state=lambda: self._status()[1], clock=self._clock
        )
        self._http = HttpApp(
            status=self._status, websocket_paths=WEBSOCKET_PATHS, origins=parts.origins, routes={INSTANCES_PATH: parts.instances_route},
            apps=self._operation.apps(),
        )  # fmt: skip

    @classmethod
    def from_env(cls, **keywords: Any) -> Self:
        """A server configured by the environment and a `.env` file; keywords win. `config=`: a TOML file, which both of them override."""
        file = keywords.pop("config", None)
        parts = {name: value for name, value in keywords.items() if not isinstance(value, Mapping | str | int | float | list | None)}
        plain = {name: value for name, value in keywords.items() if name not in parts}
        config, _ = RealtimeConfig.load(file=file, **plain)
        return cls(**{name: getattr(config, name) for name in RealtimeConfig.model_fields} | parts)

    # — handlers —

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...

    @overload
    def on(self, event: str, callback: F) -> F: ...

    def on(self, event: str, callback: Callable[..., Any] | None = None) -> Any:
        """Hear of `connection` (socket; finished before the client is told `connected`) and `disconnect` (socket, reason). Usable as a decorator."""
        return self._parts.callbacks.add(event) if callback is None else self._parts.callbacks.add(event, callback)

    def event(self, name: str, *, payload: Any = None) -> Callable[[F], F]:
        """Handle a message of every socket: `@server.event("invoice.create", payload=InvoiceCreate)`.

        The function takes (socket, data). What it returns is the acknowledgement that the client awaits; a `RealtimeError` goes to the client as
        it is, anything else as `internal` with a number that the log also has. `payload`: the type of the data, a msgspec struct, dataclass,
        TypedDict or pydantic model; data that does not fit is refused with `validation_failed`, also when the event is published to a room.

        Handlers of one connection run one after the other. Raises `ConfigurationError` for a reserved or taken name.
        """

        if not isinstance(name, str):
            raise ConfigurationError('server.event: the name of the event is missing; write @server.event("invoice.create")')

        def register(handler: F) -> F:
            self._parts.router.add(name, handler, payload)
            return handler

        return register

    # — life —

    @property
    def is_running(self) -> bool:
        return self._state == "running"

    @property
    def port(self) -> int:
        """The port that is bound; before `start`, the configured one."""
        return self._port.number if self._port is not None and self._port.number else self.config.port

    @property
    def url(self) -> str:
        """Where a client on this machine connects to."""
        host = "localhost" if self.config.host in ("0.0.0.0", "::", "") else self.config.host
        return f"{'wss' if self._tls else 'ws'}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def listen_on(self, *, host: str | None = None, port: int | None = None, shared: bool = False) -> None:
        """Take another address than the configured one. `shared`: with other processes of ours. Before `start`. Raises `ConfigurationError`."""
        if self._port is not None:
            raise ConfigurationError("listen_on: the server runs already; call it before start")
        given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        self.config = RealtimeConfig.parse("", dict(self.config) | given)
        self._shares_port |= shared

    async def start(self) -> None:
        """Listen; returns when the port is bound. Idempotent. Raises the limit of open files. Raises `ConfigurationError` where the port is taken."""
        if self._port is not None:
            return
        raise_limit(self.pool.options.max_connections)
        port = self._port = Port(
            gate=self._parts.handshake, app=self._app or self._http, has_app=self._app is not None, clock=self._clock, tls=self._tls
        )
        try:
            # First: two servers started by mistake are told so by the port.
            await port.bind(self.config.host, self.config.port, shared=self._shares_port)
            limit_connections(self.pool)
            await self.open()
            if self._port is not port:
                raise RealtimeError("The server was stopped while it started.")
            await port.open()
        except BaseException:
            await self._close()
            raise
        logger.info("listening on %s", self.url)

    async def open(self) -> None:
        """Start everything but a port of its own: for a server that is mounted in another app. Idempotent."""
        if self._state != "stopped":
            return
        self._state = "running"
        self._stopped.clear()
        try:
            self._parts.sender.open()
            await self.auth.start()
            if self._parts.scaling is not None:
                await self._parts.scaling.start()
            await self._parts.storage.start()
            await self.rooms.start()
            await self.auth.load_revocations()
        except BaseException:
            await self._close(0.0)
            raise
        self._parts.sockets.start()
        self._operation.figures.start()
        self._watchdog.start()
        if self._parts.availability is not None:
            self._parts.availability.start()
        self._parts.handshake.is_open = True
        if self._parts.scaling is not None:
            await self._parts.scaling.tell()

    async def stop(self, drain: float = 30.0) -> None:
        """Take no more connections, tell the clients to come back elsewhere after a spread delay, let handlers finish, close. Idempotent.

        `drain`: seconds for handlers that are running; closing then takes at most 2 s more. Cancelling stops less gently, not less.
        """
        if self._state != "running":
            await self._stopped_or_never()
            return
        self._state = "draining"
        self._parts.handshake.is_open = False
        if self._parts.availability is not None:
            self._parts.availability.stop()
        if self._port is not None:
            self._port.stop_listening()
        patience = 0.0
        try:
            if self._parts.scaling is not None:
                await self._parts.scaling.tell()
            await self._parts.sockets.drain(drain, spread=min(drain, 1.0 + len(self.pool) / 200))
            patience = CLOSE_TIMEOUT
        finally:
            await self._close(patience, drain)

    async def _stopped_or_never(self) -> None:
        if self._state == "draining":
            await self._stopped.wait()

    async def _close(self, patience: float = CLOSE_TIMEOUT, drain: float = 0.0) -> None:
        """End every part, whatever happens to one of them. `patience`: seconds for the peers' close answers; `drain`: for the queue's handlers."""
        try:
            async with AsyncExitStack() as parts:  # the last one ends first
                parts.callback(self._parts.sender.close)
                parts.push_async_callback(self.auth.stop)
                if self._parts.scaling is not None:
                    parts.push_async_callback(self._parts.scaling.stop)
                parts.push_async_callback(self._parts.storage.stop, drain)
                parts.push_async_callback(self.rooms.stop)
                if self._port is not None:
                    parts.push_async_callback(self._port.close, patience)
                parts.push_async_callback(self._parts.sockets.stop, patience)
                parts.callback(self._operation.figures.stop)
                parts.callback(self._watchdog.stop)
        finally:
            self._port = None
            self._state = "stopped"
            self._stopped.set()

    async def serve_forever(self) -> None:
        """Start, and return when the server was stopped. Cancelling stops it."""
        await self.start()
        try:
            await self.wait_stopped()
        finally:
            await self.stop()

    async def wait_stopped(self) -> None:
        """Wait until a server that was started has stopped."""
        await self._stopped.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def run(self, *, drain: float = 30.0, on_started: Callable[[], object] | None = None) -> None:
        """Serve until SIGINT or SIGTERM, then stop as `stop(drain)` does; a second signal ends it at once. Blocks.

        `on_started`: called, and awaited where that is due, once the server listens.
        """
        with asyncio.Runner(loop_factory=new_event_loop) as runner, rare_garbage_collection():
            runner.run(run_until_signalled(self, drain, on_started))

    # — beside other apps —

    def asgi(self) -> AsgiApp:
        """The server as an ASGI app: `app.mount("/realtime", server.asgi())`. Pass `lifespan=server.lifespan` to the outer app, or wrap its own."""
        parts = self._parts
        return AsgiApp(server=self, handshake=parts.handshake, sockets=parts.sockets, http=self._http, limits=self.config.limits)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The server's life within an app's: `FastAPI(lifespan=server.lifespan)`, or `async with server.lifespan(app):` inside a
        lifespan of yours.
        """
        opened = self._state == "stopped"
        await self.open()
        try:
            yield
        finally:
            if opened and self._port is None:
                await self.stop()

    def host_app(self, app: Any, path: str) -> None:
        """Serve an ASGI app on the same port; WebSockets under `path` take the fast path. Before `start`."""
        if self._port is not None:
            raise ConfigurationError("host_app: the server runs already; call it before start")
        self._app = app
        prefix = path.rstrip("/")
        self._parts.handshake.paths = frozenset({prefix or "/", f"{prefix}/", f"{prefix}/ws"})

    # — operation —

    @property
    def persistence(self) -> MessagePersistence:
        """The stored messages: to read, export and erase them. Raises `ConfigurationError` for a server whose events live in memory alone."""
        if self._parts.storage.persistence is None:
            raise ConfigurationError("persistence.database.url: memory:// keeps no messages; name a database, or leave it to the default")
        return self._parts.storage.persistence

    @property
    def sending(self) -> Sending:
        """What every `EventBroadcaster` of this server works with."""
        return self._parts.sending

    @property
    def sockets(self) -> Sockets:
        """The sockets' host; for transports of one's own, such as `testing` has."""
        return self._parts.sockets

    @property
    def place_of_events(self) -> str:
        """Where events are kept, for people: a URL without its password."""
        storage = self._parts.storage
        return storage.persistence.database.url_shown if storage.persistence is not None else "memory://"

    async def disconnect(self, *, user_id: str | None = None, socket_id: str | None = None, code: int = CloseCode.DISCONNECTED) -> int:
        """Close every connection of a user, or one connection; returns how many. `code`: 4503 (the client stays away) unless given."""
        return await self._people.disconnect(user_id, socket_id, code)

    async def set_role(self, user_id: str, role: str) -> int:
        """Change a user's role on his live connections, and have his memberships checked again; returns how many connections it reached.

        It lasts as long as the connection: what a token says at the next one is the token's.
        """
        return await self._people.set_role(user_id, role)

    def _status(self) -> tuple[bool, str]:
        if self.is_running and not self.broker.is_available:
            return False, "unavailable"
        return self.is_running, {"running": "ok", "draining": "draining", "stopped": "stopped"}[self._state]


P = TypeVar("P")


def _part(given: Any, kind: type[P]) -> tuple[P | None, Any]:
    """(the part itself, its options): what was given is one of the two."""
    return (given, None) if isinstance(given, kind) else (None, given)


__all__ = ["RealtimeServer", "Socket"]
