"""Who somebody is: the user that an application sees, and what a verified token says of one.

Values only; what a user may do is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from ..errors import ValidationError


class _NoClaims(dict[str, Any]):
    """The one empty mapping of all users without further claims; a plain `dict` for every connection would cost 64 bytes each."""

    __slots__ = ()

    def _refuse(self, *_args: object, **_keywords: object) -> NoReturn:
        raise TypeError("The claims of a user cannot be changed.")

    __setitem__ = setdefault = update = __ior__ = _refuse


NO_CLAIMS: dict[str, Any] = _NoClaims()


class User(msgspec.Struct, frozen=True, gc=False):
    """An authenticated user. `claims`: what the token says besides the claims that this package knows; read only."""

    id: str
    role: str = "user"
    tenant_id: str | None = None
    claims: dict[str, Any] = msgspec.field(default_factory=lambda: NO_CLAIMS)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> User:
        """A user from `{"id", "role"?, "tenant_id"?, …}`, as an application's own token check may give it; further members are claims."""
        if not isinstance(given.get("id"), str) or not given["id"]:
            raise ValidationError("socket.user: a User, or a mapping with the text `id`, is expected")
        claims = {key: value for key, value in given.items() if key not in ("id", "role", "tenant_id")}
        return cls(given["id"], given.get("role") or "user", given.get("tenant_id"), claims or NO_CLAIMS)

    def to_wire(self) -> dict[str, str | None]:
        """What is said of this user on the wire: `{"id", "role", "tenantId"}`, never the claims."""
        return {"id": self.id, "role": self.role, "tenantId": self.tenant_id}

    def __hash__(self) -> int:
        return hash((self.id, self.role, self.tenant_id))


class Identity(msgspec.Struct, frozen=True, gc=False):
    """What a verified token says: the user, and until when. Times are Unix seconds."""

    user: User
    expires_at: float
    issued_at: float | None = None
    token_id: str | None = None


class AuthResult(msgspec.Struct, frozen=True, gc=False):
    """The outcome of `WebSocketAuth.authenticate`: `user` and `expires_at` (Unix seconds), or `error`, a sentence for the peer."""

    success: bool
    user: User | None = None
    error: str | None = None
    expires_at: float | None = None
