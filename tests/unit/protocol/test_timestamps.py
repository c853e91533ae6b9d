from __future__ import annotations

import pytest

from aibos_realtime.protocol.timestamps import rfc3339


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_700_000_000_123, "2023-11-14T22:13:20.123Z"), (-1, "1969-12-31T23:59:59.999Z")],
)
def test_milliseconds_become_text(milliseconds: int, text: str) -> None:
    assert rfc3339(milliseconds) == text
