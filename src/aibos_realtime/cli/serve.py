"""`aibos-realtime serve`: run a server in this very process, until SIGINT or SIGTERM. No supervisor, and no other process."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError, RealtimeError
from .exits import ExitCode, Failure
from .logs import LISTENING, CommandLogs, LogFormat, LogLevel, set_up_logging, yield_to_application
from .output import err, out
from .program import program

if TYPE_CHECKING:
    from ..server.server import RealtimeServer


def serve(
    target: Annotated[
        str | None, typer.Argument(metavar="MODULE:SERVER", help="A server of your own; without it, one from the configuration.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: REALTIME_HOST, else 0.0.0.0]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.  [default: REALTIME_PORT, else 3001]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; the environment wins over it.", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables; the environment wins over it.  [default: .env]", metavar="FILE")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="A server for trying out: loopback only, its own secret, example data.")] = False,
    log_format: Annotated[LogFormat, typer.Option(help="How logs look, on stderr.")] = LogFormat.text,
    log_level: Annotated[LogLevel, typer.Option(help="The least important that is logged.")] = LogLevel.info,
) -> None:
    """Run a server until Ctrl-C or SIGTERM.

    A second signal ends it at once.

    \b
    aibos-realtime serve               configured by the environment, .env and --config
    aibos-realtime serve ours:server   a RealtimeServer, or an ASGI app with one mounted, in ours.py
    aibos-realtime serve --demo        to try it out; needs no configuration
    """
    if demo and (target or config or env_file):
        given = target or ("--config" if config else "--env-file")
        raise Failure(f"--demo runs without configuration: leave {given} away, or leave --demo away.", ExitCode.USAGE)
    if target and (config or env_file):
        raise Failure(f"{target} is configured where it is made: leave {'--config' if config else '--env-file'} away.", ExitCode.USAGE)
    logs = set_up_logging(log_format, log_level)
    has_banner = log_format is LogFormat.text and (demo or out.is_terminal)
    if has_banner and err.is_terminal:
        logs.addFilter(lambda record: record.msg != LISTENING)
    try:
        if demo:
            _serve_demo(host, port, has_banner)
        else:
            _serve_configured(target, host, port, config, env_file, logs, has_banner)
    except ConfigurationError as error:
        raise Failure(f"{error}{_advice(error)}", ExitCode.USAGE) from None


def _serve_demo(host: str | None, port: int | None, has_banner: bool) -> None:
    from .demo import Demo

    demo = Demo(host=host, port=port)

    async def begin() -> None:
        await demo.begin()
        if has_banner:
            demo.print_banner()
        else:
            out.json(demo.facts())

    try:
        _run(demo.server, begin)
    finally:
        demo.end()


def _serve_configured(
    target: str | None, host: str | None, port: int | None, config: Path | None, env_file: Path | None, logs: CommandLogs, has_banner: bool
) -> None:
    if target is not None:
        from .loading import load_server

        server, path = load_server(target)
        yield_to_application(logs)
        server.listen_on(host=host, port=port)
    else:
        server, path = server_from_environment(host, port, config, env_file), ""
    _run(server, (lambda: print_banner(server, path)) if has_banner else None)


def server_from_environment(host: str | None, port: int | None, config: Path | None, env_file: Path | None) -> RealtimeServer:
    """What `serve` alone runs. Raises `ConfigurationError`, and `Failure` for a file that is not there."""
    from ..server.server import RealtimeServer

    check_file("--config", config)
    check_file("--env-file", env_file)
    given: dict[str, Any] = {"host": host, "port": port, "config": config and str(config), "env_file": env_file and str(env_file)}
    return RealtimeServer.from_env(**{name: value for name, value in given.items() if value is not None})


def check_file(option: str, path: Path | None) -> None:
    """Raise `Failure` where a file that the user named is not there."""
    if path is not None and not path.is_file():
        raise Failure(f"{option}: there is no file {path}: check the path.", ExitCode.USAGE)


def print_banner(server: RealtimeServer, path: str) -> None:
    """Where it listens, and what to do next. `path`: of the mount in an app, "" without one."""
    command, quiet = program(), "dim"
    url = f"{server.url}{path}/ws" if path else server.url  # with /ws also where a router wants more than the bare mount
    host = server.config.host
    reach = "from every network of this machine" if host in ("0.0.0.0", "::", "") else f"on {host}"
    out.line(("aibos-realtime", "bold"), " listens on ", (url, "bold cyan"), f" ({reach}).")
    if server.auth.can_issue:
        out.line(("  token    ", quiet), f"export REALTIME_TOKEN=$({command} token --user NAME --tenant TENANT)")
    out.line(("  listen   ", quiet), f"{command} listen tenant_TENANT --url {url}")
    out.line(("  events   ", quiet), server.place_of_events)
    out.line(("  health   ", quiet), f"{server.url.replace('ws', 'http', 1)}{path}/health")
    out.line(("  stop     ", quiet), "Ctrl-C")


def _run(server: RealtimeServer, on_started: Any) -> None:
    """Serve until stopped. From here on every failure is one at run time."""
    try:
        server.run(on_started=on_started)
    except RealtimeError as error:
        raise Failure(_explain(error, server), ExitCode.FAILED) from None
    if out.is_terminal:
        out.line(("stopped", "dim"))


def _explain(error: RealtimeError, server: RealtimeServer) -> str:
    if not str(error).startswith("port:"):
        return str(error)  # of a database, say: what follows is about the address to listen on
    cause, address = error.__cause__, f"{server.config.host}:{server.config.port}"
    number = cause.errno if isinstance(cause, OSError) else None
    if number == errno.EADDRINUSE:
        return f"{address} is taken, perhaps by a server that runs already: stop that one, or choose another port (--port 3002; 0 picks a free one)."
    if number == errno.EACCES:
        return f"{address} may not be listened on by this user: choose a port from 1024 on (--port 3001)."
    if number == errno.EADDRNOTAVAIL:
        return f"{server.config.host} is no address of this machine: choose one that is (--host 127.0.0.1, or 0.0.0.0 for all of them)."
    if isinstance(cause, socket.gaierror):
        return f"The host {server.config.host} is not known: give an address of this machine (--host 127.0.0.1, or 0.0.0.0 for all of them)."
    return str(error)


def _advice(error: ConfigurationError) -> str:
    """Which variable it came from; and what to do about a missing or weak secret, which is the first thing that a new user meets."""
    from ..config import VARIABLES

    option = str(error).partition(":")[0]
    if not option.startswith(("authentication.jwt_secret", "authentication.jwks_url", "authentication.public_key")):
        variable = next((name for name, path in VARIABLES.items() if option.startswith(path) and os.environ.get(name)), None)
        return f" ({variable} of the environment is {option})" if variable is not None else ""
    make = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
    return (
        f'\nSet JWT_SECRET, in the environment or in .env, to a random text: export JWT_SECRET="$({make})"'
        f"\nTo try it out without: {program()} serve --demo"
    )
