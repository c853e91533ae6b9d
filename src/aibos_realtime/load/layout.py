"""Which client joins which rooms, and which of them send: everything spread as evenly as it goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """`members`: of each room. With more of them than `clients / rooms`, a client is in several rooms; with fewer, some are in none.

    Senders are members of the rooms that they send to, as far as there are enough members.
    """

    clients: int
    rooms: int
    members: int
    senders: int

    @property
    def memberships(self) -> list[list[int]]:
        """The rooms of each client, by number."""
        found: list[list[int]] = [[] for _ in range(self.clients)]
        for room in range(self.rooms):
            for place in range(self.members):
                found[self._member(room, place)].append(room)
        return found

    @property
    def sender_numbers(self) -> dict[int, int]:
        """By client. Sender n sends to room n modulo the number of rooms."""
        numbers: dict[int, int] = {}
        places = [self._member(room, place) for place in range(self.members) for room in range(self.rooms)]
        for client in (*places, *range(self.clients)):
            if len(numbers) == self.senders:
                break
            numbers.setdefault(client, len(numbers))
        return numbers

    @property
    def rooms_of_one(self) -> int:
        """The most that a client is in."""
        return max(map(len, self.memberships))

    def _member(self, room: int, place: int) -> int:
        return (room * self.members + place) % self.clients
