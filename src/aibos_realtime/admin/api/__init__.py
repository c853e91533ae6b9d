"""The HTTP API, `/api/v1`, as a FastAPI app over `operations`."""

from __future__ import annotations

from typing import Any

from ...auth.operators import HttpOptions
from ...clock import Clock
from ..access import Access
from ..operations import Operations


def create_api(operations: Operations, access: Access, *, options: HttpOptions, clock: Clock) -> Any:
    """The ASGI app for every path under `/api/`."""
    raise NotImplementedError
