"""Whether a server traces: it does where OpenTelemetry was set up before it was made. Looked at once; where it was not, nothing of it is imported."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from ..pipeline.tracing import Tracing

NAME = "aibos_realtime"
"""Of the tracer; and in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, what keeps servers from tracing."""


def find_tracing() -> Tracing | None:
    """Traces that go to the application's tracer provider; None where it has none."""
    disabled = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    if "opentelemetry.trace" not in sys.modules or NAME in disabled:
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    from ..pipeline.tracing import Tracing

    return Tracing(provider.get_tracer(NAME, __version__))
