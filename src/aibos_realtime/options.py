"""Option models: the base that every part's own options share, and how a mistake in one becomes a sentence.

An option model is frozen and stands beside the class that obeys it. `Options.parse` takes a plain mapping or a model and raises `ConfigurationError`,
which names each wrong option by its dotted path, what was given and what is allowed. Secrets are `SecretStr` and are never echoed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic import ValidationError as PydanticValidationError

from .errors import ConfigurationError


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
"""A duration: seconds as a number, or a `timedelta`. More than zero."""

MOST_SHOWN = 60
_TELLING = re.compile(r"@|://.*[?]|[^\s,:'\"()\[\]{}/.]{32}|^[^:]*[^\s,:'\"()\[\]{}]{32}")

Count = Annotated[int, Field(ge=1)]
"""A limit that counts things: at least 1. Where the option allows it, `None` = off."""


class Options(BaseModel):
    """Base of all option models."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, hide_input_in_errors=True)

    @classmethod
    def parse(cls, path: str, value: Self | Mapping[str, Any] | None) -> Self:
        """The model that `value` describes. `path`: where it stands, for the error ("cors"; "" for the top).

        Raises `ConfigurationError`.
        """
        if isinstance(value, cls):
            return value
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise ConfigurationError(_misplaced(path or "options", value, cls))
        try:
            return cls.model_validate(dict(value))
        except PydanticValidationError as error:
            raise ConfigurationError("\n".join(_sentence(cls, path, value, dict(one)) for one in error.errors(include_url=False))) from None


def shown(value: object) -> str:
    """How a given value is named in an error: short, and without a secret, which may have been put in the wrong place.

    What is long, or holds an @ or the query of a URL, is named by its type alone: a key has 32 letters or more, a password stands in a URL.
    """
    if isinstance(value, SecretStr):
        return "a secret"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits, or a value in itself
        text = ""
    if 0 < len(text) <= MOST_SHOWN and _TELLING.search(text) is None:
        return text
    name = type(value).__name__
    return {"str": "a text", "int": "a number", "dict": "a mapping"}.get(name, f"{'an' if name[0] in 'aeiou' else 'a'} {name}") + " that is not shown"


def _sentence(model: type[BaseModel], path: str, given: object, error: dict[str, Any]) -> str:
    where = [str(part) for part in error["loc"]]
    dotted = ".".join(([path] if path else []) + [_named(part) for part in where])
    owner, secret = _owner(model, where)
    if error["type"] == "extra_forbidden":
        known = list(owner.model_fields) if owner else []
        near = difflib.get_close_matches(where[-1], known, n=1)
        return f"{dotted}: there is no such option" + (f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{dotted}: is required"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return _misplaced(dotted, error["input"], _model_of(owner, where[-1]) if owner and where else None)
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    value = given
    for part in where:
        try:
            value = value[part]  # type: ignore[index]
        except (TypeError, KeyError, IndexError):
            break
    if error["type"] == "value_error":
        return f"{dotted}: {message}" if dotted else message
    return f"{dotted}: {'a secret' if secret else shown(value)} was given; allowed is {message}"


def _named(part: str) -> str:
    """A step of a dotted path. The key of a mapping may be anything, a secret too."""
    return part if len(part) <= MOST_SHOWN and part.isprintable() and _TELLING.search(part) is None else "…"


def _misplaced(path: str, value: object, model: type[BaseModel] | None) -> str:
    """Something else in the place of a mapping: it is not shown, since a secret may have been put one level too high."""
    kind = "a text" if isinstance(value, str | bytes | SecretStr) else f"a {type(value).__name__}"
    return f"{path}: {kind} was given; allowed is a mapping" + (f" of options ({', '.join(model.model_fields)})" if model else "")


def _owner(model: type[BaseModel], where: list[str]) -> tuple[type[BaseModel] | None, bool]:
    """The model in which the last part of `where` stands, and whether it is a secret there."""
    current: type[BaseModel] | None = model
    named_freely = False
    for part in where[:-1]:
        if named_freely:
            named_freely = False
            continue
        field = current.model_fields.get(part) if current else None
        named_freely = field is not None and get_origin(field.annotation) is dict
        current = _model_in(field.annotation) if field else None
    field = current.model_fields.get(where[-1]) if current and where else None
    return current, bool(field and SecretStr in (field.annotation, *get_args(field.annotation)))


def _model_of(owner: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = owner.model_fields.get(name)
    return _model_in(field.annotation) if field is not None and get_origin(field.annotation) is not dict else None


def _model_in(annotation: object) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
