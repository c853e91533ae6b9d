from __future__ import annotations

import pytest

from aibos_realtime.protocol.close_codes import REASONS, CloseCode, default_reason, is_message_fault, is_reconnectable

TABLE = {4001: True, 4004: True, 4005: True, 4008: True, 4010: True, 4011: True, 4012: True, 4013: True, 4014: True, 4015: True,
         4500: False, 4501: False, 4502: False, 4503: False, 4504: False, 4506: False, 4507: False, 4509: False}  # fmt: skip


def test_the_table_of_the_protocol_is_complete() -> None:
    assert {int(code) for code in CloseCode if code >= 4000} == set(TABLE)


@pytest.mark.parametrize(("code", "expected"), TABLE.items())
def test_the_number_says_what_to_do(code: int, expected: bool) -> None:
    assert is_reconnectable(code) is expected


@pytest.mark.parametrize(
    ("code", "expected"), [(1000, True), (1001, True), (1006, True), (1011, True), (1012, True), (3999, True), (4000, True), (4499, True),
                           (4500, False), (4999, False), (5000, True)]
)  # fmt: skip
def test_an_unknown_code_is_judged_by_its_range(code: int, expected: bool) -> None:
    assert is_reconnectable(code) is expected


def test_reasons_fit_a_close_frame() -> None:
    assert all(len(reason.encode()) <= 123 for reason in REASONS.values())
    assert {code for code in CloseCode if code >= 4000} <= REASONS.keys()
    assert default_reason(4001) == "shutting down"
    assert default_reason(4321) == ""


def test_only_complaints_about_a_message_are_its_fault() -> None:
    assert [code for code in CloseCode if is_message_fault(code)] == [1002, 1003, 1007, 1009]
