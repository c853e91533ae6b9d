"""`aibos-realtime check`: every value of the configuration with where it came from, and whether a server could start with it on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigurationError
from .exits import ExitCode, Failure
from .output import Part, out
from .serve import check_file

if TYPE_CHECKING:
    from .checks import Finding
    from .values import Value

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def check(
    config: Annotated[Path | None, typer.Option(help="TOML file.", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables.  [default: .env]", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the configuration, and check it on this machine.

    It is the one that `serve` would run with. Secrets are hidden.

    A warning is worth a look; only what is `failed` would keep the server from its work, and makes the exit code 1.
    """
    from ..config import RealtimeConfig
    from .checks import Finding, check_environment, run_checks
    from .values import list_values

    check_file("--config", config)
    check_file("--env-file", env_file)
    values: list[Value] = []
    try:
        settings, sources = RealtimeConfig.load(file=config, env_file=env_file or ".env")
    except ConfigurationError as error:
        findings = [Finding("configuration", "failed", line) for line in str(error).splitlines()]
    else:
        values = list_values(settings, sources)
        findings = run_checks(settings, sources)
    findings += check_environment()
    failed = sum(one.status == "failed" for one in findings)
    if as_json:
        out.json({"ok": not failed, "values": [vars(one) for one in values], "checks": [vars(one) for one in findings]})
        raise typer.Exit(ExitCode.FAILED if failed else ExitCode.DONE)
    _print(values, findings)
    if failed:
        raise Failure(f"{failed} of {len(findings)} checks failed: mend what is marked `failed` above.", ExitCode.FAILED)


def _print(values: list[Value], findings: list[Finding]) -> None:
    rows: list[list[Part]] = []
    for value in values:
        is_default = value.source == "default"
        rows.append([value.name, (value.shown, "dim" if is_default else "bold"), (value.source, "dim" if is_default else "cyan")])
    if rows:
        out.columns([[("option", "bold underline"), ("value", "bold underline"), ("from", "bold underline")], *rows])
        out.line()
    out.columns([[(one.status, _STYLES[one.status]), one.name, one.message] for one in findings])
