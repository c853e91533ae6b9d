"""`aibos-realtime nodes`: the nodes that live, by the register in Redis, once or as they come and go. It asks no server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BackendError
from .exits import ExitCode, Failure
from .output import Part, escape_controls, out
from .serve import check_file
from .target import show_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..backends.nodes import NodeRecord
    from ..backends.redis.nodes import RedisNodes
    from ..backends.redis.options import RedisOptions

HEADINGS = ("name", "url", "state", "connections", "rooms", "load", "version", "up", "seen")
EVERY = 1.0
"""Seconds between two looks."""


def nodes(
    redis_url: Annotated[
        str | None, typer.Option(help="Redis or Valkey.  [default: REDIS_URL, else that of the configuration]", metavar="URL")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="How the names of its keys begin.  [default: aibos]", metavar="PREFIX")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, once a second, until Ctrl-C.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of the server.", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables.  [default: .env]", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with --watch one a second.")] = False,
) -> None:
    """List the nodes that live.

    These are the servers with scaling.enabled, processes without sockets (Cluster), and what a ScalingManager registered. Where none lives the exit
    code is 1.
    """
    if watch and not as_json and not out.is_terminal:
        raise Failure("--watch draws on a terminal: leave it away, or add --json.", ExitCode.USAGE)
    redis = _find_redis(redis_url, prefix, config, env_file)
    where = redis.address.shown
    try:
        if watch:
            asyncio.run(_watch(redis, where, as_json))
            return
        found = asyncio.run(_look(redis))
    except BackendError as error:
        raise Failure(f"{error} ({where})", ExitCode.FAILED) from None
    if as_json:
        out.json(_as_json(found, where))
    elif found:
        out.columns([[(heading, "bold underline") for heading in HEADINGS], *(_row(record) for record in found)])
    if not found:
        message = f"No node lives in {where}: is it the servers' Redis, with their prefix, and do they have ENABLE_SCALING=true?"
        raise Failure(message, ExitCode.FAILED)


def _find_redis(redis_url: str | None, prefix: str | None, config: Path | None, env_file: Path | None) -> RedisOptions:
    from ..backends.redis.options import RedisOptions
    from ..config import RealtimeConfig

    check_file("--config", config)
    check_file("--env-file", env_file)
    settings, _ = RealtimeConfig.load(file=config, env_file=env_file or ".env", scaling={"enabled": False})
    redis = settings.nodes_redis
    if redis is None and redis_url is None:
        raise Failure("There is no Redis: name the one of the servers by --redis-url or REDIS_URL.", ExitCode.USAGE)
    given: dict[str, Any] = redis.model_dump() if redis is not None else {}
    if redis_url is not None:
        given |= {"url": redis_url, "db": None}
    if prefix is not None:
        given["prefix"] = prefix
    return RedisOptions.parse("redis", given)


# — looking —


@asynccontextmanager
async def _register(redis: RedisOptions) -> AsyncIterator[RedisNodes]:
    from ..backends.redis.client import Client
    from ..backends.redis.layout import Layout
    from ..backends.redis.nodes import RedisNodes

    client = Client.from_options(redis)
    try:
        await client.open()
        yield RedisNodes(client, Layout(redis.prefix, 1), name="nodes", role="process")
    finally:
        await client.close()


async def _read(register: RedisNodes) -> list[NodeRecord]:
    """All nodes, and then the instances that others told of."""
    return [*await register.list(), *(record for record in await register.list_instances() if record.role == "instance")]


async def _look(redis: RedisOptions) -> list[NodeRecord]:
    async with _register(redis) as register:
        return await _read(register)


async def _watch(redis: RedisOptions, where: str, as_json: bool) -> None:
    """Show the nodes once a second, until SIGINT or SIGTERM. Redis may go away meanwhile; at the beginning it has to be there."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with _register(redis) as register:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        found, trouble = await _read(register), ""
        with _Screen(where) if not as_json else _Lines(where) as shown:
            while not stopping.is_set():
                shown.show(found, trouble)
                try:
                    async with asyncio.timeout(EVERY):
                        await stopping.wait()
                except TimeoutError:
                    pass
                try:
                    found, trouble = await _read(register), ""
                except BackendError as error:
                    trouble = str(error)


class _Lines:
    """One JSON object at a time. While Redis is away: with an `error`, and with what was known last."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, found: Sequence[NodeRecord], trouble: str) -> None:
        out.json(_as_json(found, self._where) | ({"error": trouble} if trouble else {}))


class _Screen:
    """A table on the terminal, drawn anew in its place."""

    def __init__(self, where: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._where = where
        self._live = Live(console=Console(file=out.stream, highlight=False), auto_refresh=False)

    def __enter__(self) -> _Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, found: Sequence[NodeRecord], trouble: str) -> None:
        self._live.update(self._draw(found, trouble), refresh=True)

    def _draw(self, found: Sequence[NodeRecord], trouble: str) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
        for heading in HEADINGS:
            table.add_column(heading, no_wrap=True, overflow="ellipsis")
        for record in found:
            table.add_row(*(Text(escape_controls(text), style) for text, style in map(_part, _row(record))))
        state = (escape_controls(trouble), "bold red") if trouble else (f"{len(found)} in {self._where}; Ctrl-C ends", "dim")
        return Group(table, Text(*state))


# — showing —


def _row(record: NodeRecord) -> list[Part]:
    now, has_sockets = time.time(), record.role == "server"
    limit = "" if record.max_connections is None else f"/{record.max_connections}"
    state: dict[str, Part] = {
        "server": (record.state, "green" if record.state == "up" else "yellow"),
        "process": "no sockets",
        "instance": "registered",
    }
    return [
        (record.name, "cyan"),
        record.url or "-",
        state[record.role],
        f"{record.connections}{limit}" if has_sockets else "-",
        str(record.rooms) if has_sockets else "-",
        f"{record.load:.0%}" if has_sockets else "-",
        record.version or "-",
        show_duration(max(0.0, now - record.started_at)),
        f"{max(0.0, now - record.seen_at):.0f} s ago",
    ]


def _part(part: Part) -> tuple[str, str]:
    return (part, "") if isinstance(part, str) else part


def _as_json(found: Sequence[NodeRecord], where: str) -> dict[str, Any]:
    import msgspec

    return {"store": where, "nodes": [msgspec.to_builtins(record) for record in found]}
