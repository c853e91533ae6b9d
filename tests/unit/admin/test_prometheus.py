"""`/metrics`: who may read it, in which format, and that every number moves when its thing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as read_plain

from aibos_realtime import ConnectionPool, Position, RealtimeClient, RealtimeError, RealtimeServer
from aibos_realtime.admin.backlogs import Backlogs
from aibos_realtime.admin.families import PREFIX, collect
from aibos_realtime.admin.prometheus import Collection, merge
from aibos_realtime.storage.broker import StoredBroker
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.server import MemoryServer, memory_server
from aibos_realtime.testing.store import MemoryStore
from tests.unit.admin.metrics_rig import FULL, Sources, full_node, names_of, values_of

read_openmetrics: Callable[[str], Iterator[Metric]] = openmetrics_parser.text_string_to_metric_families
KEY = "rk_0123456789abcdef0123456789abcdef"
SECRET = "only-for-the-tests-of-the-metrics, long"
OPEN: dict[str, Any] = {"permissions": {"*": ["read", "write"]}}


def make_server(**options: Any) -> RealtimeServer:
    given: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "authentication": {"jwt_secret": SECRET}, "authorization": OPEN, "http": {"api_keys": [KEY]},
        "persistence": {"database": {"url": "memory://"}},
    }  # fmt: skip
    return RealtimeServer(**given | options)


class Scraper:
    """Reads a server's metrics as Prometheus does."""

    def __init__(self, server: RealtimeServer) -> None:
        self.server = server
        self.http = httpx.AsyncClient(base_url=server.url.replace("ws", "http", 1), timeout=10)

    async def get(self, *, key: str | None = KEY, method: str = "GET", **headers: str) -> httpx.Response:
        given = headers | ({"authorization": f"Bearer {key}"} if key else {})
        return await self.http.request(method, "/metrics", headers=given)

    async def text(self) -> str:
        answer = await self.get()
        assert answer.status_code == 200
        return answer.text

    async def values(self) -> dict[str, float]:
        """By `name{label="value"}`, without the prefix."""
        return values_of(await self.text())


@asynccontextmanager
async def scraped(**options: Any) -> AsyncIterator[Scraper]:
    async with make_server(**options) as server:
        scraper = Scraper(server)
        async with scraper.http:
            yield scraper


async def test_who_may_read_it() -> None:
    async with scraped() as scraper:
        auth = scraper.server.auth
        nobody, wrong = await scraper.get(key=None), await scraper.get(key="rk_" + "x" * 32)
        assert nobody.status_code == wrong.status_code == 401 and nobody.headers["www-authenticate"] == "Bearer"
        user, admin = await scraper.get(key=auth.issue(user_id="ann")), await scraper.get(key=auth.issue(user_id="ann", role="admin"))
        assert user.status_code == admin.status_code == 403
        for answer, code in ((nobody, "not_authenticated"), (wrong, "not_authenticated"), (admin, "permission_denied")):
            body = answer.json()
            assert answer.headers["content-type"] == "application/problem+json" and body["code"] == code
            assert body["message"] == body["detail"] and body["status"] == answer.status_code and KEY not in answer.text
        assert (await scraper.get(key=auth.issue(user_id="olga", role="operator"))).status_code == 200
        assert (await scraper.get(key=None, **{"x-api-key": KEY})).status_code == 200
        assert (await scraper.get(method="POST")).status_code == 405
        head = await scraper.get(method="HEAD")
        assert head.status_code == 200 and head.content == b"" and int(head.headers["content-length"]) > 1_000
        assert scraper.server.metrics.authentications_failed == 2


async def test_switched_off_it_is_not_there() -> None:
    async with scraped(http={"api_keys": [KEY], "metrics": False}) as scraper:
        assert (await scraper.get()).status_code == 404


async def test_both_formats_are_what_their_parsers_read() -> None:
    async with scraped() as scraper:
        plain = await scraper.get()
        assert plain.headers["content-type"].startswith("text/plain") and plain.headers["cache-control"] == "no-store"
        accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
        openmetrics = await scraper.get(accept=accept)
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text") and openmetrics.text.endswith("# EOF\n")
        ours = [
            {family.name.removesuffix("_info") for family in found if family.name.startswith(PREFIX)}
            for found in (read_plain(plain.text), read_openmetrics(openmetrics.text))
        ]
        assert len(ours[1]) > 40 and ours[0] == ours[1]


async def test_a_histogram_is_cumulative() -> None:
    async with memory_server() as net:
        for seconds in (0.00005, 0.002, 0.002, 99.0):
            net.server.metrics.commit_times.note(seconds)
        metric = next(one for one in collect(net.server._operation, Backlogs()) if one.name == f"{PREFIX}commit_seconds")
        buckets = {sample.labels["le"]: sample.value for sample in metric.samples if sample.name.endswith("_bucket")}
        assert (buckets["0.0001"], buckets["0.001"], buckets["0.0025"], buckets["10"], buckets["+Inf"]) == (1, 1, 3, 3, 4)
        assert list(buckets.values()) == sorted(buckets.values())


# — every number moves —


class Moves:
    """Looks at the numbers before and after something happens."""

    def __init__(self, scraper: Scraper) -> None:
        self._scraper = scraper
        self._before: dict[str, float] = {}
        self.moved: set[str] = set()

    async def begin(self) -> None:
        self._before = await self._scraper.values()

    async def expect(self, *names: str) -> None:
        """Within five seconds every one of these is more than it was."""
        async with asyncio.timeout(5):
            while True:
                now = await self._scraper.values()
                risen = {name for name, value in now.items() if value > self._before.get(name, 0.0)}
                if risen.issuperset(names):
                    break
        self.moved |= risen
        self._before = now


async def test_connections_handshakes_and_tokens() -> None:
    limits = {"handshakes_per_second_per_address": None, "handshakes_per_second": None}
    async with scraped(connections={"max_connections": 1}, limits=limits) as scraper:
        server, moves = scraper.server, Moves(scraper)
        await moves.begin()
        client = RealtimeClient(server.url, token=server.auth.issue(user_id="ann"))
        await client.connect()
        await moves.expect("handshakes_accepted_total", "connections_opened_total", "authentications_total", "connections", "users")
        full = await scraper.http.get("/ws", headers=_upgrade())
        assert full.status_code == 503
        await moves.expect('handshakes_refused_total{status="503"}')
        await client.close()
        await moves.expect('connections_closed_total{code="1000"}', "connections_duration_seconds_total")
        bad = await scraper.http.get("/ws", headers=_upgrade() | {"authorization": "Bearer nonsense"})
        assert bad.status_code == 401
        await moves.expect('handshakes_refused_total{status="401"}', "authentications_failed_total")
        assert (await scraper.values())["connections_limit"] == 1


def _upgrade() -> dict[str, str]:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    return {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": key}


async def test_events_and_what_they_cost(tmp_path: Any) -> None:
    database = {"database": {"url": f"sqlite:///{tmp_path / 'r.db'}"}}
    async with scraped(persistence=database, limits={"publishes_per_second": 2, "publishes_burst": 2}) as scraper:
        server, moves = scraper.server, Moves(scraper)

        @server.event("breaks")
        async def breaks(socket: Any, data: Any) -> None:
            raise ZeroDivisionError

        client = RealtimeClient(server.url, token=server.auth.issue(user_id="ann"))
        async with client:
            await moves.begin()
            await client.join_room("lobby")
            await client.send_message("note", {"n": 1}, room="lobby")
            await moves.expect(
                "events_total", "deliveries_total", "messages_received_total", "received_bytes_total", "sent_bytes_total", "rooms",
                "fanout_seconds_count", "fanout_seconds_sum", "delivery_seconds_count", "commit_seconds_count", "commit_seconds_sum",
                'fanout_seconds_bucket{le="10"}', 'delivery_seconds_bucket{le="10"}',
            )  # fmt: skip
            with pytest.raises(Exception, match="incident"):
                await client.send_message("breaks", {})
            await moves.expect("handler_failures_total")
            with pytest.raises(Exception, match="(?i)too many|slow|rate"):
                for _ in range(50):
                    await client.send_message("note", {}, room="lobby")
            await moves.expect("rate_limited_total")


def values_here(net: MemoryServer) -> dict[str, float]:
    """What a scrape would show, of a server without a port."""
    return values_of(generate_latest(Collection(list(collect(net.server._operation, Backlogs())))).decode())


async def test_clients_that_do_not_read_that_are_cut_and_that_come_back() -> None:
    async with memory_server(authorization=OPEN, limits={"outbox_soft_bytes": 4_000, "outbox_bytes": 20_000}) as net:
        broadcast = net.server.broadcaster.broadcast_to_room
        slow, quick = await net.connect("slow"), await net.connect("quick")
        joined = await slow.request("join-room", "lobby")
        await quick.request("join-room", "lobby")
        before = values_here(net)
        await broadcast("lobby", "note", "x" * 6_000)
        await broadcast("lobby", "cursor", "y", volatile=True)
        for _ in range(5):
            await broadcast("lobby", "note", "x" * 6_000)
            await quick.receive("note")
        assert await slow.closed() == 4008
        quick.cut()
        await quick.closed()
        again = await net.connect("slow")
        back = await again.request("join-room", {"roomId": "lobby", "recover": {"epoch": joined["epoch"], "offset": joined["offset"]}})
        gone = await again.request("join-room", {"roomId": "lobby", "recover": {"epoch": "another", "offset": 1}})
        assert (back["recovered"], gone["recovered"]) == (True, False)
        await settle()
        net.server._parts.fanout.resync("lobby", Position(joined["epoch"], 9))
        now = values_here(net)
        risen = {name: now[name] - before.get(name, 0.0) for name in now}
        assert {name: risen[name] for name in (
            "slow_closes_total", "connections_failed_total", "recoveries_total", "recoveries_failed_total", "resyncs_total",
            'connections_closed_total{code="4008"}', 'connections_closed_total{code="1006"}', "connections_opened_total",
        )} == {
            "slow_closes_total": 1, "connections_failed_total": 2, "recoveries_total": 1, "recoveries_failed_total": 1, "resyncs_total": 1,
            'connections_closed_total{code="4008"}': 1, 'connections_closed_total{code="1006"}': 1, "connections_opened_total": 1,
        }  # fmt: skip
        assert risen["volatile_dropped_total"] >= 1 and risen["messages_sent_total"] > 6


async def test_a_database_that_takes_nothing() -> None:
    store = MemoryStore()
    async with memory_server(
        authorization=OPEN, broker=StoredBroker(store, waiting=1, metrics=(pool := ConnectionPool()).metrics), connections=pool
    ) as net:
        store.gate.clear()
        on_their_way = [asyncio.ensure_future(net.server.broadcaster.broadcast_to_room("lobby", "note", number)) for number in range(4)]
        await settle()
        assert values_here(net)["publishes_refused_total"] == 3 and values_here(net)["commit_seconds_count"] == 0
        store.is_down = True
        store.gate.set()
        assert all(isinstance(one, RealtimeError) for one in await asyncio.gather(*on_their_way, return_exceptions=True))
        assert values_here(net)["commit_failures_total"] >= 1
        store.is_down = False


async def test_the_loop_the_process_and_what_runs() -> None:
    async with scraped() as scraper:
        moves = Moves(scraper)
        await moves.begin()
        await moves.expect("loop_lag_seconds_count", 'loop_lag_seconds_bucket{le="+Inf"}')
        values = await scraper.values()
        assert values["ready"] == 1 and values["process_open_fds"] > 3 and values["process_resident_memory_bytes"] > 10_000_000
        assert values["process_cpu_seconds_total"] > 0 and values["loop_lag_worst_seconds"] >= 0
        (build,) = [name for name in values if name.startswith("build_info")]
        assert "version=" in build


async def test_counters_that_take_more_to_move_are_those_of_the_server() -> None:
    """What a test would have to break a network or a database for: the number in `Metrics` is what is shown."""
    from aibos_realtime.admin.families import _COUNTERS

    async with scraped() as scraper:
        metrics = scraper.server.metrics
        for number, (attribute, _) in enumerate(_COUNTERS.values(), 1000):
            setattr(metrics, attribute, number)
        metrics.close_codes.update({4008: 3, 3999: 2, 4321: 5})
        metrics.outbox_bytes, metrics.connections_behind = 77, 2
        values = await scraper.values()
        for number, (name, (attribute, _)) in enumerate(_COUNTERS.items(), 1000):
            assert values[f"{name}_total"] >= number, attribute
        assert values['connections_closed_total{code="4008"}'] == 3 and values['connections_closed_total{code="other"}'] == 7
        assert not any("3999" in name for name in values) and values["outbox_bytes"] == 77 and values["connections_behind"] == 2


async def test_queues_and_a_store_that_does_not_answer() -> None:
    async with scraped(queue={"url": "memory://", "queues": {"mail": {}}}) as scraper:
        server = scraper.server
        await server.queue.send("mail", {"to": "payload-of-ann"})
        values = await scraper.values()
        assert values['queue_messages{queue="mail",state="waiting"}'] == 1 and values['queue_oldest_seconds{queue="mail"}'] >= 0
        assert values['queue_expired_total{queue="mail"}'] == 0 and "payload-of-ann" not in await scraper.text()


async def test_no_user_room_address_or_secret_is_in_it() -> None:
    async with scraped() as scraper:
        client = RealtimeClient(scraper.server.url, token=scraper.server.auth.issue(user_id="hildegard", tenant_id="acme-co"))
        async with client:
            await client.join_room("tenant_acme-co")
            await client.send_message("invoice.created", {"amount": 1}, room="tenant_acme-co")
            text = await scraper.text()
        for word in ("hildegard", "acme-co", "invoice.created", "127.0.0.1", KEY, SECRET):
            assert word not in text


# — several nodes —


@pytest.fixture
async def full() -> AsyncIterator[Sources]:
    async with full_node() as node:
        yield node


def shown(sources: Sources, backlogs: Backlogs = FULL) -> dict[str, float]:
    return {
        sample.name.removeprefix(PREFIX) + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for metric in collect(sources, backlogs) for sample in metric.samples
    }  # fmt: skip


async def test_a_node_among_others(full: Sources) -> None:
    values = shown(full)
    assert {name: values[name] for name in values if name.startswith(("store_", "relay_", "broker_", "queue_"))} == {
        "broker_probe_lag_seconds": 0.25, "store_lease": 1, "store_waiting_events": 17, "store_waiting_seconds": 3.5, "store_events_total": 5,
        "store_failures_total": 6, "store_buried_events_total": 7, "relay_events_total": 8, "relay_dead_events_total": 9, "relay_failures_total": 10,
        "relay_waiting_events": 11, "relay_waiting_seconds": 12.5, "queue_messages mail waiting": 1, "queue_messages mail in_flight": 2,
        "queue_messages mail delayed": 3, "queue_messages mail dead": 4, "queue_oldest_seconds mail": 5.5, "queue_expired_total mail": 6,
        "queue_dropped_total mail": 7,
    }  # fmt: skip


async def test_what_is_not_known_is_not_there(full: Sources) -> None:
    full.drainer._held_until = 0.0
    values = shown(full, Backlogs())
    assert values["store_lease"] == 0 and not any("waiting" in name or name.startswith("queue_") for name in values)


async def test_the_names_follow_the_conventions(full: Sources) -> None:
    names = list(names_of(full))
    assert len({name for name, _, _ in names}) == len(names)
    for name, kind, meaning in names:
        assert name.startswith(PREFIX) and meaning.endswith(".") and (kind == "counter") == name.endswith("_total"), name
        assert kind != "histogram" or name.endswith("_seconds")


async def test_all_nodes_at_once_each_under_its_name() -> None:
    async with scraped(scaling={"instance_id": "eu-1"}) as scraper:
        answer = await scraper.http.get("/metrics?x=%FF&nodes=all", headers={"x-api-key": KEY})
        values = values_of(answer.text)
        assert values['ready{node="eu-1"}'] == 1 and 'handshakes_accepted_total{node="eu-1"}' in values
        assert all('node="eu-1"' in name for name in values) and len(values) > 100
        assert {name.partition("{")[0] for name in values} == {name.partition("{")[0] for name in await scraper.values()}
        openmetrics = await scraper.http.get("/metrics?nodes=all", headers={"x-api-key": KEY, "accept": "application/openmetrics-text"})
        assert len(list(read_openmetrics(openmetrics.text))) > 40
        assert (await scraper.http.get("/metrics?nodes=all")).status_code == 401
        for query in ("nodes=one", "nodes=", "nodes=all&nodes=all"):
            wrong = await scraper.http.get(f"/metrics?{query}", headers={"x-api-key": KEY})
            assert wrong.status_code == 422 and wrong.json()["detail"].startswith("nodes: `all` is allowed")


def test_two_nodes_are_one_family() -> None:
    def answer(node: str, value: float) -> dict[str, Any]:
        return {"node": node, "families": [["a", "counter", "A.", [["a_total", {"code": "1"}, value]]]]}

    (metric,) = merge([answer("x", 1), None, {"node": 3}, answer("y", 2)])
    assert [(sample.labels, sample.value) for sample in metric.samples] == [({"code": "1", "node": "x"}, 1), ({"code": "1", "node": "y"}, 2)]
