"""Sizes on the command lines of the proofs: one of nothing would be called clean."""

from __future__ import annotations

from argparse import ArgumentTypeError


def count(text: str) -> int:
    """How many: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} was given; allowed is a whole number from 1 on")
    return int(text)


def amount(text: str) -> float:
    """How much of something: more than 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} was given; allowed is a number above 0")
    return value
