"""The configuration as a list: dotted name, value as it may be shown, where it came from. No secret and no password is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from ..config import VARIABLES, RealtimeConfig


@dataclass(frozen=True)
class Value:
    """One option. `source`: "default", "environment JWT_SECRET", "file realtime.toml"."""

    name: str
    shown: str
    source: str


def list_values(config: RealtimeConfig, sources: Mapping[str, str]) -> list[Value]:
    """Every option, in the order of the models."""
    return list(_walk(config, "", sources))


def _walk(model: BaseModel, path: str, sources: Mapping[str, str]) -> list[Value]:
    values = []
    for name, value in model:
        dotted = f"{path}{name}"
        if isinstance(value, BaseModel):
            values += _walk(value, f"{dotted}.", sources)
        else:
            values.append(Value(dotted, show(value), _source_of(dotted, sources)))
    return values


def _source_of(dotted: str, sources: Mapping[str, str]) -> str:
    source = sources.get(dotted, "default")
    if source == "default":
        return source
    variable = next((name for name, path in VARIABLES.items() if path == dotted), None)
    return f"{source} {variable}" if variable is not None and not source.endswith(".toml") else source


def show(value: Any) -> str:
    """A value as it may be shown: a secret is its size alone, a URL is without its password and its query."""
    match value:
        case None:
            return "-"
        case SecretStr():
            return f"hidden ({len(value.get_secret_value().encode(errors='replace'))} bytes)"
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case str() if "://" in value:
            return _without_password(value)
        case str() | int() | Path():
            return str(value)
        case BaseModel():
            return ", ".join(f"{name}={show(one)}" for name, one in value)
        case Mapping():
            return "; ".join(f"{name}: {show(one)}" for name, one in value.items()) or "-"
        case list() | tuple() | set() | frozenset():
            return ", ".join(show(one) for one in value) or "-"
        case _:
            return getattr(value, "__qualname__", type(value).__name__)


def _without_password(url: str) -> str:
    """No parser: what is not quite a URL may hold a password too. Everything up to the last @ before the path may be one."""
    url = re.sub(r"(?<=://)[^/?#\s]*@", "…@", url)
    return re.sub(r"\?.*", "?…", url, flags=re.DOTALL)
