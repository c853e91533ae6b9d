"""`/metrics`, in the text formats of Prometheus."""

from __future__ import annotations

from ..transport.asgi import Receive, Scope, Send
from .access import Access
from .figures import Figures


class MetricsApp:
    """For operators and API keys."""

    def __init__(self, figures: Figures, access: Access) -> None:
        self._figures = figures
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError
