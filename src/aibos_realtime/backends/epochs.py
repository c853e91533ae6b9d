"""Epochs: the random names of the stretches in which a room's offsets count without a break."""

from __future__ import annotations

import secrets


def new_epoch() -> str:
    """A name that no log has had before: 72 random bits, 12 characters that are safe in a URL."""
    return secrets.token_urlsafe(9)
