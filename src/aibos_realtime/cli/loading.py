"""`serve MODULE:SERVER`: from that text to a `RealtimeServer`, one that stands there or one that is mounted in the ASGI app that stands there."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from ..errors import ConfigurationError
from ..server.asgi import AsgiApp
from ..server.server import RealtimeServer
from .exits import ExitCode, Failure
from .program import program

_PACKAGE = Path(__file__).parents[1]


def load_server(target: str) -> tuple[RealtimeServer, str]:
    """The server that `target` names, ready to run, and the path that it is mounted on ("" where it has the port for itself). The working
    directory comes first in the search for modules.

    Raises `Failure`: no such module or name, or no server. A failure of the module's own code is printed with its trace, which is its author's to
    read.
    """
    module_name, _, path = target.partition(":")
    if not module_name or module_name.endswith(".py") or "/" in module_name:
        raise Failure(f"{target!r} names no module: write MODULE:SERVER, for example ours:server for `server` in ours.py.", ExitCode.USAGE)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    if not path:
        raise Failure(f"{module_name!r} is a module: name the server in it, MODULE:SERVER.{_suggestion(module)}", ExitCode.USAGE)
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise Failure(f"{module_name} has no {path!r}: name a server that it makes.{_suggestion(module)}", ExitCode.USAGE) from None
    return _server_of(found, target)


def find_mounts(app: Any, prefix: str = "") -> list[tuple[str, AsgiApp]]:
    """(path, `server.asgi()`) for each that is mounted in an app, through middleware and apps within the app."""
    app = _unwrap(app)
    if isinstance(app, AsgiApp):
        return [(prefix, app)]
    mounts = []
    for route in getattr(app, "routes", None) or ():
        inner = getattr(route, "app", None)
        if inner is not None:
            mounts += find_mounts(inner, prefix + str(getattr(route, "path", "")))
    return mounts


def _unwrap(app: Any) -> Any:
    for _ in range(20):
        if isinstance(app, AsgiApp) or hasattr(app, "routes") or not hasattr(app, "app"):
            break
        app = app.app
    return app


def _server_of(found: Any, target: str) -> tuple[RealtimeServer, str]:
    if isinstance(found, RealtimeServer):
        return found, ""
    if isinstance(found, AsgiApp):
        return _owner(found, target), ""
    mounts = find_mounts(found)
    if len(mounts) > 1:
        raise Failure(f"In {target} {len(mounts)} servers are mounted, and one can take the port: run one of them by itself.", ExitCode.USAGE)
    if not mounts:
        raise Failure(
            f"{target} is of type {type(found).__name__} and no server: name a RealtimeServer, or an ASGI app with one mounted in it "
            '(app.mount("/realtime", server.asgi())).',
            ExitCode.USAGE,
        )
    path, mounted = mounts[0]
    server = _owner(mounted, target)
    server.host_app(found, path)
    return server, path.rstrip("/")


def _owner(mounted: AsgiApp, target: str) -> RealtimeServer:
    if not isinstance(mounted.server, RealtimeServer):
        raise Failure(f"What is mounted in {target} does not belong to a RealtimeServer: mount server.asgi().", ExitCode.USAGE)
    return mounted.server


def _suggestion(module: ModuleType) -> str:
    """The servers that a module holds, and the apps with one inside: as the command to give."""
    names = [name for name, value in vars(module).items() if not name.startswith("_") and (isinstance(value, RealtimeServer) or _has_mount(value))]
    return f" It holds: {', '.join(f'{program()} serve {module.__name__}:{name}' for name in names)}" if names else ""


def _has_mount(value: object) -> bool:
    return not isinstance(value, type | ModuleType) and callable(value) and len(find_mounts(value)) == 1


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            message = f"There is no module {error.name!r} in {os.getcwd()} or among the installed packages: check the name, or change to its folder."
            raise Failure(message, ExitCode.USAGE) from None
        raise _own_failure(name, error) from None
    except ConfigurationError as error:
        raise Failure(f"{error}{_place(error)}", ExitCode.USAGE) from None
    except Exception as error:
        raise _own_failure(name, error) from None


def _own_failure(name: str, error: Exception) -> Failure:
    traceback.print_exception(type(error), error, _from_user(error.__traceback__))
    return Failure(f"{name} could not be imported: its own error stands above.", ExitCode.USAGE)


def _from_user(trace: TracebackType | None) -> TracebackType | None:
    """A trace without the frames of this file and of the import machinery above the module's own."""
    while trace is not None and (trace.tb_frame.f_code.co_filename == __file__ or "importlib" in trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _place(error: Exception) -> str:
    """Where in the user's code it happened: the last frame that is not this package's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f" ({os.path.relpath(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""


def _is_users(filename: str) -> bool:
    return "importlib" not in filename and not Path(filename).is_relative_to(_PACKAGE)
