"""`ScalingManager`: what it offers follows the register and the checks; what it registered lasts as long as it does. Against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, ConfigurationError, LoadBalancer, NoInstanceAvailable
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.nodes import RedisNodes
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.cluster.scaling import REFRESH, ScalingManager
from aibos_realtime.testing.clock import ManualClock
from tests.servers.redis import RedisServer, running_redis

PATIENCE = 5.0
FIXED = ["ws://instance1:3001", "ws://instance2:3001"]


class Site:
    """Servers that register, and managers that follow them. The register's time goes on, the clock of the nodes stands still."""

    def __init__(self, client: Client, url: str, prefix: str) -> None:
        self.client = client
        self.redis = {"url": url, "prefix": prefix}
        self.layout = Layout(prefix, 1)
        self.clock = ManualClock()
        self.nodes: list[RedisNodes] = []
        self.managers: list[ScalingManager] = []

    async def serve(self, name: str, **told: Any) -> RedisNodes:
        """A server that registers itself; what `told` says may be changed later."""
        node = RedisNodes(self.client, self.layout, name=name, url=f"ws://{name}:3001", clock=self.clock)
        self.nodes.append(node)
        node.describe(lambda: told)
        await node.start()
        return node

    def manage(self, **options: Any) -> ScalingManager:
        given: dict[str, Any] = {"redis": self.redis, "load_balancer": {"health_check": False}, "clock": self.clock} | options
        manager = ScalingManager(**given)
        self.managers.append(manager)
        return manager


@pytest.fixture
async def site(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Site]:
    client = Client(read_url(redis_server.url))
    await client.open()
    site = Site(client, redis_server.url, redis_prefix)
    yield site
    for manager in site.managers:
        await manager.stop()
    for node in site.nodes:
        await node.stop()
    await client.close()


# — options —


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"redis": {"ulr": "redis://h"}}, "scaling.redis.ulr: there is no such option; did you mean 'url'"),
        ({"redis": {"url": "http://h"}}, "scaling.redis.url: 'http://h' was given"),
        ({"redis": "redis://:hunter2@h"}, "scaling.redis: a text was given; allowed is a mapping"),
        ({"instances": "ws://a"}, "scaling.instances: allowed is a list of URLs"),
        ({"instances": ["ws://a", "a"]}, "scaling.instances.1: no scheme was given"),
        ({"instances": ["ws://a", "ws://a"]}, "scaling.instances.1: a:80 was given twice"),
        ({"load_balancer": {"algorithm": "best"}}, "scaling.load_balancer.algorithm: 'best' was given; allowed is"),
        ({"load_balancer": {"health_check": {"intervall": 3}}}, "scaling.load_balancer.health_check.intervall: there is no such option"),
        ({"instance": []}, "scaling.instance: there is no such option; did you mean 'instances'"),
    ],
)
def test_a_mistake_is_named_by_its_path(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ScalingManager(**options)
    assert says in str(caught.value) and "hunter2" not in str(caught.value)


# — without a register —


async def test_without_redis_there_is_the_fixed_list() -> None:
    async with ScalingManager(instances=FIXED, load_balancer={"health_check": False}) as manager:
        assert await manager.get_available_instances() == FIXED and await manager.nodes() == []
        third = await manager.register_instance("ws://instance3:3001", weight=2)
        assert third.weight == 2 and await manager.get_available_instances() == [*FIXED, "ws://instance3:3001"]
        assert await manager.unregister_instance("ws://instance3:3001") and not await manager.unregister_instance("ws://instance3:3001")
        manager.load_balancer.mark_down(FIXED[0])
        assert await manager.get_available_instances() == FIXED[1:]
        assert [(report.url, report.name, report.connections) for report in await manager.report()] == [
            ("ws://instance1:3001", "instance1:3001", None), ("ws://instance2:3001", "instance2:3001", None),
        ]  # fmt: skip


async def test_a_balancer_of_ones_own() -> None:
    balancer = LoadBalancer(algorithm="random", health_check=False, instances=["ws://mine:1"])
    manager = ScalingManager(instances=FIXED, load_balancer=balancer)
    assert manager.load_balancer is balancer and balancer.instances == ["ws://mine:1", *FIXED]


# — with one —


async def test_what_one_manager_registers_all_see_until_it_takes_it_back(site: Site) -> None:
    ours, theirs = site.manage(), site.manage(instances=FIXED)
    instance = await ours.register_instance("http://instance3:3001", weight=3)
    assert instance == "ws://instance3:3001"
    assert await ours.get_available_instances() == [instance]
    found = await theirs.get_available_instances()
    assert found == [*FIXED, instance] and found[-1].weight == 3
    again = await ours.register_instance("ws://instance3:3001", weight=5)
    assert again == instance and [one.weight for one in await theirs.get_available_instances()] == [1, 1, 5]
    assert not await theirs.unregister_instance(instance), "it is the other one's"
    assert await ours.unregister_instance("ws://instance3:3001")
    assert await ours.get_available_instances() == [] and await theirs.get_available_instances() == FIXED


async def test_stopping_takes_back_what_was_registered_and_it_can_start_again(site: Site) -> None:
    ours, theirs = site.manage(), site.manage()
    await ours.register_instance("ws://instance3:3001")
    await ours.stop()
    await ours.stop()
    assert await theirs.get_available_instances() == []
    await ours.register_instance("ws://instance4:3001")
    assert await theirs.get_available_instances() == ["ws://instance4:3001"]


async def test_what_a_dead_process_registered_expires(site: Site) -> None:
    """By the server's time: here its last sign is made older."""
    ours, theirs = site.manage(), site.manage()
    await ours.register_instance("ws://instance3:3001")
    key = site.layout.of_nodes("instances:seen")
    [id] = await site.client.command("ZRANGE", key, 0, -1)
    await site.client.command("ZINCRBY", key, -10_001, id)
    assert await theirs.get_available_instances() == []


async def test_an_address_that_is_none_is_refused(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="instance: no scheme was given"):
        await site.manage().register_instance("instance3:3001")


async def test_servers_come_go_and_drain(site: Site) -> None:
    told: dict[str, Any] = {}
    first, second = await site.serve("web-1"), await site.serve("web-2")
    first.describe(lambda: told)
    manager = site.manage()
    assert await manager.get_available_instances() == ["ws://web-1:3001", "ws://web-2:3001"]
    told["state"] = "draining"
    await first.beat()
    assert await manager.get_available_instances() == ["ws://web-2:3001"]
    assert [node.state for node in await manager.nodes()] == ["draining", "up"]
    assert [report.url for report in await manager.report()] == ["ws://web-2:3001"]
    await second.stop()
    assert await manager.get_available_instances() == []
    with pytest.raises(NoInstanceAvailable):
        await manager.load_balancer.get_next_instance()


async def test_a_fixed_instance_that_drains_is_set_aside_until_it_is_back(site: Site) -> None:
    told: dict[str, Any] = {"state": "draining"}
    node = await site.serve("instance1", **told)
    node.describe(lambda: told)
    manager = site.manage(instances=FIXED)
    assert await manager.get_available_instances() == FIXED[1:]
    assert [report.url for report in await manager.report()] == FIXED[1:]
    told["state"] = "up"
    await node.beat()
    assert sorted(await manager.get_available_instances()) == FIXED


async def test_the_balancer_follows_by_itself_and_knows_the_connections(site: Site) -> None:
    told: dict[str, Any] = {"connections": 0}
    first = await site.serve("web-1")
    first.describe(lambda: told)
    second = await site.serve("web-2", connections=50)
    manager = site.manage(load_balancer={"algorithm": "least-connections", "health_check": False})
    await manager.start()
    await manager.start()
    assert [await manager.load_balancer.get_next_instance() for _ in range(3)] == ["ws://web-1:3001"] * 3
    told["connections"] = 100
    await first.beat()
    noted = asyncio.Event()
    note = manager.load_balancer.note_connections

    def note_connections(instance: str, count: int) -> None:
        note(instance, count)
        if count == 100:
            noted.set()

    manager.load_balancer.note_connections = note_connections  # type: ignore[method-assign]
    await site.clock.advance(REFRESH)
    async with asyncio.timeout(PATIENCE):
        await noted.wait()
    assert await manager.load_balancer.get_next_instance() == "ws://web-2:3001"
    await second.stop()


async def test_what_was_added_to_the_balancer_by_hand_stays(site: Site) -> None:
    await site.serve("web-1")
    manager = site.manage()
    manager.load_balancer.add_instance("ws://mine:1")
    assert await manager.get_available_instances() == ["ws://mine:1", "ws://web-1:3001"]
    assert await manager.get_available_instances() == ["ws://mine:1", "ws://web-1:3001"]


async def test_what_has_not_changed_is_left_as_it_is(site: Site) -> None:
    """Consistent hashing makes its ring anew for every instance that is exchanged."""
    told: dict[str, Any] = {"weight": 1}
    node = await site.serve("web-1")
    node.describe(lambda: told)
    manager = site.manage()
    [first] = await manager.get_available_instances()
    [second] = await manager.get_available_instances()
    assert second is first
    told["weight"] = 2
    await node.beat()
    [third] = await manager.get_available_instances()
    assert third.weight == 2


async def test_one_that_the_checks_found_down_is_left_out_though_it_is_registered(site: Site) -> None:
    await site.serve("web-1")
    manager = site.manage()
    await manager.get_available_instances()
    manager.load_balancer.mark_down("ws://web-1:3001")
    assert await manager.get_available_instances() == []


async def test_a_register_that_is_shared_is_opened_by_its_owner(site: Site) -> None:
    node = await site.serve("web-1", connections=3)
    manager = ScalingManager(nodes=node, clock=site.clock, load_balancer={"health_check": False})
    assert [(report.name, report.connections) for report in await manager.report()] == [("web-1", 3)]
    assert [record.name for record in await manager.nodes()] == ["web-1"]
    await manager.stop()
    assert await node.list(), "and closed by him"


async def test_while_redis_is_away_it_goes_on_with_what_it_knew(caplog: pytest.LogCaptureFixture) -> None:
    with running_redis() as server:
        manager = ScalingManager(redis={"url": server.url}, instances=FIXED, load_balancer={"health_check": False})
        await manager.register_instance("ws://instance3:3001")
        server.stop()
        for _ in range(2):
            assert await manager.get_available_instances() == [*FIXED, "ws://instance3:3001"]
        with pytest.raises(BrokerUnavailable):
            await manager.report()
        assert caplog.text.count("the register of nodes cannot be read") == 1
        await manager.stop()
        fresh = ScalingManager(redis={"url": server.url})
        with pytest.raises(BrokerUnavailable):
            await fresh.get_available_instances()
        await fresh.stop()
