"""The balancer: choosing among what is up, checks, and its life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aibos_realtime import LoadBalancer, NoInstanceAvailable, RealtimeServer
from aibos_realtime.client.endpoints import Endpoints
from aibos_realtime.errors import ConfigurationError
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.types import HealthCheckOptions, Instance

URLS = ["ws://instance1:3001", "ws://instance2:3001", "ws://instance3:3001"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def balancer(clock: ManualClock) -> LoadBalancer:
    return LoadBalancer(algorithm="round-robin", health_check={"interval": 30, "timeout": 5}, instances=URLS, clock=clock)


class Site:
    """A loopback server whose readiness is a switch; `checks` counts what it was asked."""

    def __init__(self) -> None:
        self.is_ready = True
        self.checks = 0
        self.asked = asyncio.Event()
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.checks += 1
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if self.is_ready else b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.asked.set()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.talk, "127.0.0.1", 0)
    site.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield site
    server.close()
    await server.wait_closed()


async def next_ones(balancer: LoadBalancer, times: int, key: str | None = None) -> list[str]:
    return [await balancer.get_next_instance(key) for _ in range(times)]


async def test_the_snippet(balancer: LoadBalancer) -> None:
    instance = await balancer.get_next_instance()
    assert instance == URLS[0] and isinstance(instance, Instance) and isinstance(instance, str)
    assert await next_ones(balancer, 3) == [URLS[1], URLS[2], URLS[0]]


async def test_what_is_down_is_not_chosen(balancer: LoadBalancer) -> None:
    balancer.mark_down(URLS[1])
    assert set(await next_ones(balancer, 6)) == {URLS[0], URLS[2]} and not balancer.is_up(URLS[1])
    assert balancer.available_instances == [URLS[0], URLS[2]] and balancer.instances == URLS
    balancer.mark_up(URLS[1])
    assert set(await next_ones(balancer, 6)) == set(URLS)


async def test_none_is_left(balancer: LoadBalancer) -> None:
    for url in URLS:
        balancer.mark_down(url)
    with pytest.raises(NoInstanceAvailable, match="None of 3") as caught:
        await balancer.get_next_instance()
    assert caught.value.retryable
    with pytest.raises(NoInstanceAvailable, match="no instances"):
        await LoadBalancer().get_next_instance()


async def test_unchecked_one_that_is_down_is_tried_again_after_the_interval(balancer: LoadBalancer, clock: ManualClock) -> None:
    for url in URLS:
        balancer.mark_down(url)
    await clock.advance(29.9)
    assert balancer.available_instances == []
    balancer.mark_down(URLS[2])
    await clock.advance(0.1)
    assert balancer.available_instances == URLS[:2], "the third was found down again a moment ago"


async def test_a_check_is_a_real_probe_and_counts(site: Site) -> None:
    balancer = LoadBalancer(instances=[site.url])
    (instance,) = balancer.instances
    assert await balancer.check_health(instance)
    site.is_ready = False
    assert [await balancer.check_health(instance), balancer.is_up(instance)] == [False, True]
    assert [await balancer.check_health(instance), balancer.is_up(instance)] == [False, False]
    site.is_ready = True
    assert [await balancer.check_health(site.url), balancer.is_up(instance)] == [True, False]
    assert [await balancer.check_health(site.url), balancer.is_up(instance)] == [True, True]


async def test_a_stranger_can_be_asked_and_counts_for_nothing(site: Site, balancer: LoadBalancer) -> None:
    assert await balancer.check_health(site.url)
    assert balancer.instances == URLS and not balancer.is_up(site.url)
    with pytest.raises(ConfigurationError):
        await balancer.check_health("nonsense")


async def test_it_is_asked_in_the_background_between_start_and_stop(site: Site) -> None:
    clock = ManualClock()
    balancer = LoadBalancer(health_check={"interval": 30}, instances=[site.url], clock=clock)
    await clock.advance(100)
    assert site.checks == 0, "nothing happens at construction"

    async def round_of_checks(seconds: float) -> None:
        site.asked.clear()
        await clock.advance(seconds)
        async with asyncio.timeout(5):
            await site.asked.wait()
            while not clock.planned:  # noqa: ASYNC110 - the round has ended once the next one is planned
                await asyncio.sleep(0)

    async with balancer:
        await balancer.start()
        await round_of_checks(0)
        site.is_ready = False
        await round_of_checks(30)
        assert balancer.is_up(site.url)
        await round_of_checks(30)
        assert not balancer.is_up(site.url)
        await clock.advance(29)
        assert balancer.available_instances == [], "while checks run, time alone brings nothing back"
        site.is_ready = True
        await round_of_checks(1)
        await round_of_checks(30)
        assert balancer.is_up(site.url) and site.checks == 5
    await balancer.stop()
    assert clock.planned == []


async def test_no_checks_where_they_are_off(site: Site) -> None:
    clock = ManualClock()
    async with LoadBalancer(health_check=False, instances=[site.url], clock=clock):
        await clock.advance(100)
    assert site.checks == 0 and clock.planned == []


async def test_a_real_server_is_ready_until_it_stops() -> None:
    server = RealtimeServer(
        host="127.0.0.1", port=0, authentication={"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}, persistence={"database": {"url": "memory://"}}
    )
    async with server:
        url = f"ws://127.0.0.1:{server.port}"
        balancer = LoadBalancer(health_check={"timeout": 2}, instances=[url])
        assert await balancer.check_health(url)
    assert not await balancer.check_health(url)


async def test_least_connections_count_what_was_handed_out_and_released() -> None:
    balancer = LoadBalancer(algorithm="least-connections", health_check=False, instances=URLS)
    assert sorted(await next_ones(balancer, 3)) == URLS
    balancer.release(URLS[1])
    assert await next_ones(balancer, 1) == [URLS[1]]
    balancer.note_connections(URLS[2], 0)
    assert await next_ones(balancer, 1) == [URLS[2]]
    balancer.release("ws://nobody:1")
    balancer.note_connections("ws://nobody:1", 4)


async def test_a_key_keeps_its_instance() -> None:
    balancer = LoadBalancer(algorithm="consistent-hash", instances=URLS)
    (home,) = set(await next_ones(balancer, 20, "tenant_123"))
    balancer.mark_down(home)
    (away,) = set(await next_ones(balancer, 20, "tenant_123"))
    assert away != home
    balancer.mark_up(home)
    assert set(await next_ones(balancer, 5, "tenant_123")) == {home}


async def test_instances_come_and_go(balancer: LoadBalancer) -> None:
    balancer.remove_instance(URLS[0])
    balancer.remove_instance(URLS[0])
    added = balancer.add_instance({"url": "ws://instance4:3001", "weight": 2})
    assert balancer.instances == [URLS[1], URLS[2], added]
    balancer.mark_down(added)
    balancer.add_instance("ws://instance4:3001")
    assert balancer.instances[2].weight == 1 and not balancer.is_up(added), "adding again changes the weight alone"
    assert set(await next_ones(balancer, 4)) == {URLS[1], URLS[2]}


async def test_a_client_takes_it_in_place_of_a_url(balancer: LoadBalancer) -> None:
    endpoints = Endpoints(balancer)
    first = await endpoints.next()
    assert first.url == "ws://instance1:3001/" and first.instance == URLS[0]
    await endpoints.mark_down(first)
    assert not balancer.is_up(URLS[0])


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"algorithm": "fastest"}, "load_balancer.algorithm"),
        ({"health_check": {"intervall": 3}}, "load_balancer.health_check.intervall: there is no such option; did you mean 'interval'"),
        ({"health_check": {"interval": 0}}, "load_balancer.health_check.interval"),
        ({"health_check": 5}, "load_balancer.health_check"),
        ({"instances": URLS[0]}, "load_balancer.instances"),
        ({"instances": [URLS[0], "nonsense"]}, "load_balancer.instances.1"),
        ({"instances": [URLS[0], URLS[0]]}, "load_balancer.instances.1: instance1:3001 was given twice"),
    ],
)
def test_mistakes_are_told_by_their_path(options: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LoadBalancer(**options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(path)


def test_the_defaults() -> None:
    assert LoadBalancer().options.health_check == HealthCheckOptions(interval=30, timeout=5, failures=2, successes=2)
    assert LoadBalancer(health_check=False).options.health_check is None and LoadBalancer(health_check=None).options.health_check is None
