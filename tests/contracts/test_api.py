"""The public API: every name, every option as it is written, and what becomes of a mistake in one. A reader's programs, not the code's."""

from __future__ import annotations

import asyncio
import builtins
import logging
from datetime import timedelta
from typing import Any

import pytest

import aibos_realtime
import aibos_realtime.types
from aibos_realtime import (
    AuthenticationError,
    BackendError,
    BrokerUnavailable,
    ConfigurationError,
    ConnectionClosed,
    ConnectionLimitExceeded,
    ConnectionMonitor,
    ConnectionPool,
    ConnectTimeout,
    EventBroadcaster,
    GuestsNotAllowed,
    MessageTooLarge,
    NoInstanceAvailable,
    NotInRoom,
    PermissionDenied,
    ProtocolError,
    QueueError,
    QueueFull,
    RateLimitExceeded,
    RealtimeClient,
    RealtimeConfig,
    RealtimeError,
    RealtimeServer,
    RoomError,
    RoomFull,
    RoomLimitExceeded,
    RoomManager,
    RoomNotFound,
    StoreUnavailable,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
    ValidationError,
    WebSocketAuth,
    WebSocketAuthorization,
)
from tests.contracts.peer import SECRET

AUTHENTICATION = {"jwt_secret": SECRET}

NAMES = """
    RealtimeServer RealtimeClient RoomManager EventBroadcaster ConnectionPool ConnectionMonitor WebSocketAuth WebSocketAuthorization
    LoadBalancer RealtimeConfig EventHandler where
    RealtimeError ConfigurationError ProtocolError MessageTooLarge UnknownEvent ValidationError AuthenticationError TokenExpired
    TokenRevoked PermissionDenied RateLimitExceeded ConnectionError ConnectionClosed ConnectTimeout ConnectionLimitExceeded
    RoomError RoomNotFound RoomFull RoomLimitExceeded GuestsNotAllowed NotInRoom QueueError QueueFull
    BackendError BrokerUnavailable StoreUnavailable NoInstanceAvailable
""".split()

TYPES = "EventHandler User Room RoomInfo Event Position Receipt ConnectionMetrics Instance".split()


# — names —


@pytest.mark.parametrize("name", NAMES)
def test_public_name(name: str) -> None:
    assert getattr(aibos_realtime, name) is not None
    assert name in aibos_realtime.__all__


@pytest.mark.parametrize("name", TYPES)
def test_public_type(name: str) -> None:
    assert getattr(aibos_realtime.types, name) is not None
    assert name in aibos_realtime.types.__all__


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError):
        aibos_realtime.NoSuchName  # noqa: B018


# — construction —


def test_everything_is_built_without_an_event_loop() -> None:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    rooms = RoomManager(max_rooms=1000, max_users_per_room=100, room_timeout=300)
    pool = ConnectionPool(max_connections=1000, connection_timeout=30, heartbeat_interval=30, heartbeat_timeout=60)
    ConnectionMonitor(pool=pool, metrics={"enable_metrics": True, "sample_rate": 1.0})
    auth = WebSocketAuth(jwt_secret=SECRET, token_header="Authorization", token_prefix="Bearer ", exclude_paths=["/health", "/status"])
    authz = WebSocketAuthorization(permissions={"tenant_123": ["read", "write"]})
    server = RealtimeServer(rooms=rooms, connections=pool, authentication=auth, authorization=authz)
    EventBroadcaster(server=server, rooms=rooms)
    RealtimeClient("ws://localhost:3001", token="x")


def test_the_server_of_the_page() -> None:
    server = RealtimeServer(
        host="0.0.0.0",
        port=3001,
        cors={"origin": ["https://app.aibos.com", "https://admin.aibos.com"], "credentials": True},
        authentication={"jwt_secret": SECRET, "token_header": "Authorization", "token_prefix": "Bearer "},
        rooms={"max_rooms": 1000, "max_users_per_room": 100, "room_timeout": 300},
        heartbeat={"interval": 30, "timeout": 60},
        limits={
            "messages_per_second": 50, "publishes_per_second": 10, "handshakes_per_second": 200, "handshakes_per_second_per_address": 10,
            "connections_per_user": 20, "connections_per_address": 100, "message_bytes": 65536, "outbox_bytes": 1048576,
        },
        connections={"max_connections": 1000},
        persistence={"database": {"url": "sqlite:///realtime.db"}},
        compression={},
        trusted_proxies=["10.0.0.0/8"],
    )  # fmt: skip
    assert server.port == 3001


def test_rooms_of_the_page() -> None:
    patterns = {"bench:*": {"ephemeral": True, "max_users": 100_000}, "tenant_*": {"history_size": 5000, "history_ttl": 3600}}
    RealtimeServer(authentication=AUTHENTICATION, rooms={"patterns": patterns, "create": False})
    RoomManager(patterns=patterns, create=False)


def test_limits_can_be_switched_off() -> None:
    names = "messages_per_second publishes_per_second handshakes_per_second handshakes_per_second_per_address connections_per_user"
    off = dict.fromkeys([*names.split(), "connections_per_address", "message_bytes", "outbox_bytes"])
    RealtimeServer(authentication=AUTHENTICATION, limits=off)


def test_durations_are_seconds_or_timedeltas() -> None:
    half, one = timedelta(seconds=30), timedelta(minutes=1)
    RealtimeServer(authentication=AUTHENTICATION, heartbeat={"interval": half, "timeout": one}, rooms={"room_timeout": timedelta(minutes=5)})
    ConnectionPool(connection_timeout=half, heartbeat_interval=half, heartbeat_timeout=one)  # type: ignore[arg-type]
    RoomManager(room_timeout=one)  # type: ignore[arg-type]
    RealtimeClient("ws://localhost:3001", reconnect_interval=timedelta(seconds=5), heartbeat={"interval": half, "timeout": one})
    WebSocketAuth(jwt_secret=SECRET, leeway=timedelta(seconds=5))


def test_every_option_group_takes_its_model() -> None:
    config = RealtimeConfig.parse("", {"authentication": AUTHENTICATION})
    groups = ("cors", "authentication", "authorization", "rooms", "connections", "limits", "compression", "persistence")
    RealtimeServer(**{name: getattr(config, name) for name in groups})


def test_the_servers_own_parts() -> None:
    server = RealtimeServer(authentication=AUTHENTICATION)
    assert isinstance(server.rooms, RoomManager) and isinstance(server.broadcaster, EventBroadcaster)
    assert isinstance(server.pool, ConnectionPool) and isinstance(server.monitor, ConnectionMonitor)
    assert isinstance(server.auth, WebSocketAuth) and isinstance(server.authorization, WebSocketAuthorization)


def test_parts_can_be_passed_in() -> None:
    rooms, pool = RoomManager(), ConnectionPool()
    auth, authz = WebSocketAuth(jwt_secret=SECRET), WebSocketAuthorization()
    server = RealtimeServer(rooms=rooms, connections=pool, authentication=auth, authorization=authz)
    assert server.rooms is rooms and server.pool is pool and server.auth is auth and server.authorization is authz


# — mistakes —

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"cors": {"orign": ["https://app.aibos.com"]}}, "cors.orign"),
    ({"rooms": {"max_room": 5}}, "rooms.max_room"),
    ({"rooms": {"max_rooms": "many"}}, "rooms.max_rooms"),
    ({"rooms": {"max_rooms": 0}}, "rooms.max_rooms"),
    ({"rooms": {"room_timeout": -1}}, "rooms.room_timeout"),
    ({"rooms": {"patterns": {"a*": {"historysize": 5}}}}, "historysize"),
    ({"heartbeat": {"interval": 0}}, "heartbeat.interval"),
    ({"heartbeat": {"interval": 60, "timeout": 30}}, "heartbeat.timeout"),
    ({"limits": {"messages": 5}}, "limits.messages"),
    ({"limits": {"message_bytes": "64k"}}, "limits.message_bytes"),
    ({"connections": {"max": 5}}, "connections.max"),
    ({"port": 70_000}, "port"),
    ({"port": "http"}, "port"),
    ({"trusted_proxies": ["everyone"]}, "trusted_proxies"),
    ({"authorization": {"permissions": {"tenant_1": ["reed"]}}}, "authorization.permissions"),
    ({"authentication": {"jwt_secret": SECRET, "algorithm": "HS256"}}, "authentication.algorithm"),
    ({"authentication": {"jwt_secret": "short"}}, "authentication.jwt_secret"),
    ({"authentication": {"jwt_secret": "your_jwt_secret"}}, "authentication.jwt_secret"),
    ({"authentication": {"jwt_secret": SECRET, "algorithms": ["none"]}}, "authentication.algorithms"),
    ({"authentication": {"jwt_secret": SECRET, "algorithms": ["RS256"]}}, "authentication.algorithms"),
    ({"authentication": {}}, "authentication"),
    ({"cors": "https://app.aibos.com"}, "cors"),
]


@pytest.mark.parametrize(("options", "path"), MISTAKES, ids=[f"{path} {list(options.values())}" for options, path in MISTAKES])
def test_a_mistake_is_named_by_its_path(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RealtimeServer(**{"authentication": AUTHENTICATION} | options)
    assert path in str(caught.value)


def test_a_mistake_says_what_was_given_and_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RealtimeServer(authentication=AUTHENTICATION, cors={"orign": ["https://app.aibos.com"]})
    assert "origin" in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        RealtimeServer(authentication=AUTHENTICATION, rooms={"max_rooms": "many"})
    assert "many" in str(caught.value)


@pytest.mark.parametrize("name", ["jwt_secret", "public_key"])
@pytest.mark.parametrize("given", ["swordfish", 12345678, ["swordfish"], b"swordfish", {"swordfish": 1}], ids=lambda given: type(given).__name__)
def test_a_mistake_in_a_secret_does_not_tell_it(name: str, given: Any) -> None:
    for build in (lambda: RealtimeServer(authentication={name: given}), lambda: WebSocketAuth(**{name: given})):
        with pytest.raises(ConfigurationError) as caught:
            build()
        assert "swordfish" not in str(caught.value) and "12345678" not in str(caught.value)
        assert caught.value.__cause__ is None, "the cause of an error is printed with it"


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="jwt_secret"):
        RealtimeServer()


def test_secrets_are_not_shown() -> None:
    server = RealtimeServer(authentication=AUTHENTICATION)
    for thing in (server, server.config, server.auth, server.auth.options):
        assert SECRET not in repr(thing) and SECRET not in str(thing)


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises((TypeError, ConfigurationError)):
        RealtimeServer(authentication=AUTHENTICATION, room={})  # type: ignore[arg-type]
    with pytest.raises((TypeError, ConfigurationError)):
        RealtimeClient("ws://localhost:3001", tokn="x")  # type: ignore[arg-type]


# — environment —


@pytest.fixture
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> pytest.MonkeyPatch:
    for name in "REALTIME_PORT REALTIME_HOST REALTIME_CORS_ORIGIN JWT_SECRET JWT_EXPIRES_IN REDIS_URL DATABASE_URL ENABLE_SCALING".split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_from_env(empty_environment: pytest.MonkeyPatch) -> None:
    empty_environment.setenv("JWT_SECRET", SECRET)
    empty_environment.setenv("REALTIME_PORT", "3005")
    empty_environment.setenv("REALTIME_HOST", "127.0.0.1")
    empty_environment.setenv("JWT_EXPIRES_IN", "24h")
    server = RealtimeServer.from_env()
    assert server.port == 3005 and server.config.host == "127.0.0.1"
    assert RealtimeServer.from_env(port=3006).port == 3006, "keywords win over the environment"
    assert WebSocketAuth(jwt_secret=SECRET).identify_now(server.auth.issue(user_id="u")) is not None


def test_the_environment_wins_over_files_and_files_over_defaults(empty_environment: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / ".env").write_text(f"JWT_SECRET={SECRET}\nREALTIME_PORT=3007\nREALTIME_HOST=127.0.0.1\n")
    assert RealtimeServer.from_env().port == 3007
    empty_environment.setenv("REALTIME_PORT", "3008")
    assert RealtimeServer.from_env().port == 3008
    (tmp_path / "realtime.toml").write_text("port = 3009\n[rooms]\nmax_rooms = 7\n")
    server = RealtimeServer.from_env(config=tmp_path / "realtime.toml")
    assert server.port == 3008 and server.rooms.options.max_rooms == 7


def test_the_server_itself_reads_no_environment(empty_environment: pytest.MonkeyPatch) -> None:
    empty_environment.setenv("JWT_SECRET", SECRET)
    empty_environment.setenv("REALTIME_PORT", "3010")
    with pytest.raises(ConfigurationError):
        RealtimeServer()
    assert RealtimeServer(authentication=AUTHENTICATION).port == 3001


def test_a_bad_variable_is_named(empty_environment: pytest.MonkeyPatch) -> None:
    empty_environment.setenv("JWT_SECRET", SECRET)
    empty_environment.setenv("REALTIME_PORT", "http")
    with pytest.raises(ConfigurationError, match="port|REALTIME_PORT"):
        RealtimeServer.from_env()


# — errors —

TREE: list[tuple[type[Exception], type[Exception]]] = [
    (ConfigurationError, RealtimeError),
    (ProtocolError, RealtimeError),
    (MessageTooLarge, ProtocolError),
    (UnknownEvent, ProtocolError),
    (ValidationError, RealtimeError),
    (AuthenticationError, RealtimeError),
    (TokenExpired, AuthenticationError),
    (TokenRevoked, AuthenticationError),
    (PermissionDenied, RealtimeError),
    (RateLimitExceeded, RealtimeError),
    (aibos_realtime.ConnectionError, RealtimeError),
    (aibos_realtime.ConnectionError, builtins.ConnectionError),
    (ConnectionClosed, aibos_realtime.ConnectionError),
    (ConnectTimeout, aibos_realtime.ConnectionError),
    (ConnectionLimitExceeded, aibos_realtime.ConnectionError),
    (RoomError, RealtimeError),
    (RoomNotFound, RoomError),
    (RoomFull, RoomError),
    (RoomLimitExceeded, RoomError),
    (GuestsNotAllowed, RoomError),
    (NotInRoom, RoomError),
    (QueueError, RealtimeError),
    (QueueFull, QueueError),
    (BackendError, RealtimeError),
    (BrokerUnavailable, BackendError),
    (StoreUnavailable, BackendError),
    (NoInstanceAvailable, RealtimeError),
]


@pytest.mark.parametrize(("error", "above"), TREE, ids=[f"{error.__name__} is a {above.__name__}" for error, above in TREE])
def test_the_tree(error: type[Exception], above: type[Exception]) -> None:
    assert issubclass(error, above)
    made = error()
    assert isinstance(made, RealtimeError)
    assert isinstance(made.code, str) and isinstance(made.retryable, bool) and str(made)


CODES = {
    ProtocolError: "bad_request",
    MessageTooLarge: "message_too_large",
    UnknownEvent: "unknown_event",
    ValidationError: "validation_failed",
    AuthenticationError: "not_authenticated",
    PermissionDenied: "permission_denied",
    RoomNotFound: "room_not_found",
    RoomFull: "room_full",
    RoomLimitExceeded: "room_limit",
    GuestsNotAllowed: "guests_not_allowed",
    NotInRoom: "not_in_room",
    RateLimitExceeded: "rate_limited",
    BrokerUnavailable: "unavailable",
    StoreUnavailable: "unavailable",
}
RETRYABLE = {"rate_limited", "overloaded", "unavailable", "timeout", "internal"}


@pytest.mark.parametrize(("error", "code"), CODES.items(), ids=CODES.values())
def test_codes(error: type[RealtimeError], code: str) -> None:
    assert error().code == code
    assert error().retryable is (code in RETRYABLE)


def test_a_rate_limit_says_how_long() -> None:
    assert RateLimitExceeded(retry_after=2.5).retry_after == 2.5


# — HTTP on the same port; a running server is in the other modules —


async def test_started_twice_and_stopped_twice() -> None:
    server = RealtimeServer(host="127.0.0.1", port=0, authentication=AUTHENTICATION)
    await server.stop()
    await server.start()
    port = server.port
    await server.start()
    assert server.port == port != 0 and server.url == f"ws://127.0.0.1:{port}"
    await server.stop()
    await server.stop()
    await server.start()
    await server.stop()


async def test_started_twice_at_once() -> None:
    server = RealtimeServer(host="127.0.0.1", port=0, authentication=AUTHENTICATION)
    await asyncio.gather(server.start(), server.start())
    assert server.port != 0
    await asyncio.gather(server.stop(), server.stop())


async def test_a_port_that_is_taken() -> None:
    async with RealtimeServer(host="127.0.0.1", port=0, authentication=AUTHENTICATION) as first:
        second = RealtimeServer(host="127.0.0.1", port=first.port, authentication=AUTHENTICATION)
        with pytest.raises(ConfigurationError, match=str(first.port)):
            await second.start()
    await second.start()
    await second.stop()


async def test_serve_forever_ends_with_stop() -> None:
    server = RealtimeServer(host="127.0.0.1", port=0, authentication=AUTHENTICATION)
    await server.start()
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    await server.stop()
    await asyncio.wait_for(serving, 5)


async def test_cancelling_serve_forever_stops_it() -> None:
    server = RealtimeServer(host="127.0.0.1", port=0, authentication=AUTHENTICATION)
    await server.start()
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_clean_life_writes_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with RealtimeServer(host="127.0.0.1", port=0, authentication=AUTHENTICATION):
        pass
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
