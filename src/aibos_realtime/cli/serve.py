"""`aibos-realtime serve`: run a server in this very process, until SIGINT or SIGTERM. With `--workers` it only looks after those (`workers`)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError, RealtimeError
from .exits import ExitCode, Failure
from .logs import LISTENING, CommandLogs, LogFormat, LogLevel, set_up_audit_log, set_up_logging, yield_to_application
from .output import err, out
from .program import program

if TYPE_CHECKING:
    from ..server.server import RealtimeServer


@dataclass(frozen=True)
class Given:
    """Which server, and what was said of it on the command line."""

    target: str | None = None
    host: str | None = None
    port: int | None = None
    config: Path | None = None
    env_file: Path | None = None
    redis_url: str | None = None
    database_url: str | None = None
    audit_log: str | None = None

    @property
    def configuring(self) -> str | None:
        """The first option that configures a server which is made here."""
        options = ("config", "env_file", "redis_url", "database_url")
        return next((f"--{name.replace('_', '-')}" for name in options if getattr(self, name) is not None), None)


def serve(
    target: Annotated[
        str | None, typer.Argument(metavar="MODULE:SERVER", help="A server of your own; without it, one from the configuration.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: REALTIME_HOST, else 0.0.0.0]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.  [default: REALTIME_PORT, else 3001]")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that share the port; several need Redis.", metavar="N")] = 1,
    config: Annotated[Path | None, typer.Option(help="TOML file; the environment wins over it.", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables; the environment wins over it.  [default: .env]", metavar="FILE")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis or Valkey.  [default: REDIS_URL]", metavar="URL")] = None,
    database_url: Annotated[str | None, typer.Option(help="The database.  [default: DATABASE_URL]", metavar="URL")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="A server for trying out: loopback only, its own secret, example data.")] = False,
    log_format: Annotated[LogFormat, typer.Option(help="How logs look, on stderr.")] = LogFormat.text,
    log_level: Annotated[LogLevel, typer.Option(help="The least important that is logged.")] = LogLevel.info,
    audit_log: Annotated[str | None, typer.Option(help="Who came, was refused, kicked, as JSON; - is stdout.", metavar="FILE")] = None,
) -> None:
    """Run a server until Ctrl-C or SIGTERM.

    A second signal ends it at once. With several workers SIGHUP replaces them one after the other.

    \b
    aibos-realtime serve               configured by the environment, .env and --config
    aibos-realtime serve ours:server   a RealtimeServer, or an ASGI app with one mounted, in ours.py
    aibos-realtime serve --demo        to try it out; needs no configuration
    """
    given = Given(target, host, port, config, env_file, redis_url, database_url, audit_log)
    if demo and (conflicting := target or given.configuring):
        raise Failure(f"--demo runs without configuration: leave {conflicting} away, or leave --demo away.", ExitCode.USAGE)
    if demo and workers > 1:
        raise Failure("--demo runs in one process: leave --workers away.", ExitCode.USAGE)
    if target and given.configuring:
        raise Failure(f"{target} is configured where it is made: leave {given.configuring} away.", ExitCode.USAGE)
    logs = set_up_logging(log_format, log_level)
    set_up_audit_log(audit_log)
    has_banner = log_format is LogFormat.text and (demo or out.is_terminal)
    if has_banner and err.is_terminal:
        logs.addFilter(lambda record: record.msg != LISTENING)
    try:
        if demo:
            _serve_demo(host, port, has_banner)
            return
        server, path = make_server(given, logs)
        show = (lambda: print_banner(server, path)) if has_banner else None
        if workers == 1:
            run(server, show)
        else:
            from .workers import serve_with_workers

            serve_with_workers(server, given, workers, log_format=log_format, log_level=log_level, on_started=show)
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
        run(demo.server, begin)
    finally:
        demo.end()


def make_server(given: Given, logs: CommandLogs) -> tuple[RealtimeServer, str]:
    """The server that is meant, and the path that it is mounted on ("" where it has the port for itself). Raises `ConfigurationError`, `Failure`."""
    if given.target is None:
        return server_from_environment(given), ""
    from .loading import load_server

    server, path = load_server(given.target)
    yield_to_application(logs)
    server.listen_on(host=given.host, port=given.port)
    return server, path


def server_from_environment(given: Given) -> RealtimeServer:
    """What `serve` alone runs. Raises `ConfigurationError`, and `Failure` for a file that is not there."""
    from ..server.server import RealtimeServer

    check_file("--config", given.config)
    check_file("--env-file", given.env_file)
    options: dict[str, Any] = {
        "host": given.host,
        "port": given.port,
        "config": given.config and str(given.config),
        "env_file": given.env_file and str(given.env_file),
        "queue": {"redis": {"url": given.redis_url, "db": None}} if given.redis_url is not None else None,
        "persistence": {"database": {"url": given.database_url}} if given.database_url is not None else None,
    }
    return RealtimeServer.from_env(**{name: value for name, value in options.items() if value is not None})


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
    pages = f"{server.url.replace('ws', 'http', 1)}{path}"
    if server.config.http.dashboard:
        roles = server.config.http.operator_roles if server.auth.can_issue else ()
        log_in = f"   (log in with: {command} token --user NAME --role {roles[0]})" if roles else ""
        out.line(("  browser  ", quiet), f"{pages}/dashboard/", (log_in, quiet))
    out.line(("  health   ", quiet), f"{pages}/health")
    out.line(("  stop     ", quiet), "Ctrl-C")


def run(server: RealtimeServer, on_started: Callable[[], object] | None, *, says_stopped: bool = True) -> None:
    """Serve until stopped. From here on every failure is one at run time."""
    try:
        server.run(on_started=on_started)
    except RealtimeError as error:
        raise Failure(explain(error, server), ExitCode.FAILED) from None
    if says_stopped and out.is_terminal:
        out.line(("stopped", "dim"))


def explain(error: RealtimeError, server: RealtimeServer) -> str:
    """What went wrong with a server that was to listen, and what to do."""
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
