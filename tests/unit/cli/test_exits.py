"""From an error to an exit code."""

from __future__ import annotations

import pytest

from aibos_realtime import errors
from aibos_realtime.cli.exits import EXIT_CODES, ExitCode, exit_code_of, first_cause


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigurationError(), ExitCode.USAGE),
        (errors.ConnectionError(), ExitCode.NO_SERVER),
        (errors.ConnectTimeout(), ExitCode.NO_SERVER),
        (errors.ConnectionClosed(), ExitCode.NO_SERVER),
        (errors.ConnectionLimitExceeded(), ExitCode.REFUSED),
        (errors.AuthenticationError(), ExitCode.TOKEN),
        (errors.TokenExpired(), ExitCode.TOKEN),
        (errors.PermissionDenied(), ExitCode.PERMISSION),
        (errors.RequestTimeout(), ExitCode.NO_ANSWER),
        (errors.RoomFull(), ExitCode.REFUSED),
        (errors.RateLimitExceeded(), ExitCode.REFUSED),
        (errors.IdempotencyConflict(), ExitCode.REFUSED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_exit_code(error: errors.RealtimeError, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_the_error_behind_a_client_that_gave_up_is_found() -> None:
    refused, given_up = errors.AuthenticationError(), errors.ConnectionError("Gave up.")
    given_up.__cause__ = refused
    assert first_cause(given_up) is refused
    alone = errors.ConnectionError()
    alone.__cause__ = OSError()
    assert first_cause(alone) is alone


def test_every_code_is_documented() -> None:
    documented = [int(line.split()[0]) for line in EXIT_CODES.splitlines() if line.strip()[:1].isdigit()]
    assert documented == [code.value for code in ExitCode]
