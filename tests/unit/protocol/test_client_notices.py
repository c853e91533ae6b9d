from __future__ import annotations

from typing import get_args

import pytest

from aibos_realtime.protocol.client_notices import Notice, Received


def test_notices_are_values() -> None:
    assert all(notice.__struct_config__.frozen for notice in get_args(Notice))
    assert Received("hello", {"n": 1}) == Received("hello", {"n": 1})
    with pytest.raises(AttributeError):
        Received("hello", None).event = "other"  # type: ignore[misc]
