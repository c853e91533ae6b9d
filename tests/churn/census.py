"""How much every container of the product holds, by where it is: what is left behind is found by what has grown, without knowing where to look.

    before = take_census(server)
    ...
    grown(before, take_census(server))     # {"server._parts.rooms._rooms": (0, 17)}

It walks from one object over the attributes of the package's own objects, the elements of containers, closures and bound methods, and over
the globals and the `functools` caches of the package's modules. Elements of a container share one name (`[]`), and their sizes are added up.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

PACKAGE = "aibos_realtime"
NOT_PRODUCT = ("aibos_realtime.testing", "aibos_realtime.transport.memory")
"""What takes the place of clocks and networks in tests."""

CONTAINERS = (dict, list, set, frozenset, deque, bytearray, WeakKeyDictionary, WeakValueDictionary, WeakSet)

Census = dict[str, int]


def take_census(root: object, name: str = "server") -> Census:
    """Sizes by path: of everything that can be reached from `root`, and of the package's modules."""
    found: Census = {}
    seen: set[int] = set()
    waiting: deque[tuple[str, object]] = deque([(name, root), *_globals(found)])
    while waiting:
        path, thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, CONTAINERS) and not (isinstance(thing, deque) and thing.maxlen is not None):
            found[path] = found.get(path, 0) + len(thing)
        waiting.extend((path + step, part) for step, part in _parts(thing) if not isinstance(part, int | float | str | bytes | type | None))
    return found


def grown(before: Census, after: Census) -> dict[str, tuple[int, int]]:
    """Paths whose size is larger than it was, with both sizes; a path that was not there had 0."""
    return {path: (before.get(path, 0), size) for path, size in after.items() if size > before.get(path, 0)}


def _parts(thing: object) -> Iterator[tuple[str, Any]]:
    match thing:
        case dict() | WeakKeyDictionary() | WeakValueDictionary():
            for key, value in list(thing.items()):
                yield "[]", value
                yield "{}", key
        case list() | tuple() | set() | frozenset() | deque() | WeakSet():
            yield from (("[]", part) for part in list(thing))
        case MethodType():
            yield "", thing.__self__
        case partial():
            yield from (("()", part) for part in (thing.func, *thing.args, *thing.keywords.values()))
        case FunctionType():
            yield from (("()", part) for cell in thing.__closure__ or () for part in _content(cell))
        case _ if _is_ours(thing):
            yield from ((f".{name}", value) for name, value in _attributes(thing).items())


def _content(cell: Any) -> list[object]:
    """What a closure's variable holds; it may hold nothing yet."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _is_ours(thing: object) -> bool:
    module = type(thing).__module__ or ""
    return module.startswith(PACKAGE) and not module.startswith(NOT_PRODUCT) and not isinstance(thing, asyncio.Future)


def _attributes(thing: object) -> Mapping[str, Any]:
    found = dict(getattr(thing, "__dict__", {}))
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            name = f"_{cls.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            if name not in ("__weakref__", "__dict__") and hasattr(thing, name):
                found[name] = getattr(thing, name)
    return found


def _globals(found: Census) -> Iterator[tuple[str, object]]:
    """The containers and objects among the globals of the package; what `functools` keeps for its functions goes to `found`."""
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(PACKAGE) or name.startswith(NOT_PRODUCT) or not isinstance(module, ModuleType):
            continue
        for variable, value in list(vars(module).items()):
            if variable.startswith("__"):
                continue
            if hasattr(value, "cache_info") and getattr(value, "__module__", "") == name:
                found[f"{name}.{variable}()"] = value.cache_info().currsize
            elif isinstance(value, CONTAINERS) or _is_ours(value):
                yield f"{name}.{variable}", value
