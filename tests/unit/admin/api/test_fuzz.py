"""Whatever the description allows, and what it does not: every answer is one that it names, and none is a fault of the server's own.

The same requests in each run. More of them: `FUZZ=200 pytest tests/unit/admin/api/test_fuzz.py --timeout 900`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok

from aibos_realtime.admin.api.app import create_routes
from aibos_realtime.admin.api.document import describe
from tests.unit.admin.api.rig import KEY, Rig, running

EXAMPLES = int(os.environ.get("FUZZ", "6"))
SCHEMA = schemathesis.openapi.from_dict(describe(create_routes()))
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)}
# What fits the description may still be refused: data with a NUL, a name of the protocol's own, a position that is not in the log.
NOT_CHECKED: list[Any] = CHECKS.get_by_names(["positive_data_acceptance"])


class Background:
    """A server in a thread with a loop of its own: what asks here does not await."""

    def __init__(self) -> None:
        self.base = ""
        self.headers: dict[str, str] = {}
        self.session = requests.Session()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        async with running(limits={"failed_authentications_per_minute": None}) as rig:
            for number in range(3):
                await rig.server.rooms.create_room(f"tenant_{number}")
            self._loop = asyncio.get_running_loop()
            self.base = f"{rig.base}/api/v1"
            self.headers = _headers(rig)
            self._started.set()
            await self._stopping.wait()

    @contextmanager
    def serving(self) -> Iterator[Background]:
        self._thread.start()
        try:
            assert self._started.wait(20)
            yield self
        finally:
            self.session.close()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(20)


def _headers(rig: Rig) -> dict[str, str]:
    return {"X-API-Key": KEY} | rig.fields("operator")


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background().serving() as found:
        yield found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
def test_any_request(background: Background, label: str, mode: GenerationMode, caplog: pytest.LogCaptureFixture) -> None:
    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        case.call_and_validate(base_url=background.base, session=background.session, headers=background.headers, excluded_checks=NOT_CHECKED)

    ask()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
