"""The way in: clients are opened as fast as the server lets them, or each at its turn, and brought back where their connection was lost."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Sequence
from itertools import cycle, islice
from time import monotonic

from .client import Client
from .connection import Refused
from .pace import Alarm
from .plan import Place
from .tally import Tally

WIDEST, NARROWEST = 48, 4
"""Clients that open at the same time, at first and after refusals."""
STALLED = 6.0
"""Seconds for which a server may let nobody in: longer than the longest wait that ours asks for."""
PAUSE = 0.5
"""Seconds after a refusal that names none."""


class Opening:
    """Of the clients of one process. `first`: which of the server's addresses is the first one's, so that processes begin with different ones."""

    def __init__(self, place: Place, first: int, tally: Tally) -> None:
        self.waiting_for = ""
        """Why nobody is let in at the moment; empty where somebody is."""
        self._place = place
        self._tally = tally
        self._context = ssl.create_default_context() if place.is_secure else None
        self._addresses = islice(cycle(place.addresses), first % len(place.addresses), None)
        self._width = WIDEST
        self._shut_until = self._let_in_at = 0.0

    async def open(self, client: Client) -> None:
        """One attempt. Raises `Refused`, which is counted."""
        try:
            await client.open(self._place, next(self._addresses), self._context)
        except Refused as refused:
            self._tally.note(self._tally.refusals, refused.kind, str(refused))
            raise

    async def open_all(self, clients: Sequence[Client]) -> None:
        """Have all of them in. A server that asks for fewer attempts is obeyed. Raises `Refused`: for good, or nobody was let in for a while."""
        self._let_in_at = monotonic()
        waiting = deque(clients)
        failed: list[Refused] = []

        async def open_some(number: int) -> None:
            while waiting and number < self._width and not failed:
                client = waiting.popleft()
                try:
                    if not await self._have_in(client):
                        waiting.appendleft(client)
                except Refused as refused:
                    failed.append(refused)

        while waiting and not failed:  # again for who was put back when all others had ended
            async with asyncio.TaskGroup() as group:
                for number in range(self._width):
                    group.create_task(open_some(number))
        self.waiting_for = ""
        if failed:
            raise failed[0]

    async def _have_in(self, client: Client) -> bool:
        """One attempt, once the server takes attempts: whether it succeeded. A refusal makes the way in narrower, and shuts it for a while."""
        await asyncio.sleep(max(0.0, self._shut_until - monotonic()))
        try:
            await self.open(client)
        except Refused as refused:
            now = monotonic()
            if refused.is_final or now - self._let_in_at > STALLED:
                raise
            self.waiting_for = str(refused)
            if now >= self._shut_until:
                self._width = max(NARROWEST, self._width // 2)
                self._shut_until = now + (PAUSE if refused.after is None else refused.after)
            return False
        self._let_in_at = monotonic()
        self._tally.opened += 1
        return True

    async def open_at_turns(self, turns: Sequence[tuple[int, Client]], end: int) -> None:
        """Each at its moment, whatever became of those before it; who is refused tries again. No attempt begins after the end. Microseconds."""
        attempts: list[asyncio.Task[None]] = []
        try:
            with Alarm() as alarm:
                for due, client in turns:
                    if due >= end:
                        break
                    await alarm.wait_until(self._tally.moment(due))
                    self._tally.late.record(self._tally.now() - due)
                    attempts.append(asyncio.create_task(self._keep_trying(client, end)))
            await asyncio.gather(*attempts)
        finally:
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    async def _keep_trying(self, client: Client, end: int) -> None:
        while self._tally.now() < end:
            try:
                await self.open(client)
            except Refused as refused:
                if refused.is_final:
                    return
                wait = (PAUSE if refused.after is None else refused.after) * random.uniform(1.0, 1.5)
                await asyncio.sleep(min(wait, max(0.0, (end - self._tally.now()) / 1e6)))
            else:
                self._tally.opened += 1
                return

    async def bring_back(self, client: Client) -> None:
        """Reconnect, and recover what was missed, unless the server says that it is of no use."""
        longest = 1.0
        while not client.is_open:
            await asyncio.sleep(random.uniform(0.0, longest))
            try:
                await self.open(client)
            except Refused as refused:
                if refused.is_final:
                    return
                longest = min(max(2 * longest, refused.after or 0.0), 10.0)
            else:
                self._tally.reconnects += 1
