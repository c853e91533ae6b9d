"""From an event name to the function that takes it, and the check of its payload against the type that it declares."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import ConfigurationError, ValidationError
from ..protocol.limits import check_name
from ..protocol.messages import RESERVED


class Route:
    """An application's handler of one event, with the payload type it declares (None: plain values)."""

    __slots__ = ("convert", "event", "handler")

    def __init__(self, event: str, handler: Callable[..., Any], payload: Any = None) -> None:
        self.event = event
        self.handler = handler
        self.convert = None if payload is None else converter(payload)


class Router:
    """Routes by event name, the same for every socket."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}

    def add(self, event: str, handler: Callable[..., Any], payload: Any = None) -> None:
        """Raises `ConfigurationError` for a reserved or taken name and for a payload type that cannot be checked."""
        check_name("event", event)
        if event in RESERVED:
            raise ConfigurationError(
                f"server.event({event!r}): the name is the protocol's own; a socket may take a built-in message over: socket.on({event!r})"
            )
        if event in self.routes:
            raise ConfigurationError(f"server.event({event!r}): there is a handler for this event already")
        self.routes[event] = Route(event, handler, payload)


def converter(payload: Any) -> Callable[[Any], Any]:
    """A function from plain values to `payload` (a msgspec struct, a dataclass, a TypedDict, a pydantic model); it raises `ValidationError`."""
    if hasattr(payload, "model_validate"):
        return _pydantic_converter(payload)
    try:
        msgspec.convert(None, payload | None if isinstance(payload, type) else payload)
    except msgspec.ValidationError:
        pass
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ConfigurationError(f"payload: {payload!r} cannot be checked: {error}") from None

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, payload)
        except msgspec.ValidationError as error:
            raise ValidationError(errors=[_located(str(error))]) from None

    return convert


_LOCATED = re.compile(r"(?P<message>.*?)(?: - at `(?P<path>.*)`)?", re.DOTALL)


def _located(text: str) -> dict[str, str]:
    match = _LOCATED.fullmatch(text)
    assert match is not None
    return {"path": match["path"] or "$", "message": match["message"].replace("`", "")}


def _pydantic_converter(model: Any) -> Callable[[Any], Any]:
    from pydantic import ValidationError as PydanticValidationError

    def convert(value: Any) -> Any:
        try:
            return model.model_validate(value)
        except PydanticValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            raise ValidationError(errors=[{"path": _path(one["loc"]), "message": _message(one["msg"])} for one in found]) from None

    return convert


def _message(text: str) -> str:
    """As the model's own validator said it."""
    return text.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _path(location: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
