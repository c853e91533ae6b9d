"""Queues over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.admin.api.rig import Rig, check_problem


async def bury(rig: Rig, *data: Any) -> None:
    """Have messages of the queue `work` given up."""

    async def fail(message: Any) -> None:
        raise ValueError("no")

    rig.server.queue.process("work", fail, max_attempts=1)
    for one in data:
        await rig.server.queue.send("work", one)
    async with asyncio.timeout(10):
        while (await rig.server.queue.stats("work")).dead < len(data):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_how_queues_stand_and_what_was_given_up(rig: Rig) -> None:
    await bury(rig, 1, 2, 3)
    await rig.server.queue.send("later", "x", delay=60)
    found = {queue["name"]: queue for queue in (await rig.ask("GET", "/queues")).json()["queues"]}
    assert found["work"]["dead"] == 3 and found["later"]["delayed"] == 1
    first = (await rig.ask("GET", "/queues/work/dead?limit=2")).json()["deadLetters"]
    assert sorted(letter["data"] for letter in first)[0] >= 1 and len(first) == 2 and "no" in first[0]["reason"]
    rest = (await rig.ask("GET", f"/queues/work/dead?before={first[-1]['place']}")).json()["deadLetters"]
    assert sorted(letter["data"] for letter in first + rest) == [1, 2, 3]
    assert (await rig.ask("POST", "/queues/later/purge", {"dead": False})).json() == {"count": 1}


async def test_sending_dead_letters_again_and_removing_them(rig: Rig) -> None:
    await bury(rig, 1, 2, 3)
    ids = [letter["id"] for letter in (await rig.ask("GET", "/queues/work/dead")).json()["deadLetters"]]
    assert (await rig.ask("POST", "/queues/work/requeue", {"ids": ids[:1]})).json() == {"count": 1}
    assert (await rig.ask("POST", "/queues/work/requeue", {"ids": ["never"]})).json() == {"count": 0}
    async with asyncio.timeout(10):
        while (await rig.server.queue.stats("work")).dead < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert (await rig.ask("POST", "/queues/work/purge", {"dead": True})).json() == {"count": 3}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/queues/work/dead?before=x", None), ("GET", "/queues/work/dead?limit=0", None), ("POST", "/queues/work/requeue", {"ids": "a"}),
     ("POST", "/queues/work/purge", {}), ("POST", "/queues/work/purge", {"dead": 1})],
)  # fmt: skip
async def test_what_asks_nothing_of_a_queue(rig: Rig, method: str, path: str, body: Any) -> None:
    check_problem(await rig.ask(method, path, body), 422, "validation_failed")


@pytest.mark.parametrize("name", ["two%20words", "%00", "x" * 129])
async def test_what_is_no_queue(rig: Rig, name: str) -> None:
    check_problem(await rig.ask("GET", f"/queues/{name}/dead"), 404, "queue_not_found")
    check_problem(await rig.ask("POST", f"/queues/{name}/requeue", {}), 404, "queue_not_found")
    check_problem(await rig.ask("POST", f"/queues/{name}/purge", {"dead": True}), 404, "queue_not_found")
