"""How a command ends: its exit code, and one sentence that says what happened and what to do. No trace, and nothing of a token or a payload."""

from __future__ import annotations

from enum import IntEnum

from .. import errors


class ExitCode(IntEnum):
    """The exit codes of every command; `EXIT_CODES` is the same for `--help`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DATA = 3
    NAME = 4
    NO_SERVER = 5
    TOKEN = 6
    PERMISSION = 7
    REFUSED = 8
    NO_ANSWER = 9
    INTERRUPTED = 130


EXIT_CODES = """Exit codes:

\b
  0  done; a server or a listener that was stopped
  1  failed at run time: port taken, a check failed
  2  wrong usage or configuration
  3  the data is not JSON
  4  not a valid room or event name
  5  no server there, or the connection was lost
  6  the token is missing, not valid or expired
  7  the user may not do this
  8  the server refused: a limit, an id used twice, data that does not fit
  9  no answer in time: whether it was done is unknown
130  interrupted
"""


class Failure(Exception):
    """What ends a command: `str(failure)` is shown on stderr, `code` is the exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


_CODES: tuple[tuple[type[errors.RealtimeError], ExitCode], ...] = (
    (errors.ConfigurationError, ExitCode.USAGE),
    (errors.AuthenticationError, ExitCode.TOKEN),
    (errors.PermissionDenied, ExitCode.PERMISSION),
    (errors.RequestTimeout, ExitCode.NO_ANSWER),
    (errors.ConnectionLimitExceeded, ExitCode.REFUSED),
    (errors.ConnectionError, ExitCode.NO_SERVER),
)


def exit_code_of(error: errors.RealtimeError) -> ExitCode:
    """The exit code for an error of the client. The server's refusals that have no code of their own are `REFUSED`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.REFUSED)


def first_cause(error: errors.RealtimeError) -> errors.RealtimeError:
    """The error behind an error that only passes it on: a client that gave up raises a `ConnectionError` caused by why it did."""
    while isinstance(error, errors.ConnectionError) and isinstance(error.__cause__, errors.RealtimeError):
        error = error.__cause__
    return error
