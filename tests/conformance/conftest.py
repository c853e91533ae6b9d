"""Every test here runs on both event loops."""

from __future__ import annotations

import pytest

from tests.loops import BOTH, Loops


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    return BOTH
