"""`serve --demo`: a server on this machine alone, with a secret of its own and a few events to look at. It reads no configuration."""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from ..server.server import RealtimeServer
from .exits import ExitCode, Failure
from .folder import DEMO_ROOM, DEMO_TENANT, DEMO_USER, OPERATOR, DemoFolder
from .output import Part, out
from .program import program

LOOPBACK = "127.0.0.1"
DEMO_OPERATOR = "operator"
EXAMPLE = '{"invoiceId": "inv_001", "amount": 1000, "currency": "USD"}'

EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("invoice.created", {"invoiceId": "inv_000", "amount": 2500, "currency": "USD"}),
    ("bill.updated", {"billId": "bill_007", "status": "approved"}),
    ("payment.processed", {"paymentId": "pay_003", "invoiceId": "inv_000", "amount": 2500, "currency": "USD"}),
)
"""What the demo's room holds from the start."""


class Demo:
    """The server of a demo, its folder, and what is printed of it."""

    def __init__(self, *, host: str | None, port: int | None) -> None:
        """`host` and `port`: as on the command line, else REALTIME_HOST and REALTIME_PORT. Raises `Failure` for a host that others can reach."""
        self._folder = DemoFolder()
        self._url: str | None = None
        options = {"host": check_loopback(host), "port": port if port is not None else os.environ.get("REALTIME_PORT") or 3001}
        self.server = RealtimeServer(
            **options,  # type: ignore[arg-type]
            authentication={"jwt_secret": self._folder.make_secret(), "expires_in": "1h"},
            rooms={"patterns": {DEMO_ROOM: {"max_users": 100}}},
            persistence={"database": {"url": f"sqlite:///{self._folder.path / 'events.db'}"}},
        )

    async def begin(self) -> None:
        """Once it listens: say so in the folder, and publish the examples, which are there already where the demo ran before."""
        self._url = self.server.url
        self._folder.write_url(self._url)
        for number, (event, data) in enumerate(EXAMPLES):
            await self.server.broadcaster.broadcast_to_room(DEMO_ROOM, event, data, idempotency_key=f"example-{number}")

    def end(self) -> None:
        """Once it has stopped, or did not start: then what the folder says is another demo's."""
        if self._url is not None:
            self._folder.remove_url(self._url)

    def facts(self) -> dict[str, str]:
        """What a user needs to know: addresses, a token of one hour, commands to copy."""
        command, url = program(), self.server.url
        pages = url.replace("ws", "http", 1)
        return {
            "url": url,
            "token": self.server.auth.issue(user_id=DEMO_USER, tenant_id=DEMO_TENANT, expires_in="1h"),
            "listen": f"{command} listen {DEMO_ROOM}",
            "publish": f"{command} publish {DEMO_ROOM} invoice.created '{EXAMPLE}'",
            "byHand": f'websocat {url} -H="Authorization: Bearer $({command} token --demo)"',
            "dashboard": f"{pages}/dashboard/",
            "operatorToken": self.server.auth.issue(user_id=DEMO_OPERATOR, role=OPERATOR, expires_in="1h"),
            "watch": f"{command} top",
            "health": f"{pages}/health",
        }

    def print_banner(self) -> None:
        """The first thing that a new user sees."""
        facts = self.facts()
        label, command, quiet = "dim", "bold green", "dim"
        lines: list[tuple[Part, ...]] = [
            (("aibos-realtime demo", "bold"), (": it runs on this machine alone, with example data.", "")),
            (),
            (("  address  ", label), (facts["url"], "bold cyan")),
            (("  token    ", label), facts["token"]),
            ((f"           of user {DEMO_USER} in tenant {DEMO_TENANT}, for one hour; the commands below make their own", quiet),),
            (),
            ("Now open another terminal in this folder, and listen to a room:",),
            (),
            ("  ", (facts["listen"], command)),
            (),
            ("From a third one, publish to it:",),
            (),
            ("  ", (facts["publish"], command)),
            (),
            ("Or look at it in a browser, as an operator (the link lets whoever has it in, for one hour):",),
            (),
            ("  ", (f"{facts['dashboard']}#token={facts['operatorToken']}", "cyan")),
            (),
            (("  earlier  ", label), f"{facts['listen']} --rewind 10"),
            (("  watch    ", label), f"{facts['watch']}   (rooms, connections, history show more)"),
            (("  by hand  ", label), f"{facts['byHand']}   (or wscat -c)"),
            ("           ", (f'then type {{"event": "join-room", "data": "{DEMO_ROOM}", "ref": 1}}', quiet)),
            (("  health   ", label), facts["health"]),
            (("  stop     ", label), "Ctrl-C"),
            (),
        ]
        for line in lines:
            out.line(*line)


def check_loopback(host: str | None) -> str:
    """The host to bind: loopback, or a `Failure` that says why no other."""
    name = "--host" if host is not None else "REALTIME_HOST"
    given = host if host is not None else os.environ.get("REALTIME_HOST") or LOOPBACK
    if given.lower() == "localhost":
        return LOOPBACK
    try:
        if ipaddress.ip_address(given).is_loopback:
            return given
    except ValueError:
        pass
    raise Failure(
        f"{name} is {given}, and the demo listens on this machine alone: leave it away. For others to reach the server, run `{program()} serve` "
        "with a JWT_SECRET of your own.",
        ExitCode.USAGE,
    )
