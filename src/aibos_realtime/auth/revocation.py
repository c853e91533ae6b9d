"""Which tokens were taken back, in this process's memory. Other nodes are told by `WebSocketAuth`, and later ones by a `RevocationStore`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from ..backends.revocations import Revoked
from ..logs import get_logger
from .user import Identity

logger = get_logger(__name__)

MAX_REVOCATIONS = 100_000


class Revocations:
    """Revoked users and tokens, each remembered until the last token that it concerns has expired.

    Bounded: beyond `limit` the oldest becomes "nothing issued before it is good", for everybody. That refuses too much, never too little.
    """

    __slots__ = ("_cutoff", "_limit", "_memory", "_tokens", "_users")

    def __init__(self, *, memory: float, limit: int = MAX_REVOCATIONS) -> None:
        """`memory`: seconds, the longest time for which a token can be good."""
        self._memory = memory
        self._limit = limit
        self._users: OrderedDict[str, float] = OrderedDict()
        self._tokens: OrderedDict[str, float] = OrderedDict()
        self._cutoff: float | None = None

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens)

    def revoke_user(self, user_id: str, at: float, now: float) -> None:
        """Refuse what was issued to this user up to `at` (Unix seconds)."""
        self._add(self._users, user_id, at, now)

    def revoke_token(self, token_id: str, at: float, now: float) -> None:
        """Refuse the token with this id (`jti`)."""
        self._add(self._tokens, token_id, at, now)

    def revoke_all(self, at: float) -> None:
        """Refuse what was issued to anybody up to `at`."""
        self._cutoff = at if self._cutoff is None else max(at, self._cutoff)

    def __iter__(self) -> Iterator[Revoked]:
        for name, at in self._users.items():
            yield Revoked("user", name, at)
        for name, at in self._tokens.items():
            yield Revoked("token", name, at)
        if self._cutoff is not None:
            yield Revoked("all", "", self._cutoff)

    def is_revoked(self, identity: Identity) -> bool:
        """Whether this token was taken back. One without `iat` counts as issued before every revocation of its user."""
        if self._tokens and identity.token_id in self._tokens:
            return True
        revoked_at = self._users.get(identity.user.id) if self._users else None
        if revoked_at is None:
            revoked_at = self._cutoff
        elif self._cutoff is not None:
            revoked_at = max(revoked_at, self._cutoff)
        return revoked_at is not None and (identity.issued_at is None or identity.issued_at <= revoked_at)

    def _add(self, revoked: OrderedDict[str, float], name: str, at: float, now: float) -> None:
        at = max(at, revoked.get(name, at))
        revoked[name] = at
        revoked.move_to_end(name)
        self._prune(now)

    def _prune(self, now: float) -> None:
        for revoked in (self._users, self._tokens):
            while revoked and next(iter(revoked.values())) < now - self._memory:
                revoked.popitem(last=False)
        if self._cutoff is not None and self._cutoff < now - self._memory:
            self._cutoff = None
        while len(self) > self._limit:
            oldest = min((revoked for revoked in (self._users, self._tokens) if revoked), key=lambda revoked: next(iter(revoked.values())))
            _, at = oldest.popitem(last=False)
            if self._cutoff is None:
                logger.warning("More than %d revocations: from now on the oldest of them count for every user.", self._limit)
            self.revoke_all(at)
