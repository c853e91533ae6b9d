"""`close_codes.json`: the number alone says what a client does, and the table holds every code that the server knows."""

from __future__ import annotations

import pytest

from aibos_realtime.protocol.close_codes import CloseCode, is_message_fault, is_reconnectable
from aibos_realtime.protocol.frames import is_close_code
from tests.vectors.files import Vector, load

CODES = load("close_codes.json", "codes")


@pytest.mark.parametrize("vector", CODES, ids=lambda vector: str(vector["code"]))
def test_codes(vector: Vector) -> None:
    code = vector["code"]
    assert (is_reconnectable(code), not is_message_fault(code)) == (vector["reconnect"], vector["repeatTheMessage"])
    assert is_close_code(code) == vector["onTheWire"]
    assert vector["meaning"]


def test_the_table_is_whole() -> None:
    assert set(CloseCode) <= {vector["code"] for vector in CODES}
