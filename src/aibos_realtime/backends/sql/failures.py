"""What a driver's error means: that the database is not there for us, that it refused the data, or that our SQL is wrong."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ...errors import StoreUnavailable

_SQLITE = {5: "is locked by another process", 6: "is locked by another process", 8: "takes no writes", 9: "took too long", 13: "is full"}
"""By the primary result code: SQLite manual, "Result and Error Codes"."""
_SQLITE_OUR_FAULT = 1

_POSTGRES = {
    "53100": "is full",
    "53300": "has no connection to give",
    "55P03": "is locked by another transaction",
    "57014": "took too long",
    "25006": "takes no writes",
    "40001": "could not finish beside another transaction",
    "40P01": "could not finish beside another transaction",
}
"""By SQLSTATE: PostgreSQL manual, appendix A."""
_POSTGRES_OUR_FAULT = ("0A", "42", "2D", "25P02")
_POSTGRES_DATA = ("22", "23", "54")


def refusal(error: BaseException) -> str | None:
    """Why the database refused the data itself, in words without any of it; None where the error is another one."""
    if isinstance(error, UnicodeEncodeError | OverflowError):
        return type(error).__name__
    if not isinstance(error, DBAPIError):
        return None
    state = _sqlstate(error)
    if state is not None:
        return f"{_name(error)} ({state})" if state.startswith(_POSTGRES_DATA) else None
    if isinstance(error, IntegrityError | DataError):
        return getattr(error.orig, "sqlite_errorname", None) or _name(error)
    # asyncpg finds some faults before it sends anything.
    return _name(error) if _name(error) == "DataError" else None


class StoreErrors:
    """Around what a database does: errors that mean "not there for us" become `StoreUnavailable`; those about the data and about our SQL pass.

    `name`: of the database, for the text, which peers may read. One object may be around any number of things at once.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, DBAPIError | PoolTimeout | OSError) and (why := _meaning(error)) is not None:  # TimeoutError is an OSError
            raise StoreUnavailable(f"The database {self._name} {why}: try again later.") from error


def _meaning(error: Exception) -> str | None:
    if refusal(error) is not None:
        return None
    if isinstance(error, TimeoutError):
        return "took too long"
    if isinstance(error, PoolTimeout):
        return "has no connection to give"
    orig = getattr(error, "orig", None)
    code: Any = getattr(orig, "sqlite_errorcode", None)
    if code is not None:
        return None if code == _SQLITE_OUR_FAULT else _SQLITE.get(code & 0xFF, "cannot be read or written")
    state = _sqlstate(error)
    if state is not None:
        return None if state.startswith(_POSTGRES_OUR_FAULT) else _POSTGRES.get(state, "does not answer")
    return "does not answer"


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state if isinstance(state, str) else None


def _name(error: DBAPIError) -> str:
    return type(getattr(error.orig, "__cause__", None) or error.orig).__name__
