"""`aibos-realtime queue`: how the queues stand, what was given up, and another chance for that. It asks the store itself, and needs no server."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BackendError
from .exits import ExitCode, Failure
from .output import Part, err, escape_controls, out
from .serve import check_file
from .target import show_duration

if TYPE_CHECKING:
    from ..storage.queue import MessageQueue

HEADINGS = ("queue", "waiting", "in flight", "delayed", "dead", "expired", "oldest")


class Action(StrEnum):
    """What is asked or done."""

    STATS = "stats"
    DEAD = "dead"
    REQUEUE = "requeue"
    PURGE = "purge"


def queue(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The queue; without one: every queue that has anything.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis or Valkey.  [default: REDIS_URL, else none]", metavar="URL")] = None,
    prefix: Annotated[str | None, typer.Option(help="How the names of its keys begin.  [default: aibos]", metavar="PREFIX")] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="The database.  [default: DATABASE_URL, else that of the configuration]", metavar="URL"),
    ] = None,
    id: Annotated[list[str] | None, typer.Option(help="requeue: only this dead letter. Repeatable.", metavar="ID")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="dead: how many of each queue.")] = 20,
    dead: Annotated[bool, typer.Option("--dead", help="purge: the dead letters, and not what waits.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="purge: do not ask.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of the server.", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables.  [default: .env]", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for `dead` with the data of the messages.")] = False,
) -> None:
    """Look after the queues.

    \b
    stats      messages that wait, are in flight or delayed, dead letters
    dead       dead letters, the latest first, each with the reason
    requeue    send the dead letters of a queue again, all of them or those given by --id
    purge      remove what waits in a queue for good, or with --dead its dead letters
    """
    _check_arguments(action, name, id, dead=dead, yes=yes)
    found, where = _find_queue(redis_url, prefix, database_url, config, env_file, name)
    if action is Action.PURGE and not yes:
        _ask(name, where, dead)
    try:
        shown = asyncio.run(_act(found, action, name, id, limit, dead))
    except BackendError as error:
        raise Failure(f"{error} ({where})", ExitCode.FAILED) from None
    missing = shown.pop("missing", None)
    if as_json:
        out.json({"store": where, **shown})
    elif missing is None:
        _PRINT[action](shown, where)
    if missing is not None:
        raise Failure(f"{missing} in {where}: `queue dead` shows what there is.", ExitCode.FAILED)


def _check_arguments(action: Action, name: str | None, ids: list[str] | None, *, dead: bool, yes: bool) -> None:
    from ..protocol.limits import is_name

    if name is not None and not is_name(name):
        message = f"{escape_controls(name)[:140]!r} is no name of a queue: 1–128 of letters, digits and _ . : @ / - are allowed."
        raise Failure(message, ExitCode.NAME)
    if action is Action.REQUEUE and name is None:
        raise Failure("requeue: name the queue whose dead letters are to be sent again: queue requeue NAME.", ExitCode.USAGE)
    if action is Action.PURGE and name is None:
        raise Failure("purge: name the queue that is to be emptied: queue purge NAME.", ExitCode.USAGE)
    if ids and action is not Action.REQUEUE:
        raise Failure(f"--id goes with requeue, not with {action}.", ExitCode.USAGE)
    if (dead or yes) and action is not Action.PURGE:
        raise Failure(f"{'--dead' if dead else '--yes'} goes with purge, not with {action}.", ExitCode.USAGE)


def _ask(name: str | None, where: str, dead: bool) -> None:
    """Whether it is meant: what is purged is gone. Raises `Failure`."""
    if not (sys.stdin is not None and sys.stdin.isatty() and err.is_terminal):
        raise Failure("purge: what is removed is gone for good. Say --yes where nobody can be asked.", ExitCode.USAGE)
    what = "all dead letters" if dead else "everything that waits"
    if not typer.confirm(f"Remove {what} in {escape_controls(str(name))} ({escape_controls(where)}) for good?", err=True):
        raise Failure("Nothing was removed.", ExitCode.FAILED)


# — the store —


def _find_queue(
    redis_url: str | None, prefix: str | None, database_url: str | None, config: Path | None, env_file: Path | None, name: str | None
) -> tuple[MessageQueue, str]:
    """The queues that are meant, and how their place may be shown. Opens nothing. Raises `Failure`, `ConfigurationError`."""
    from ..config import RealtimeConfig
    from ..storage.queue import MessageQueue
    from .values import show

    if database_url is not None and (redis_url is not None or prefix is not None):
        raise Failure("--database-url goes with neither --redis-url nor --prefix: the queues are in one place.", ExitCode.USAGE)
    check_file("--config", config)
    check_file("--env-file", env_file)
    settings, _ = RealtimeConfig.load(file=config, env_file=env_file or ".env")
    declared = {one: options for one, options in (settings.queue.queues or {}).items() if one == name} or None
    redis, url = settings.queue.redis, database_url or settings.queue.url
    if redis_url is not None or prefix is not None or (redis is not None and database_url is None):
        given = redis.model_dump() if redis is not None else {}
        if redis_url is not None:
            given |= {"url": redis_url, "db": None}
        if prefix is not None:
            given["prefix"] = prefix
        queues = MessageQueue(redis=given, queues=declared)
        return queues, show(queues.options.redis.url if queues.options.redis is not None else None)
    url = url or settings.persistence.database.url
    _check_place(url)
    return MessageQueue(url=url, queues=declared), show(url)


def _check_place(url: str) -> None:
    """Raise `Failure` for queues that nobody else can see, and for a file that is not there: looking would make an empty one."""
    from ..backends.sql.urls import read_url

    if url.startswith(("redis:", "rediss:", "unix:")):
        return
    place = read_url(url, "--database-url")
    if place.dialect == "sqlite" and place.file is None:
        raise Failure("These queues are in the memory of their process: there is nothing to see from here.", ExitCode.USAGE)
    if place.file is not None and not place.file.is_file():
        message = f"There is no database {place.file}: name the one of the server by --database-url or DATABASE_URL, or go to its folder."
        raise Failure(message, ExitCode.FAILED)


# — what is done —


async def _act(queues: MessageQueue, action: Action, name: str | None, ids: list[str] | None, limit: int, dead: bool) -> dict[str, Any]:
    import msgspec

    try:
        names = [name] if name is not None else await queues.stored_names()
        if action is Action.STATS:
            return {"queues": [{"name": one, **msgspec.to_builtins(await queues.stats(one))} for one in names]}
        if action is Action.DEAD:
            letters = [(one, letter) for one in names for letter in await queues.dead_letters(one, limit=limit)]
            return {"letters": [{"queue": one, **msgspec.to_builtins(letter)} for one, letter in letters]}
        assert name is not None
        if action is Action.PURGE:
            return {"queue": name, "purged": await queues.purge(name, dead=dead)}
        count = await queues.requeue(name, ids)
        return {"queue": name, "requeued": count, "missing": None if count else await _find_missing(queues, name, ids)}
    finally:
        await queues.stop()


async def _find_missing(queues: MessageQueue, name: str, ids: list[str] | None) -> str | None:
    """What is not there where nothing was sent again; None where there was just nothing to do."""
    if ids:
        return f"None of these dead letters of {name} is"
    return None if name in queues.names or name in await queues.stored_names() else f"Nothing of a queue {name} is"


def _print_stats(shown: dict[str, Any], where: str) -> None:
    if not shown["queues"]:
        out.line(f"No queue in {where} has anything in it.")
        return
    rows: list[list[Part]] = [[(heading, "bold underline") for heading in HEADINGS]]
    for one in shown["queues"]:
        age = "-" if one["oldest_age"] is None else show_duration(one["oldest_age"])
        dead: Part = (str(one["dead"]), "bold red") if one["dead"] else "0"
        counts = [str(one[field]) for field in ("depth", "in_flight", "delayed")]
        rows.append([(one["name"], "cyan"), *counts, dead, str(one["expired"]), age])
    out.columns(rows)


def _print_dead(shown: dict[str, Any], where: str) -> None:
    if not shown["letters"]:
        out.line("There are no dead letters.")
        return
    rows: list[list[Part]] = [[(heading, "bold underline") for heading in ("queue", "id", "attempts", "buried", "reason")]]
    for one in shown["letters"]:
        rows.append([(one["queue"], "cyan"), one["id"], str(one["attempts"]), (one["buried_at"][:19] + "Z", "dim"), one["reason"]])
    out.columns(rows)


def _print_requeued(shown: dict[str, Any], where: str) -> None:
    out.line("sent again: ", (str(shown["requeued"]), "bold green"), " of the dead letters of ", (shown["queue"], "cyan"))


def _print_purged(shown: dict[str, Any], where: str) -> None:
    out.line("removed: ", (str(shown["purged"]), "bold green"), " from ", (shown["queue"], "cyan"))


_PRINT = {Action.STATS: _print_stats, Action.DEAD: _print_dead, Action.REQUEUE: _print_requeued, Action.PURGE: _print_purged}
