"""The port to where revocations are kept beyond the life of a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from msgspec import Struct

Kind = Literal["user", "token", "all"]


class Revoked(Struct, frozen=True):
    """What was issued to a user (`name`: his id) up to a time is no longer good; or a token (its id); or all tokens (""). `at`: Unix seconds."""

    kind: Kind
    name: str
    at: float


class RevocationStore(Protocol):
    """Keeps them for as long as a token can be good. Raises `BrokerUnavailable`."""

    async def add(self, revoked: Iterable[Revoked]) -> None:
        """Keep these; of one that is there already, the later time."""

    async def load(self) -> list[Revoked]:
        """All that are kept, the oldest first."""
