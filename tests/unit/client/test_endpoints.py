from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.client.endpoints import Endpoint, Endpoints
from aibos_realtime.errors import ConfigurationError, ConnectionError, NoInstanceAvailable


class Balancer:
    def __init__(self, *instances: Any) -> None:
        self.instances = list(instances)
        self.down: list[Any] = []

    async def get_next_instance(self) -> Any:
        if not self.instances:
            raise NoInstanceAvailable
        return self.instances.pop(0)

    async def mark_down(self, instance: Any) -> None:
        self.down.append(instance)


class Instance:
    url = "ws://node2:3001"


async def urls(endpoints: Endpoints, count: int) -> list[str]:
    return [(await endpoints.next()).url for _ in range(count)]


async def test_one_url_is_always_the_next() -> None:
    assert await urls(Endpoints("ws://node1:3001"), 2) == ["ws://node1:3001/"] * 2


async def test_a_list_is_taken_in_turn() -> None:
    endpoints = Endpoints(["ws://node1:3001", "ws://node2:3001"])
    assert await urls(endpoints, 3) == ["ws://node1:3001/", "ws://node2:3001/", "ws://node1:3001/"]


async def test_a_balancer_chooses_and_hears_of_failures() -> None:
    balancer = Balancer("ws://node1:3001", Instance())
    endpoints = Endpoints(balancer)
    first, second = await endpoints.next(), await endpoints.next()
    assert (first.url, second.url) == ("ws://node1:3001/", "ws://node2:3001/")
    await endpoints.mark_down(first)
    await endpoints.mark_down(Endpoint("ws://node9:3001/"))
    assert balancer.down == ["ws://node1:3001"]


@pytest.mark.parametrize("balancer", [Balancer(), Balancer("ftp://node1")])
async def test_a_balancer_without_an_offer_may_have_one_later(balancer: Balancer) -> None:
    with pytest.raises(ConnectionError) as caught:
        await Endpoints(balancer).next()
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, NoInstanceAvailable | ConfigurationError)


async def test_advice_is_taken_once() -> None:
    endpoints = Endpoints("ws://node1:3001")
    endpoints.prefer("ws://node2:3001", "ws://node1:3001/")
    assert await urls(endpoints, 2) == ["ws://node2:3001/", "ws://node1:3001/"]


@pytest.mark.parametrize(("advice", "current"), [("ws://node2:3001", "wss://node1:3001/"), ("nonsense", "ws://node1:3001/")])
async def test_advice_that_leads_out_of_tls_or_nowhere_is_ignored(advice: str, current: str) -> None:
    endpoints = Endpoints("wss://node1:3001")
    endpoints.prefer(advice, current)
    assert await urls(endpoints, 1) == ["wss://node1:3001/"]


async def test_without_a_mark_down_nobody_is_told() -> None:
    class Simple:
        async def get_next_instance(self) -> str:
            return "ws://node1:3001"

    endpoints = Endpoints(Simple())
    await endpoints.mark_down(await endpoints.next())


def test_whether_all_is_tls() -> None:
    assert Endpoints("wss://node1").is_secure is True
    assert Endpoints(["wss://node1", "ws://node2"]).is_secure is False
    assert Endpoints(Balancer()).is_secure is None
