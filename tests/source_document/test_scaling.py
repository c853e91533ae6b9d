"""The source document, "Scaling"."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from aibos_realtime import LoadBalancer, NoInstanceAvailable, RealtimeClient, ScalingManager
from tests.contracts.peer import serving
from tests.servers.redis import running_redis

INSTANCES = ["ws://instance1:3001", "ws://instance2:3001", "ws://instance3:3001"]


async def find_dead_port() -> int:
    """A port on which nobody listens: one that was free a moment ago."""
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port: int = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    return port


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with running_redis() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        yield


def know_no_host(*_: object, **__: object) -> None:
    raise socket.gaierror("the instances of the document are nowhere, and nobody is asked where")


@pytest.mark.usefixtures("redis")
async def test_horizontal_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", know_no_host)
    scaling_manager = ScalingManager(
        redis={"url": os.environ["REDIS_URL"]},
        instances=["ws://instance1:3001", "ws://instance2:3001", "ws://instance3:3001"],
        load_balancer={"algorithm": "round-robin", "health_check": True},
    )

    # Register instance
    await scaling_manager.register_instance("ws://localhost:3001")
    assert await scaling_manager.get_available_instances() == [*INSTANCES, "ws://localhost:3001"]

    # Unregister instance
    await scaling_manager.unregister_instance("ws://localhost:3001")

    # Get available instances
    instances = await scaling_manager.get_available_instances()
    assert instances == INSTANCES
    assert [await scaling_manager.load_balancer.get_next_instance() for _ in range(3)] == INSTANCES
    await scaling_manager.stop()


@pytest.mark.usefixtures("redis")
async def test_horizontal_scaling_leads_clients_to_what_another_process_registered() -> None:
    async with serving() as server, ScalingManager(redis={"url": os.environ["REDIS_URL"]}) as theirs:
        await theirs.register_instance(server.url)
        async with ScalingManager(redis={"url": os.environ["REDIS_URL"]}) as ours:
            assert await ours.get_available_instances() == [server.url]
            async with RealtimeClient(ours.load_balancer, token=server.auth.issue(user_id="user_123")) as client:
                assert client.state == "connected"


async def test_load_balancing() -> None:
    load_balancer = LoadBalancer(algorithm="round-robin", health_check={"interval": 30, "timeout": 5}, instances=INSTANCES)

    # Get next instance
    instance = await load_balancer.get_next_instance()
    assert instance == "ws://instance1:3001"
    following = [await load_balancer.get_next_instance() for _ in range(5)]
    assert [*INSTANCES[1:], *INSTANCES] == following, "one after the other, and then from the beginning"


async def test_load_balancing_checks_health_by_a_real_probe() -> None:
    dead = f"ws://127.0.0.1:{await find_dead_port()}"
    async with serving() as server:
        load_balancer = LoadBalancer(algorithm="round-robin", health_check={"interval": 30, "timeout": 5}, instances=[server.url, dead])
        instance = await load_balancer.get_next_instance()

        # Check instance health
        is_healthy = await load_balancer.check_health(instance)
        assert is_healthy is True
        assert await load_balancer.check_health(dead) is False
        url = server.url
    assert await load_balancer.check_health(url) is False, "it was stopped"


async def test_load_balancing_leaves_out_what_is_down() -> None:
    load_balancer = LoadBalancer(algorithm="round-robin", health_check={"interval": 30, "timeout": 5}, instances=INSTANCES)
    load_balancer.mark_down(INSTANCES[1])
    assert {await load_balancer.get_next_instance() for _ in range(6)} == {INSTANCES[0], INSTANCES[2]}
    load_balancer.mark_up(INSTANCES[1])
    assert {await load_balancer.get_next_instance() for _ in range(6)} == set(INSTANCES)
    for instance in INSTANCES:
        load_balancer.mark_down(instance)
    with pytest.raises(NoInstanceAvailable):
        await load_balancer.get_next_instance()


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "random", "consistent-hash", "weighted-round-robin"])
async def test_load_balancing_by_every_algorithm(algorithm: str) -> None:
    load_balancer = LoadBalancer(algorithm=algorithm, health_check=False, instances=INSTANCES)  # type: ignore[arg-type]
    chosen = {await load_balancer.get_next_instance(key="tenant_123") for _ in range(60)}
    assert chosen == set(INSTANCES) if algorithm != "consistent-hash" else len(chosen) == 1


async def test_a_client_takes_the_balancer_as_its_url() -> None:
    dead = f"ws://127.0.0.1:{await find_dead_port()}"
    async with serving() as server:
        load_balancer = LoadBalancer(algorithm="round-robin", health_check={"interval": 30, "timeout": 5}, instances=[dead, server.url])
        client = RealtimeClient(load_balancer, token=server.auth.issue(user_id="user_123"), random=lambda: 0.0)
        async with client:
            assert client.state == "connected", "the next attempt went to the next instance"
