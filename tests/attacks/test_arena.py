"""The arena sees what it is there to see: each of its verdicts fires."""

from __future__ import annotations

from functools import partial

import pytest

from tests.attacks.arena import Arena, check_words, fought
from tests.faults.processes import Zygote


@pytest.fixture
def arena(zygote: Zygote) -> Arena:
    """One whose figures are nobody's."""
    return partial(fought, zygote, [])


async def test_a_peaceful_client_costs_little(arena: Arena) -> None:
    async with arena("none: a member that asks once") as field, field.member("user", "tenant_1") as client:
        assert (await client.ask("ping"))["event"] == "pong"
        assert (await field.report())["connections"] == 2


async def test_a_loop_that_stands_still_is_seen(arena: Arena) -> None:
    with pytest.raises(AssertionError, match="the canary waited"):
        async with arena("none: a handler that holds the loop for 0.4 s") as field, field.member("user") as client:
            await client.ask("block", 0.4)


async def test_memory_that_comes_and_goes_is_seen(arena: Arena) -> None:
    with pytest.raises(AssertionError, match="cost .* MB at the peak"):
        async with arena("none: 1 MB of events in a log in memory", memory=100_000) as field, field.member("user", "tenant_1") as client:
            for _ in range(20):
                client.say("much", "x" * 60_000, room="tenant_1")
            await client.ask("ping")


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "a token: eyJhbGciOiJIUzI1NiJ9.e30.x", "it was 'hidden'"])
def test_words_that_must_not_be_said(line: str) -> None:
    check_words(["all is well"], ["hidden"])
    with pytest.raises(AssertionError):
        check_words(["all is well", line], ["hidden"])
