"""Lua scripts, as values: what a server runs, and the name it knows them by."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script. `digest`: how EVALSHA names it."""

    name: str
    text: str = field(repr=False)
    digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@cache
def load_script(name: str, common: str | None = None) -> Script:
    """`scripts/<name>.lua`, with the text of `scripts/<common>.lua` before it, and its first line (`#!lua flags=…`, if any) before both."""
    folder = files(__package__) / "scripts"
    text = (folder / f"{name}.lua").read_text()
    if common is not None:
        head, body = text.split("\n", 1) if text.startswith("#!") else ("#!lua", text)
        text = f"{head}\n{(folder / f'{common}.lua').read_text()}\n{body}"
    return Script(name, text)
