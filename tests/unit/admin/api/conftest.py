"""One running server for each test of the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.admin.api.rig import Rig, running


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found
