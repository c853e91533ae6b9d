"""Clients of all kinds on three servers, under whatever may go wrong between them: what everybody is told is what a plain model predicts.

`python -m tests.model` is the same for as long as one likes.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.acts import COMMON, Step, run
from tests.model.walk import KINDS, shrink, walk
from tests.model.world import ROOMS, USERS


def steps_of(kind: str, length: int) -> st.SearchStrategy[list[Step]]:
    """Lists of steps: half of them what happens most."""

    def of(table: dict[str, list[Any]]) -> st.SearchStrategy[Step]:
        return st.sampled_from(sorted(table)).flatmap(
            lambda what: st.tuples(
                st.just(what), st.integers(0, 5), st.sampled_from(ROOMS), st.sampled_from(sorted(USERS)), st.sampled_from(table[what])
            )
        )

    return st.lists(st.one_of(of(COMMON), of(KINDS[kind])), max_size=length)


seeds = st.integers(0, 2**16)


@given(steps=steps_of("calm", 30), seed=seeds)
@settings(max_examples=8)
def test_while_nothing_goes_wrong_everything_is_exact(steps: list[Step], seed: int) -> None:
    run(steps, seed, has_store=False)


@given(steps=steps_of("harmless", 30), seed=seeds, has_store=st.booleans())
@settings(max_examples=10)
def test_while_nothing_is_lost_nobody_is_told_of_a_loss(steps: list[Step], seed: int, has_store: bool) -> None:
    run(steps, seed, has_store=has_store)


@given(steps=steps_of("losses", 30), seed=seeds, has_store=st.booleans())
@settings(max_examples=12)
def test_what_is_lost_is_told_before_anything_later(steps: list[Step], seed: int, has_store: bool) -> None:
    run(steps, seed, has_store=has_store)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_walk_by_chance(kind: str) -> None:
    """The long form, short: steps that follow one another for longer than an example of the others."""
    run(walk(7, 80, kind), 7, has_store=True)


def test_the_same_seed_is_the_same_walk() -> None:
    assert walk(3, 50, "losses") == walk(3, 50, "losses") != walk(4, 50, "losses")


def test_a_failing_walk_is_made_short() -> None:
    steps = walk(5, 60, "losses")
    guilty = [steps[11], steps[40]]
    assert shrink(steps, lambda some: all(step in some for step in guilty)) == guilty
