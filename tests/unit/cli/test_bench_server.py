"""What `bench` reads out of the samples that servers keep of themselves."""

from __future__ import annotations

import pytest

from aibos_realtime.admin.reports import Sample
from aibos_realtime.cli.bench_server import ask_servers, use_of
from aibos_realtime.cli.target import Target

from .stub_api import StubApi, node, problem, samples

START = 1_700_000_000.0


def busy(count: int, *, clients: int = 1000, cpu: float = 0.5) -> list[Sample]:
    """One a second: the first two before anybody came, each later one with 1,000 deliveries more, 3 KB for each client."""
    found = samples(count, start=START, deliveries=1000)
    return [
        one.model_copy(
            update={
                "cpu": cpu, "loop_lag": 0.001 * number, "connections": 0 if number < 2 else clients,
                "memory": 50_000_000 + (0 if number < 2 else 3000 * clients),
            }
        )
        for number, one in enumerate(found)
    ]  # fmt: skip


class TestANode:
    def test_its_use_is_of_the_seconds_of_sending(self) -> None:
        use = use_of(node("web-1", samples=busy(20)), START + 1.0, (START + 5.0, START + 15.0), 0.0)
        assert use is not None and use.name == "web-1"
        assert (use.cpu, use.deliveries, use.connections, use.memory) == (0.5, 10_000, 1000, 53_000_000)
        assert use.delivery_cpu == pytest.approx(0.0005) and use.client_memory == 3000.0 and use.loop_lag == 0.015

    def test_a_clock_that_is_ahead_is_set_right(self) -> None:
        found = [
            use_of(node("a", samples=busy(20)), START + 1.0 - shift, (START + 5.0 - shift, START + 15.0 - shift), shift) for shift in (0.0, 90.0)
        ]
        assert found[0] == found[1]

    def test_few_clients_say_nothing_of_memory(self) -> None:
        use = use_of(node("a", samples=busy(20, clients=100)), START + 1.0, (START + 5.0, START + 15.0), 0.0)
        assert use is not None and use.client_memory is None

    def test_nor_does_a_process_that_had_memory_left(self) -> None:
        warm = [one.model_copy(update={"memory": 50_000_000}) for one in busy(20)]
        use = use_of(node("a", samples=warm), START + 1.0, (START + 5.0, START + 15.0), 0.0)
        assert use is not None and use.client_memory is None

    def test_without_deliveries_there_is_no_price_of_one(self) -> None:
        quiet = [one.model_copy(update={"deliveries": 7}) for one in busy(20)]
        use = use_of(node("a", samples=quiet), START, (START + 5.0, START + 15.0), 0.0)
        assert use is not None and use.delivery_cpu is None

    def test_too_short_a_time_says_nothing(self) -> None:
        assert use_of(node("a", samples=busy(20)), START, (START + 5.1, START + 5.2), 0.0) is None
        assert use_of(node("a"), START, (START, START + 9.0), 0.0) is None


class TestAsking:
    def test_who_may_not_know_is_told_nothing_and_that_is_no_failure(self, stub: StubApi) -> None:
        stub.answers["GET /nodes"] = problem(403, "permission_denied", "No.")
        assert ask_servers(Target(stub.url, "token_a", "--url", "--token"), "token_a", START, (START, START + 10)) == []

    def test_every_node_is_asked(self, stub: StubApi) -> None:
        stub.answers["GET /nodes"] = {"nodes": [node(name, now=START + 20, samples=busy(20)).to_wire() for name in ("web-1", "web-2")]}
        found = ask_servers(Target(stub.url, "token_a", "--url", "--token"), "token_b", START, (START, START + 10**10))
        assert [use.name for use in found] == ["web-1", "web-2"] and stub.asked[0].fields["authorization"] == "Bearer token_b"
