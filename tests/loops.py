"""Both event loops that a server may run on, for tests of what is built on the loops' own transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop

Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]

ASYNCIO: Loops = {"asyncio": asyncio.new_event_loop}
BOTH: Loops = ASYNCIO | {"uvloop": uvloop.new_event_loop}
