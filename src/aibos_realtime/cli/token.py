"""`aibos-realtime token`: mint a token, or make an API key. stdout gets that and nothing else, so that it can stand in $(…)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError, ValidationError
from .exits import ExitCode, Failure
from .folder import DEMO_TENANT, DEMO_USER, DemoFolder
from .output import note, out
from .program import program
from .serve import check_file

_OPTIONS = {"user_id": "--user", "role": "--role", "tenant_id": "--tenant", "expires_in": "--expires-in", "claims": "--claim"}


def token(
    user: Annotated[str | None, typer.Option(help="The user's id (`sub`). The demo has one.", show_default=False)] = None,
    role: Annotated[
        str, typer.Option(help="The user's role; `operator` may use `rooms`, `connections`, `history`, `top` and the dashboard.")
    ] = "user",
    tenant: Annotated[str | None, typer.Option(help="The tenant's id; by default it opens the room tenant_<id>.")] = None,
    expires_in: Annotated[
        str | None, typer.Option(help="15m, 24h, 7d, or seconds.  [default: JWT_EXPIRES_IN, else 24h; demo: 1h]", metavar="DURATION")
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="A further claim; the value is JSON, or else text. Repeatable.", metavar="NAME=VALUE")
    ] = None,
    secret_file: Annotated[Path | None, typer.Option(help="File that holds the server's secret.", metavar="FILE")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="For the demo of this folder, also where JWT_SECRET is set.")] = False,
    api_key: Annotated[bool, typer.Option("--api-key", help="Print a new API key instead, and on stderr its hash for the server.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of the server (for audience and issuer).", metavar="FILE")] = None,
    env_file: Annotated[Path | None, typer.Option(help="File of variables.  [default: .env]", metavar="FILE")] = None,
) -> None:
    """Print a token for a user, or a new API key for a program.

    The secret is that of --secret-file, else of JWT_SECRET or what else configures the server, else that of the demo in this folder.

    \b
    export REALTIME_TOKEN=$(aibos-realtime token --user user_123 --tenant 123)
    export REALTIME_TOKEN=$(aibos-realtime token --user user_123 --role operator)
    """
    if api_key:
        if user is not None or tenant is not None or expires_in is not None or claim or role != "user":
            raise Failure("--api-key makes a key, which has no user: leave the options of a token away.", ExitCode.USAGE)
        _print_key()
        return
    claims = _read_claims(claim or [])
    auth, is_demo = _find_issuer(secret_file, demo, config, env_file)
    if user is None and not is_demo:
        raise Failure("Whose token? Name the user: --user user_123.", ExitCode.USAGE)
    try:
        minted = auth.issue(
            user_id=DEMO_USER if user is None else user,
            role=role,
            tenant_id=DEMO_TENANT if is_demo and tenant is None else tenant,
            expires_in=expires_in,
            claims=claims,
        )
    except ValidationError as error:
        first = error.errors[0]
        raise Failure(f"{_OPTIONS.get(first['path'], first['path'])}: {first['message']}.", ExitCode.USAGE) from None
    out.write(minted)


def _print_key() -> None:
    """The key on stdout, so that it can stand in $(…); what the server is to be given on stderr."""
    from ..auth.operators import new_api_key

    key, hashed = new_api_key()
    out.write(key)
    note(f"For the server, which needs no more than the hash: REALTIME_API_KEYS={hashed} (http.api_keys; several with commas).")
    note("The key is shown this once. Whoever has it may everything: give it to one program, as REALTIME_API_KEY or in the header X-API-Key.")


def _find_issuer(secret_file: Path | None, demo: bool, config: Path | None, env_file: Path | None) -> tuple[Any, bool]:
    """What mints, and whether it is the demo's."""
    demo_secret = DemoFolder().secret() if demo or secret_file is None else None
    if demo:
        if demo_secret is None:
            raise Failure(f"There is no demo in this folder: start one with `{program()} serve --demo`, or change to its folder.", ExitCode.USAGE)
        return demo_issuer(demo_secret), True
    found = configured_issuer(secret_file, config, env_file)
    if found is None:
        if demo_secret is not None:
            return demo_issuer(demo_secret), True
        raise Failure("There is no secret to sign with: set JWT_SECRET to that of the server, or name its file (--secret-file FILE).", ExitCode.USAGE)
    return found, False


def demo_issuer(secret: str) -> Any:
    """What mints for the demo of this folder."""
    from ..auth.authentication import WebSocketAuth

    return WebSocketAuth(jwt_secret=secret, expires_in="1h")


def configured_issuer(secret_file: Path | None, config: Path | None, env_file: Path | None) -> Any | None:
    """What mints with the secret of a file, or of what else configures a server; None where nothing of that says anything of keys.

    Raises `Failure`, `ConfigurationError`.
    """
    from ..auth.authentication import WebSocketAuth
    from ..config import RealtimeConfig

    check_file("--secret-file", secret_file)
    check_file("--env-file", env_file)
    settings, _ = RealtimeConfig.load(file=config, env_file=env_file or ".env")
    options = settings.authentication
    if secret_file is not None:
        keys = {"jwt_secret": _read_secret(secret_file), "jwks_url": None, "public_key": None}
        return WebSocketAuth(**{**dict(options), **keys})
    if options.jwt_secret is None and options.jwks_url is None and options.public_key is None:
        return None
    auth = WebSocketAuth.from_options(options)
    if not auth.can_issue:
        raise Failure("The server takes tokens of an identity provider, which alone can make them: get one there.", ExitCode.USAGE)
    return auth


def _read_secret(path: Path) -> str:
    try:
        return path.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--secret-file: {path} cannot be read as text ({type(error).__name__})") from None


def _read_claims(given: list[str]) -> dict[str, Any]:
    claims = {}
    for number, text in enumerate(given, 1):
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Failure(f"--claim, number {number}: write NAME=VALUE, for example --claim plan=pro.", ExitCode.USAGE)
        try:
            claims[name] = json.loads(value)
        except (ValueError, RecursionError):
            claims[name] = value
    return claims
