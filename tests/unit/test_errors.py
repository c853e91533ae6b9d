"""The tree: what an error says of itself, and that it comes back whole from the wire."""

from __future__ import annotations

import builtins
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime import errors
from aibos_realtime.errors import RealtimeError, from_wire

TREE = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, RealtimeError)]

CODES = """
    bad_request message_too_large unknown_event validation_failed not_authenticated permission_denied room_not_found room_full room_limit
    guests_not_allowed not_in_room room_required rate_limited idempotency_conflict unrecoverable_position
    overloaded unavailable timeout internal
""".split()
RETRYABLE = {"rate_limited", "overloaded", "unavailable", "timeout"}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_has_a_sentence_a_code_and_says_whether_to_try_again(kind: type[RealtimeError]) -> None:
    error = kind()
    assert error.message == str(error) and error.message[0].isupper() and error.message.rstrip()[-1] in ".6"
    assert error.code in [*CODES, "configuration"] and isinstance(error.retryable, bool)
    assert kind("A sentence.").message == "A sentence."


def test_the_builtin_kin() -> None:
    assert issubclass(errors.ConnectionError, builtins.ConnectionError) and issubclass(errors.ConnectTimeout, builtins.TimeoutError)
    assert issubclass(errors.RequestTimeout, builtins.TimeoutError)
    assert not issubclass(errors.ValidationError, ValueError), "an `except ValueError` must not swallow what a peer is to be told"


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_wire_comes_back_as_itself(code: str) -> None:
    error = from_wire({"code": code, "message": "Said so.", "retryable": code in RETRYABLE})
    assert (error.code, error.message, error.retryable) == (code, "Said so.", code in RETRYABLE)
    if code != "internal":
        assert type(error) is not RealtimeError


def test_details_come_back_too() -> None:
    refused = from_wire({"code": "permission_denied", "message": "No.", "resource": "r", "action": "write", "retryable": False})
    assert isinstance(refused, errors.PermissionDenied) and (refused.resource, refused.action) == ("r", "write")
    slow = from_wire({"code": "rate_limited", "message": "Wait.", "retryAfter": 2.5})
    assert isinstance(slow, errors.RateLimitExceeded) and slow.retry_after == 2.5
    wrong = from_wire({"code": "validation_failed", "message": "", "errors": [{"path": "$.a", "message": "Expected int"}]})
    assert isinstance(wrong, errors.ValidationError) and wrong.errors == [{"path": "$.a", "message": "Expected int"}]
    assert from_wire({"code": "internal", "message": "", "id": "abc"}).details == {"id": "abc"}


def test_an_unknown_code_is_kept() -> None:
    error = from_wire({"code": "brand_new", "message": "New.", "retryable": True})
    assert type(error) is RealtimeError and (error.code, error.retryable) == ("brand_new", True)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
MEMBERS = st.sampled_from(["code", "message", "retryable", "retryAfter", "errors", "resource", "action", "id"])


@given(st.dictionaries(MEMBERS, ANYTHING | st.sampled_from(CODES)))
def test_whatever_a_server_sends_becomes_an_error(data: dict[str, object]) -> None:
    assert isinstance(from_wire(data), RealtimeError)


@pytest.mark.parametrize(("code", "retryable"), [(1006, True), (4001, True), (4499, True), (4500, False), (4999, False), (1000, True)])
def test_the_close_code_says_whether_to_come_back(code: int, retryable: bool) -> None:
    assert errors.ConnectionClosed(close_code=code).retryable is retryable


def test_the_message_of_a_refusal_does_not_repeat_the_resource() -> None:
    assert "tenant_9" not in errors.PermissionDenied(resource="tenant_9", action="read").message
