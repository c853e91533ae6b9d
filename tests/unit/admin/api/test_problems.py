"""From an error to what is told of it."""

from __future__ import annotations

import pytest

from aibos_realtime import errors
from aibos_realtime.admin.api.problems import STATUSES, headers_of, is_told, problem, problem_of, unfit


def kinds(cls: type[errors.RealtimeError] = errors.RealtimeError) -> list[type[errors.RealtimeError]]:
    return [cls, *(found for sub in cls.__subclasses__() if sub.__module__ == errors.__name__ for found in kinds(sub))]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_its_status(kind: type[errors.RealtimeError]) -> None:
    error = kind()
    found = problem_of(error)
    own = (errors.RealtimeError, errors.ConfigurationError, errors.NoInstanceAvailable)
    assert is_told(error) == (kind not in own)
    if kind in own:
        assert (found.status, found.code) == (500, "internal") and str(error) not in found.detail
    else:
        assert (found.detail, found.retryable) == (error.message, error.retryable) and 400 <= found.status < 600
        assert found.status >= 500 or not error.retryable or kind is errors.RateLimitExceeded


def test_the_nearest_class_counts() -> None:
    assert problem_of(errors.QueueFull()).status == 503 and problem_of(errors.QueueError()).code == "queue_not_found"
    assert problem_of(errors.RoomFull()).status == 409 and problem_of(errors.TokenExpired()).status == 401
    assert STATUSES[errors.ProtocolError] == 400 and problem_of(errors.UnknownEvent()).status == 400


def test_what_goes_into_the_header() -> None:
    assert headers_of(problem_of(errors.RateLimitExceeded(retry_after=1.2345))) == [(b"retry-after", b"2")]
    assert problem_of(errors.RateLimitExceeded(retry_after=1.2345)).retry_after == 1.235
    assert headers_of(problem_of(errors.AuthenticationError())) == [(b"www-authenticate", b"Bearer")]
    assert headers_of(problem(404, "not_found", "x")) == []


def test_members_that_say_nothing_are_left_out() -> None:
    assert problem(404, "not_found", "There is none.").to_wire() == {
        "type": "about:blank", "title": "Not Found", "status": 404, "detail": "There is none.", "code": "not_found", "retryable": False,
    }  # fmt: skip


def test_where_something_does_not_fit() -> None:
    one = {"msg": "Value error, no", "input": "hunter2"}
    found = unfit([one | {"loc": ("body", "items", 3, "event")}, one | {"loc": ("query", "limit")}, one | {"loc": ("body", "a\n" * 300)}])
    assert found.errors is not None and [fault.path for fault in found.errors][:2] == ["$.items[3].event", "query.limit"]
    assert len(found.errors[2].path) == 200 and "\n" not in found.errors[2].path
    assert {fault.message for fault in found.errors} == {"no"} and "hunter2" not in str(found.to_wire())
    assert len((unfit([one | {"loc": ("body",)}] * 500).errors) or []) == 20
