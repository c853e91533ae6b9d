"""What the dashboard asks over its own WebSocket: requests by the names `realtime.…`, for operators alone."""

from __future__ import annotations

from ..auth.operators import Operators
from ..pipeline.routing import Router
from .operations import Operations


class Live:
    """The handlers, to be registered on a server's router."""

    def __init__(self, operations: Operations, operators: Operators) -> None:
        self._operations = operations
        self._operators = operators

    def register(self, router: Router) -> None: ...
