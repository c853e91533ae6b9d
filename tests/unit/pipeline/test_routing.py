"""Routes, and the check of payloads by every kind of type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from aibos_realtime import ConfigurationError, ProtocolError, ValidationError
from aibos_realtime.pipeline.routing import Router, converter
from aibos_realtime.protocol.messages import RESERVED


class AsStruct(msgspec.Struct):
    amount: int
    currency: str = "USD"


@dataclass
class AsDataclass:
    amount: int
    currency: str = "USD"


class AsDict(TypedDict):
    amount: int


class AsModel(pydantic.BaseModel):
    amount: int
    lines: list[int] = []


@pytest.mark.parametrize("payload", [AsStruct, AsDataclass, AsDict, AsModel])
def test_data_becomes_what_was_declared(payload: Any) -> None:
    found = converter(payload)({"amount": 5})
    assert (found["amount"] if isinstance(found, dict) else found.amount) == 5
    for wrong, path in (({"amount": "much"}, "$.amount"), ({}, "$"), (None, "$"), ([], "$"), ("amount", "$")):
        with pytest.raises(ValidationError) as caught:
            converter(payload)(wrong)
        (error,) = caught.value.errors
        assert error["path"] in (path, "$.amount") and error["message"] and "`" not in error["message"]


def test_where_it_is_wrong_without_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        converter(AsModel)({"amount": "hunter2", "lines": [1, "hunter3"]})
    assert [error["path"] for error in caught.value.errors] == ["$.amount", "$.lines[1]"]
    assert "hunter" not in str(caught.value.details)


class Checked(pydantic.BaseModel):
    amount: int
    lines: int = 0

    @pydantic.field_validator("amount")
    @classmethod
    def _check(cls, amount: int) -> int:
        if amount < 0:
            raise ValueError("an amount is not negative")
        return amount

    @pydantic.field_validator("lines")
    @classmethod
    def _count(cls, lines: int) -> int:
        if lines > 9:
            raise AssertionError("at most 9 lines")
        return lines


def test_what_a_models_own_validator_says_is_said_as_it_is() -> None:
    with pytest.raises(ValidationError) as caught:
        converter(Checked)({"amount": -1, "lines": 10})
    assert [error["message"] for error in caught.value.errors] == ["an amount is not negative", "at most 9 lines"]


def test_plain_types_and_unions() -> None:
    assert converter(int)(5) == 5 and converter(list[int])([1]) == [1] and converter(int | None)(None) is None
    with pytest.raises(ValidationError):
        converter(list[int])([1, "x"])


def test_a_type_that_cannot_be_checked() -> None:
    with pytest.raises(ConfigurationError, match="^payload: "):
        converter(AsStruct | AsDataclass | int)


def test_names_once_and_none_of_the_protocols_own() -> None:
    router = Router()
    router.add("invoice.create", print, AsStruct)
    assert router.routes["invoice.create"].convert is not None and router.routes["invoice.create"].handler is print
    with pytest.raises(ConfigurationError, match="already"):
        router.add("invoice.create", print)
    for name in RESERVED:
        with pytest.raises(ConfigurationError, match="protocol's own"):
            router.add(name, print)
    with pytest.raises(ProtocolError):
        router.add("a b", print)
