"""A profile of callgrind, and the map that CPython writes beside it, as functions with their costs."""

from __future__ import annotations

import pytest

from . import __main__ as command
from . import measure
from .where import Entrances, Share, shares

MAP = """\
5000 b py::Inbound.receive:/somewhere/src/aibos_realtime/pipeline/inbound.py
500b b py::decode:/somewhere/lib/python3.12/site-packages/jwt/api_jwt.py
5016 b py::gone:/somewhere/lib/python3.12/asyncio/tasks.py
"""

PROFILE = """\
# callgrind format
pid: 4711
summary: 900
ob=(1)
fl=(1) ???
fn=(1) 0x0000000000005000
0 10
cfn=(2) _PyEval_EvalFrameDefault
calls=2 0
0 700
cob=(3) libc.so
cfi=(4) x.c
cfn=(3) memcpy
calls=1 0
+3 40

fn=(2)
12 90
-1 5
* 1

fn=(4) 0x000000000000500b
0 20
cfn=(2)
calls=3 0
0 30

fn=(5) 0x0000000000009999
0 1
"""


def test_functions_by_all_that_they_cost() -> None:
    found = shares(PROFILE.splitlines(), Entrances(MAP.splitlines()))
    assert found == [Share("Inbound.receive (pipeline/inbound.py)", 750, 3), Share("decode (jwt/api_jwt.py)", 50, 3)]


@pytest.mark.parametrize(
    ("address", "function"), [(0x4FFF, None), (0x5016, "gone (asyncio/tasks.py)"), (0x5020, "gone (asyncio/tasks.py)"), (0x5021, None)]
)
def test_the_function_at_an_address(address: int, function: str | None) -> None:
    assert Entrances(MAP.splitlines()).function_at(address) == function


def test_the_command_shows_what_is_called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "profile", lambda name: [Share("main (x.py)", 9000, 0), Share("step (y.py)", 8000, 1)])
    assert command.main(["--where", "ping"]) == 0
    assert capsys.readouterr().out.splitlines()[0::2] == ["one step of: ping", "       8,000      1  step (y.py)"]
    assert command.main(["--where", measure.IDLE_CLIENT]) == 2
