"""`aibos-realtime`: puts the commands together, and turns whatever ends one into one sentence and an exit code.

The commands import what they need when they run, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from ..errors import RealtimeError
from .bench import bench
from .check import check
from .connections import connections
from .database import database
from .exits import EXIT_CODES, ExitCode, Failure, exit_code_of
from .history import history
from .listen import listen
from .nodes import nodes
from .output import ReaderGone, complain, out
from .program import NAME
from .publish import publish
from .queue import queue
from .rooms import rooms
from .serve import serve
from .token import token
from .top import top

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
for command in (serve, token, publish, listen, history, rooms, connections, top, bench, nodes, check, database, queue):
    app.command(epilog=EXIT_CODES)(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        out.line(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def realtime(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Realtime for multi-tenant SaaS: run a server, mint tokens, publish and listen, and look after it.

    \b
    aibos-realtime serve --demo      to try it out
    aibos-realtime COMMAND --help    for more
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and exit. `arguments`: default those of the process."""
    end_with(lambda: app(arguments, prog_name=NAME))


def end_with(work: Callable[[], object]) -> NoReturn:
    """Do some work and exit: whatever it raises becomes one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        work()
    except Failure as failure:
        code, message = failure.code, str(failure)
    except RealtimeError as error:
        code, message = exit_code_of(error), str(error)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except ReaderGone:
        # Without this the interpreter complains at its end, when it flushes what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(ExitCode.DONE)
    else:
        sys.exit(ExitCode.DONE)
    complain(message)
    sys.exit(code)
