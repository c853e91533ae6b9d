"""`aibos-realtime database`: the schema of the store, and new epochs after a backup was restored."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StoreUnavailable
from .exits import ExitCode, Failure
from .output import out
from .serve import check_file

if TYPE_CHECKING:
    from ..backends.sql.database import Database


class Action(StrEnum):
    """What is done to the database."""

    UPGRADE = "upgrade"
    STATUS = "status"
    NEW_EPOCHS = "new-epochs"


def database(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    database_url: Annotated[
        str | None, typer.Option(help="The database.  [default: DATABASE_URL, else that of the configuration]", metavar="URL", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of the server.", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables.  [default: .env]", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look after the database of a server.

    \b
    upgrade      bring the schema to the newest version; SQLite does so by itself
    status       show where the database is and its version; exit code 1 unless it is the newest
    new-epochs   after a backup was restored, with the server stopped: clients are told
                 that what they saw since is gone, instead of missing events silently
    """
    found = _find_database(database_url, config, env_file)
    acts = {Action.UPGRADE: _upgrade, Action.STATUS: _show_status, Action.NEW_EPOCHS: _renew_epochs}
    try:
        said, values = asyncio.run(acts[action](found))
    except StoreUnavailable as error:
        raise Failure(f"{error} ({found.url_shown})", ExitCode.FAILED) from None
    if as_json:
        out.json({"database": found.url_shown, **values})
    else:
        out.line(said)
    if not values.get("ok", True):
        raise typer.Exit(ExitCode.FAILED)


def _find_database(url: str | None, config: Path | None, env_file: Path | None) -> Database:
    from ..backends.sql.database import Database
    from ..config import RealtimeConfig

    check_file("--env-file", env_file)
    options: dict[str, Any] = {} if url is None else {"persistence": {"database": {"url": url}}}
    settings, _ = RealtimeConfig.load(file=config, env_file=env_file or ".env", **options)
    return Database.from_options(settings.persistence.database)


async def _upgrade(database: Database) -> tuple[str, dict[str, Any]]:
    before, after = await database.upgrade()
    said = f"{database.url_shown}: version {after}" + (", as it was" if before == after else f", from {before or 'an empty database'}")
    return said, {"from": before, "version": after}


async def _show_status(database: Database) -> tuple[str, dict[str, Any]]:
    from ..backends.sql.versions import known_versions

    version, needed = await database.find_version(), known_versions()[-1]
    said = f"{database.url_shown}: " + (f"version {version}" if version else "no tables of aibos-realtime")
    if version != needed:
        newer = version is not None and version not in known_versions()
        todo = "install the newer aibos-realtime that made it" if newer else "run `aibos-realtime database upgrade`"
        said += f", and {needed} is needed: {todo}"
    return said, {"version": version, "needed": needed, "ok": version == needed}


async def _renew_epochs(database: Database) -> tuple[str, dict[str, Any]]:
    from ..backends.sql.meta import renew_epochs

    if await database.find_version() is None:
        raise Failure(f"{database.url_shown} has no tables of aibos-realtime: is it the right one?", ExitCode.FAILED)
    async with database:
        writer = await database.acquire_writer(wait=0)
        try:
            rooms = await writer.write(renew_epochs)
        finally:
            await writer.release()
    return f"{database.url_shown}: every room begins a new epoch; {rooms} had one", {"rooms": rooms}
