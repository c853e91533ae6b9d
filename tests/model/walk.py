"""Walks by chance over the acts of the model, longer than a test is: seeded, and a failing one is made as short as it fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.model.acts import HARMLESS, LOSSES, USUAL, Step, draw, run

KINDS: dict[str, dict[str, list[Any]]] = {"calm": USUAL, "harmless": USUAL | HARMLESS, "losses": USUAL | HARMLESS | LOSSES}
"""What may happen beside what clients and servers do: nothing, what costs no event, and what does."""


def walk(seed: int, length: int, kind: str) -> list[Step]:
    """The steps of one walk."""
    chance = random.Random(seed)
    return [draw(chance, KINDS[kind]) for _ in range(length)]


def failure_of(steps: list[Step], seed: int, *, has_store: bool) -> Exception | None:
    """What the product did wrong, if it did."""
    try:
        run(steps, seed, has_store=has_store)
    except Exception as error:
        return error
    return None


def shrink(steps: list[Step], fails: Callable[[list[Step]], bool], *, attempts: int = 400) -> list[Step]:
    """A part of the steps that still fails, and of which no stretch can be left out; as far as so many attempts reach."""
    size = max(1, len(steps) // 2)
    while size:
        start = 0
        while start < len(steps) and attempts > 0:
            shorter = steps[:start] + steps[start + size :]
            attempts -= 1
            if fails(shorter):
                steps = shorter
            else:
                start += size
        size //= 2
    return steps
