"""Who left lately: users who may still recover, and for whom a filter that is decided at publish has to be decided too."""

from __future__ import annotations

from collections import deque

from ..auth.user import User

CAPACITY = 100_000


class Departed:
    """Users by place (a room id), for `window` seconds after they left it; at most `CAPACITY`, past which the oldest are forgotten first."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._by_place: dict[str, dict[str, tuple[User, float]]] = {}
        self._order: deque[tuple[float, str, str]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def note(self, place: str, user: User, now: float) -> None:
        """The user has left the place. `now`: monotonic seconds."""
        self._by_place.setdefault(place, {})[user.id] = (user, now)
        self._order.append((now, place, user.id))
        self._forget(now)

    def users(self, place: str, now: float, within: float) -> list[User]:
        """Those who left the place less than `within` seconds ago."""
        self._forget(now)
        return [user for user, left in self._by_place.get(place, {}).values() if left > now - within]

    def _forget(self, now: float) -> None:
        while self._order and (self._order[0][0] <= now - self._window or len(self._order) > CAPACITY):
            left, place, user_id = self._order.popleft()
            users = self._by_place.get(place, {})
            if user_id in users and users[user_id][1] == left:
                del users[user_id]
                if not users:
                    del self._by_place[place]
