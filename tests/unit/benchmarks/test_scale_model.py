"""What the model says of many nodes follows from what was measured of two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean

import pytest

from benchmarks.scale_model import BEGIN, END, GB, Costs, Layout, Machine, Workload, fewest, fill, first_members, lay_out, read_costs, spread

COSTS = Costs(
    base_bytes=50e6, base_cpu=2_000, base_redis=1_000, client_bytes=6_000, room_bytes=1_000, open_cpu=400, open_redis=50, room_cpu=30,
    room_redis=10, silent_cpu=1, silent_redis=0.1, room_silent_cpu=0.5, room_silent_redis=0.2, presence_bytes=500, room_redis_bytes=300,
    publish_cpu=60, publish_redis=15, receive_cpu=20, send_redis=2, log_bytes=400, delivery_cpu=7, delivery_bytes=350,
)  # fmt: skip
MACHINE = Machine()


def place(random: Random, members: int, nodes: int) -> list[int]:
    return [random.randrange(nodes) for _ in range(members)]


@pytest.mark.parametrize(("members", "nodes"), [(1, 7), (10, 7), (10, 1), (100, 40), (40, 100)])
def test_how_many_nodes_a_room_is_on_is_what_chance_gives(members: int, nodes: int) -> None:
    random = Random(1)
    drawn = fmean(len(set(place(random, members, nodes))) for _ in range(4_000))
    assert spread(members, nodes) == pytest.approx(drawn, rel=0.01)


@pytest.mark.parametrize(("members", "nodes"), [(2, 7), (10, 7), (40, 100)])
def test_how_many_joins_bring_a_room_to_a_node_is_what_chance_gives(members: int, nodes: int) -> None:
    random = Random(1)
    placed = (place(random, members, nodes) for _ in range(4_000))
    drawn = fmean(others.count(here) == 0 for here, *others in placed)
    assert first_members(Workload(room_size=members), nodes) == pytest.approx(drawn, abs=0.02)


def test_the_fewest_that_are_enough_are_found() -> None:
    for number in (*range(1, 40), 999, 1_000_000):
        assert fewest(lambda found, wanted=number: found >= wanted) == number  # type: ignore[misc]
    with pytest.raises(ValueError, match="no number"):
        fewest(lambda found: False)


def lay(**load: object) -> Layout:
    return lay_out(Workload(**load), COSTS, MACHINE)  # type: ignore[arg-type]


@pytest.mark.parametrize("placement", ["anywhere", "together"])
@pytest.mark.parametrize("room_size", [10, 100, 1_000, 100_000])
def test_nothing_is_fuller_than_allowed_and_nothing_is_wasted(room_size: int, placement: str) -> None:
    layout = lay(room_size=room_size, placement=placement)
    assert max(layout.node_use.values()) <= 1 and max(layout.shard_use.values()) <= 1
    assert max(layout.node_use.values()) > (layout.nodes - 1) / layout.nodes * 0.9
    assert layout.shards == 1 or max(layout.shard_use.values()) > (layout.shards - 1) / layout.shards * 0.99


def test_small_rooms_whose_members_are_anywhere_cost_more_of_everything() -> None:
    anywhere, together = lay(room_size=10), lay(room_size=10, placement="together")
    assert anywhere.nodes_per_event > 5 and together.nodes_per_event == 1
    assert anywhere.nodes > together.nodes and anywhere.shards > together.shards
    assert anywhere.node.cpu["receive"] > 4 * together.node.cpu["receive"]


def test_twice_the_load_needs_twice_the_nodes() -> None:
    once, twice = lay(room_size=1_000), lay(room_size=1_000, connections=2_000_000, deliveries=2_000_000)
    assert twice.nodes == pytest.approx(2 * once.nodes, rel=0.1)


def test_memory_counts_too() -> None:
    layout = lay_out(Workload(deliveries=1_000), COSTS, replace(MACHINE, node_bytes=0.25 * GB))
    assert max(layout.node_use, key=lambda name: layout.node_use[name]) == "memory"
    assert layout.nodes * (0.25 * GB - COSTS.base_bytes) > 1_000_000 * COSTS.client_bytes


def test_more_shards_than_rooms_are_no_layout() -> None:
    assert lay(room_size=1_000).is_possible
    assert not lay_out(Workload(room_size=1_000_000), replace(COSTS, publish_redis=2e6), MACHINE).is_possible


def test_the_first_ceiling_is_what_there_cannot_be_more_of() -> None:
    load = Workload(room_size=10)
    ceilings = lay_out(load, COSTS, MACHINE, store_events=20_000).ceilings
    assert ceilings["the store"] == 20_000 / load.events == 0.2
    assert "the store" not in lay_out(load, COSTS, MACHINE).ceilings
    one_room = lay(room_size=1_000_000)
    assert one_room.ceilings["a room's shard"] == pytest.approx(one_room.room_events)  # it has one event a second now
    assert one_room.ceilings["all shards"] == pytest.approx(1 / max(one_room.shard_use.values()), rel=0.01)  # of which it can use but one
    twice = lay(room_size=1_000, connections=2_000_000, deliveries=2_000_000).ceilings["all shards"]
    assert twice == pytest.approx(lay(room_size=1_000).ceilings["all shards"] / 2, rel=0.1)


FIGURES = {
    "publish": {"publisher_cpu_us": 60.0, "redis_cpu_us": 15.0, "redis_bytes": 400.0},
    "relay": {"member_cpu_us": 27.0},
    "delivery-1000": {"member_cpu_us": 7.0, "bytes": 350.0},
    "idle": {
        "base_mb": 50.0, "member_kb": 6.0, "member_open_cpu_us": 400.0, "redis_open_cpu_us": 50.0, "member_silent_cpu_us": 1.0,
        "redis_silent_cpu_us": 0.1, "redis_bytes": 500.0, "member_base_cpu_us": 2_000.0, "redis_base_cpu_us": 1_000.0,
    },
    "idle-rooms": {
        "member_kb": 7.0, "member_open_cpu_us": 390.0, "redis_open_cpu_us": 60.0, "redis_bytes": 800.0,
        "member_silent_cpu_us": 1.5, "redis_silent_cpu_us": 0.1,
    },
}  # fmt: skip


def test_costs_are_read_from_the_measured_figures() -> None:
    redis = {"pass": {"nodes": {"redis_cpu_us": 2.0}}}
    costs = read_costs({"results": {"ours": {work: {"nodes": found} for work, found in FIGURES.items()}, "Redis": redis}})
    assert (costs.receive_cpu, costs.send_redis, costs.room_redis, costs.room_redis_bytes, costs.room_bytes) == (20, 2, 10, 300, 1024)
    assert (costs.room_silent_cpu, costs.room_silent_redis) == (0.5, 0)
    assert costs.room_cpu == 0  # less than nothing was measured
    with pytest.raises(KeyError, match="relay"):
        read_costs({"results": {"ours": {"publish": {"nodes": FIGURES["publish"]}}, "Redis": redis}})


def test_a_page_is_filled_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        fill(page, "new")
        assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no"):
        fill(page, "new")
    assert page.read_text() == "no marks"
