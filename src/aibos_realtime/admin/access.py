"""Who asks over HTTP: the caller of a request, by token or API key, from the address that trusted proxies tell."""

from __future__ import annotations

from collections.abc import Callable

from ..auth.operators import Caller, Operators
from ..clock import Clock
from ..errors import AuthenticationError
from ..transport.asgi import Scope

AddressOf = Callable[[Scope], str]


class Access:
    """`penalty(address)`: counts a failed authentication, and says for how many seconds to hold the answer back."""

    def __init__(self, operators: Operators, *, address_of: AddressOf, penalty: Callable[[str], float], clock: Clock) -> None:
        self.operators = operators
        self.address_of = address_of
        self._penalty = penalty
        self._clock = clock

    async def identify(self, scope: Scope) -> Caller:
        """Raises `AuthenticationError`, late where an address has failed too often."""
        try:
            return await self.operators.identify(scope["headers"], scope["query_string"])
        except AuthenticationError:
            if seconds := self._penalty(self.address_of(scope)):
                await self._clock.sleep(seconds)
            raise
