"""`examples/invoices` in a process of its own, for tests that kill it. Says `listening` when it does."""

from __future__ import annotations

import logging
from typing import Any

from aibos_realtime import RealtimeServer
from examples.invoices.app import create_app


def main(options: dict[str, Any]) -> None:
    """`options`: `port`, `database` (the path of a file), `jwt_secret`."""
    logging.basicConfig(level=logging.WARNING)
    app = create_app(database=options["database"], jwt_secret=options["jwt_secret"])
    server: RealtimeServer = app.state.server
    server.host_app(app, "/realtime")
    server.listen_on(host="127.0.0.1", port=options["port"])
    server.run(on_started=lambda: print("listening", flush=True))
